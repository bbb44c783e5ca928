"""Answers of overlapping windows as rows of one raster: blended, enlarged, never more of it in memory than needed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from patchforest.infer.windows import Grid, blend_weights
from patchforest.io.scale import linear_taps
from patchforest.values import Array

_CHUNK = 1 << 22

Rows = tuple[int, Array]
"""The first row of a band, and the band (K, n, w) float32."""


def blended_rows(grid: Grid, answers: Iterator[Array | None], outputs: int, *, begin: int = 0) -> Iterator[Rows]:
    """Bands of the blended answers of all windows, one a row of the grid, from the top; together the whole frame.

    Where no window answers, the background has probability 1. Equal answers blend to exactly the same (see
    ``blend_weights``). Holds ``outputs`` · h · w' float64, h the windows' height and w' the frame's width.

    Parameters
    ----------
    answers : (K, h, w) float32 of every window in the grid's order from row ``begin`` on, or None for no answer.
    outputs : K.
    begin : first row of the grid to blend; what the rows before it contribute is then missing.
    """
    height, width = grid.side
    total = np.zeros((outputs, height, grid.frame[1]), np.float64)
    weights = np.zeros((height, grid.frame[1]), np.float64)
    weight = blend_weights(grid.side).astype(np.float64)
    for number in range(begin, len(grid.rows)):
        for column in grid.columns:
            answer = next(answers)
            if answer is not None:
                total[:, :, column : column + width] += answer * weight
                weights[:, column : column + width] += weight
        start = grid.rows[number]
        last = number + 1 == len(grid.rows)
        done = (grid.frame[0] if last else grid.rows[number + 1]) - start
        yield start, _settled(total[:, :done], weights[:done])
        for held in (total, weights[None]):
            held[:, : height - done] = held[:, done:]
            held[:, height - done :] = 0


def _settled(total: Array, weights: Array) -> Array:
    """(K, n, w) float32 means; background where nothing was said."""
    silent = weights == 0
    out = np.empty(total.shape, np.float32)
    known = np.where(silent, 1.0, weights)
    for k, plane in enumerate(total):  # one class at a time
        out[k] = plane / known
    if len(out) > 1 and silent.any():
        out[0][silent] = 1.0
    return out


class Enlargement:
    """From a small raster to one so many times larger, linear between pixel centres, band after band.

    Parameters
    ----------
    small, large : (h, w) of the two rasters.
    factor : large pixels a small one, per axis; ``large`` may end before ``small`` · factor.
    """

    def __init__(self, small: tuple[int, int], large: tuple[int, int], factor: tuple[float, float]) -> None:
        self.small, self.large, self.factor = small, large, factor
        self.same = small == large and factor == (1.0, 1.0)

    def end(self, rows: int) -> int:
        """How many rows of the large raster the first ``rows`` of the small one decide."""
        if rows >= self.small[0] or self.same:
            return self.large[0] if rows >= self.small[0] else rows
        last = int(min((rows - 0.5) * self.factor[0] - 0.5, self.large[0] - 1))  # centre of small row rows - 1
        while last >= 0 and self._down(last, 1)[0].max() + 1 >= rows:
            last -= 1
        return max(last + 1, 0)

    def bands(self, rows: Iterable[Rows], *, begin: int = 0, most: int = _CHUNK) -> Iterator[Rows]:
        """Large bands of small ones, from what small row ``begin`` decides on; its predecessor has to come first.

        Parameters
        ----------
        most : values that a band may hold, so that memory stays with the small bands; always at least one row.
        """
        before: Array | None = None
        at = self.end(begin)
        for start, band in rows:
            stop = start + band.shape[1]
            if stop <= begin:
                before = band[:, -1:].copy()
                continue
            if self.same or before is None:
                held, first = band, start
            else:
                held, first = np.concatenate([before, band], 1), start - 1
            before = band[:, -1:].copy()
            end, step = self.end(stop), max(1, most // (len(band) * self.large[1]))
            while at < end:
                yield at, self._between(held, first, at, min(at + step, end))
                at = min(at + step, end)

    def _between(self, held: Array, first: int, at: int, end: int) -> Array:
        """Large rows from ``at`` to ``end`` of small rows (K, n, w) that begin with row ``first``."""
        if self.same:
            return held[:, at - first : end - first]
        columns, across = linear_taps(0, self.large[1], 1 / self.factor[1], self.small[1])
        rows, down = self._down(at, end - at)
        following = np.minimum(columns + 1, self.small[1] - 1)
        below = np.minimum(rows + 1, self.small[0] - 1)
        share, down = across.astype(np.float32)[None], down.astype(np.float32)[:, None]
        out = np.empty((len(held), end - at, self.large[1]), np.float32)
        for plane, result in zip(held, out):
            wide = _lerp(plane[:, columns], plane[:, following], share)
            result[:] = _lerp(wide[rows - first], wide[below - first], down)
        return out

    def _down(self, at: int, count: int) -> tuple[Array, Array]:
        return linear_taps(at, count, 1 / self.factor[0], self.small[0])


def _lerp(a: Array, b: Array, share: Array) -> Array:
    """a + (b − a) · share: exactly a where both are equal."""
    return a + (b - a) * share
