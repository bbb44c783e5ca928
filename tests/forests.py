"""Random forests and images for tests of every room."""

from __future__ import annotations

import numpy as np

from patchforest.tree.forest import build_forest
from patchforest.values import Forest


def random_forest(
    rng: np.random.Generator, shape: tuple[int, ...], *, cell: int = 8, budget: int = 40, root: int | None = None
) -> Forest:
    """A forest cut by heavy-tailed noise, so that every level has leaves."""
    grid = tuple(-(-s // cell) for s in shape)
    detail = rng.lognormal(0.0, 2.0, grid).astype(np.float32)
    return build_forest(detail, shape=shape, cell=cell, budget=budget, root=root)
