"""Detail of cells as it comes in, top down: all of it, or only what the forest can still use.

A forest of L leaves splits about L/3 nodes. Once so many nodes with a score of v or more have been seen, no node below
v will ever be split, so its cells need not be kept: memory grows with the leaves and not with the image. The exception
are cells whose edges are not decided yet: an image full of faint lines that run through all of it keeps their cells.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np

from patchforest.tree.nodes import Layout, sum_children
from patchforest.values import Array

BLOCK = 16
"""Side in cells of the blocks that are kept or dropped, where roots are as large."""


class Cells(Protocol):
    """Takes the detail of cells; rows arrive in order, and a few counts may grow later."""

    def put(self, row: int, column: int, detail: Array) -> None:
        """Detail of a box of cells."""

    def add(self, row: Array, column: Array, detail: Array) -> None:
        """More detail in single cells, each as often as it is named."""

    def settle(self, done: int, fresh: Array, pending: Callable[[], Array]) -> None:
        """All rows before ``done`` have arrived; of the latest, the cells (row, column) in ``fresh`` may still grow.

        ``pending`` gives all cells that may."""


class AllCells:
    """One array of all cells."""

    def __init__(self, shape: tuple[int, int], dtype: np.dtype) -> None:
        self.detail = np.zeros(shape, dtype)

    def put(self, row: int, column: int, detail: Array) -> None:
        """See ``Cells``."""
        self.detail[row : row + detail.shape[0], column : column + detail.shape[1]] = detail

    def add(self, row: Array, column: Array, detail: Array) -> None:
        """See ``Cells``."""
        np.add.at(self.detail, (row, column), detail.astype(self.detail.dtype))

    def settle(self, done: int, fresh: Array, pending: Callable[[], Array]) -> None:
        """Nothing is dropped."""


class UsefulCells:
    """Only blocks of cells that a forest of at most ``budget`` leaves, or above ``threshold``, may split.

    Parameters
    ----------
    layout : of the forest to come, 2-D, with at least two levels below the roots.
    dtype : of the detail.
    """

    def __init__(self, layout: Layout, dtype: np.dtype, *, budget: int | None, threshold: float | None) -> None:
        self._layout, self._dtype = layout, dtype
        self._side = min(BLOCK, layout.root // layout.cell)
        self._grid = tuple(int(-(-s // self._side)) for s in layout.dims[-1, 1:])  # blocks
        self._rows: dict[int, Array] = {}  # rows of blocks that are still coming in
        self._kept: dict[int, Array] = {}
        self._sums = np.zeros(self._grid, np.float64 if dtype.kind == "f" else np.int64)
        roots = int(layout.dims[0].prod())
        self._needed = None if budget is None else max((budget - roots) // 3 + 1, 1)
        self._open: set[int] = set()  # blocks whose cells may still grow, and some that may not any more
        self._pruned = 0  # blocks held after the last pruning
        self._best = np.zeros(0, self._sums.dtype)  # the scores that are needed to fill the budget, so far
        self._least, self._threshold = -1.0, -1.0 if threshold is None else threshold

    @property
    def num_kept(self) -> int:
        """Blocks that are held now."""
        return len(self._kept)

    def put(self, row: int, column: int, detail: Array) -> None:
        """See ``Cells``."""
        while len(detail):
            block, inside = divmod(row, self._side)
            if block not in self._rows:
                self._rows[block] = np.zeros((self._side, self._grid[1] * self._side), self._dtype)
            count = min(self._side - inside, len(detail))
            self._rows[block][inside : inside + count, column : column + detail.shape[1]] = detail[:count]
            row, detail = row + count, detail[count:]

    def add(self, row: Array, column: Array, detail: Array) -> None:
        """See ``Cells``."""
        number = row // self._side * np.int64(self._grid[1]) + column // self._side
        order = np.argsort(number, kind="stable")
        number, row, column, detail = number[order], row[order], column[order], detail[order].astype(self._dtype)
        first = np.flatnonzero(np.diff(number, prepend=-1))
        for start, end in zip(first.tolist(), [*first[1:].tolist(), len(number)]):
            block, across = divmod(int(number[start]), self._grid[1])
            r, c, more = row[start:end] % self._side, column[start:end], detail[start:end]
            if block in self._rows:
                np.add.at(self._rows[block], (r, c), more)
            else:
                np.add.at(self._kept[int(number[start])], (r, c % self._side), more)
                self._sums[block, across] += more.sum(dtype=self._sums.dtype)

    def settle(self, done: int, fresh: Array, pending: Callable[[], Array]) -> None:
        """See ``Cells``: take in whole rows of blocks, and drop what cannot be split any more."""
        self._open.update(self._blocks_of(fresh))
        rows = int(self._layout.dims[-1, 1])
        whole = [block for block in self._rows if min((block + 1) * self._side, rows) <= done]
        if not whole:
            return
        for block in sorted(whole):
            self._take(block, self._rows.pop(block), self._open)
        if len(self._kept) > 2 * self._pruned + 64:
            self._open = set(self._blocks_of(pending()))
            self._prune(self._open)

    def _blocks_of(self, places: Array) -> list[int]:
        """The blocks in which these cells (row, column) lie."""
        return np.unique(places[:, 0] // self._side * np.int64(self._grid[1]) + places[:, 1] // self._side).tolist()

    def _prune(self, open_ones: set[int]) -> None:
        """Drop the blocks that cannot be split any more; now and then, for all are looked at."""
        numbers = np.array(list(self._kept), np.int64)
        sums = self._sums.ravel()[numbers]
        for number in numbers[(sums < self._least) | (sums <= self._threshold)].tolist():
            if number not in open_ones:
                del self._kept[number]
        self._pruned = len(self._kept)

    def scores(self) -> tuple[Array, Layout]:
        """Scores of every node that may be split, and where they stand; to be called once all is settled."""
        self._prune(set())
        return self._layout.sparse(self._side, self._sums, self._kept)

    def _take(self, block: int, rows: Array, open_ones: set[int]) -> None:
        """Learn from a row of blocks how high scores must be, and keep those of its blocks that are, or still grow."""
        side, columns = self._side, self._grid[1]
        height, width = (self._layout.shape[0] - block * side * self._layout.cell, self._layout.shape[1])
        below: Array = rows[None]
        length, found = self._layout.cell, [self._best]
        while below.shape[1] > 1:
            here = np.empty((1, below.shape[1] // 2, below.shape[2] // 2), self._sums.dtype)
            sum_children(below, here, True)
            below, length = here, 2 * length
            inside = here[0, : max(height // length, 0), : width // length]  # nodes that cost as many leaves as any
            found.append(inside[inside >= self._least])
        self._sums[block] = below[0, 0]
        if self._needed is not None:
            best = np.concatenate(found)
            if len(best) >= self._needed:
                best = np.partition(best, len(best) - self._needed)[len(best) - self._needed :]
                self._least = float(best.min())
            self._best = best
        useful = (below[0, 0] >= self._least) & (below[0, 0] > self._threshold)
        first = block * columns
        for column in {
            *np.flatnonzero(useful).tolist(),
            *(n - first for n in open_ones if first <= n < first + columns),
        }:
            self._kept[first + column] = rows[:, column * side : (column + 1) * side].copy()
