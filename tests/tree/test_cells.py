"""Cells that come in row by row: what is dropped never mattered."""

import itertools

import numpy as np
import pytest

from patchforest.tree import cells as module
from patchforest.tree.cells import AllCells, UsefulCells
from patchforest.tree.forest import build_forest, grow
from patchforest.tree.nodes import Layout
from tests.tree.reference import table

pytestmark = pytest.mark.filterwarnings("ignore:the detail map ran out", "ignore:no root has more")

_NOTHING_OPEN = (np.zeros((0, 2), np.int64), lambda: np.zeros((0, 2), np.int64))


def random_detail(rng: np.random.Generator, shape: tuple[int, int], dtype: type) -> np.ndarray:
    """Clustered detail with many ties."""
    grid = rng.pareto(0.8, tuple(-(-s // 8) for s in shape)).repeat(8, 0).repeat(8, 1)[: shape[0], : shape[1]]
    detail = np.minimum(rng.integers(0, 6, shape) * grid, 60)
    return detail.astype(dtype)


def feed(cells: UsefulCells, detail: np.ndarray, rng: np.random.Generator) -> int:
    """Give the detail in uneven rows, some counts only later; returns the most blocks held at a time."""
    late = [tuple(p) for p in np.argwhere(detail > 0)[:: int(rng.integers(5, 40))]]
    rows, most, open_ones = len(detail), 0, []
    cuts = sorted({0, rows, *rng.integers(0, rows, 6).tolist()})
    for a, b in itertools.pairwise(cuts):
        now = detail[a:b].copy()
        fresh = [p for p in late if a <= p[0] < b]
        for r, c in fresh:
            now[r - a, c] = 0
        half = detail.shape[1] // 2
        for left, right in ((0, half), (half, detail.shape[1])):
            cells.put(a, left, now[:, left:right])
        done = [p for p in open_ones if rng.random() < 0.7 or b == rows]
        open_ones = [p for p in open_ones + fresh if p not in done]
        if b == rows:
            done, open_ones = done + open_ones, []
        if done:
            r, c = np.array(done).T
            cells.add(r, c, detail[r, c])
        still = np.array(open_ones, np.int64).reshape(-1, 2)
        cells.settle(b, still, lambda still=still: still)
        most = max(most, cells.num_kept)
    return most


@pytest.mark.parametrize("seed", range(40))
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_the_forest_is_that_of_all_cells(seed: int, dtype: type, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(seed)
    monkeypatch.setattr(module, "BLOCK", int(rng.choice([2, 4, 16])))
    cell = int(rng.choice([1, 3]))
    shape = tuple(int(s) for s in rng.integers(20, 130, 2) * cell - rng.integers(0, cell, 2))
    root = cell * int(rng.choice([2, 16, 64]))
    layout = Layout.of(shape, root, cell)
    detail = random_detail(rng, tuple(layout.dims[-1, 1:]), dtype)
    roots = int(layout.dims[0].prod())
    budget = None if seed % 4 == 0 else roots + int(rng.integers(0, 600))
    threshold = float(rng.integers(0, 200)) if seed % 4 in (0, 1) else None
    cells = UsefulCells(layout, np.dtype(dtype), budget=budget, threshold=threshold)
    feed(cells, detail, rng)
    scores, sparse = cells.scores()
    assert len(scores) == sparse.count
    got = grow(scores, sparse, limit=sparse.depth, budget=budget, threshold=threshold)
    assert table(got) == table(
        build_forest(detail, shape=shape, cell=cell, root=root, budget=budget, threshold=threshold)
    )


def test_what_is_held_grows_with_the_leaves_and_not_with_the_image() -> None:
    held = []
    for side in (512, 1024):
        rng = np.random.default_rng(0)
        layout = Layout.of((side, side), side, 1)
        cells = UsefulCells(layout, np.dtype(np.uint8), budget=64, threshold=None)
        detail = rng.integers(20, 40, (side, side)).astype(np.uint8)
        detail[:16] = 60  # and in the first rows more than anywhere
        for row in range(0, side, 16):
            cells.put(row, 0, detail[row : row + 16])
            cells.settle(row + 16, *_NOTHING_OPEN)
        held.append(cells.num_kept)
    assert max(held) <= 200
    assert held[1] < (1024 // 16) ** 2 / 10


def test_all_cells() -> None:
    cells = AllCells((4, 6), np.dtype(np.uint8))
    cells.put(0, 0, np.ones((2, 6), np.uint8))
    cells.put(2, 3, np.full((2, 3), 7, np.uint8))
    cells.add(np.array([3, 3, 0]), np.array([5, 5, 0]), np.array([1, 1, 4]))
    cells.settle(4, *_NOTHING_OPEN)
    assert cells.detail.tolist() == [[5, 1, 1, 1, 1, 1], [1] * 6, [0, 0, 0, 7, 7, 7], [0, 0, 0, 7, 7, 9]]
