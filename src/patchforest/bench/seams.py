"""Seams of a prediction: how much more the probability jumps across leaf borders than inside the same leaves."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from patchforest.tree.paint import paint
from patchforest.values import Array, Forest

MOST_PLACES = 50_000
"""Borders looked at along each axis, drawn at random where there are more."""


@dataclass(frozen=True)
class Seam:
    """Mean absolute jumps of probability between two pixels, NaN where there is no place to look at.

    Attributes
    ----------
    border : across borders between leaves.
    inside : between pixels as far apart inside the same leaves and rows (columns), at equally many random places.
    places : how many of each.
    """

    border: float
    inside: float
    places: int

    @property
    def excess(self) -> float:
        """What the borders add; 0 where a prediction does not know its forest."""
        return self.border - self.inside


def find_seams(probability: Array, forest: Forest, *, rng: np.random.Generator, reach: int = 1) -> Seam:
    """Jumps of (K, H, W) probabilities at the leaves of a forest over the same image, of all K together.

    Parameters
    ----------
    reach : a jump is between the ``reach``-th pixel before a border and the ``reach``-th behind it. Give the factor by
        which a mask was enlarged, so that both pixels are beyond what enlarging has blended.

    Raises
    ------
    ValueError : a forest of another shape.

    Notes
    -----
    Each border is paired with one place inside one of its two leaves, drawn at random, so that detailed regions, where
    both borders and jumps are many, count alike on both sides.
    """
    if probability.shape[1:] != forest.shape:
        raise ValueError(f"probabilities must be (K, {forest.shape}) for this forest; got {probability.shape}")
    border, inside = [], []
    owner = paint(np.arange(len(forest), dtype=np.int32).reshape(-1, 1, 1, 1), forest)[0]
    for axis in (0, 1):
        start = forest.origin[:, axis]
        stop = np.minimum(start + forest.size, forest.shape[axis])
        lines = np.moveaxis(probability, 1 + axis, 2)
        row, at, other = _pairs(np.moveaxis(owner, axis, 1), start, stop, reach, rng)
        border.append(_jumps(lines, row, at, reach))
        inside.append(_jumps(lines, row, other, reach))
    across, within = np.concatenate(border), np.concatenate(inside)
    if not len(across):
        return Seam(float("nan"), float("nan"), 0)
    return Seam(float(across.mean()), float(within.mean()), len(across))


def _pairs(owner: Array, start: Array, stop: Array, reach: int, rng: np.random.Generator) -> tuple[Array, Array, Array]:
    """Rows, first columns behind a border there, and as many columns inside a leaf beside it."""
    row, before = np.nonzero(owner[:, 1:] != owner[:, :-1])
    if len(row) > MOST_PLACES:
        some = np.sort(rng.choice(len(row), MOST_PLACES, replace=False))
        row, before = row[some], before[some]
    left, right = owner[row, before], owner[row, before + 1]
    at = before + 1
    fits = (at - reach >= start[left]) & (at + reach <= stop[right])
    leaf = np.where(rng.random(len(row)) < 0.5, left, right)
    room = stop[leaf] - start[leaf] - 2 * reach + 1  # places with ``reach`` pixels of the leaf on either side
    other = start[leaf] + reach + (rng.random(len(row)) * np.maximum(room, 0)).astype(np.int64)
    fits &= room > 0
    return row[fits], at[fits], other[fits]


def _jumps(lines: Array, row: Array, at: Array, reach: int) -> Array:
    """Mean over K of the absolute difference between the pixels around each place."""
    return np.abs(lines[:, row, at + reach - 1] - lines[:, row, at - reach]).mean(axis=0)
