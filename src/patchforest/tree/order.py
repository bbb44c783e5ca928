"""Z (Morton) order: the depth-first order of the leaves of any forest, as one integer a leaf."""

from __future__ import annotations

import numpy as np

from patchforest.values import Array

_SPREAD = {  # (shift, mask) steps that put one or two zero bits between the bits of a coordinate
    2: (
        (16, 0x0000FFFF0000FFFF),
        (8, 0x00FF00FF00FF00FF),
        (4, 0x0F0F0F0F0F0F0F0F),
        (2, 0x3333333333333333),
        (1, 0x5555555555555555),
    ),
    3: (
        (32, 0x1F00000000FFFF),
        (16, 0x1F0000FF0000FF),
        (8, 0x100F00F00F00F00F),
        (4, 0x10C30C30C30C30C3),
        (2, 0x1249249249249249),
    ),
}
_BITS = {2: 31, 3: 21}


def morton(coords: Array) -> Array:
    """Z-order key of integer coordinates: bits interleaved, the first axis above the last (NW, NE, SW, SE).

    Parameters
    ----------
    coords : (..., n) non-negative integers, (row, column) or (plane, row, column); below 2^31 in 2-D, 2^21 in 3-D.

    Returns
    -------
    (...,) uint64. Every aligned power-of-two block of cells is one contiguous range of keys.
    """
    coords = np.asarray(coords)
    n = coords.shape[-1]
    if n not in _SPREAD:
        raise ValueError(f"coordinates must have 2 or 3 axes; got shape {coords.shape}")
    if coords.size and (coords.min() < 0 or coords.max() >> _BITS[n]):
        raise ValueError(f"coordinates must lie in [0, 2^{_BITS[n]}); got {coords.min()} to {coords.max()}")
    key = np.zeros(coords.shape[:-1], np.uint64)
    for axis in range(n):
        bits = coords[..., axis].astype(np.uint64)
        for shift, mask in _SPREAD[n]:
            bits = (bits | (bits << np.uint64(shift))) & np.uint64(mask)
        key |= bits << np.uint64(n - 1 - axis)
    return key
