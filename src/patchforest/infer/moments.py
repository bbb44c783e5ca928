"""Means and covariances from exact sums of coordinates, as exact wherever an object lies and however large it is."""

from __future__ import annotations

import numpy as np

from patchforest.values import Array

_PRODUCTS = ((0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2))
_SAFE = 2.0**61


def central_moments(size: Array, sums: Array, lower: Array, upper: Array, extent: Array) -> tuple[Array, Array]:
    """((N, 3) centroid, (N, 3, 3) covariance), float64, of N sets of points with whole coordinates.

    The origin is moved to the whole number next to the centroid in integers, modulo 2^64, where the result is known to
    fit: sums over far-away points lose no digit. Where it may not fit (one component of more than about 10^9 pixels),
    Python's own integers do it.

    Parameters
    ----------
    size : (N,) int64 number of points, at least 1.
    sums : (N, 3) int64 sums of coordinates.
    lower, upper : (N, 6) int64 sums of the products 00, 11, 22, 01, 02, 12, as ``lower + 2^32 upper``.
    extent : (N, 3) int64 length of the bounding box.
    """
    near = sums // size[:, None]
    rest = (sums - near * size[:, None]) / size[:, None]
    covariance = np.empty((len(size), 3, 3))
    for k, (a, b) in enumerate(_PRODUCTS):
        total = lower[:, k] + (upper[:, k] << 32)
        moved = total - near[:, a] * sums[:, b] - near[:, b] * sums[:, a] + near[:, a] * near[:, b] * size
        mean = moved / size
        reach = size.astype(np.float64) * (extent[:, a] + 1) * (extent[:, b] + 1)
        for i in np.flatnonzero(reach >= _SAFE):
            n, x, y, at, by = (int(v) for v in (size[i], sums[i, a], sums[i, b], near[i, a], near[i, b]))
            mean[i] = (int(lower[i, k]) + (int(upper[i, k]) << 32) - at * y - by * x + at * by * n) / n
        covariance[:, a, b] = covariance[:, b, a] = mean - rest[:, a] * rest[:, b]
    return near + rest, covariance
