"""Forests from detail: uniform, threshold (APF) or an exact budget of leaves (SHF), in 2-D and 3-D by one code path.

If scores never grow from a parent to its children, repeatedly splitting the best leaf K times splits exactly the K
best nodes of the score pyramid. So every policy is a choice of *split* nodes, one boolean array a level, and nothing
is ever built leaf by leaf.

A grid of nodes is indexed by level: level 0 are the roots, each next level has twice as many nodes an axis. Nodes
wholly outside the image do not exist.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np

from patchforest.tree.order import morton
from patchforest.values import Array, Forest, ForestPolicy, as_shape


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
    grids = _grids(shape, root, depth)
    if uniform is not None:
        if budget is not None or threshold is not None or max_depth is not None or balanced:
            raise ValueError("uniform goes with none of budget, threshold, max_depth and balanced")
        level = depth - _log2_ratio(uniform, cell, "uniform")
        if level < 0:
            raise ValueError(f"uniform leaves of {uniform} pixels do not fit a root of {root}; pass root={uniform}")
        splits = [np.full(g, k < level) for k, g in enumerate(grids[:-1])]
        return _from_splits(splits, shape, root, cell)
    if threshold is not None and np.isnan(threshold):
        raise ValueError("threshold must be a number; got NaN")
    if budget is None and threshold is None:
        raise ValueError("say how far to split: budget=, threshold= or uniform=")
    scores = score_pyramid(detail, shape=shape, cell=cell, root=root)
    if budget is not None:
        splits = _budget_splits(scores, grids, shape, root, limit, budget, threshold)
    else:
        splits = [(s > threshold) & (k < limit) for k, s in enumerate(scores[:-1])]
        if limit and not splits[0].any():
            warnings.warn(
                f"no root has more detail than {threshold:g} (the most is {scores[0].max():g}), so nothing is split; "
                "lower threshold=, or set budget= instead",
                UserWarning,
                stacklevel=2,
            )
    forest = _from_splits(splits, shape, root, cell)
    return balance(forest) if balanced else forest


def coarsen(forest: Forest, detail: Array | Sequence[Array], budget: int) -> Forest:
    """The same forest with its least worthy splits undone until at most ``budget`` leaves are left.

    For a threshold tree this equals a higher threshold. ``detail`` as in ``build_forest``, of the same cell.
    """
    grids = _grids(forest.shape, forest.root, forest.depth)
    scores = score_pyramid(detail, shape=forest.shape, cell=forest.cell, root=forest.root)
    allowed = split_nodes(forest)
    splits = _prefix(scores, grids, forest.shape, forest.root, allowed, budget, warn=False)
    return _from_splits(splits, forest.shape, forest.root, forest.cell)


def balance(forest: Forest) -> Forest:
    """The coarsest refinement of a forest in which leaves that share a face differ by at most one level."""
    splits = split_nodes(forest)
    for k in range(len(splits) - 1, 0, -1):
        touched = splits[k].copy()  # a split node needs its face neighbours to exist, so their parents must split
        for axis in range(forest.ndim):
            ahead, behind = [slice(None)] * forest.ndim, [slice(None)] * forest.ndim
            ahead[axis], behind[axis] = slice(1, None), slice(None, -1)
            touched[tuple(ahead)] |= splits[k][tuple(behind)]
            touched[tuple(behind)] |= splits[k][tuple(ahead)]
        splits[k - 1] |= _block_reduce(touched, np.logical_or)
    return _from_splits(splits, forest.shape, forest.root, forest.cell)


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


def score_pyramid(detail: Array | Sequence[Array], *, shape: tuple[int, ...], cell: int, root: int) -> list[Array]:
    """Scores of every node, roots first and cells last, monotone: no node above its parent. Float64, full grids.

    An array is summed up the pyramid; a sequence of arrays (cells first) is taken as it is and capped by the parent.
    """
    depth = _log2_ratio(root, cell, "root")
    grids = _grids(shape, root, depth)
    given = [detail] if isinstance(detail, np.ndarray) else list(detail)
    if len(given) not in (1, depth + 1):
        raise ValueError(f"a score pyramid for root {root} and cell {cell} has {depth + 1} levels; got {len(given)}")
    padded = []
    for k, (level, grid) in enumerate(zip(given, reversed(grids))):
        needed = tuple(-(-s // (cell << k)) for s in shape)
        if level.shape != needed:
            raise ValueError(f"detail for shape {shape} and cell {cell << k} must be {needed}; got {level.shape}")
        if not np.isfinite(level).all() or level.min() < 0:
            raise ValueError("detail must be finite and not negative")
        full = np.zeros(grid)
        full[tuple(slice(0, s) for s in level.shape)] = level
        padded.append(full)
    if len(padded) == 1:
        for _ in range(depth):
            padded.append(_block_reduce(padded[-1], np.add))
        return padded[::-1]
    scores = padded[::-1]
    for k in range(1, len(scores)):
        scores[k] = np.minimum(scores[k], _double(scores[k - 1]))
    return scores


def split_nodes(forest: Forest) -> list[Array]:
    """Which nodes of a forest are split: one boolean array over the full grid of every level above the cells."""
    splits = [np.zeros(g, bool) for g in _grids(forest.shape, forest.root, forest.depth)[:-1]]
    for k, split in enumerate(splits):
        below = forest.level > k
        split[tuple((forest.origin[below] // (forest.root >> k)).T)] = True
    return splits


def _log2_ratio(side: int, cell: int, name: str) -> int:
    ratio = side // cell if cell > 0 else 0
    if cell < 1 or ratio < 1 or ratio * cell != side or ratio & (ratio - 1):
        raise ValueError(f"{name} must be cell ({cell}) times a power of two; got {side}")
    return ratio.bit_length() - 1


def _grids(shape: tuple[int, ...], root: int, depth: int) -> list[tuple[int, ...]]:
    roots = [-(-s // root) for s in shape]
    return [tuple(r << k for r in roots) for k in range(depth + 1)]


def _exists(shape: tuple[int, ...], side: int, grid: tuple[int, ...]) -> Array:
    """Boolean grid: nodes of one side that overlap the image."""
    out = np.zeros(grid, bool)
    out[tuple(slice(0, -(-s // side)) for s in shape)] = True
    return out


def _block_reduce(values: Array, how: np.ufunc) -> Array:
    for axis in range(values.ndim):
        even, odd = [slice(None)] * values.ndim, [slice(None)] * values.ndim
        even[axis], odd[axis] = slice(0, None, 2), slice(1, None, 2)
        values = how(values[tuple(even)], values[tuple(odd)])
    return values


def _double(values: Array) -> Array:
    for axis in range(values.ndim):
        values = np.repeat(values, 2, axis=axis)
    return values


def _budget_splits(
    scores: list[Array],
    grids: list[tuple[int, ...]],
    shape: tuple[int, ...],
    root: int,
    limit: int,
    budget: int,
    threshold: float | None,
) -> list[Array]:
    allowed = [
        _exists(shape, root >> k, g) & (k < limit) & (True if threshold is None else scores[k] > threshold)
        for k, g in enumerate(grids[:-1])
    ]
    return _prefix(scores, grids, shape, root, allowed, budget, warn=threshold is None)


def _prefix(
    scores: list[Array],
    grids: list[tuple[int, ...]],
    shape: tuple[int, ...],
    root: int,
    allowed: list[Array],
    budget: int,
    *,
    warn: bool,
) -> list[Array]:
    """The longest prefix of the allowed nodes (score down, coarser first, Z-order) whose leaves fit the budget."""
    roots = int(np.prod(grids[0]))
    if budget < roots:
        raise ValueError(f"a budget of {budget} leaves is below the {roots} roots of side {root}; raise it or root=")
    splits = [np.zeros(g, bool) for g in grids[:-1]]
    places = [np.argwhere(a) for a in allowed]
    count = [len(p) for p in places]
    if not sum(count):
        return splits
    level = np.repeat(np.arange(len(places)), count)
    score = np.concatenate([s[a] for s, a in zip(scores, allowed)])
    cost = np.concatenate(
        [
            _block_reduce(_exists(shape, root >> (k + 1), grids[k + 1]).astype(np.int64), np.add)[a] - 1
            for k, a in enumerate(allowed)
        ]
    )
    key = np.concatenate([morton(p) for p in places])
    order = np.lexsort((key, level, -score))
    fits = roots + np.cumsum(cost[order]) <= budget
    chosen = order[: len(order) if fits.all() else int(np.argmin(fits))]
    if warn and len(chosen) and budget > 4 * roots:
        _warn_if_detail_ran_out(score[chosen], cost[chosen], roots)
    at = np.concatenate([np.zeros(1, np.int64), np.cumsum(count)])
    for k, split in enumerate(splits):
        mine = chosen[level[chosen] == k] - at[k]
        split[tuple(places[k][mine].T)] = True
    return splits


def _warn_if_detail_ran_out(score: Array, cost: Array, roots: int) -> None:
    leaves, informed = roots + int(cost.sum()), roots + int(cost[score > 0].sum())
    if informed < 0.75 * leaves:
        warnings.warn(
            f"the detail map ran out after {informed} of {leaves} leaves; the rest split flat ground. "
            "Use criterion='edges' or 'gradient', which set themselves, or a smaller budget",
            UserWarning,
            stacklevel=5,
        )


def _from_splits(splits: list[Array], shape: tuple[int, ...], root: int, cell: int) -> Forest:
    """Leaves of the given split nodes, in Z-order; splits of nodes that do not exist are ignored."""
    n = len(shape)
    depth = len(splits)
    exist = _exists(shape, root, tuple(-(-s // root) for s in shape))
    origins, levels = [], []
    for k in range(depth + 1):
        side = root >> k
        split = exist & splits[k] if k < depth else np.zeros_like(exist)
        at = np.argwhere(exist & ~split)
        origins.append(at * side)
        levels.append(np.full(len(at), k, np.int64))
        if k < depth:
            below = _double(split)
            exist = below & _exists(shape, side // 2, below.shape)
    origin, level = np.concatenate(origins).reshape(-1, n).astype(np.int64), np.concatenate(levels)
    order = np.argsort(morton(origin // cell))
    level = level[order]
    return Forest(origin=origin[order], size=root >> level, level=level, shape=shape, root=root, cell=cell)
