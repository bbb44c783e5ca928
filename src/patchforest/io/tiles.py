"""What is written as a pyramid, and its tiles in deflate: shared by the writers of TIFF, OME-TIFF and OME-Zarr."""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np

from patchforest.values import Array

Kind = Literal["mask", "image", "probability"]

DEFLATE_LEVEL = 2
"""Of zlib. Level 6 makes masks 30 to 50 % smaller, and writing them takes about twice as long."""
_MAX_THREADS = 8
_MAX_FLAT = 256  # tiles of one value that are kept packed


@dataclass(frozen=True)
class Pyramid:
    """What a pyramid holds.

    Attributes
    ----------
    levels : (H, W) of every level, level 0 first; each is the one before halved and rounded up.
    channels : samples a pixel.
    dtype : uint8 or uint16.
    tile : side of a tile in pixels, of every level.
    mpp : microns per level-0 pixel, or None; a pixel of level k is 2^k times as long.
    kind : what the numbers mean.
    names : of the classes of a mask by number, background first, or of the channels; may be empty.
    """

    levels: tuple[tuple[int, int], ...]
    channels: int
    dtype: np.dtype
    tile: int
    mpp: float | None
    kind: Kind
    names: tuple[str, ...]


class TilePacker:
    """Deflates the tiles of rows of pixels, in order, on as many threads as there are cores (at most 8).

    Parameters
    ----------
    tile : side of a tile in pixels; tiles over the far edges are filled up with 0.
    difference : store each value less its left neighbour, modulo the dtype's range (TIFF predictor 2): makes smooth
        pictures smaller, and masks larger.
    apart : the channels of a tile one after the other, (C, tile, tile), in place of (tile, tile, C).
    """

    def __init__(self, tile: int, *, difference: bool = False, apart: bool = False) -> None:
        self._tile, self._difference, self._apart = tile, difference, apart
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        self._pool = ThreadPoolExecutor(min(cores, _MAX_THREADS))
        self._flat: dict[bytes, bytes] = {}

    def __enter__(self) -> TilePacker:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def pack(self, rows: Array) -> Iterator[bytes]:
        """A zlib stream for each tile, from left to right, of (h, W, C) pixels of one dtype; h at most ``tile``.

        ``rows`` may change once the iterator has ended.
        """
        return self._pool.map(partial(self._packed, rows), range(0, rows.shape[1], self._tile))

    def _packed(self, rows: Array, column: int) -> bytes:
        values = rows[:, column : column + self._tile]
        side, channels = self._tile, rows.shape[2]
        if values.shape[:2] != (side, side):
            values, part = np.zeros((side, side, channels), rows.dtype), values
            values[: part.shape[0], : part.shape[1]] = part
        key = None
        if (values[0] == values[0, 0]).all() and (values == values[0, 0]).all():
            key = values[0, 0].tobytes()
            if key in self._flat:
                return self._flat[key]
        if self._difference:
            values = np.concatenate([values[:, :1], values[:, 1:] - values[:, :-1]], axis=1)
        values = np.ascontiguousarray(values.transpose(2, 0, 1) if self._apart else values)
        if values.dtype.itemsize > 1:
            values = values.astype(values.dtype.newbyteorder("<"), copy=False)
        data = zlib.compress(values.data, DEFLATE_LEVEL)
        if key is not None and len(self._flat) < _MAX_FLAT:
            self._flat[key] = data
        return data
