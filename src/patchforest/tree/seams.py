"""Hysteresis across tile seams, exact: which open chains of weak pixels meet an edge in some other tile.

Tiles arrive row by row. Only the line of pixels above the next row of tiles, and the pixel counts of the chains that
are still open, are kept; whatever meets no strong pixel and reaches no open seam is forgotten.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from patchforest.tree.canny import STRONG, EdgeTile
from patchforest.tree.kernel import kernel
from patchforest.values import Array

_FEW = 1 << 16  # records and chains that may always be held

Add = Callable[[Array, Array, Array], None]


class Seams:
    """Joins the chains of tiles; ``add`` receives (row, column, count) of cells whose edges prove real later."""

    def __init__(self, add: Add) -> None:
        self._add = add
        self._line: Array | None = None  # labels of the last pixel row so far: 0, STRONG, or 1 to _chains
        self._chains = 0
        self._parent, self._real = np.arange(1), np.zeros(1, bool)  # of every label since the last settling
        self._parts: list[Array] = []  # (label, row, column, count), int32
        self._held, self._most = 0, _FEW

    def push(self, tiles: Sequence[EdgeTile], *, row: int, columns: Sequence[int]) -> Array:
        """The next row of tiles, left to right; ``row`` and ``columns`` are the first cells of each.

        Returns (R, 2) row and column of the cells of this row whose count may still grow.
        """
        before, fresh, count = [], [np.empty((0, 4), np.int32)], self._chains
        width = sum(len(tile.top) for tile in tiles)
        top, bottom, at = np.zeros(width, np.int64), np.zeros(width, np.int64), 0
        for tile, column in zip(tiles, columns):
            before.append(count)
            _shift(tile.top, count, top[at:])
            _shift(tile.bottom, count, bottom[at:])
            if len(tile.records):
                fresh.append(tile.records + np.array([count, row, column, 0], np.int32))
            at, count = at + len(tile.top), count + tile.chains
        if count >= len(self._parent):
            more = np.arange(len(self._parent), 2 * count + 1)
            self._parent = np.concatenate([self._parent, more])
            self._real = np.concatenate([self._real, np.zeros(len(more), bool)])
        parent, real = self._parent, self._real
        for k in range(1, len(tiles)):
            _join(parent, real, tiles[k - 1].right, before[k - 1], tiles[k].left, before[k])
        if self._line is not None:
            _join(parent, real, self._line, 0, top, 0)
        self._line, self._chains = bottom, count
        self._parts.append(np.concatenate(fresh))
        self._held += len(self._parts[-1])
        places = self._parts[-1][:, 1:3]
        if self._held + count > self._most:
            self.settle()
        return places

    def pending(self) -> Array:
        """(R, 2) row and column of cells whose count may still grow."""
        return np.concatenate([part[:, 1:3] for part in self._parts] or [np.empty((0, 2), np.int32)])

    def settle(self) -> None:
        """Count what has proved real, forget what has ended, number the rest afresh; to be called at the end.

        In between it is done when twice as much is held as was left the last time: chains that stay open through the
        whole image would else be gone through at every row of tiles.
        """
        if self._line is None:
            return
        parent, real, line = self._parent[: self._chains + 1], self._real, self._line
        _flatten(parent)
        pending = np.concatenate(self._parts)
        root = parent[pending[:, 0]]
        sure = pending[real[root]]
        if len(sure):
            self._add(sure[:, 1], sure[:, 2], sure[:, 3])
        of_line = np.where(line > 0, parent[np.maximum(line, 0)], 0)
        alive = np.unique(of_line[(line > 0) & ~real[of_line]])
        fresh = np.zeros(len(parent), np.int32)
        fresh[alive] = np.arange(1, len(alive) + 1)
        self._line = np.where(line > 0, np.where(real[of_line], STRONG, fresh[of_line]), line)
        kept = fresh[root] > 0
        pending = pending[kept]
        pending[:, 0] = fresh[root[kept]]
        self._parts, self._held, self._chains = [pending], len(pending), len(alive)
        self._parent, self._real = np.arange(len(alive) + 1), np.zeros(len(alive) + 1, bool)
        self._most = 2 * (self._held + self._chains) + _FEW


@kernel
def _shift(labels, by, out):  # type: ignore[no-untyped-def]
    for i in range(len(labels)):
        out[i] = labels[i] + by if labels[i] > 0 else labels[i]


@kernel
def _root(parent, label):  # type: ignore[no-untyped-def]
    while parent[label] != label:
        parent[label] = parent[parent[label]]
        label = parent[label]
    return label


@kernel
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


@kernel
def _flatten(parent):  # type: ignore[no-untyped-def]
    for label in range(len(parent)):
        parent[label] = _root(parent, label)
