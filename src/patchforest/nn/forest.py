"""Forests on the device: a batch of detail maps to a batch of forests, leaf for leaf those of ``tree.forest``.

All is done in Z-order, where the 2^n children of every node lie side by side: the pyramid is sums of neighbours, the
order of the leaves is that of their first cells, and a leaf's number is a running count. No loop over leaves or
images; the host waits for the device once, to learn the longest forest of the batch.

Dimension letters: B batch, L leaves, N nodes of all levels but the last, Z cells in Z-order, n spatial axes (2 or 3),
h w cells.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from patchforest.nn.raster import ForestBatch


@torch.no_grad()
def build_forest_batch(
    detail_Bhw: Tensor,
    *,
    shape: Sequence[int],
    cell: int = 8,
    budget: int | None = None,
    threshold: float | None = None,
    root: int | None = None,
    max_depth: int | None = None,
    weights: Sequence[float] | None = None,
    place: Tensor | None = None,
) -> ForestBatch:
    """The forests that tile images of ``shape`` exactly once, small where detail is large; padded to the longest.

    Exactly the leaves of ``tree.forest.build_forest`` for each detail map and the same settings, in the same order,
    and what ``ForestBatch.stack`` makes of them, on the device of ``detail_Bhw``.

    Parameters
    ----------
    detail_Bhw : (B, ceil(H/cell), ceil(W/cell)) or, for volumes, one more axis; non-negative and additive, as from
        ``detail_map_batch``. Summed in float64.
    shape, cell, budget, threshold, root, max_depth : see ``tree.forest.build_forest``.
    weights : of the nodes of every level, roots first, by which their detail is multiplied to be their score: where
        splitting a large leaf helps more than splitting a small one of the same detail. Never growing; default all 1.
    place : (B, 4), see ``ForestBatch``; default: whole images.

    Raises
    ------
    ValueError : no policy, weights of another number or that grow, detail of another shape, negative or not finite, a
        budget below the number of roots, sides that are not cell times a power of two.

    Warns
    -----
    UserWarning : when the detail of an image runs out before its budget does, or a threshold splits nothing of it.
    """
    shape = tuple(int(s) for s in shape)
    if len(shape) not in (2, 3) or min(shape) < 1:
        raise ValueError(f"shape must be 2 or 3 positive sizes, e.g. (H, W); got {shape}")
    root = _default_root(shape, cell) if root is None else root
    depth = _depth(root, cell)
    needed = tuple(-(-s // cell) for s in shape)
    if detail_Bhw.ndim != len(shape) + 1 or tuple(detail_Bhw.shape[1:]) != needed or not len(detail_Bhw):
        wanted = ", ".join(map(str, needed))
        raise ValueError(f"detail for shape {shape} and cell {cell} must be (B, {wanted}); got {(*detail_Bhw.shape,)}")
    _check_policy(budget, threshold, max_depth)
    grid = _grid(shape, cell, root, detail_Bhw.device)
    if budget is not None and budget < grid.roots:
        raise ValueError(
            f"a budget of {budget} leaves is below the {grid.roots} roots of side {root}; raise it or root="
        )
    limit = depth if max_depth is None else min(depth, max_depth)
    scores_BN = _scores(detail_Bhw, grid)
    if weights is not None:
        scores_BN = scores_BN * _level_weights(weights, grid)
    allowed_BN = grid.exists_N & (grid.level_N < limit)
    if threshold is not None:
        allowed_BN = allowed_BN & (scores_BN > threshold)
    split_BN = allowed_BN.expand(scores_BN.shape)
    idle_B = torch.zeros(len(scores_BN), dtype=torch.bool, device=scores_BN.device)
    if budget is not None:
        split_BN, idle_B = _longest_prefix(scores_BN, allowed_BN, grid, budget)
        idle_B = idle_B & (threshold is None and budget > 4 * grid.roots)
    elif limit:
        idle_B = ~split_BN[:, : grid.roots].any(1)
    level_BZ = _levels(split_BN, grid)
    number_BZ = _leaf_numbers(level_BZ, grid)
    broken = ~(torch.isfinite(detail_Bhw) & (detail_Bhw >= 0)).all()
    stats = torch.stack([number_BZ[:, -1].amax(), broken.long(), idle_B.sum()])
    longest, bad, idle = stats.tolist()  # the one place that waits for the device
    if bad:
        raise ValueError("detail must be finite and not negative")
    if idle:
        _warn(idle, len(detail_Bhw), budget, threshold)
    return _leaf_table(level_BZ, number_BZ, grid, longest, shape, root, place)


@dataclass(frozen=True, eq=False)
class _Grid:
    """What depends on the sizes alone: cells of the full grid of roots in Z-order, and the nodes above them.

    Attributes
    ----------
    cell, depth, roots, n : of the forest; ``fan`` = 2^n children a node.
    origin_Zn : corner of every cell in level-0 pixels.
    inside_Z : whether the cell exists.
    from_Z : its place in the flattened detail map; one past the end where it does not exist.
    at_hw : place in Z-order of every cell of the detail map, flattened.
    exists_N, level_N, cost_N : of all nodes above the cells, roots first, Z-order within a level: whether they
        exist, their level, and how many leaves a split adds.
    """

    cell: int
    depth: int
    roots: int
    n: int
    origin_Zn: Tensor
    inside_Z: Tensor
    from_Z: Tensor
    at_hw: Tensor
    exists_N: Tensor
    level_N: Tensor
    cost_N: Tensor

    @property
    def fan(self) -> int:
        return 1 << self.n

    def counts(self) -> list[int]:
        """Nodes of every level above the cells."""
        return [self.roots * self.fan**k for k in range(self.depth)]


@lru_cache(maxsize=8)
@torch.inference_mode(False)
def _grid(shape: tuple[int, ...], cell: int, root: int, device: torch.device) -> _Grid:
    n, depth = len(shape), _depth(root, cell)
    roots = [torch.arange(-(-s // root), device=device) for s in shape]
    roots_Rn = torch.stack(torch.meshgrid(roots, indexing="ij"), -1).reshape(-1, n)
    roots_Rn = roots_Rn[torch.argsort(_morton(roots_Rn))]
    corners = torch.cartesian_prod(*[torch.arange(2, device=device)] * n)
    inner = torch.zeros((1, n), dtype=torch.int64, device=device)
    for bit in range(depth):
        inner = ((corners << bit)[:, None] + inner).flatten(0, 1)
    cells_Zn = ((roots_Rn << depth)[:, None] + inner).flatten(0, 1)
    origin_Zn = cells_Zn * cell
    inside_Z = (origin_Zn < torch.tensor(shape, device=device)).all(1)
    flat = torch.zeros_like(inside_Z, dtype=torch.int64)
    width = 1
    for axis in reversed(range(n)):
        flat += cells_Zn[:, axis] * width
        width *= -(-shape[axis] // cell)
    from_Z = flat.masked_fill(~inside_Z, width)
    at_hw = torch.empty(width + 1, dtype=torch.int64, device=device)
    at_hw[from_Z] = torch.arange(len(from_Z), device=device)
    exists, level, cost = [], [], []
    for k in range(depth):
        below = inside_Z[:: (1 << n) ** (depth - k - 1)]  # a node exists where its first cell does
        exists.append(below[:: 1 << n])
        level.append(torch.full_like(exists[-1], k, dtype=torch.int64))
        cost.append(below.view(-1, 1 << n).sum(1) - 1)
    none = torch.zeros(0, dtype=torch.int64, device=device)
    return _Grid(
        cell=cell,
        depth=depth,
        roots=len(roots_Rn),
        n=n,
        origin_Zn=origin_Zn,
        inside_Z=inside_Z,
        from_Z=from_Z,
        at_hw=at_hw[:-1],
        exists_N=torch.cat([none.bool(), *exists]),
        level_N=torch.cat([none, *level]),
        cost_N=torch.cat([none, *cost]),
    )


def _morton(coords: Tensor) -> Tensor:
    """Z-order keys of coordinates (..., n), the first axis above the last, as ``tree.order.morton``."""
    n = coords.shape[-1]
    key = torch.zeros_like(coords[..., 0])
    for bit in range(63 // n):
        for axis in range(n):
            key |= ((coords[..., axis] >> bit) & 1) << (bit * n + n - 1 - axis)
    return key


def _scores(detail_Bhw: Tensor, grid: _Grid) -> Tensor:
    """(B, N) float64 sums of the detail in every node above the cells, roots first.

    Children are added axis by axis, the first axis first, as ``tree.forest`` adds them: float sums depend on it.
    """
    flat = torch.nn.functional.pad(detail_Bhw.flatten(1).double(), (0, 1))
    level = flat.index_select(1, grid.from_Z)
    levels = [level[:, :0]]
    for _ in range(grid.depth):
        level = level.unflatten(1, (-1, *[2] * grid.n))
        for _ in range(grid.n):
            level = level[:, :, 0] + level[:, :, 1]
        levels.append(level)
    return torch.cat(levels[::-1], 1)


def _level_weights(weights: Sequence[float], grid: _Grid) -> Tensor:
    """(N,) float64 of every node above the cells; ValueError where they would let a node outscore its parent."""
    given = [float(w) for w in weights]
    if len(given) != grid.depth or min(given, default=0.0) < 0 or sorted(given, reverse=True) != given:
        raise ValueError(f"weights must be {grid.depth} numbers from 0 on, none above the one before; got {given}")
    return torch.tensor(given, dtype=torch.float64, device=grid.level_N.device)[grid.level_N]


def _longest_prefix(scores_BN: Tensor, allowed_BN: Tensor, grid: _Grid, budget: int) -> tuple[Tensor, Tensor]:
    """Nodes split within the budget (score down, coarser first, Z-order), and where over a quarter split flat ground.

    The nodes stand in the order that breaks ties, so a stable sort of the scores is the whole order.
    """
    key_BN = scores_BN.masked_fill(~allowed_BN, -1.0)
    sorted_BN, order_BN = torch.sort(key_BN, dim=1, descending=True, stable=True)
    cost_BN = grid.cost_N[order_BN]
    fits_BN = (grid.roots + cost_BN.cumsum(1) <= budget) & (sorted_BN >= 0)  # costs are not negative: a prefix
    split_BN = torch.zeros_like(fits_BN).scatter_(1, order_BN, fits_BN)
    leaves_B = grid.roots + (cost_BN * fits_BN).sum(1)
    informed_B = grid.roots + (cost_BN * (fits_BN & (sorted_BN > 0))).sum(1)
    return split_BN, (informed_B < 0.75 * leaves_B) & split_BN.any(1)


def _levels(split_BN: Tensor, grid: _Grid) -> Tensor:
    """(B, Z) level of the leaf over every cell: the number of its ancestors that are split."""
    level = torch.zeros((len(split_BN), grid.roots), dtype=torch.int64, device=split_BN.device)
    for split in split_BN.split(grid.counts(), 1) if grid.depth else ():
        level = (level + split).repeat_interleave(grid.fan, 1)
    return level


def _leaf_numbers(level_BZ: Tensor, grid: _Grid) -> Tensor:
    """(B, Z) number of leaves that begin at or before every cell of the Z-order."""
    steps = torch.arange(grid.depth, -1, -1, device=level_BZ.device)
    cells_BZ = (1 << (steps * grid.n))[level_BZ]  # of the leaf over every cell
    place = torch.arange(level_BZ.shape[1], device=level_BZ.device)
    return (((place & (cells_BZ - 1)) == 0) & grid.inside_Z).cumsum(1)


def _leaf_table(
    level_BZ: Tensor,
    number_BZ: Tensor,
    grid: _Grid,
    longest: int,
    shape: tuple[int, ...],
    root: int,
    place: Tensor | None,
) -> ForestBatch:
    batch, device = len(level_BZ), level_BZ.device
    wanted = torch.arange(1, longest + 1, device=device).expand(batch, longest).contiguous()
    valid_BL = wanted <= number_BZ[:, -1:]
    first_BL = torch.searchsorted(number_BZ, wanted).clamp(max=number_BZ.shape[1] - 1)  # the leaf's first cell
    size_BL = (root >> level_BZ.gather(1, first_BL)).masked_fill(~valid_BL, grid.cell)
    if place is None:
        place = torch.zeros(batch, 4, device=device)
        place[:, 2], place[:, 3] = shape[-2], shape[-1]
    return ForestBatch(
        origin_BLn=grid.origin_Zn[first_BL] * valid_BL[..., None],
        size_BL=size_BL,
        valid_BL=valid_BL,
        index=(number_BZ - 1).index_select(1, grid.at_hw).unflatten(1, [-(-s // grid.cell) for s in shape]),
        place_B4=place.to(device=device, dtype=torch.float32),
        shape=shape,
        root=root,
        cell=grid.cell,
    )


def _check_policy(budget: int | None, threshold: float | None, max_depth: int | None) -> None:
    if max_depth is not None and max_depth < 0:
        raise ValueError(f"max_depth must not be negative; got {max_depth}")
    if threshold is not None and math.isnan(threshold):
        raise ValueError("threshold must be a number; got NaN")
    if budget is None and threshold is None:
        raise ValueError("say how far to split: budget= or threshold=")


def _default_root(shape: tuple[int, ...], cell: int) -> int:
    """The largest cell times a power of two that is no longer than the shortest side, and at least one cell."""
    if cell < 1:
        raise ValueError(f"cell must be at least 1 pixel; got {cell}")
    return cell << max((min(shape) // cell).bit_length() - 1, 0)


def _depth(root: int, cell: int) -> int:
    ratio = root // cell if cell > 0 else 0
    if cell < 1 or ratio < 1 or ratio * cell != root or ratio & (ratio - 1):
        raise ValueError(f"root must be cell ({cell}) times a power of two; got {root}")
    return ratio.bit_length() - 1


def _warn(idle: int, batch: int, budget: int | None, threshold: float | None) -> None:
    if budget is None:
        what = f"no root has more detail than {threshold:g}, so nothing is split; lower threshold=, or set budget="
    else:
        what = (
            "the detail map ran out before the budget, the rest of the leaves split flat ground; use "
            "criterion='edges' or 'gradient', which set themselves, or a smaller budget"
        )
    warnings.warn(f"in {idle} of {batch} images {what}", UserWarning, stacklevel=4)
