"""One call from pixels to forest: a policy's detail map and its tree, fresh at random where a generator is given."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from patchforest.tree.detail import detail_map, variance_pyramid
from patchforest.tree.forest import build_forest, default_root, scaled_budget
from patchforest.tree.window import Window, unit_range
from patchforest.values import Array, Criterion, Forest, ForestPolicy, NodeScorer

JITTER = 0.3
"""Standard deviation of the logarithm of what a scorer's scores are multiplied by, where forests are to be random."""


def cut_forest(
    image: Array,
    policy: ForestPolicy,
    *,
    window: Window | None = None,
    rng: np.random.Generator | None = None,
    criterion: Criterion | NodeScorer | None = None,
    spatial: int = 2,
    threads: int = 1,
) -> Forest:
    """The forest of an image (H, W[, C]) under a policy; its budget grows with the number of pixels.

    Parameters
    ----------
    rng : draw blur and thresholds of the detail map afresh (the randomised forest of SHF); None: the fixed tree.
    criterion : scores, a function or a scorer in place of the policy's named criterion.
    spatial : 2, or 3 for volumes (D, H, W[, C]).
    threads : see ``detail_map``.

    Raises ValueError where the policy wants a scorer and none is given.
    """
    shape = tuple(int(s) for s in image.shape[:spatial])
    if policy.uniform is not None:
        return build_by_policy(None, policy, shape)
    named = policy.criterion if criterion is None else criterion
    root = policy.root or default_root(shape, policy.cell)
    detail: Array | list[Array]
    if isinstance(named, str) and named == "scorer":
        raise ValueError("this policy wants a scorer; pass criterion=, a trained one")
    if isinstance(named, NodeScorer):
        detail = _scored(named, image, policy.cell, root, window, rng)
    elif isinstance(named, str) and named == "variance":
        detail = variance_pyramid(image, policy.cell, root, window=window, spatial=spatial, rng=rng)
    else:
        detail = detail_map(
            image, policy.cell, criterion=named, window=window, rng=rng, spatial=spatial, threads=threads
        )
    return build_by_policy(detail, policy, shape)


def _scored(
    scorer: NodeScorer, image: Array, cell: int, root: int, window: Window | None, rng: np.random.Generator | None
) -> list[Array]:
    known = image.dtype == np.uint8 and window is None
    scores = scorer.scores(image if known else unit_range(image, window), cell=cell, root=root)
    if rng is None:
        return scores
    return [s * rng.lognormal(0.0, JITTER, s.shape).astype(np.float32) for s in scores]


def build_by_policy(detail: Array | list[Array] | None, policy: ForestPolicy, shape: tuple[int, ...]) -> Forest:
    """``build_forest`` with the settings of a policy; ``detail`` is not needed for a uniform one."""
    if policy.uniform is not None:
        root = policy.root or max(default_root(shape, policy.cell), policy.uniform)
        cells = np.broadcast_to(np.float32(1), tuple(-(-s // policy.cell) for s in shape))
        return build_forest(cells, shape=shape, cell=policy.cell, uniform=policy.uniform, root=root)
    assert detail is not None
    root = policy.root or default_root(shape, policy.cell)
    return build_forest(
        detail,
        shape=shape,
        cell=policy.cell,
        budget=None if policy.budget is None else scaled_budget(replace(policy, root=root), shape),
        threshold=policy.threshold,
        root=root,
        max_depth=policy.max_depth,
    )
