"""A small data set, the settings of small runs on it, and runs in processes of their own that can be killed."""

from __future__ import annotations

import multiprocessing
import os
import time
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from patchforest.train.config import RunConfig, parse_config

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["patchforest.train.task", "patchforest.train.recorder", "tests.train.runs"])


def make_data(folder: Path, count: int = 6, classes: int = 2) -> Path:
    """Bright discs on noise, as paired folders."""
    rng = np.random.default_rng(5)
    (folder / "images").mkdir(parents=True)
    (folder / "masks").mkdir()
    for i in range(count):
        mask = np.zeros((56, 72), np.uint8)
        for k in range(4):
            centre = (int(rng.integers(72)), int(rng.integers(56)))
            cv2.circle(mask, centre, int(rng.integers(5, 14)), 1 + k % (classes - 1), -1)
        image = rng.normal(90, 20, (56, 72, 3)) + 80 * mask[..., None]
        cv2.imwrite(str(folder / "images" / f"case{i}.png"), image.clip(0, 255).astype(np.uint8))
        cv2.imwrite(str(folder / "masks" / f"case{i}.png"), mask)
    return folder


def settings(**train: Any) -> dict[str, Any]:
    """A run of 24 steps that takes about a second, checkpoint after every step."""
    small = {"width": 16, "depth": 1, "heads": 2, "stem": [8, 8], "dropout": 0.1}
    base = {"batch": 2, "lr": 3e-3, "threads": 1, "checkpoint_steps": 1, "validate_every": 0.5, "validate_cases": 1}
    if not {"max_steps", "max_minutes", "max_cpu_minutes"} & set(train):
        train["max_steps"] = 24
    return {
        "data": {"window": 32, "folds": 3},
        "forest": {"budget": 16, "criterion": "gradient"},
        "model": {"name": "shf", **small},
        "train": {**base, **train},
    }


def config(**train: Any) -> RunConfig:
    """``settings`` parsed."""
    return parse_config(settings(**train))


def start(raw: dict[str, Any], data: Path, out: Path, *, pace: float = 0.0) -> BaseProcess:
    """A training run in another process; imports are done there before. Every step lasts ``pace`` seconds longer."""
    process = CONTEXT.Process(target=_train, args=(raw, str(data), str(out), pace))
    process.start()
    return process


def _train(raw: dict[str, Any], data: str, out: str, pace: float) -> None:
    os.environ["OMP_NUM_THREADS"] = "1"
    from patchforest.train.fit import fit
    from patchforest.train.task import SegmentationTask

    made_step = SegmentationTask.made_step

    def slowly(task: SegmentationTask) -> None:
        time.sleep(pace)
        made_step(task)

    SegmentationTask.made_step = slowly  # type: ignore[method-assign]
    fit(parse_config(raw), data, out, quiet=True)


def weights(run: Path, which: str = "last") -> bytes:
    """The weights a run left, as bytes."""
    return (run / which / "model.safetensors").read_bytes()
