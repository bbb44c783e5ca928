"""A small copy of a large image: exact sums over square blocks, made in the one pass that reads the image."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import numpy as np

from patchforest.tree.edges import Box
from patchforest.tree.gather import BLOCK, block_sums, summable, sums_dtype
from patchforest.values import Array

ENTRIES = 1 << 22
"""Most blocks, about: 48 MiB for RGB bytes, however large the image."""


class ReducedImage:
    """Sums of the pixels over ``factor`` x ``factor`` blocks of an image of any size, in bounded memory.

    ``stream_forest(..., reduced=reduced)`` fills it and ``stream_gather(..., reduced=reduced)`` takes from it every
    leaf that is at least ``factor`` times its patch, without reading the image again. ``shape`` is the image's, (H, W)
    or (H, W, C).

    Attributes
    ----------
    factor : side of a block in pixels, a power of two, at least 16.
    sums : (rows + 1, columns + 1, C) once something was added; the last row and column stand for all that lies beyond
        the image, which continues as at its edge.
    complete : whether the whole image has been added.
    """

    def __init__(self, shape: Sequence[int]) -> None:
        height, width = (int(s) for s in shape[:2])
        self.shape = (height, width)
        self.factor = BLOCK
        while -(-height // self.factor) * -(-width // self.factor) > ENTRIES:
            self.factor *= 2
        self.grid = (-(-height // self.factor) + 1, -(-width // self.factor) + 1)
        self.complete = False
        self._sums: Array | None = None
        self._lock = threading.Lock()

    def begin(self, shape: Sequence[int]) -> None:
        """Forget what was added, for an image of this shape; ValueError where it is made for another."""
        if tuple(shape[:2]) != self.shape:
            raise ValueError(f"the reduced image is made for one of {self.shape}; got one of {tuple(shape[:2])}")
        self.complete, self._sums = False, None

    @property
    def sums(self) -> Array:
        """The sums so far; ValueError where nothing was added."""
        if self._sums is None:
            raise ValueError("the reduced image is empty; pass it to stream_forest first")
        return self._sums

    def add(self, pixels: Array, box: Box, shape: tuple[int, int]) -> None:
        """Add the block (h, w, C) of the image in ``box``, which begins at multiples of ``factor``."""
        values = summable(pixels)
        with self._lock:
            if self._sums is None:
                self._sums = np.zeros((*self.grid, values.shape[2]), sums_dtype(values))
        row, column = box[0] // self.factor, box[2] // self.factor
        rows = self.grid[0] - row if box[1] == shape[0] else (box[1] - box[0]) // self.factor
        columns = self.grid[1] - column if box[3] == shape[1] else (box[3] - box[2]) // self.factor
        self._sums[row : row + rows, column : column + columns] = block_sums(values, self.factor, (rows, columns))
