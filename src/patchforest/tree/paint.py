"""Paint: values per leaf back to a raster, the inverse and (up to leaf areas) the adjoint of ``gather``."""

from __future__ import annotations

import numpy as np

from patchforest.values import Array, Forest

MODES = ("nearest", "bilinear")


def paint(values: Array, forest: Forest, mode: str = "nearest") -> Array:
    """Raster (K, H, W) of values (L, K, q, q), for any q; with a 3-D forest (K, D, H, W) of (L, K, q, q, q).

    Parameters
    ----------
    values : what every leaf says on a q × q grid over its own square. float32 or float64 keeps its dtype, integers keep
        theirs in ``nearest`` with q up to the leaf's side.
    mode : ``nearest`` repeats (where q exceeds a leaf's side, values are averaged over each pixel); ``bilinear``
        interpolates between the centres of the q × q grid, constant towards the leaf's border.

    Raises
    ------
    ValueError : values whose leaves or axes do not fit the forest, or an unknown mode.
    """
    n = forest.ndim
    if values.ndim != n + 2 or len(values) != len(forest) or len(set(values.shape[2:])) != 1 or not values.shape[2]:
        raise ValueError(f"values must be ({len(forest)}, K{', q' * n}) for this forest; got {values.shape}")
    if mode not in MODES:
        raise ValueError(f"mode must be one of {', '.join(MODES)}; got {mode!r}")
    kinds, q = values.shape[1], values.shape[2]
    exact = mode == "nearest" and q <= int(forest.size.min())  # every pixel shows one value, so nothing is blended
    dtype = values.dtype if exact or values.dtype.kind == "f" else np.dtype(np.float32)
    canvas = np.empty((kinds, *forest.shape), dtype)
    for size in np.unique(forest.size).tolist():
        chosen = forest.size == size
        blocks = values[chosen]
        if size != q:
            matrix = resample_matrix(q, size, mode).astype(dtype)
            for axis in range(2, n + 2):
                lines = matrix[: forest.shape[axis - 2]]  # a leaf may be far longer than the image
                if exact:
                    blocks = np.take(blocks, lines.argmax(axis=1), axis=axis)
                else:
                    blocks = np.moveaxis(np.tensordot(blocks, lines, axes=(axis, 1)), -1, axis)
        _place(canvas, forest.origin[chosen], size, blocks)
    return canvas


def resample_matrix(q: int, size: int, mode: str) -> Array:
    """(size, q) float64, rows summing to 1: how a line of ``size`` pixels reads a line of q values.

    Nearest, q ≤ size: the value whose interval holds the pixel's centre. q > size: the mean over the pixel.
    Bilinear: linear between the centres of the intervals, clamped at the ends.
    """
    if q > size:
        edge = np.arange(q + 1) * size / q  # of each value's interval, in pixels
        pixel = np.arange(size)[:, None]
        return np.clip(np.minimum(edge[1:], pixel + 1) - np.maximum(edge[:-1], pixel), 0, None)
    centre = (np.arange(size) + 0.5) * q / size
    out = np.zeros((size, q))
    rows = np.arange(size)
    if mode == "nearest":
        out[rows, np.minimum(centre.astype(int), q - 1)] = 1.0
        return out
    place = np.clip(centre - 0.5, 0, q - 1)
    low = np.minimum(place.astype(int), max(q - 2, 0))
    out[rows, low] += 1.0 - (place - low)
    out[rows, np.minimum(low + 1, q - 1)] += place - low
    return out


def _place(canvas: Array, origin: Array, size: int, blocks: Array) -> None:
    """Write blocks (N, K, size, ...) at their corners: those inside all at once, those over the far edges cut off."""
    shape = np.array(canvas.shape[1:])
    inside = (origin + size <= shape).all(axis=1)
    if inside.any():
        _tiles(canvas, size)[tuple((origin[inside] // size).T)] = blocks[inside]
    for corner, block in zip(origin[~inside], blocks[~inside]):
        extent = np.minimum(shape - corner, size)
        there = tuple(slice(c, c + e) for c, e in zip(corner, extent))
        canvas[(slice(None), *there)] = block[(slice(None), *(slice(0, e) for e in extent))]


def _tiles(canvas: Array, size: int) -> Array:
    """View of the whole squares of (K, H, W) as (H // size, W // size, K, size, size): leaves of one size at once."""
    n = canvas.ndim - 1
    whole = canvas[(slice(None), *(slice(0, s // size * size) for s in canvas.shape[1:]))]
    split: list[int] = [canvas.shape[0]]
    for s in whole.shape[1:]:
        split += [s // size, size]
    grid_axes = [1 + 2 * a for a in range(n)]
    return whole.reshape(split).transpose(*grid_axes, 0, *[a + 1 for a in grid_axes])  # splitting axes copies nothing
