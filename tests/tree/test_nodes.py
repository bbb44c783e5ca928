"""The flat table of nodes: where they stand, sums, and flags to leaves and back (policies: test_forest.py)."""

import numpy as np
import pytest

from patchforest.tree.nodes import Layout, best_splits, capped, flags_of, leaves_of, summed
from tests.tree.reference import random_case, split_set, table
from tests.tree.test_forest import build


@pytest.mark.parametrize("shape", [(5, 9), (64, 64), (3, 4, 5), (1, 100)])
def test_only_nodes_of_the_image_have_an_entry(shape: tuple[int, ...]) -> None:
    layout = Layout.of(shape, 16, 2)
    assert layout.depth == 3
    for k in range(4):
        assert tuple(layout.dims[k, 3 - len(shape) :]) == tuple(-(-s // (16 >> k)) for s in shape)
    assert layout.start.tolist() == [0, *np.cumsum(layout.dims.prod(axis=1))[:-1]]
    values = np.arange(layout.start[-1])
    assert np.concatenate([layout.level(values, k).ravel() for k in range(3)]).tolist() == values.tolist()


@pytest.mark.parametrize("seed", range(20))
def test_sums_are_exact_for_integers_and_in_the_stated_order_for_others(seed: int) -> None:
    case = random_case(seed)
    layout = Layout.of(case.shape, case.root, case.cell)
    rng = np.random.default_rng(seed)
    cells = tuple(-(-s // case.cell) for s in case.shape)
    for detail in (rng.integers(0, 65, cells).astype(np.uint8), rng.random(cells)):
        scores = summed(detail, layout)
        below = detail.astype(np.float64)
        for k in range(layout.depth - 1, -1, -1):
            for axis in range(below.ndim):  # pairs along the first axis, then along the next
                even = np.take(below, range(0, below.shape[axis], 2), axis)
                odd = np.take(below, range(1, below.shape[axis], 2), axis)
                short = [(0, int(a == axis and odd.shape[axis] < even.shape[axis])) for a in range(below.ndim)]
                below = even + np.pad(odd, short)
            assert np.array_equal(layout.level(scores, k), below)
    assert summed(np.zeros(cells, np.uint8), layout).dtype == np.uint32


def test_large_sums_do_not_overflow() -> None:
    layout = Layout.of((4, 4), 4, 1)
    assert layout.level(summed(np.full((4, 4), 2**32 - 1, np.uint32), layout), 0)[0, 0] == 16 * (2**32 - 1)


def test_no_child_outscores_its_parent() -> None:
    rng, layout = np.random.default_rng(0), Layout.of((13, 22), 8, 1)
    given = [rng.random(tuple(layout.dims[k, 1:])) for k in range(3, -1, -1)]
    scores = capped(given, layout)
    assert np.array_equal(layout.level(scores, 0), given[3])
    for k in (1, 2):
        here, parent = layout.level(scores, k), layout.level(scores, k - 1)
        for (r, c), value in np.ndenumerate(here):
            assert value == min(given[3 - k][r, c], parent[r // 2, c // 2])


@pytest.mark.parametrize("seed", range(20))
def test_flags_and_leaves_are_inverse(seed: int) -> None:
    case = random_case(seed)
    roots = int(Layout.of(case.shape, case.root, case.cell).dims[0].prod())
    forest = build(case, budget=roots + 60)
    flags, layout = flags_of(forest)
    assert table(leaves_of(flags, layout)) == table(forest)
    assert int(flags.sum()) == len(split_set(forest))


def test_allowed_and_limit() -> None:
    layout = Layout.of((8, 8), 8, 1)
    scores = summed(np.ones((8, 8), np.float32), layout)
    split, leaves, informed = best_splits(scores, layout, 1000, 2, -1.0, None)
    assert (leaves, informed, int(split.sum())) == (16, 16, 5)
    allowed = np.zeros(len(scores), np.uint8)
    allowed[[0, 2]] = 1
    split, leaves, _ = best_splits(scores, layout, 1000, 3, -1.0, allowed)
    assert split.nonzero()[0].tolist() == [0, 2]
    assert leaves == 7
