"""Shared by the tests of the reports: a tiny data set and a run trained on it for two steps."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

TINY = [
    *("model.width=16", "model.depth=1", "model.heads=2", "model.stem=[4,8]", "model.stride=4", "forest.budget=8"),
    *("data.window=32", "data.folds=2", "train.max_steps=2", "train.batch=1", "train.threads=1"),
]


@pytest.fixture(scope="session")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with images/ and masks/ of four cases, a to d; masks hold 0 and 255."""
    folder, rng = tmp_path_factory.mktemp("pairs"), np.random.default_rng(0)
    for part in ("images", "masks"):
        (folder / part).mkdir()
    for k, name in enumerate("abcd"):
        cv2.imwrite(str(folder / "images" / f"{name}.png"), rng.integers(0, 256, (40, 56, 3), dtype=np.uint8))
        mask = np.zeros((40, 56), np.uint8)
        mask[5 : 20 + k, 8:40] = 255
        cv2.imwrite(str(folder / "masks" / f"{name}.png"), mask)
    return folder


@pytest.fixture(scope="session")
def tiny_run(pairs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run on ``pairs``."""
    from patchforest.train.config import load_config
    from patchforest.train.fit import fit

    config = load_config(None, [*TINY, "data.label_map={255: 1}"])
    return fit(config, pairs, tmp_path_factory.mktemp("runs") / "tiny", quiet=True)
