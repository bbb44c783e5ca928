"""Polygons into class numbers: every pixel asks whether its centre lies inside, by the even-odd rule.

A centre on a left or upper border is inside, on a right or lower one outside; so polygons that share a border neither
overlap nor leave a gap there.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from numba import njit


def _kernel(function: Callable) -> Callable:
    """As ``tree.kernel.kernel``, which this room must not import."""
    try:
        return njit(cache=True, nogil=True)(function)
    except RuntimeError:
        return njit(nogil=True)(function)


@_kernel
def draw(out, polygons, values, ring_at, point_at, points, row, column, factor, odd, low, high):  # type: ignore[no-untyped-def]
    """Draws polygons over ``out`` (h, w), one after the other.

    Parameters
    ----------
    polygons : numbers of those to draw, in that order.
    values : class number of every polygon.
    ring_at, point_at : where the rings of each polygon, and the points of each ring begin; one more than there are.
    points : (N, 2) float64 (x, y) in level-0 pixels; rings are closed by themselves.
    row, column : of the first pixel of ``out``, in pixels of an image ``factor`` times smaller than level 0.
    odd : (h, w) uint8, and low, high : (h,) int64; work space: zeros, and numbers above w and below 0.
    """
    height, width = out.shape
    for polygon in polygons:
        first, last = height, -1
        for ring in range(ring_at[polygon], ring_at[polygon + 1]):
            begin, end = point_at[ring], point_at[ring + 1]
            before = end - 1
            for here in range(begin, end):
                top, bottom = (before, here) if points[before, 1] < points[here, 1] else (here, before)
                before = here
                x0, y0, y1 = points[top, 0], points[top, 1], points[bottom, 1]
                dx, dy = points[bottom, 0] - x0, y1 - y0
                if dy == 0 or y1 <= (row + 0.5) * factor or y0 > (row + height - 0.5) * factor:
                    continue
                i = max(math.ceil(y0 / factor - 0.5) - row - 1, 0)
                while (row + i + 0.5) * factor < y0:
                    i += 1
                first = min(first, i)
                while i < height and (row + i + 0.5) * factor < y1:
                    rise = ((row + i + 0.5) * factor - y0) * dx
                    j = _first_right(x0, rise, dy, column, factor, width)
                    if j < width:
                        odd[i, j] ^= 1
                    low[i], high[i] = min(low[i], j), max(high[i], j)
                    i += 1
                last = max(last, i - 1)
        value = values[polygon]
        for i in range(first, last + 1):
            inside = 0
            for j in range(low[i], min(high[i] + 1, width)):
                inside ^= odd[i, j]
                odd[i, j] = 0
                if inside:
                    out[i, j] = value
            low[i], high[i] = width + 1, -1


@_kernel
def _first_right(x0, rise, dy, column, factor, width):  # type: ignore[no-untyped-def]
    """The first pixel from 0 to ``width`` whose centre is not left of an edge, by the sign of a cross product.

    The edge is always taken from its upper end, so both polygons that share it get the same answer; the sign is exact
    where coordinates and centres are whole or half numbers below 2^25.
    """
    guess = math.ceil((x0 + rise / dy) / factor - 0.5) - column
    if guess < -1:
        return 0
    if guess > width + 1:
        return width
    j = int(guess)
    while (((column + j - 0.5) * factor) - x0) * dy >= rise:
        j -= 1
    while (((column + j + 0.5) * factor) - x0) * dy < rise:
        j += 1
    return min(max(j, 0), width)
