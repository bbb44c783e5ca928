"""Forests from detail: uniform, threshold (APF) or an exact budget of leaves (SHF), in 2-D and 3-D by one code path.

If scores never grow from a parent to its children, repeatedly splitting the best leaf K times splits exactly the K
best nodes of the score pyramid. So every policy is a choice of *split* nodes (``nodes.py``). Nodes wholly outside the
image do not exist.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np

from patchforest.tree.nodes import Layout, best_splits, capped, flags_of, leaves_of, summed
from patchforest.values import Array, Forest, ForestPolicy, as_shape


class FlatGround(UserWarning):
    """There was less to see than the budget has leaves for; of no interest in one window of a large image."""


def build_forest(
    detail: Array | Sequence[Array],
    *,
    shape: Sequence[int],
    cell: int = 8,
    budget: int | None = None,
    threshold: float | None = None,
    uniform: int | None = None,
    root: int | None = None,
    max_depth: int | None = None,
    balanced: bool = False,
) -> Forest:
    """The forest that tiles an image of ``shape`` exactly once, its leaves small where ``detail`` is large.

    Parameters
    ----------
    detail : (ceil(H/cell), ceil(W/cell)) non-negative and additive, as from ``detail_map``; or a pyramid of scores,
        cells first and roots last, for scores that do not add up (made monotone: no node outscores its parent).
    shape : size of the image per axis, 2 or 3 axes.
    cell : side of the smallest possible leaf in pixels.
    budget : most leaves wanted. Nodes are split in the order score descending, coarser first, Z-order, for as long as
        the leaves fit: at most three (2-D) or seven (3-D) leaves short of ``budget``. Equal to greedy best-first.
        With ``threshold`` as well, the threshold tree, coarsened to the budget where it has more leaves.
    threshold : split every node whose detail is above it (APF equation 6), whatever the number of leaves.
    uniform : side of all leaves in pixels, cell times a power of two.
    root : side of a root in pixels, cell times a power of two; default the largest that fits the shortest side.
    max_depth : most splits below a root.
    balanced : then refine until leaves that share a face differ by at most one level (may exceed the budget).

    Raises
    ------
    ValueError : no policy or two, detail of another shape, negative or not finite, a budget below the number of
        roots, sides that are not cell times a power of two.

    Warns
    -----
    UserWarning : when detail runs out before the budget does, since the rest of the leaves then carry no information.
    """
    shape = as_shape(shape)
    root = default_root(shape, cell) if root is None else root
    depth = _log2_ratio(root, cell, "root")
    if max_depth is not None and max_depth < 0:
        raise ValueError(f"max_depth must not be negative; got {max_depth}")
    limit = depth if max_depth is None else min(depth, max_depth)
    layout = Layout.of(shape, root, cell)
    if uniform is not None:
        if budget is not None or threshold is not None or max_depth is not None or balanced:
            raise ValueError("uniform goes with none of budget, threshold, max_depth and balanced")
        level = depth - _log2_ratio(uniform, cell, "uniform")
        if level < 0:
            raise ValueError(f"uniform leaves of {uniform} pixels do not fit a root of {root}; pass root={uniform}")
        split = np.zeros(layout.start[-1], np.uint8)
        split[: layout.start[level]] = 1
        return leaves_of(split, layout)
    if threshold is not None and np.isnan(threshold):
        raise ValueError("threshold must be a number; got NaN")
    if budget is None and threshold is None:
        raise ValueError("say how far to split: budget=, threshold= or uniform=")
    forest = grow(_scores(detail, layout), layout, limit=limit, budget=budget, threshold=threshold)
    return balance(forest) if balanced else forest


def layout_of(shape: tuple[int, ...], root: int, cell: int) -> Layout:
    """Where the nodes of a forest stand; ValueError unless the root is cell times a power of two."""
    _log2_ratio(root, cell, "root")
    return Layout.of(shape, root, cell)


def grow(scores: Array, layout: Layout, *, limit: int, budget: int | None, threshold: float | None) -> Forest:
    """The forest of scores of nodes (``nodes.py``), down to ``limit`` levels; see ``build_forest``."""
    if budget is not None:
        _check_roots(layout, budget)
        split, leaves = _budget_splits(scores, layout, limit, budget, threshold)
        return leaves_of(split, layout, leaves)
    assert threshold is not None
    split = (scores > threshold).astype(np.uint8)
    if limit < layout.depth:
        split[layout.start[limit] :] = 0
    if limit and not layout.level(split, 0).any():
        most = float(layout.level(scores, 0).max())
        warnings.warn(
            f"no root has more detail than {threshold:g} (the most is {most:g}), so nothing is split; "
            "lower threshold=, or set budget= instead",
            UserWarning,
            stacklevel=3,
        )
    return leaves_of(split, layout)


def coarsen(forest: Forest, detail: Array | Sequence[Array], budget: int) -> Forest:
    """The same forest with its least worthy splits undone until at most ``budget`` leaves are left.

    For a threshold tree this equals a higher threshold. ``detail`` as in ``build_forest``, of the same cell.
    """
    allowed, layout = flags_of(forest)
    _check_roots(layout, budget)
    split, _, _ = best_splits(_scores(detail, layout), layout, budget, layout.depth, -1.0, allowed)
    return leaves_of(split, layout)


def balance(forest: Forest) -> Forest:
    """The coarsest refinement of a forest in which leaves that share a face differ by at most one level."""
    split, layout = flags_of(forest)
    for k in range(layout.depth - 1, 0, -1):
        here = layout.level(split, k).astype(bool)
        touched = here.copy()  # a split node needs its face neighbours to exist, so their parents must split
        for axis in range(forest.ndim):
            ahead, behind = [slice(None)] * forest.ndim, [slice(None)] * forest.ndim
            ahead[axis], behind[axis] = slice(1, None), slice(None, -1)
            touched[tuple(ahead)] |= here[tuple(behind)]
            touched[tuple(behind)] |= here[tuple(ahead)]
        for axis in range(forest.ndim):
            touched = np.logical_or.reduceat(touched, np.arange(0, touched.shape[axis], 2), axis=axis)
        layout.level(split, k - 1)[touched] = 1
    return leaves_of(split, layout)


def scaled_budget(policy: ForestPolicy, shape: Sequence[int]) -> int:
    """Leaves for an image of ``shape`` under a policy whose budget is meant for its window: proportional to the pixels.

    Never below the number of roots. Raises ValueError for a policy without a budget.
    """
    if policy.budget is None:
        raise ValueError("this policy sets no budget")
    shape = as_shape(shape)
    root = default_root(shape, policy.cell) if policy.root is None else policy.root
    roots = int(np.prod([-(-s // root) for s in shape]))
    if policy.window is None:
        return max(policy.budget, roots)
    return max(round(policy.budget * float(np.prod(shape)) / policy.window ** len(shape)), roots)


def default_root(shape: Sequence[int], cell: int) -> int:
    """The largest cell times a power of two that is no longer than the shortest side, and at least one cell."""
    if cell < 1:
        raise ValueError(f"cell must be at least 1 pixel; got {cell}")
    side = cell
    while side * 2 <= min(shape):
        side *= 2
    return side


def _log2_ratio(side: int, cell: int, name: str) -> int:
    ratio = side // cell if cell > 0 else 0
    if cell < 1 or ratio < 1 or ratio * cell != side or ratio & (ratio - 1):
        raise ValueError(f"{name} must be cell ({cell}) times a power of two; got {side}")
    return ratio.bit_length() - 1


def _scores(detail: Array | Sequence[Array], layout: Layout) -> Array:
    """Scores of all nodes above the cells, none above its parent's.

    An array is summed up the pyramid; a sequence of arrays (cells first) is taken as it is and capped by the parent.
    """
    given = [detail] if isinstance(detail, np.ndarray) else list(detail)
    depth, shape, cell = layout.depth, layout.shape, layout.cell
    if len(given) not in (1, depth + 1):
        raise ValueError(
            f"a score pyramid for root {layout.root} and cell {cell} has {depth + 1} levels; got {len(given)}"
        )
    for k, level in enumerate(given):
        needed = tuple(-(-s // (cell << k)) for s in shape)
        if level.shape != needed:
            raise ValueError(f"detail for shape {shape} and cell {cell << k} must be {needed}; got {level.shape}")
        if level.dtype.kind != "u" and not (level.min() >= 0 and level.max() < np.inf):  # False for NaN
            raise ValueError("detail must be finite and not negative")
    return summed(given[0], layout) if len(given) == 1 else capped(given, layout)


def _check_roots(layout: Layout, budget: int) -> int:
    roots = int(layout.dims[0].prod())
    if budget < roots:
        raise ValueError(
            f"a budget of {budget} leaves is below the {roots} roots of side {layout.root}; raise it or root="
        )
    return roots


def _budget_splits(
    scores: Array, layout: Layout, limit: int, budget: int, threshold: float | None
) -> tuple[Array, int]:
    roots = _check_roots(layout, budget)
    least = -1.0 if threshold is None else threshold
    split, leaves, informed = best_splits(scores, layout, budget, limit, least, None)
    if threshold is None and leaves > roots and budget > 4 * roots and informed < 0.75 * leaves:
        warnings.warn(
            f"the detail map ran out after {informed} of {leaves} leaves; the rest split flat ground. "
            "Use a smaller budget, or a criterion that sets itself ('edges', 'gradient')",
            FlatGround,
            stacklevel=4,
        )
    return split, leaves
