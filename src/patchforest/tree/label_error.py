"""Where leaves are worth most to a mask: the pixels that a leaf would get wrong, and the scores that follow.

A leaf of side s that answers on q × q values paints blocks of side s / q, and gets the smaller share of every block
wrong. Splitting it halves the blocks. The forest of L leaves with the fewest wrong pixels is that of the best *rates*:
of every node, the most pixels that a tree below it puts right for each leaf that it adds. Edges, or cells that hold an
outline, say where a mask is not constant, but not how much smaller leaves would help it there.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from patchforest.tree.forest import default_root
from patchforest.values import Array

FEW = 0.25
"""What a split counts as that adds no leaf, for all but one of the children lie outside the image."""


def label_scores(label: Array, *, cell: int = 8, root: int | None = None, q: int = 16) -> list[Array]:
    """Scores by which ``build_forest`` gives a known mask its best forest: the oracle that other trees are held to.

    ``split_scores`` of ``label_errors``; for the parameters see there.
    """
    return split_scores(label_errors(label, cell=cell, root=root, q=q))


def label_errors(label: Array, *, cell: int = 8, root: int | None = None, q: int = 16) -> list[Array]:
    """What every node would get wrong of a mask as a leaf of q × q answers, cells first and roots last.

    Of every foreground class the wrong pixels as a share of the class, summed over the classes present: to first
    order what ``label_ceiling`` loses. Each entry is float32 and covers the image in nodes of side cell, 2 cell, ...

    Parameters
    ----------
    label : (H, W) class numbers, 0 is background; negative pixels are ignored.
    cell, root : sides of the smallest and largest leaves, as in ``build_forest``.
    q : output side per leaf; leaves of side ≤ q get nothing wrong.

    Raises ValueError for a label that is no (H, W), sides that are not cell times a power of two, or a q that is no
    cell times or by a power of two.
    """
    if label.ndim != 2 or min(label.shape) < 1:
        raise ValueError(f"label must be (H, W); got {label.shape}")
    sides = node_sides(label.shape, cell, root, q)
    known = label >= 0
    present = np.flatnonzero(np.bincount(label[known & (label > 0)].ravel()))
    total = [np.zeros(_grid(label.shape, side), np.float32) for side in sides]
    for k in present:
        held = label == k
        wrong = _wrong(held.view(np.uint8), known.view(np.uint8), sides, q)
        for out, pixels in zip(total, wrong):
            out += (pixels / held.sum()).astype(np.float32)
    return total


def split_scores(errors: Sequence[Array]) -> list[Array]:
    """Best rates of every node: scores for ``build_forest``, cells (which cannot be split, 0) first and roots last.

    The rate of a tree below a node is what it puts right for every leaf that it adds; a node scores that of its best
    tree. Splitting by them, capped by the parent's, gives the least error of all forests of so many leaves wherever
    that lies on the convex hull of what is possible, and nearly so between (generalised pruning, as of Chou, Lookabaugh
    and Gray 1989, upside down; but of a child's trees only the best one is weighed).

    Parameters
    ----------
    errors : of every node as a leaf, cells first and roots last, as from ``label_errors``; expected ones will do.
    """
    right, added = np.zeros(errors[0].shape), np.zeros(errors[0].shape)  # by the best tree below every node
    out = [np.zeros(errors[0].shape, np.float32)]
    for finer, own in itertools.pairwise(errors):
        rights, addeds = _children(right), _children(added)
        order = np.argsort(-rights / np.maximum(addeds, FEW), axis=0, kind="stable")
        rights, addeds = (np.take_along_axis(v, order, 0) for v in (rights, addeds))
        alone = np.maximum(own - _children(finer).sum(0), 0.0)[None]
        born = _children(np.ones(finer.shape)).sum(0)[None] - 1.0
        rights = np.concatenate([alone, alone + np.cumsum(rights, 0)])
        addeds = np.concatenate([born, born + np.cumsum(addeds, 0)])
        best = np.argmax(rights / np.maximum(addeds, FEW), axis=0)[None]
        right, added = (np.take_along_axis(v, best, 0)[0] for v in (rights, addeds))
        out.append((right / np.maximum(added, FEW)).astype(np.float32))
    return out


def node_sides(shape: Sequence[int], cell: int, root: int | None, q: int) -> list[int]:
    """Sides of nodes from cell to root; ValueError where root or q do not fit the cell."""
    root = default_root(shape, cell) if root is None else root
    require_power_apart("q", q, cell)
    if root < cell:
        raise ValueError(f"root must be cell ({cell}) times a power of two; got {root}")
    require_power_apart("root", root, cell)
    return [cell << k for k in range((root // cell).bit_length())]


def require_power_apart(name: str, side: int, cell: int) -> None:
    """ValueError unless a side is cell times or by a power of two."""
    small, big = sorted((side, cell))
    ratio = big // small if small > 0 else 0
    if ratio < 1 or ratio * small != big or ratio & (ratio - 1):
        raise ValueError(f"{name} must be cell ({cell}) times or by a power of two; got {side}")


def _grid(shape: Sequence[int], side: int) -> tuple[int, int]:
    return -(-shape[0] // side), -(-shape[1] // side)


def _wrong(held: Array, known: Array, sides: Sequence[int], q: int) -> list[Array]:
    """Pixels of the smaller share of every block, summed over the blocks of every node."""
    block, out = 1, []
    for side in sides:
        while block * q < side:
            held, known = sums(held, 2), sums(known, 2)
            block *= 2
        if side <= q:
            out.append(np.zeros(_grid(held.shape, side // block), np.int64))
        else:
            out.append(sums(np.minimum(held, known - held), q))
    return out


def sums(values: Array, side: int) -> Array:
    """Sums (..., ⌈h / side⌉, ⌈w / side⌉) over squares of values, fewer at the far edges; ``side`` a power of two."""
    values = values.astype(np.int32) if values.dtype.kind in "bu" and side > 1 else values
    while side > 1:
        rows, columns = values.shape[-2:]
        if rows % 2 or columns % 2:
            values = np.pad(values, [(0, 0)] * (values.ndim - 2) + [(0, rows % 2), (0, columns % 2)])
        values = values[..., 0::2, :] + values[..., 1::2, :]
        values = values[..., 0::2] + values[..., 1::2]
        side //= 2
    return values


def _children(values: Array) -> Array:
    """(4, h, w): the values of every node's children, 0 where there is none."""
    rows, columns = values.shape
    whole = np.pad(values, ((0, rows % 2), (0, columns % 2)))
    return np.stack([whole[r::2, c::2] for r in range(2) for c in range(2)])
