"""Pixel-exact polygons of a mask that goes by in bands of rows, each as soon as it is finished.

mask bands → runs of equal values (here) → corners, rings, components (``infer.rings``) → ``Polygon``
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from patchforest.infer.rings import Finished, Rings
from patchforest.tree.kernel import kernel
from patchforest.values import Array

_ROWS = 1024  # whose runs are held at a time, at most
_RUNS = 1 << 16
_TAKEN_AS = {np.dtype(bool): np.dtype(np.uint8), np.dtype(np.float16): np.dtype(np.float32)}


@dataclass(frozen=True, eq=False, slots=True)
class Polygon:
    """One 4-connected component of one class, as the corners of its pixels bound it.

    Corners are (row, column): pixel (r, c) reaches from (r, c) to (r + 1, c + 1). Every corner is a turn of 90 degrees,
    no ring repeats its first corner, which is its topmost, then leftmost, and no ring touches itself. With the
    component on the right as one walks, a ring's sum of x_i * y_i+1 - x_i+1 * y_i, x = column and y = row, is positive
    for the exterior and negative for holes: the rule of RFC 7946 in pixel coordinates, clockwise on a screen whose rows
    go down. A hole may touch the exterior or another hole in single corners.

    Attributes
    ----------
    value : class number, 1 to 65535.
    exterior : (n, 2) int64 corners.
    holes : each (n, 2) int64, ordered by first corner.
    area : number of pixels; equal to what the exterior encloses less what the holes do.
    probability : mean over its pixels, 0 to 1; None where no probabilities were given.
    """

    value: int
    exterior: Array
    holes: tuple[Array, ...]
    area: int
    probability: float | None


def polygons_of(
    bands: Iterable[Array], *, width: int, probabilities: Iterable[Array] | None = None
) -> Iterator[Polygon]:
    """Every 4-connected component of every class of a mask, in the order in which their last rows end.

    The result does not depend on how the rows are cut into bands. Memory grows with a band and with the boundaries of
    the components that the current row touches, not with the mask.

    Parameters
    ----------
    bands : consecutive (h_i, width) rows from the top, uint8, uint16 or bool; 0 is background.
    width : pixels in a row.
    probabilities : bands of the same heights: uint8 for 0 to 1 in steps of 1/255, or floats from 0 to 1.

    Raises
    ------
    ValueError
        A band of another shape or type, probabilities outside 0 to 1, or of other heights than the mask.
    """
    if width < 1:
        raise ValueError(f"a mask is at least one pixel wide; got width {width}")
    rings, step = Rings(width), 0.0
    size = max(_RUNS, 4 * (width + 1))
    runs = np.empty(size, np.int32), np.empty(size, np.int32), np.zeros(size), np.zeros(_ROWS + 1, np.int64)
    for band, weights in _pairs(bands, probabilities, width):
        if weights is not None:
            step = 1 / 255 if weights.dtype == np.uint8 else 1.0
        at = 0
        while at < len(band):
            rows = _runs(band, at, *runs)
            if weights is not None:
                _weigh(weights, at, rows, *runs)
            for done in rings.push(*runs, rows):
                yield from _polygons(done, step)
            at += rows
    last = np.zeros((1, width), np.uint8)
    for done in rings.push(*runs, _runs(last, 0, *runs)):
        yield from _polygons(done, step)


def _pairs(
    bands: Iterable[Array], probabilities: Iterable[Array] | None, width: int
) -> Iterator[tuple[Array, Array | None]]:
    """Bands and their probabilities, checked, in the types that the kernels take."""
    others = None if probabilities is None else iter(probabilities)
    for given in bands:
        band = _band(given, width, (np.uint8, np.uint16), "a mask's")
        if others is None:
            yield band, None
            continue
        other = next(others, None)
        if other is None:
            raise ValueError("there are fewer bands of probabilities than of the mask")
        weights = _band(other, width, (np.uint8, np.float32, np.float64), "a probability")
        if len(weights) != len(band):
            raise ValueError(f"a band of {len(band)} rows has probabilities of {len(weights)} rows; they must agree")
        yield band, weights
    if others is not None and next(others, None) is not None:
        raise ValueError("there are more bands of probabilities than of the mask")


def _band(band: Array, width: int, types: tuple[type, ...], whose: str) -> Array:
    """The band in C order; ValueError unless it is (h, width) of one of the types."""
    band = np.asarray(band)
    if band.ndim != 2 or band.shape[1] != width:
        raise ValueError(f"{whose} band must be (rows, {width}); got shape {band.shape}")
    kind = _TAKEN_AS.get(band.dtype, band.dtype.newbyteorder("="))
    if kind not in types:
        names = ", ".join(one.__name__ for one in types)
        raise ValueError(f"{whose} band must hold {names}; got {band.dtype}")
    return np.ascontiguousarray(band, kind)


def _polygons(done: Finished, step: float) -> Iterator[Polygon]:
    """Finished components one by one; ``step`` is the probability of weight 1, or 0 where there is none."""
    means = done.sums * (step / done.areas)
    if not ((means >= 0) & (means <= 1 + 1e-9)).all():  # also NaN
        raise ValueError("probabilities must lie between 0 and 1: give uint8, or floats after the softmax")
    ends = np.cumsum(done.lengths).tolist()
    begin = ring = 0
    for value, area, count, mean in zip(
        done.values.tolist(), done.areas.tolist(), done.rings.tolist(), np.minimum(means, 1.0).tolist()
    ):
        parts = []
        for end in ends[ring : ring + count]:
            parts.append(done.corners[begin:end].copy())
            begin = end
        ring += count
        yield Polygon(value, parts[0], tuple(parts[1:]), area, mean if step else None)


@kernel
def _runs(band, begin, starts, values, sums, offsets):  # type: ignore[no-untyped-def]
    """Runs of equal values of the rows from ``begin`` on, as many as fit; returns how many rows."""
    height, width = band.shape
    row = at = 0
    while begin + row < height and row + 1 < len(offsets) and at + width < len(starts):
        line = band[begin + row]
        value = line[0]
        starts[at], values[at] = 0, value
        at += 1
        for column in range(1, width):
            if line[column] != value:
                value = line[column]
                starts[at], values[at] = column, value
                at += 1
        starts[at], values[at], sums[at] = width, 0, 0.0
        at += 1
        row += 1
        offsets[row] = at
    return row


@kernel
def _weigh(weights, begin, rows, starts, values, sums, offsets):  # type: ignore[no-untyped-def]
    """The sum of the weights over every run that is no background."""
    for row in range(rows):
        for run in range(offsets[row], offsets[row + 1] - 1):
            total = 0.0
            if values[run] != 0:
                for column in range(starts[run], starts[run + 1]):
                    total += weights[begin + row, column]
            sums[run] = total
