"""Slow, plain twins of the functions in tree/: recursion, heaps and loops over pixels, written from the specification.

Nothing here imports the code under test. A node is (level, corner) with the corner in level-0 pixels.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Corner = tuple[int, ...]
Node = tuple[int, Corner]
Score = Callable[[Node], float]


@dataclass(frozen=True)
class Case:
    """A random problem: a shape, a cell, a root, and integer detail (heavy ties) or detail without ties."""

    shape: tuple[int, ...]
    cell: int
    root: int
    detail: Array

    @property
    def depth(self) -> int:
        return (self.root // self.cell).bit_length() - 1


def random_case(seed: int, *, ndim: int | None = None, most: int | None = None, ties: bool | None = None) -> Case:
    """Odd sizes, one or several roots, a share of zeros. ``most``: longest side in cells."""
    rng = np.random.default_rng(seed)
    n = ndim if ndim is not None else int(rng.choice((2, 2, 3)))
    cell = int(rng.choice((1, 2, 3, 4, 8)))
    limit = (most or {2: 24, 3: 9}[n]) * cell
    shape = tuple(int(rng.integers(1, limit + 1)) for _ in range(n))
    root = cell << int(rng.integers(0, {2: 5, 3: 4}[n]))
    grid = tuple(-(-s // cell) for s in shape)
    if ties if ties is not None else rng.random() < 0.7:
        detail = rng.integers(0, int(rng.choice((2, 3, 8))), grid) * (rng.random(grid) < rng.choice((0.1, 0.5, 1.0)))
    else:
        detail = rng.integers(1, 1 << 24, grid)  # integers: sums are exact in whatever order
    return Case(shape, cell, root, detail.astype(np.float32))


def roots(case: Case) -> Iterator[Node]:
    """Roots in the order of their Z-order keys."""
    counts = [-(-s // case.root) for s in case.shape]
    corners = itertools.product(*[range(c) for c in counts])
    for at in sorted(corners, key=z_key):
        yield 0, tuple(a * case.root for a in at)


def z_key(coords: Corner) -> int:
    """Bits interleaved through strings: from the highest bit down, first axis first."""
    width = max(max(coords).bit_length(), 1)
    bits = [format(c, f"0{width}b") for c in coords]
    return int("".join("".join(column) for column in zip(*bits, strict=True)), 2)


def children(node: Node, case: Case) -> list[Node]:
    """Those that overlap the image, in Z-order (first axis slowest)."""
    level, corner = node
    half = case.root >> (level + 1)
    out = []
    for step in itertools.product((0, 1), repeat=len(corner)):
        at = tuple(c + half * s for c, s in zip(corner, step, strict=True))
        if all(a < s for a, s in zip(at, case.shape, strict=True)):
            out.append((level + 1, at))
    return out


def summed(case: Case) -> Score:
    """Detail below a node, straight from the cells."""
    detail = case.detail.astype(np.float64)

    def score(node: Node) -> float:
        level, corner = node
        side = (case.root >> level) // case.cell
        return float(detail[tuple(slice(c // case.cell, c // case.cell + side) for c in corner)].sum())

    return score


def splittable(node: Node, case: Case, max_depth: int | None) -> bool:
    return node[0] < (case.depth if max_depth is None else min(case.depth, max_depth))


def greedy(case: Case, score: Score, budget: int, max_depth: int | None = None) -> set[Node]:
    """Split nodes of best-first splitting with a heap; it ends at the first split that does not fit."""
    heap: list[tuple[float, int, int, Node, float]] = []

    def push(node: Node, cap: float) -> None:
        if splittable(node, case, max_depth):
            value = min(score(node), cap)
            side = case.root >> node[0]
            heapq.heappush(heap, (-value, node[0], z_key(tuple(c // side for c in node[1])), node, value))

    leaves = 0
    for node in roots(case):
        leaves += 1
        push(node, float("inf"))
    split: set[Node] = set()
    while heap:
        *_, node, value = heapq.heappop(heap)
        below = children(node, case)
        if leaves + len(below) - 1 > budget:
            break
        leaves += len(below) - 1
        split.add(node)
        for child in below:
            push(child, value)
    return split


def above(case: Case, score: Score, threshold: float, max_depth: int | None = None) -> set[Node]:
    """Split nodes of APF's equation 6, by recursion."""
    split: set[Node] = set()

    def visit(node: Node) -> None:
        if splittable(node, case, max_depth) and score(node) > threshold:
            split.add(node)
            for child in children(node, case):
                visit(child)

    for node in roots(case):
        visit(node)
    return split


def leaves_of(case: Case, split: set[Node]) -> list[tuple[Corner, int]]:
    """(corner, side) of every leaf, depth first: Z-order by construction where there is one root."""
    out = []

    def visit(node: Node) -> None:
        if node in split:
            for child in children(node, case):
                visit(child)
        else:
            out.append((node[1], case.root >> node[0]))

    for node in roots(case):
        visit(node)
    return out


def table(forest: Any) -> list[tuple[Corner, int]]:
    """(corner, side) of every leaf of a Forest, in its order."""
    return [(tuple(int(v) for v in o), int(s)) for o, s in zip(forest.origin, forest.size, strict=True)]


def split_set(forest: Any) -> set[Node]:
    """Every proper ancestor of a leaf."""
    found = set()
    for corner, side in table(forest):
        size = side * 2
        while size <= forest.root:
            level = (forest.root // size).bit_length() - 1
            found.add((level, tuple(c // size * size for c in corner)))
            size *= 2
    return found


def coverage(forest: Any) -> Array:
    """How often every pixel of the image is covered."""
    count = np.zeros(forest.shape, int)
    for corner, side in table(forest):
        count[tuple(slice(c, c + side) for c in corner)] += 1
    return count


def worst_step(forest: Any) -> int:
    """Largest difference in level between leaves that share a face, by looking at every pair of neighbouring cells."""
    level = np.zeros(forest.shape, int)
    for (corner, side), depth in zip(table(forest), forest.level, strict=True):
        level[tuple(slice(c, c + side) for c in corner)] = depth
    worst = 0
    for axis in range(forest.ndim):
        if forest.shape[axis] > 1:
            worst = max(worst, int(np.abs(np.diff(level, axis=axis)).max()))
    return worst


def area_average(image: Array, corner: Corner, side: int, patch: int) -> Array:
    """(C, patch, ...) of one leaf: mean of each block in float64, the image continued by its last row and column."""
    n = len(corner)
    index = [np.minimum(np.arange(c, c + side), s - 1) for c, s in zip(corner, image.shape, strict=False)]
    block = image[np.ix_(*index)].astype(np.float64)
    if side < patch:
        for axis in range(n):
            block = np.repeat(block, patch // side, axis=axis)
        return np.moveaxis(block, -1, 0)
    step = side // patch
    out = np.empty((image.shape[-1],) + (patch,) * n)
    at: Corner
    for at in itertools.product(range(patch), repeat=n):
        piece = block[tuple(slice(a * step, (a + 1) * step) for a in at)]
        out[(slice(None),) + at] = piece.reshape(-1, piece.shape[-1]).mean(axis=0)
    return out


def line_weights(q: int, side: int, mode: str) -> Array:
    """(side, q): how much each of q values, spread over ``side`` pixels, counts in every pixel, by definition."""
    out = np.zeros((side, q))
    for pixel in range(side):
        if q > side:  # mean over the pixel: overlap of [pixel, pixel+1] with each value's interval
            for value in range(q):
                low, high = max(pixel, value * side / q), min(pixel + 1, (value + 1) * side / q)
                out[pixel, value] = max(high - low, 0.0)
            continue
        centre = (pixel + 0.5) * q / side  # in units of values
        if mode == "nearest":
            out[pixel, int(centre)] = 1.0
            continue
        place = min(max(centre - 0.5, 0.0), q - 1.0)
        left = int(np.floor(place))
        right = min(left + 1, q - 1)
        out[pixel, left] += 1 - (place - left)
        out[pixel, right] += place - left
    return out


def painted(values: Array, forest: Any, mode: str = "nearest") -> Array:
    """Raster by one small tensor product a leaf, in float64."""
    n = forest.ndim
    out = np.full((values.shape[1], *forest.shape), np.nan)
    for i, (corner, side) in enumerate(table(forest)):
        block = values[i].astype(np.float64)
        weights = line_weights(values.shape[2], side, mode)
        for axis in range(1, n + 1):
            block = np.moveaxis(np.tensordot(weights, block, axes=(1, axis)), 0, axis)
        here = tuple(slice(c, min(c + side, s)) for c, s in zip(corner, forest.shape, strict=True))
        inside = tuple(slice(0, h.stop - h.start) for h in here)
        out[(slice(None), *here)] = block[(slice(None), *inside)]
    return out


def dice(prediction: Array, truth: Array) -> float:
    total = int(prediction.sum()) + int(truth.sum())
    return 1.0 if total == 0 else 2 * int((prediction & truth).sum()) / total
