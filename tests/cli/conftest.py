"""Shared by the tests of the command line: run a command in this process, and a tiny untrained model on disk."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from patchforest.cli.main import main


@dataclass(frozen=True)
class Ended:
    """How a command ended: its exit code and what it printed."""

    code: int
    out: str
    err: str

    @property
    def errors(self) -> list[str]:
        """The ``error:`` lines."""
        return [line for line in self.err.splitlines() if line.startswith("error: ")]


Run = Callable[..., Ended]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """``run("predict", path, ...)``: one command line in this process; whatever it does, no traceback is shown."""

    def call(*arguments: object) -> Ended:
        capsys.readouterr()
        code = main([str(a) for a in arguments])
        out, err = capsys.readouterr()
        if "--debug" not in arguments:
            assert "Traceback" not in out + err
        return Ended(code, out, err)

    return call


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of an untrained model for RGB images and the classes background, gland."""
    import torch

    from patchforest.models.build import build_model
    from patchforest.models.bundle import ModelSpec, save_model
    from patchforest.models.config import ModelConfig
    from patchforest.values import ForestPolicy

    torch.manual_seed(0)
    config = ModelConfig(width=32, depth=1, heads=2, stem=(4, 8), stride=4)
    spec = ModelSpec(config, ForestPolicy(budget=16, window=64), ("background", "gland"), window=64)
    folder = tmp_path_factory.mktemp("model")
    save_model(folder, build_model(config), spec)
    return folder


def write_picture(path: Path, shape: tuple[int, int] = (40, 56), seed: int = 0) -> Path:
    """A small random RGB PNG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (*shape, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, format="PNG")
    return path
