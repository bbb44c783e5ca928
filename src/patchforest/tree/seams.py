"""Hysteresis across tile seams, exact: which open chains of weak pixels meet an edge in some other tile.

Tiles arrive row by row. Only the line of pixels above the next row of tiles, and the pixel counts of the chains that
are still open, are kept; whatever meets no strong pixel and reaches no open seam is forgotten.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numba import njit

from patchforest.tree.canny import STRONG, EdgeTile
from patchforest.values import Array

Add = Callable[[Array, Array, Array], None]


class Seams:
    """Joins the chains of tiles; ``add`` receives (row, column, count) of cells whose edges prove real later."""

    def __init__(self, add: Add) -> None:
        self._add = add
        self._line: Array | None = None  # labels of the last pixel row so far: 0, STRONG, or 1 to _chains
        self._chains = 0
        self._pending = np.empty((0, 4), np.int64)  # label, row, column, count

    def push(self, tiles: Sequence[EdgeTile], *, row: int, columns: Sequence[int]) -> None:
        """The next row of tiles, left to right; ``row`` and ``columns`` are the first cells of each."""
        before, pending, count = [], [self._pending], self._chains
        width = sum(len(tile.top) for tile in tiles)
        top, bottom, at = np.zeros(width, np.int64), np.zeros(width, np.int64), 0
        for tile, column in zip(tiles, columns):
            before.append(count)
            _shift(tile.top, count, top[at:])
            _shift(tile.bottom, count, bottom[at:])
            if len(tile.records):
                pending.append(tile.records + np.array([count, row, column, 0]))
            at, count = at + len(tile.top), count + tile.chains
        parent, real = np.arange(count + 1), np.zeros(count + 1, bool)
        for k in range(1, len(tiles)):
            _join(parent, real, tiles[k - 1].right, before[k - 1], tiles[k].left, before[k])
        if self._line is not None:
            _join(parent, real, self._line, 0, top, 0)
        self._settle(parent, real, bottom, np.concatenate(pending))

    @property
    def pending(self) -> Array:
        """(R, 2) row and column of cells whose count may still grow."""
        return self._pending[:, 1:3]

    def _settle(self, parent: Array, real: Array, line: Array, pending: Array) -> None:
        """Count what has proved real, forget what has ended, number the rest afresh."""
        _flatten(parent)
        root = parent[pending[:, 0]]
        sure = pending[real[root]]
        if len(sure):
            self._add(sure[:, 1], sure[:, 2], sure[:, 3])
        of_line = np.where(line > 0, parent[np.maximum(line, 0)], 0)
        alive = np.unique(of_line[(line > 0) & ~real[of_line]])
        fresh = np.zeros(len(parent), np.int64)
        fresh[alive] = np.arange(1, len(alive) + 1)
        self._line = np.where(line > 0, np.where(real[of_line], STRONG, fresh[of_line]), line)
        kept = fresh[root] > 0
        self._pending = pending[kept]
        self._pending[:, 0] = fresh[root[kept]]
        self._chains = len(alive)


@njit(cache=True, nogil=True)
def _shift(labels, by, out):  # type: ignore[no-untyped-def]
    for i in range(len(labels)):
        out[i] = labels[i] + by if labels[i] > 0 else labels[i]


@njit(cache=True, nogil=True)
def _root(parent, label):  # type: ignore[no-untyped-def]
    while parent[label] != label:
        parent[label] = parent[parent[label]]
        label = parent[label]
    return label


@njit(cache=True, nogil=True)
def _join(parent, real, one, more, other, most):  # type: ignore[no-untyped-def]
    """Join chains that touch, diagonally too, across the two pixel lines of a seam; labels grow by more and most."""
    for i in range(len(one)):
        a = one[i]
        if a == 0:
            continue
        for j in range(max(i - 1, 0), min(i + 2, len(other))):
            b = other[j]
            if a > 0 and b > 0:
                first, second = _root(parent, a + more), _root(parent, b + most)
                low, high = min(first, second), max(first, second)
                parent[high] = low
                real[low] |= real[high]
            elif a > 0 and b < 0:
                real[_root(parent, a + more)] = True
            elif a < 0 and b > 0:
                real[_root(parent, b + most)] = True


@njit(cache=True, nogil=True)
def _flatten(parent):  # type: ignore[no-untyped-def]
    for label in range(len(parent)):
        parent[label] = _root(parent, label)
