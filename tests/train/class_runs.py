"""A small data set of images with a class each, and the settings of small runs on it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np

from patchforest.train.config import RunConfig, parse_config


def make_images(folder: Path, count: int = 12) -> Path:
    """Discs and bars on noise, as a folder of images and a table of shapes; two images of a patient."""
    rng = np.random.default_rng(3)
    (folder / "images").mkdir(parents=True)
    lines = ["name,patient_id,shape"]
    for k in range(count):
        image = rng.normal(90, 8, (56, 72, 3))
        shape = np.zeros((56, 72), np.uint8)
        centre = (int(rng.integers(16, 56)), int(rng.integers(16, 40)))
        if k // 2 % 2:
            cv2.circle(shape, centre, 12, 1, -1)
        else:
            cv2.rectangle(shape, (centre[0] - 3, centre[1] - 14), (centre[0] + 3, centre[1] + 14), 1, -1)
        image += 100 * shape[..., None]
        cv2.imwrite(str(folder / "images" / f"case{k:02d}.png"), image.clip(0, 255).astype(np.uint8))
        lines.append(f"case{k:02d},{k // 2},{'disc' if k // 2 % 2 else 'bar'}")
    (folder / "shapes.csv").write_text("\n".join(lines) + "\n")
    return folder


def class_settings(model: str = "apf_vit", **train: Any) -> dict[str, Any]:
    """A run of 12 steps that takes about a second."""
    small: dict[str, Any] = {"width": 16, "depth": 1, "heads": 2, "stem": [], "patch": 8, "crop": 16, "region": 32}
    base = {"batch": 2, "lr": 3e-3, "threads": 1, "checkpoint_steps": 1, "validate_every": 0.5, "max_steps": 12}
    return {
        "data": {"targets": "shapes.csv", "target": "shape", "window": [56, 72], "folds": 3},
        "forest": {"budget": 24, "criterion": "gradient", "root": 32},
        "model": {"name": model, **small},
        "train": {**base, **train},
        "augment": {"affine": 0.0},
    }


def class_config(model: str = "apf_vit", **train: Any) -> RunConfig:
    """``class_settings`` parsed."""
    return parse_config(class_settings(model, **train))
