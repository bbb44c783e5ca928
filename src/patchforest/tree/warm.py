"""Compile every kernel now, or load it from the cache, so that no later call has to.

numba compiles a kernel at its first use with a type and keeps the machine code beside the source (or in the user's
cache folder where that cannot be written). ``patchforest doctor`` calls this; so may a program before it forks workers.
"""

from __future__ import annotations

import time
import warnings

import numpy as np

from patchforest.tree.cut import cut_forest
from patchforest.tree.gather import gather
from patchforest.tree.reduced import ReducedImage
from patchforest.tree.stream import stream_forest
from patchforest.tree.stream_gather import stream_gather
from patchforest.values import Array, ForestPolicy

TOPS = {"uint8": 255, "uint16": 65535, "float32": 1, "float64": 1}
"""Types of pixels, and their largest value."""


def warm() -> float:
    """Use every kernel once, for the common types of pixels; returns the seconds it took."""
    start = time.perf_counter()
    rng = np.random.default_rng(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        for dtype, top in TOPS.items():
            image = (rng.random((700, 640, 3)) * top).astype(dtype)
            forest = cut_forest(image, ForestPolicy(budget=400))
            gather(image, forest)
        for criterion in ("edges", "canny", "gradient"):
            source, reduced = _Tiles(image), ReducedImage(image.shape)
            forest = stream_forest(source, ForestPolicy(criterion=criterion, threshold=40), reduced=reduced)
            stream_gather(source, forest, reduced=reduced)
            cut_forest(np.repeat(image[:64], 2, axis=2), ForestPolicy(criterion=criterion, threshold=1))
        volume = rng.integers(0, 256, (16, 16, 16)).astype(np.uint8)
        gather(volume, cut_forest(volume, ForestPolicy(budget=50, cell=4), spatial=3), 4)
    return time.perf_counter() - start


class _Tiles:
    """An array as an image source in tiles."""

    mpp = None
    tile = (256, 256)

    def __init__(self, pixels: Array) -> None:
        self._pixels, self.shape, self.levels = pixels, pixels.shape, (pixels.shape[:2],)

    def read(
        self, level: int = 0, row: int = 0, column: int = 0, height: int | None = None, width: int | None = None
    ) -> Array:
        rows = slice(row, None if height is None else row + height)
        return self._pixels[rows, column : None if width is None else column + width].copy()
