"""A small data set to prepare, the settings for it, and the files of a folder as bytes."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np

from patchforest.data.prepared import PreparedItem, PrepareSettings
from patchforest.values import ForestPolicy
from tests.forests import random_forest

SETTINGS = PrepareSettings(
    forest=ForestPolicy(criterion="gradient", budget=32, window=64),
    classes=("background", "disc"),
    channels=3,
    patch=8,
    q=16,
)


def make_images(folder: Path, count: int, *, bad: Iterable[int] = (), side: int = 64, classes: int = 2) -> Path:
    """Bright discs on noise, of several sizes, as paired folders; the images of ``bad`` are cut off half-way."""
    rng = np.random.default_rng(3)
    for part in ("images", "masks"):
        (folder / part).mkdir(parents=True)
    for i in range(count):
        height, width = (side + int(v) for v in rng.integers(-10, 30, 2))
        mask = np.zeros((height, width), np.uint8)
        for k in range(3):
            centre = (int(rng.integers(width)), int(rng.integers(height)))
            cv2.circle(mask, centre, int(rng.integers(5, 20)), 1 + k % (classes - 1), -1)
        image = rng.normal(90, 15, (height, width, 3)) + 60 * mask[..., None]
        path = folder / "images" / f"case{i:03d}.png"
        cv2.imwrite(str(path), image.clip(0, 255).astype(np.uint8))
        cv2.imwrite(str(folder / "masks" / path.name), mask)
        if i in set(bad):
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return folder


def random_item(rng: np.random.Generator, *, exact: bool = True) -> PreparedItem:
    """An item of any content; ``exact`` says whether its shares fit 16 bits."""
    shape = (int(rng.integers(1, 130)), int(rng.integers(1, 130)))
    forest = random_forest(rng, shape, cell=int(rng.choice([4, 8])), budget=int(rng.integers(300, 400)))
    length, channels, outputs = len(forest), int(rng.integers(1, 5)), int(rng.integers(1, 4))
    shares = rng.integers(0, 65, (length, 1 + outputs, 4, 4)) / (64 if exact else 63)
    return PreparedItem(
        id="".join(rng.choice(list("ab/ é\n\"\\'\udcff-."), 6)),
        variant=int(rng.integers(3)),
        fingerprint=rng.bytes(32).hex(),
        inputs={"image": {"bytes": 5, "sha256": rng.bytes(32).hex()}, "label": {"bytes": 7, "sha256": "0" * 64}},
        forest=forest,
        patches=rng.random((length, channels, 3, 3), np.float32),
        shares=shares.astype(np.float32),
    )


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder by its relative path."""
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def times(folder: Path) -> dict[str, int]:
    """When every file below a folder was written."""
    return {p.name: p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file()}
