"""A second forest from a first answer: what leaves would get wrong of a mask that is known only in probability.

As AMR codes refine by an error estimator. A first forest, or a network on the down-scaled image, says how likely every
class is at coarse pixels; leaves are then small where that is mixed or unsure.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from patchforest.tree.label_error import node_sides, require_power_apart, split_scores, sums
from patchforest.values import Array

REACH = 2
"""Blocks shorter than so many pixels of the probability help the more the shorter they are."""


def uncertainty_scores(
    probability: Array, stride: int, *, shape: Sequence[int], cell: int = 8, root: int | None = None, q: int = 16
) -> list[Array]:
    """Scores for ``build_forest`` from probabilities: of every node, the pixels it may get wrong as a leaf.

    With f the mean probability of a block of side b = s / q of a node of side s,

        score = min(1, b / (2 · stride)) · Σ over blocks b² · (1 − largest f of a class)

    where blocks finer than ``stride`` take the f of their pixel. The sum is the error of the best answer if the
    probability were the share of pixels, as it is where blocks are long; the factor says that finer blocks would
    still make it smaller, in proportion to their side as along any outline.

    Parameters
    ----------
    probability : (K, h, w), K = 1 for that of one foreground class, else of K classes with background; values in
        [0, 1], one a ``stride`` × ``stride`` square of the image.
    stride : in level-0 pixels; cell times or by a power of two.
    shape : (H, W) of the image; h = ⌈H / stride⌉.
    cell, root, q : as in ``tree.label_error.label_errors``.

    Raises ValueError for probabilities of another shape or outside [0, 1], and sides that do not fit each other.
    """
    p = np.asarray(probability, np.float64)
    sides = node_sides(shape, cell, root, q)
    require_power_apart("stride", stride, cell)
    grid = tuple(-(-s // stride) for s in shape)
    if p.ndim != 3 or p.shape[1:] != grid:
        raise ValueError(
            f"probability at stride {stride} of an image {tuple(shape)} must be (K, {grid[0]}, {grid[1]}); "
            f"got {p.shape}"
        )
    if not (p.min() >= 0 and p.max() <= 1 + 1e-6):
        raise ValueError("probabilities must lie in [0, 1]")
    if len(p) == 1:
        p = np.concatenate([1 - p, p])
    area = _area(shape, stride)
    masses, block = p * area, stride
    out = []
    for side in sides:
        while block * q < side:
            masses, area, block = sums(masses, 2), sums(area, 2), block * 2
        error = np.maximum(area - masses.max(0), 0.0) * min(1.0, side / q / (REACH * stride)) * (side > q)
        out.append(_at_side(error, block, side, shape))
    return out


def share_scores(
    shares: Array, stride: int, *, shape: Sequence[int], cell: int = 8, root: int | None = None, q: int = 16
) -> list[Array]:
    """Scores for ``build_forest`` from what a scorer says: ``split_scores`` of the errors that it expects.

    Parameters
    ----------
    shares : (S, h, w), of every ``stride`` × ``stride`` square the share of pixels that blocks of side 2, 4, ... 2^S
        get wrong; longer blocks are taken to be as wrong as the longest.
    stride, shape, cell, root, q : as in ``uncertainty_scores``.

    Raises ValueError for shares of another shape, negative or not finite, and sides that do not fit each other.
    """
    sides = node_sides(shape, cell, root, q)
    require_power_apart("stride", stride, cell)
    grid = tuple(-(-s // stride) for s in shape)
    if shares.ndim != 3 or len(shares) < 1 or shares.shape[1:] != grid:
        raise ValueError(
            f"shares at stride {stride} of an image {tuple(shape)} must be (S, {grid[0]}, {grid[1]}); "
            f"got {shares.shape}"
        )
    if not (shares.min() >= 0 and shares.max() < np.inf):
        raise ValueError("shares must be finite and not negative")
    area, errors = _area(shape, stride), []
    for side in sides:
        block = max(side // q, 1)
        number = min(block.bit_length() - 1, len(shares))
        error = shares[number - 1] * area if number else np.zeros(grid)
        errors.append(_at_side(error, stride, side, shape))
    return split_scores(errors)


def _area(shape: Sequence[int], stride: int) -> Array:
    """Pixels of every square that lie inside the image."""
    rows, columns = (np.diff(np.append(np.arange(0, s, stride), s)) for s in shape)
    return np.outer(rows, columns).astype(np.float64)


def _at_side(error: Array, block: int, side: int, shape: Sequence[int]) -> Array:
    """Errors of squares of one side summed, or divided evenly, over the nodes of another; float32."""
    if side >= block:
        return sums(error, side // block).astype(np.float32)
    times = block // side
    spread = np.repeat(np.repeat(error / times**2, times, 0), times, 1)
    return spread[: -(-shape[0] // side), : -(-shape[1] // side)].astype(np.float32)
