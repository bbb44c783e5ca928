"""All nodes of a forest in one flat array, level by level: their scores, which are split, and the leaves that gives.

Nodes wholly outside the image have no entry. Images of two axes are volumes of one plane here, and never split along
it, so that one set of kernels serves both. The kernels touch the nodes they need: scores are summed in one pass over
the cells, and splitting visits as many nodes as the forest has.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from patchforest.tree.kernel import kernel
from patchforest.tree.order import morton
from patchforest.values import Array, Forest


@dataclass(frozen=True)
class Layout:
    """Where the nodes of every level stand in a flat array.

    Attributes
    ----------
    dims : (depth + 1, 3) int64, planes, rows and columns of nodes of each level, roots first, cells last.
    start : (depth + 1,) int64, entry of each level's first node; the cells, which cannot be split, begin at the end.
    last : the last level that has an entry for every node. Below it only the nodes in some blocks, the nodes of that
        level, have entries: block after block, level by level; ``slots`` says which (-1: none).
    """

    shape: tuple[int, ...]
    root: int
    cell: int
    dims: Array
    start: Array
    last: int
    slots: Array = field(default_factory=lambda: np.zeros((0, 0), np.int32))

    @classmethod
    def of(cls, shape: tuple[int, ...], root: int, cell: int) -> Layout:
        """For an image of ``shape``; the root is cell times a power of two."""
        depth = (root // cell).bit_length() - 1
        sides = [root >> k for k in range(depth + 1)]
        dims = [[1] * (3 - len(shape)) + [-(-s // side) for s in shape] for side in sides]
        count = np.prod(dims, axis=1)
        return cls(shape, root, cell, np.array(dims, np.int64), np.cumsum(count) - count, depth)

    @property
    def depth(self) -> int:
        """Number of splits from a root to a cell."""
        return len(self.start) - 1

    @property
    def flat(self) -> bool:
        """Whether there is one plane, which is never split."""
        return len(self.shape) == 2

    @property
    def table(self) -> tuple[Array, Array, int, Array, bool]:
        """What the kernels need to know."""
        return self.dims, self.start, self.last, self.slots, self.flat

    def level(self, values: Array, k: int) -> Array:
        """The entries of one level, as a view of as many axes as the image."""
        grid = tuple(self.dims[k, 3 - len(self.shape) :])
        return values[self.start[k] : self.start[k] + int(self.dims[k].prod())].reshape(grid)

    def sparse(self, side: int, sums: Array, blocks: Mapping[int, Array]) -> tuple[Array, Layout]:
        """Scores and layout where only the cells of some blocks of ``side`` x ``side`` cells are known (2-D).

        ``sums`` is the score of every block, ``blocks`` the cells (side, side) of those that may be split, by number.
        """
        last = self.depth - (side.bit_length() - 1)
        slots = np.full(sums.shape, -1, np.int32)
        numbers = np.array(sorted(blocks), np.int64)
        slots.ravel()[numbers] = np.arange(len(numbers))
        dense = int(self.start[last] + self.dims[last].prod())
        inside = sum(4**s for s in range(1, self.depth - last))
        exact = sums.dtype.kind != "f" and int(sums.sum()) < 2**32
        scores = np.zeros(dense + inside * len(numbers), np.uint32 if exact else sums.dtype)
        below: Array = self.level(scores, last)
        below[:] = sums
        for k in range(last - 1, -1, -1):
            here = self.level(scores, k)[None]
            sum_children(below.reshape(1, *below.shape[-2:]), here, True)
            below = here
        held = scores[dense:].reshape(len(numbers), inside)
        for at in range(0, len(numbers), 256):
            below, end = np.stack([blocks[int(n)] for n in numbers[at : at + 256]]), inside
            while below.shape[1] > 2:
                here = np.empty((len(below), below.shape[1] // 2, below.shape[2] // 2), scores.dtype)
                sum_children(below, here, True)
                below, first = here, end - here[0].size
                held[at : at + 256, first:end] = here.reshape(len(here), -1)
                end = first
        return scores, replace(self, last=last, slots=slots)

    @property
    def count(self) -> int:
        """Number of entries."""
        if self.last == self.depth:
            return int(self.start[-1])
        inside = sum(4**s for s in range(1, self.depth - self.last))
        return int(self.start[self.last] + self.dims[self.last].prod() + inside * int((self.slots >= 0).sum()))


def summed(detail: Array, layout: Layout) -> Array:
    """Scores of every node above the cells: sums of the cells below, float64, or integers where detail is unsigned."""
    largest = float(detail.max()) * detail.size if detail.dtype.kind == "u" else np.inf
    dtype = np.uint32 if largest < 2**32 else np.uint64 if largest < 2**53 else np.float64
    scores = np.empty(layout.start[-1], dtype)
    below: Array = np.ascontiguousarray(detail).reshape(layout.dims[-1])
    for k in range(layout.depth - 1, -1, -1):
        here = layout.level(scores, k).reshape(layout.dims[k])
        sum_children(below, here, layout.flat)
        below = here
    return scores


def capped(given: list[Array], layout: Layout) -> Array:
    """Scores of every node above the cells from a pyramid, cells first, none above its parent's."""
    scores = np.empty(layout.start[-1])
    for k in range(layout.depth):
        here = layout.level(scores, k)
        here[:] = given[layout.depth - k]
        if k:
            parent = layout.level(scores, k - 1)
            for axis in range(here.ndim):
                parent = np.repeat(parent, 2, axis=axis)
            np.minimum(here, parent[tuple(slice(0, s) for s in here.shape)], out=here)
    return scores


def best_splits(
    scores: Array, layout: Layout, budget: int, limit: int, threshold: float, allowed: Array | None
) -> tuple[Array, int, int]:
    """The nodes to split for at most ``budget`` leaves: best score first, coarser first, then in Z-order.

    Only nodes above ``limit`` levels, with a score above ``threshold`` and, where given, among ``allowed`` are split.
    Returns a uint8 flag a node, the number of leaves, and how many there would be without splits of score zero.
    """
    split = np.zeros(len(scores), np.uint8)
    _, keys = _roots(layout)
    usable = np.zeros(0, np.uint8) if allowed is None else allowed
    leaves, informed = _best_first(scores, layout.table, keys, budget, limit, threshold, usable, split)
    return split, int(leaves), int(informed)


def leaves_of(split: Array, layout: Layout, count: int | None = None) -> Forest:
    """The forest whose split nodes have a flag above 0; flags below a node that is not split do not matter.

    ``count`` is the number of leaves, where it is known.
    """
    places, keys = _roots(layout)
    if len(places) > 1:
        places = np.ascontiguousarray(places[np.argsort(keys)])
    if count is None:
        count = _walk(split, layout.table, places, np.empty((0, 3), np.int64), np.empty(0, np.int64))
    origin, level = np.empty((count, 3), np.int64), np.empty(count, np.int64)
    _walk(split, layout.table, places, origin, level)
    n = len(layout.shape)
    size = layout.root >> level
    origin *= size[:, None]
    return Forest(
        origin=np.ascontiguousarray(origin[:, 3 - n :]),
        size=size,
        level=level,
        shape=layout.shape,
        root=layout.root,
        cell=layout.cell,
    )


def flags_of(forest: Forest) -> tuple[Array, Layout]:
    """Which nodes of a forest are split, uint8, and their layout: the inverse of ``leaves_of``."""
    layout = Layout.of(forest.shape, forest.root, forest.cell)
    split = np.zeros(layout.start[-1], np.uint8)
    for k in range(layout.depth):
        below = forest.level > k
        layout.level(split, k)[tuple((forest.origin[below] // (forest.root >> k)).T)] = 1
    return split, layout


def _roots(layout: Layout) -> tuple[Array, Array]:
    """(R, 3) int64, grid coordinates of the roots, row by row, and their Z-order keys."""
    if layout.dims[0].max() == 1:
        return np.zeros((1, 3), np.int64), np.zeros(1, np.uint64)
    places = np.ascontiguousarray(np.moveaxis(np.indices(layout.dims[0]), 0, -1).reshape(-1, 3).astype(np.int64))
    return places, morton(places)


@kernel
def sum_children(below, here, flat):  # type: ignore[no-untyped-def]
    """Add up pairs along the first axis, then pairs of those along the next: the order decides the last bits."""
    zero = here.dtype.type(0)
    planes, rows, columns = below.shape
    step = 1 if flat else 2
    for p in range(here.shape[0]):
        for r in range(here.shape[1]):
            for c in range(here.shape[2]):
                total = zero
                for dc in range(2):
                    part = zero
                    for dr in range(2):
                        row, column = 2 * r + dr, 2 * c + dc
                        if row < rows and column < columns:
                            near = here.dtype.type(below[step * p, row, column])
                            if not flat and 2 * p + 1 < planes:
                                near += here.dtype.type(below[2 * p + 1, row, column])
                            part += near
                    total += part
                here[p, r, c] = total


@kernel
def _before(score, level, key, one, other):  # type: ignore[no-untyped-def]
    """Whether one entry of the heap is split before another."""
    if score[one] != score[other]:
        return score[one] > score[other]
    if level[one] != level[other]:
        return level[one] < level[other]
    return key[one] < key[other]


@kernel
def _sift(heap, count, score, level, key):  # type: ignore[no-untyped-def]
    """Let the top of the heap sink to its place."""
    at = 0
    while True:
        child = 2 * at + 1
        if child >= count:
            return
        if child + 1 < count and _before(score, level, key, heap[child + 1], heap[child]):
            child += 1
        if not _before(score, level, key, heap[child], heap[at]):
            return
        heap[at], heap[child] = heap[child], heap[at]
        at = child


@kernel
def _rise(heap, at, score, level, key):  # type: ignore[no-untyped-def]
    """Let an entry of the heap rise to its place."""
    while at > 0:
        parent = (at - 1) // 2
        if not _before(score, level, key, heap[at], heap[parent]):
            return
        heap[at], heap[parent] = heap[parent], heap[at]
        at = parent


@kernel
def _longer(values):  # type: ignore[no-untyped-def]
    out = np.empty(2 * len(values), values.dtype)
    out[: len(values)] = values
    return out


@kernel
def _entry(dims, start, last, slots, level, plane, row, column):  # type: ignore[no-untyped-def]
    """Where a node stands in the flat array; -1 where nothing is known of it, and it is never split."""
    if level <= last:
        return start[level] + (plane * dims[level, 1] + row) * dims[level, 2] + column
    s = level - last
    slot = slots[row >> s, column >> s]
    if slot < 0:
        return np.int64(-1)
    inside = ((np.int64(1) << (2 * (len(start) - 1 - last))) - 4) // 3  # 4 + 16 + ... of the levels in a block
    first = start[last] + dims[last, 0] * dims[last, 1] * dims[last, 2] + slot * inside
    mask = (1 << s) - 1
    return first + ((np.int64(1) << (2 * s)) - 4) // 3 + ((row & mask) << s) + (column & mask)


@kernel
def _best_first(scores, table, keys, budget, limit, threshold, allowed, split):  # type: ignore[no-untyped-def]
    """Split the best node again and again; returns leaves, and leaves without the splits of score zero."""
    dims, start, last, slots, flat = table
    roots = len(keys)
    room = max(roots, 64)
    score, key = np.empty(room), np.empty(room, np.uint64)
    level, place, heap = np.empty(room, np.int64), np.empty(room, np.int64), np.empty(room, np.int64)
    free = np.empty(room, np.int64)  # entries that may be used again
    used, count, spare = 0, 0, 0
    for root in range(roots if limit > 0 else 0):
        if scores[root] > threshold and (len(allowed) == 0 or allowed[root]):
            score[used], key[used], level[used], place[used] = scores[root], keys[root], 0, root
            heap[count] = used
            _rise(heap, count, score, level, key)
            used += 1
            count += 1
    leaves, informed = roots, roots
    planes = 1 if flat else 2
    while count:
        top = heap[0]
        at, node = level[top], place[top]
        rows, columns = dims[at, 1], dims[at, 2]
        p, r, c = node // (rows * columns), node // columns % rows, node % columns
        q = p if flat else 2 * p
        high, wide, deep = dims[at + 1, 1], dims[at + 1, 2], dims[at + 1, 0]
        born = min(high - 2 * r, 2) * min(wide - 2 * c, 2) * (1 if flat else min(deep - q, 2))
        if leaves + born - 1 > budget:
            break
        leaves += born - 1
        if score[top] > 0:
            informed += born - 1
        split[_entry(dims, start, last, slots, at, p, r, c)] = 1
        count -= 1
        heap[0] = heap[count]
        _sift(heap, count, score, level, key)
        own, own_key = score[top], key[top]
        free[spare] = top
        spare += 1
        if at + 1 >= limit or at + 2 >= len(start):
            continue
        for child in range(4 * planes):
            dp, dr, dc = child // 4, child // 2 % 2, child % 2
            if q + dp >= deep or 2 * r + dr >= high or 2 * c + dc >= wide:
                continue
            inside = ((q + dp) * high + 2 * r + dr) * wide + 2 * c + dc
            entry = _entry(dims, start, last, slots, at + 1, q + dp, 2 * r + dr, 2 * c + dc)
            if entry < 0:
                continue
            value = min(np.float64(scores[entry]), own)
            if not value > threshold or (len(allowed) and not allowed[entry]):
                continue
            if spare:
                spare -= 1
                slot = free[spare]
            else:
                slot = used
                used += 1
                if used > len(score):
                    score, key, level = _longer(score), _longer(key), _longer(level)
                    place, heap, free = _longer(place), _longer(heap), _longer(free)
            score[slot], level[slot], place[slot] = value, at + 1, inside
            key[slot] = (own_key << np.uint64(2 if flat else 3)) | np.uint64(child)
            heap[count] = slot
            _rise(heap, count, score, level, key)
            count += 1
    return leaves, informed


@kernel
def _walk(split, table, roots, origin, level):  # type: ignore[no-untyped-def]
    """Leaves in Z-order, depth first, into ``origin`` (in nodes of their level) and ``level``; returns how many."""
    dims, start, last, slots, flat = table
    fill, count = len(level) > 0, 0
    stack = np.empty((8 * len(start) + 8, 4), np.int64)
    for root in range(len(roots)):
        stack[0, 0], stack[0, 1], stack[0, 2], stack[0, 3] = 0, roots[root, 0], roots[root, 1], roots[root, 2]
        size = 1
        while size:
            size -= 1
            k, p, r, c = stack[size, 0], stack[size, 1], stack[size, 2], stack[size, 3]
            entry = _entry(dims, start, last, slots, k, p, r, c) if k + 1 < len(start) else np.int64(-1)
            if entry >= 0 and split[entry]:
                for child in range(3 if flat else 7, -1, -1):
                    plane = p if flat else 2 * p + child // 4
                    row, column = 2 * r + child // 2 % 2, 2 * c + child % 2
                    if plane < dims[k + 1, 0] and row < dims[k + 1, 1] and column < dims[k + 1, 2]:
                        stack[size, 0], stack[size, 1], stack[size, 2], stack[size, 3] = k + 1, plane, row, column
                        size += 1
                continue
            if fill:
                origin[count, 0], origin[count, 1], origin[count, 2], level[count] = p, r, c, k
            count += 1
    return count
