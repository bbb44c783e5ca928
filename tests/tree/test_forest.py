"""Forests against a heap, a recursion and a count of pixels: 2-D and 3-D, odd sizes, several roots, heavy ties."""

from __future__ import annotations

import itertools
import signal
import time
import warnings

import numpy as np
import pytest

from patchforest.tree.forest import balance, build_forest, coarsen, scaled_budget
from patchforest.tree.order import morton
from patchforest.values import Forest, ForestPolicy
from tests.tree import reference
from tests.tree.reference import Case, Node, random_case

SEEDS = range(60)


def build(case: Case, **policy: object) -> Forest:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # detail that runs out has its own tests
        return build_forest(case.detail, shape=case.shape, cell=case.cell, root=case.root, **policy)  # type: ignore[arg-type]


def budgets(case: Case, rng: np.random.Generator) -> list[int]:
    """The number of roots, a few between, and more than there are cells."""
    roots = len(list(reference.roots(case)))
    cells = case.detail.size
    return [roots, *(int(rng.integers(roots, max(cells, roots) + 1)) for _ in range(4)), cells + 5]


def check(forest: Forest, case: Case) -> None:
    """What every forest promises."""
    assert (reference.coverage(forest) == 1).all()
    assert int(forest.area.sum()) == int(np.prod(case.shape))
    assert (np.diff(morton(forest.origin // forest.cell).astype(np.float64)) > 0).all()
    assert forest.shape == case.shape
    assert (forest.cell, forest.root) == (case.cell, case.root)
    assert (forest.size == forest.root >> forest.level).all()
    assert (forest.size >= forest.cell).all()
    assert (forest.origin % forest.size[:, None] == 0).all()
    assert (forest.origin < np.asarray(case.shape)).all()  # no leaf wholly outside
    assert forest.origin.dtype == forest.size.dtype == forest.level.dtype == np.int64


@pytest.mark.parametrize("seed", SEEDS)
def test_budget_is_best_first_splitting(seed: int) -> None:
    case, rng = random_case(seed), np.random.default_rng(seed + 1000)
    score = reference.summed(case)
    for budget in budgets(case, rng):
        max_depth = None if rng.random() < 0.7 else int(rng.integers(0, case.depth + 2))
        forest = build(case, budget=budget, max_depth=max_depth)
        check(forest, case)
        expected = reference.leaves_of(case, reference.greedy(case, score, budget, max_depth))
        assert reference.table(forest) == expected
        assert len(forest) <= budget
        if max_depth is None:  # as long as there is anything to split, at most 2^n - 2 short
            assert len(forest) >= min(budget - (2 ** len(case.shape) - 2), case.detail.size)
        else:
            assert forest.level.max() <= max_depth


@pytest.mark.parametrize("seed", SEEDS)
def test_threshold_is_recursion(seed: int) -> None:
    case, rng = random_case(seed + 100), np.random.default_rng(seed)
    score = reference.summed(case)
    total = float(case.detail.sum())
    for threshold in (0.0, 1.0, 2.0, total / 7, total / 2, total, -1.0):
        max_depth = None if rng.random() < 0.7 else int(rng.integers(0, case.depth + 2))
        forest = build(case, threshold=threshold, max_depth=max_depth)
        check(forest, case)
        expected = reference.leaves_of(case, reference.above(case, score, threshold, max_depth))
        assert reference.table(forest) == expected


def test_several_roots_come_in_z_order_too() -> None:
    """Not in rows: the reference visits roots by their own key, so check one case by hand."""
    forest = build_forest(np.ones((3, 5)), shape=(24, 40), cell=8, root=8, budget=15)
    keys = [reference.z_key((int(r), int(c))) for r, c in forest.origin // 8]
    assert keys == sorted(keys)
    assert (forest.origin[:6] // 8).tolist() == [[0, 0], [0, 1], [1, 0], [1, 1], [0, 2], [0, 3]]


def test_by_hand() -> None:
    """A 32 × 24 image, root 16: two rows of roots, two columns, the right ones half outside."""
    detail = np.zeros((4, 3))
    detail[0, 2] = 5  # in the root at (0, 16), whose right half does not exist: its split makes two leaves
    detail[3, 1] = 3
    forest = build_forest(detail, shape=(32, 24), cell=8, root=16, budget=5)
    assert forest.origin.tolist() == [[0, 0], [0, 16], [8, 16], [16, 0], [16, 16]]
    assert forest.size.tolist() == [16, 8, 8, 16, 16]
    assert forest.level.tolist() == [0, 1, 1, 0, 0]
    assert forest.area.tolist() == [256, 64, 64, 256, 128]
    # 6 and 7: splitting (16, 0) would cost three more; 8: it fits
    assert len(build_forest(detail, shape=(32, 24), cell=8, root=16, budget=7)) == 5
    assert len(build_forest(detail, shape=(32, 24), cell=8, root=16, budget=8)) == 8


def test_ties_go_to_coarser_then_z_order() -> None:
    detail = np.ones((8, 8))
    # one root of 4, equal quarters: after the root the quarters split in Z-order
    forest = build_forest(detail, shape=(64, 64), cell=8, root=64, budget=10)
    assert reference.split_set(forest) == {(0, (0, 0)), (1, (0, 0)), (1, (0, 32))}
    # one hot cell: root, quarter and block score the same, coarser first
    detail = np.zeros((8, 8))
    detail[7, 7] = 1
    forest = build_forest(detail, shape=(64, 64), cell=8, root=64, budget=10)
    assert reference.split_set(forest) == {(0, (0, 0)), (1, (32, 32)), (2, (48, 48))}


@pytest.mark.filterwarnings("ignore:the detail map ran out")
@pytest.mark.parametrize("n", [2, 3])
def test_zero_detail_is_split_largest_first(n: int) -> None:
    """The budget is spent: no forest stops early because there is nothing to see."""
    side, cost = 64, 2**n - 1
    for budget in (1, 1 + cost, 1 + 2 * cost, 1 + cost * (1 + 2**n), 1 + cost * (2 + 2**n)):
        forest = build_forest(np.zeros((8,) * n), shape=(side,) * n, cell=8, root=64, budget=budget)
        assert len(forest) == budget
        assert np.ptp(forest.level) <= 1
        finer = np.flatnonzero(forest.level == forest.level.max())
        if np.ptp(forest.level):  # the finer ones come first in Z-order
            assert (finer == np.arange(len(finer))).all()


@pytest.mark.parametrize("seed", range(30))
def test_scores_that_are_not_additive_are_capped_by_the_parent(seed: int) -> None:
    case, rng = random_case(seed + 300), np.random.default_rng(seed)
    pyramid = []
    for k in range(case.depth + 1):
        grid = tuple(-(-s // (case.cell << k)) for s in case.shape)
        pyramid.append(rng.integers(0, 6, grid).astype(np.float64))

    def score(node: Node) -> float:
        side = case.root >> node[0]
        return float(pyramid[case.depth - node[0]][tuple(c // side for c in node[1])])

    for budget in budgets(case, rng):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            forest = build_forest(pyramid, shape=case.shape, cell=case.cell, root=case.root, budget=budget)
        check(forest, case)
        assert reference.table(forest) == reference.leaves_of(case, reference.greedy(case, score, budget))
    for threshold in (0.0, 1.0, 3.0):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            forest = build_forest(pyramid, shape=case.shape, cell=case.cell, root=case.root, threshold=threshold)
        assert reference.table(forest) == reference.leaves_of(case, reference.above(case, score, threshold))


def test_a_pyramid_of_sums_equals_the_map() -> None:
    case = random_case(5, ndim=2)
    pyramid, now = [case.detail.astype(float)], case.detail.astype(float)
    while len(pyramid) <= case.depth:
        now = np.pad(now, [(0, s % 2) for s in now.shape])
        now = now[0::2, 0::2] + now[1::2, 0::2] + now[0::2, 1::2] + now[1::2, 1::2]
        pyramid.append(now)
    for budget in (len(list(reference.roots(case))), case.detail.size // 2, case.detail.size):
        if budget >= len(list(reference.roots(case))):
            given = build_forest(pyramid, shape=case.shape, cell=case.cell, root=case.root, budget=budget)
            assert reference.table(given) == reference.table(build(case, budget=budget))


@pytest.mark.parametrize("seed", range(30))
def test_uniform(seed: int) -> None:
    case, rng = random_case(seed + 400), np.random.default_rng(seed)
    level = int(rng.integers(0, case.depth + 1))
    side = case.root >> level
    forest = build(case, uniform=side)
    check(forest, case)
    assert (forest.size == side).all()
    assert len(forest) == int(np.prod([-(-s // side) for s in case.shape]))


@pytest.mark.parametrize("seed", SEEDS)
def test_coarsen_is_a_higher_threshold(seed: int) -> None:
    """Undoing splits by score: between two thresholds, and the very same tree when the budget is its length."""
    case, rng = random_case(seed + 500), np.random.default_rng(seed)
    total = float(case.detail.sum())
    low = float(rng.choice((0.0, total / 50, total / 8)))
    forest = build(case, threshold=low)
    for high in sorted({low, low + 1, total / 5, total / 2, total}):
        if high < low:
            continue
        target = build(case, threshold=high)
        same = coarsen(forest, case.detail, len(target))
        check(same, case)
        assert len(same) == len(target)
        assert reference.split_set(target) <= reference.split_set(same)  # more only where a split costs nothing
        extra = reference.split_set(same) - reference.split_set(target)
        assert all(len(reference.children(node, case)) == 1 for node in extra)
    score = reference.summed(case)
    allowed = reference.above(case, score, low)
    for budget in budgets(case, rng):
        fewer = coarsen(forest, case.detail, budget)
        check(fewer, case)
        assert len(fewer) <= budget
        order = sorted(allowed, key=lambda v: (-score(v), v[0], _key(v, case)))
        assert reference.split_set(fewer) == _prefix(order, case, budget)


def _key(node: Node, case: Case) -> int:
    return reference.z_key(tuple(c // (case.root >> node[0]) for c in node[1]))


def _prefix(order: list[Node], case: Case, budget: int) -> set[Node]:
    """Longest run of splits, in order, whose leaves fit."""
    leaves, chosen = len(list(reference.roots(case))), set()
    for node in order:
        leaves += len(reference.children(node, case)) - 1
        if leaves > budget:
            break
        chosen.add(node)
    return chosen


@pytest.mark.parametrize("seed", range(20))
def test_threshold_with_budget_is_the_threshold_tree_coarsened(seed: int) -> None:
    case, rng = random_case(seed + 600), np.random.default_rng(seed)
    whole = build(case, threshold=1.0)
    for budget in budgets(case, rng):
        both = build(case, threshold=1.0, budget=budget)
        assert reference.table(both) == reference.table(coarsen(whole, case.detail, budget))


def test_coarsen_any_forest() -> None:
    """Also one that no threshold made: a uniform one, by a map it was not cut from."""
    detail = np.zeros((8, 8))
    detail[0, 0] = 9
    uniform = build_forest(detail, shape=(64, 64), cell=8, root=64, uniform=8)
    fewer = coarsen(uniform, detail, 10)
    assert reference.split_set(fewer) == {(0, (0, 0)), (1, (0, 0)), (2, (0, 0))}
    assert len(coarsen(uniform, detail, 64)) == 64
    with pytest.raises(ValueError, match=r"budget of 0 .* 1 root"):
        coarsen(uniform, detail, 0)


@pytest.mark.parametrize("seed", range(40))
def test_balance(seed: int) -> None:
    """2:1 across faces; a refinement; the coarsest one: no added split can be left out."""
    case, rng = random_case(seed + 700), np.random.default_rng(seed)
    roots = len(list(reference.roots(case)))
    forest = build(case, budget=int(rng.integers(roots, roots + 40)))
    even = balance(forest)
    check(even, case)
    assert reference.worst_step(even) <= 1
    before, after = reference.split_set(forest), reference.split_set(even)
    assert before <= after
    assert after == _ripple(case, before)
    assert reference.table(balance(even)) == reference.table(even)
    if reference.worst_step(forest) <= 1:
        assert after == before


def _ripple(case: Case, split: set[Node]) -> set[Node]:
    """Refine the coarser of any two neighbours that differ by two levels, until there are none: every such split is
    forced, so the result is the least."""
    split = set(split)
    while True:
        leaves = reference.leaves_of(case, split)
        index = np.zeros(case.shape, int)
        for i, (corner, side) in enumerate(leaves):
            index[tuple(slice(c, c + side) for c in corner)] = i
        forced: set[Node] = set()
        for axis in range(len(case.shape)):
            ahead = np.moveaxis(index, axis, 0)[1:].ravel()
            behind = np.moveaxis(index, axis, 0)[:-1].ravel()
            for a, b in set(zip(ahead.tolist(), behind.tolist(), strict=True)):
                for big, small in ((a, b), (b, a)):
                    if leaves[big][1] >= 4 * leaves[small][1]:
                        level = (case.root // leaves[big][1]).bit_length() - 1
                        forced.add((level, leaves[big][0]))
        if not forced:
            return split
        split |= forced


@pytest.mark.parametrize("n", [2, 3])
def test_balance_ripples_through_many_levels(n: int) -> None:
    """One hot cell beside the middle of the root: its neighbour across the middle is five (three) levels coarser."""
    cells = {2: 64, 3: 16}[n]
    case = Case((cells,) * n, 1, cells, np.zeros((cells,) * n, np.float32))
    case.detail[(cells // 2 - 1,) * n] = 1
    forest = build(case, threshold=0.5)
    assert reference.worst_step(forest) == case.depth - 1
    even = balance(forest)
    check(even, case)
    assert reference.worst_step(even) == 1
    assert reference.split_set(even) == _ripple(case, reference.split_set(forest))


def test_balanced_option_is_balance() -> None:
    case = random_case(3, ndim=2, most=24)
    plain = build(case, threshold=2.0)
    assert reference.table(build(case, threshold=2.0, balanced=True)) == reference.table(balance(plain))


def test_default_root_is_the_largest_that_fits() -> None:
    for shape, root in [
        ((64, 64), 64),
        ((63, 64), 32),
        ((100, 37), 32),
        ((1, 1), 8),
        ((2336, 3504), 2048),
        ((15, 900), 8),
    ]:
        cells = np.ones(tuple(-(-s // 8) for s in shape), np.float32)
        assert build_forest(cells, shape=shape, cell=8, budget=cells.size).root == root
    volume = np.ones((2, 4, 5))
    assert build_forest(volume, shape=(16, 32, 40), cell=8, budget=99).root == 16


def test_every_shape_up_to_twenty() -> None:
    for shape in itertools.product(range(1, 21, 3), repeat=2):
        case = Case(shape, 4, 16, np.ones(tuple(-(-s // 4) for s in shape), np.float32))
        for budget in (4, 9, 100):
            if budget >= len(list(reference.roots(case))):
                check(build(case, budget=budget), case)


def test_same_input_same_forest_and_input_is_left_alone() -> None:
    case = random_case(11, ndim=2, ties=True)
    kept = case.detail.copy()
    first, second = build(case, budget=50), build(case, budget=50)
    assert reference.table(first) == reference.table(second)
    assert (case.detail == kept).all()
    for dtype in (np.float64, np.int64, np.uint8):
        other = Case(case.shape, case.cell, case.root, case.detail.astype(dtype))
        assert reference.table(build(other, budget=50)) == reference.table(first)


def test_turning_the_image_turns_the_forest() -> None:
    """Without ties, on one square root, flips and turns commute with cutting (threshold: with ties as well)."""
    rng = np.random.default_rng(0)
    detail = rng.integers(1, 1 << 30, (16, 16)).astype(np.float64)
    for budget, threshold in ((100, None), (None, 2.2e9)):
        first, turned = (
            {(int(r), int(c), int(s)) for (r, c), s in zip(f.origin, f.size, strict=True)}
            for f in (
                build_forest(d, shape=(128, 128), budget=budget, threshold=threshold)
                for d in (detail, np.rot90(detail))
            )
        )
        assert len(first) > 20
        assert {(c, 128 - r - s, s) for r, c, s in turned} == first


def test_a_forest_nests_in_a_longer_one() -> None:
    case = random_case(21, ndim=2, most=24)
    roots = len(list(reference.roots(case)))
    previous: set[Node] = set()
    for budget in range(roots, roots + 60, 7):
        now = reference.split_set(build(case, budget=budget))
        assert previous <= now
        previous = now


class TestWarning:
    """Detail that runs out before the budget is said aloud: half the leaves would say nothing."""

    def cut(self, detail: np.ndarray, budget: int = 400) -> list[warnings.WarningMessage]:
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            side = 8 * len(detail)
            assert len(build_forest(detail, shape=(side, side), cell=8, budget=budget)) > budget - 3
        return [w for w in seen if issubclass(w.category, UserWarning)]

    def test_where_detail_runs_out(self) -> None:
        detail = np.zeros((32, 32))
        detail[3, 4:20] = 7
        seen = self.cut(detail)
        assert len(seen) == 1
        text = str(seen[0].message)
        assert "400" in text or "399" in text or "398" in text
        assert "edges" in text  # says what to do

    def test_where_there_is_none_at_all(self) -> None:
        assert len(self.cut(np.zeros((32, 32)))) == 1

    def test_not_where_there_is_enough(self) -> None:
        assert self.cut(np.random.default_rng(0).random((32, 32))) == []
        assert self.cut(np.ones((32, 32))) == []

    def test_a_threshold_above_everything(self) -> None:
        """A forest of nothing but roots is no forest."""
        detail = np.ones((8, 8))
        with pytest.warns(UserWarning, match=r"100.*64.*threshold"):
            build_forest(detail, shape=(64, 64), cell=8, threshold=100.0)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            build_forest(detail, shape=(64, 64), cell=8, threshold=63.0)
            build_forest(detail, shape=(64, 64), cell=8, threshold=100.0, max_depth=0)

    def test_points_at_the_caller(self) -> None:
        detail = np.zeros((32, 32))
        detail[0, 0] = 1
        assert self.cut(detail)[0].filename == __file__


class TestErrors:
    detail = np.ones((8, 8), np.float32)

    def refuse(self, match: str, **options: object) -> None:
        with pytest.raises(ValueError, match=match) as caught:
            build_forest(**{"detail": self.detail, "shape": (64, 64), "cell": 8, **options})  # type: ignore[arg-type]
        assert "\n" not in str(caught.value)

    def test_budget_below_the_roots_names_both(self) -> None:
        self.refuse(r"3.*16", budget=3, root=16)

    def test_no_policy_or_two(self) -> None:
        self.refuse("budget=")
        self.refuse("uniform", uniform=8, budget=9)
        self.refuse("uniform", uniform=8, threshold=9.0)
        self.refuse("uniform.*max_depth", uniform=8, max_depth=2)  # an option without effect is a mistake
        self.refuse("uniform.*balanced", uniform=8, balanced=True)
        self.refuse("threshold.*NaN", threshold=float("nan"))

    def test_detail_of_another_shape(self) -> None:
        self.refuse(r"\(9, 8\).*\(8, 8\)", shape=(65, 64), budget=9)
        self.refuse("detail", detail=np.ones((8, 8, 8)), budget=9)
        self.refuse("levels", detail=[self.detail, np.ones((4, 4))], budget=9)

    def test_detail_negative_or_not_finite(self) -> None:
        for value in (-1.0, np.nan, np.inf):
            bad = self.detail.copy()
            bad[2, 3] = value
            self.refuse("finite|negative", detail=bad, budget=9)
            self.refuse("finite|negative", detail=bad, threshold=9.0)

    def test_sides_that_do_not_fit(self) -> None:
        self.refuse("root.*48", root=48, budget=9)
        self.refuse("root.*4", root=4, budget=9)
        self.refuse("uniform.*12", uniform=12)
        self.refuse("128", uniform=128, root=64)

    @pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs an alarm against an endless loop")
    @pytest.mark.parametrize("cell", [0, -8])
    def test_a_cell_without_a_side(self, cell: int) -> None:
        def ring(*_: object) -> None:
            raise TimeoutError("build_forest does not come back")

        before = signal.signal(signal.SIGALRM, ring)
        signal.setitimer(signal.ITIMER_REAL, 2.0)
        try:
            self.refuse("cell|root", cell=cell, budget=9)
            self.refuse("cell|root", cell=cell, budget=9, root=64)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)

    def test_shape_and_depth(self) -> None:
        self.refuse("shape", shape=(64,), budget=9)
        self.refuse("shape", shape=(0, 64), budget=9)
        self.refuse("max_depth", max_depth=-1, budget=9)


class TestScaledBudget:
    def test_proportional_to_the_pixels_and_never_below_the_roots(self) -> None:
        policy = ForestPolicy(budget=256, window=512)
        assert scaled_budget(policy, (512, 512)) == 256
        assert scaled_budget(policy, (1024, 512)) == 512
        assert scaled_budget(policy, (256, 256)) == 64
        assert scaled_budget(policy, (1, 1)) == 1
        long = scaled_budget(ForestPolicy(budget=4, window=512), (8, 800))
        assert long == 100  # roots of side 8
        assert scaled_budget(ForestPolicy(budget=256, root=32), (64, 70)) == 256
        assert scaled_budget(ForestPolicy(budget=3, root=32), (64, 70)) == 6

    def test_three_axes(self) -> None:
        assert scaled_budget(ForestPolicy(budget=100, window=64), (64, 64, 128)) == 200

    def test_needs_a_budget(self) -> None:
        with pytest.raises(ValueError, match="budget"):
            scaled_budget(ForestPolicy(threshold=5.0), (64, 64))


def test_no_loop_over_leaves() -> None:
    """F1: a selection, not O(L²). 16,384 leaves of a 2048² image take far less than the seconds of a public builder."""
    detail = np.random.default_rng(0).random((256, 256))
    start = time.perf_counter()
    forest = build_forest(detail, shape=(2048, 2048), cell=8, budget=16384)
    assert time.perf_counter() - start < 1.0
    assert len(forest) == 16384
