"""Which of many boxes lie near a window, without looking at all of them: a coarse grid of cells over their bounds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from patchforest.values import Array

_MAX_CELLS = 16  # of a box; larger ones are looked at in every query
_MAX_SIDE = 512  # cells


@dataclass(frozen=True, eq=False)
class BoxIndex:
    """Boxes (N, 4) float64 as (top, left, bottom, right), found by window.

    Attributes
    ----------
    boxes : all of them.
    origin, cell, side : corner (row, column) of the grid, size of its cells, and how many there are along each axis.
    starts : (side * side + 1,) int64, where each cell's boxes begin in ``members``.
    members : numbers of the boxes that touch a cell, cell after cell.
    large : numbers of the boxes that touch more than 16 cells.
    """

    boxes: Array
    origin: Array
    cell: float
    side: int
    starts: Array
    members: Array
    large: Array

    @classmethod
    def over(cls, boxes: Array) -> BoxIndex:
        """The index of some boxes, of which there may be none."""
        if not len(boxes):
            none = np.empty(0, np.int64)
            return cls(boxes, np.zeros(2), 1.0, 1, np.zeros(2, np.int64), none, none)
        origin = boxes[:, :2].min(axis=0)
        side = int(np.clip(np.sqrt(len(boxes)), 1, _MAX_SIDE))
        cell = max(float((boxes[:, 2:].max(axis=0) - origin).max()) / side, 1e-6)
        first, last = _cells(boxes[:, :2], origin, cell, side), _cells(boxes[:, 2:], origin, cell, side)
        rows, columns = (last - first + 1).T
        small = np.flatnonzero(rows * columns <= _MAX_CELLS)
        number = np.repeat(small, (rows * columns)[small])
        ends = np.cumsum((rows * columns)[small])
        step = np.arange(len(number)) - np.repeat(ends - (rows * columns)[small], (rows * columns)[small])
        at = (first[number, 0] + step // columns[number]) * side + first[number, 1] + step % columns[number]
        order = np.argsort(at, kind="stable")
        starts = np.searchsorted(at[order], np.arange(side * side + 1))
        large = np.flatnonzero(rows * columns > _MAX_CELLS)
        return cls(boxes, origin, cell, side, starts, number[order], large)

    def near(self, window: Array) -> Array:
        """(K,) int64, ascending: the boxes that meet a window (top, left, bottom, right), edges included."""
        window = np.asarray(window, np.float64)
        first = _cells(window[:2], self.origin, self.cell, self.side)
        last = _cells(window[2:], self.origin, self.cell, self.side)
        found = [self.large]
        for row in range(first[0] * self.side, last[0] * self.side + 1, self.side):
            found.append(self.members[self.starts[row + first[1]] : self.starts[row + last[1] + 1]])
        numbers = np.unique(np.concatenate(found))
        boxes = self.boxes[numbers]
        meets = (boxes[:, :2] <= window[2:]) & (boxes[:, 2:] >= window[:2])
        return numbers[meets.all(axis=1)]


def _cells(points: Array, origin: Array, cell: float, side: int) -> Array:
    """Grid cell (row, column) of points, the nearest one for points outside."""
    return np.clip((points - origin) / cell, 0, side - 1).astype(np.int64)
