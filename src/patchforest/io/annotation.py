"""Annotations as a source of labels: polygons with class numbers, drawn for any window at any scale."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence

import numpy as np

from patchforest.io.boxes import BoxIndex
from patchforest.io.scanline import draw
from patchforest.values import Array

_TILE = 512
_FACTORS = (2.0**-10, 2.0**20)


class Annotations:
    """Polygons in level-0 pixels, in drawing order; ``read`` gives the label mask of a window.

    May be read by several threads, and pickled.

    Parameters
    ----------
    polygons : (class number, rings) each; rings are (n, 2) (x, y), n >= 3, and count by the even-odd rule.
    names : class names by number, background first.
    found : names of the classes that occur, in order of appearance.
    shape : (H, W) of the image at level 0, where known.

    Attributes
    ----------
    classes_found : ``found`` as a tuple.
    """

    mpp: float | None = None

    def __init__(
        self,
        polygons: Sequence[tuple[int, Sequence[Array]]],
        *,
        names: Sequence[str],
        found: Sequence[str] = (),
        shape: tuple[int, int] | None = None,
    ) -> None:
        rings = [np.asarray(ring, np.float64) for _, parts in polygons for ring in parts]
        self.names, self.classes_found, self._size = tuple(names), tuple(found), shape
        self._values = np.array([value for value, _ in polygons], np.int64)
        self._ring_at = np.cumsum([0, *(len(parts) for _, parts in polygons)])
        self._point_at = np.cumsum([0, *map(len, rings)])
        self._points = np.concatenate(rings) if rings else np.empty((0, 2))
        self._index = BoxIndex.over(self._boxes())

    def __len__(self) -> int:
        """Number of polygons."""
        return len(self._values)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(H, W, 1) of the image at level 0; ValueError where it was not given."""
        if self._size is None:
            raise ValueError("annotations do not know the size of their image: give shape=(H, W)")
        return (*self._size, 1)

    @property
    def levels(self) -> tuple[tuple[int, int], ...]:
        """((H, W),): any other scale is read by ``factor``."""
        return (self.shape[:2],)

    @property
    def tile(self) -> tuple[int, int]:
        """(rows, columns) that are convenient to read at a time; any others are as good."""
        height, width = self.levels[0]
        return min(height, _TILE), min(width, _TILE)

    @property
    def dtype(self) -> np.dtype:
        """Of the labels: uint8, or uint16 for more than 256 classes."""
        return np.dtype(np.uint8 if len(self.names) <= 256 else np.uint16)

    @property
    def bounds(self) -> tuple[float, float, float, float] | None:
        """(top, left, bottom, right) of all polygons in level-0 pixels; None where there is none."""
        boxes = self._index.boxes
        if not len(boxes):
            return None
        (top, left), (bottom, right) = boxes[:, :2].min(axis=0).tolist(), boxes[:, 2:].max(axis=0).tolist()
        return top, left, bottom, right

    def outside(self) -> int:
        """Number of polygons that lie wholly outside the image of the given ``shape``."""
        height, width = self.levels[0]
        boxes = self._index.boxes
        away = (boxes[:, :2] >= (height, width)) | (boxes[:, 2:] <= 0)
        return int(away.any(axis=1).sum())

    def read(self, row: int, column: int, height: int, width: int, factor: float = 1.0) -> Array:
        """(height, width) class numbers of a window of the image, ``factor`` times smaller than level 0.

        A pixel has the class of the last polygon that holds its centre, level-0 point ``((row + i + 0.5) * factor,
        (column + j + 0.5) * factor)``, and 0 where there is none; on a border, left and upper ones belong to a polygon.
        ``row`` and ``column`` are in pixels of the smaller image; the window may reach over its edges.

        Raises
        ------
        ValueError
            The window has no pixels, or ``factor`` is no number between 1/1024 and 2^20.
        """
        if height < 1 or width < 1:
            raise ValueError(f"a window has at least one pixel; got {height} x {width}")
        if not (math.isfinite(factor) and _FACTORS[0] <= factor <= _FACTORS[1]):
            raise ValueError(f"factor says how much smaller than level 0 the image is, e.g. 4.0; got {factor}")
        out = np.zeros((height, width), self.dtype)
        box = np.array([row, column, row + height, column + width]) * float(factor)
        near = self._index.near(box)
        if len(near):
            odd, low, high = np.zeros((height, width), np.uint8), np.full(height, width + 1), np.full(height, -1)
            draw(
                out, near, self._values, self._ring_at, self._point_at, self._points,
                int(row), int(column), float(factor), odd, low, high,
            )  # fmt: skip
        return out

    def stretched(self, across: float) -> Annotations:
        """The same polygons on an image whose columns are ``across`` times as many; itself for 1."""
        if across == 1.0:
            return self
        out = copy.copy(self)
        out._points = self._points * np.array([across, 1.0])
        out._index = BoxIndex.over(out._boxes())
        return out

    def _boxes(self) -> Array:
        """(P, 4) float64 (top, left, bottom, right) of every polygon."""
        if not len(self._values):
            return np.empty((0, 4))
        begins = self._point_at[self._ring_at[:-1]]
        low, high = np.minimum.reduceat(self._points, begins), np.maximum.reduceat(self._points, begins)
        return np.concatenate([low[:, ::-1], high[:, ::-1]], axis=1)
