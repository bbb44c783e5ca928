"""Errors of leaves against masks painted back, and split scores against the best of all forests there are."""

from __future__ import annotations

import numpy as np
import pytest

from patchforest.tree.ceiling import label_ceiling
from patchforest.tree.forest import build_forest
from patchforest.tree.label_error import FEW, label_errors, label_scores, node_sides, split_scores, sums
from patchforest.values import Forest


def wrong(mask: np.ndarray, corner: tuple[int, int], side: int, q: int) -> int:
    """Pixels that the best q × q answers of a leaf get wrong of a mask of zeros and ones; below zero is ignored."""
    here, block = mask[corner[0] : corner[0] + side, corner[1] : corner[1] + side], max(side // q, 1)
    total = 0
    for row in range(0, here.shape[0], block):
        for column in range(0, here.shape[1], block):
            part = here[row : row + block, column : column + block]
            total += min(int((part == 0).sum()), int((part == 1).sum()))
    return total


def best_errors(mask: np.ndarray, corner: tuple[int, int], side: int, cell: int, q: int) -> dict[int, int]:
    """Number of leaves → fewest wrong pixels of all trees on a root."""
    out = {1: wrong(mask, corner, side, q)}
    if side == cell:
        return out
    parts = {0: 0}
    for i in (0, side // 2):
        for j in (0, side // 2):
            child = (corner[0] + i, corner[1] + j)
            if child[0] < mask.shape[0] and child[1] < mask.shape[1]:
                parts = merged(parts, best_errors(mask, child, side // 2, cell, q))
    for leaves, error in parts.items():
        out[leaves] = min(out.get(leaves, error), error)
    return out


def merged(one: dict[int, int], other: dict[int, int]) -> dict[int, int]:
    out: dict[int, int] = {}
    for a, x in one.items():
        for b, y in other.items():
            out[a + b] = min(out.get(a + b, x + y), x + y)
    return out


def best_forests(mask: np.ndarray, root: int, cell: int, q: int) -> list[tuple[int, int]]:
    """(leaves, fewest wrong pixels of forests of at most so many), by leaves."""
    every = {0: 0}
    for row in range(0, mask.shape[0], root):
        for column in range(0, mask.shape[1], root):
            every = merged(every, best_errors(mask, (row, column), root, cell, q))
    leaves = sorted(every)
    return list(zip(leaves, np.minimum.accumulate([every[n] for n in leaves]).tolist()))


def corners_of_hull(points: list[tuple[int, int]]) -> list[tuple[int, int]]:
    at, out = 0, [points[0]]
    while at < len(points) - 1:
        rates = [(points[at][1] - e) / (n - points[at][0]) for n, e in points[at + 1 :]]
        if max(rates) <= 0:
            break
        at += 1 + max(i for i, rate in enumerate(rates) if rate >= max(rates) - 1e-12)
        out.append(points[at])
    return out


def smooth_mask(rng: np.random.Generator, shape: tuple[int, int], steps: tuple[int, ...] = (1, 2, 3)) -> np.ndarray:
    field = rng.random(shape)
    for axis in (0, 1):
        for step in steps:
            field = field + np.roll(field, step, axis) + np.roll(field, -step, axis)
    return (field > np.quantile(field, rng.uniform(0.6, 0.95))).astype(np.int16)


def errors_of(forest: Forest, mask: np.ndarray, q: int) -> int:
    return sum(wrong(mask, (int(o[0]), int(o[1])), int(s), q) for o, s in zip(forest.origin, forest.size, strict=True))


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("seed", range(4))
def test_forests_on_the_hull_are_the_best_of_all(seed: int) -> None:
    rng = np.random.default_rng(seed)
    mask, q = smooth_mask(rng, (32, 64)), (1, 2, 1, 2)[seed]
    scores = label_scores(mask, cell=4, root=32, q=q)
    for leaves, least in corners_of_hull(best_forests(mask, 32, 4, q)):
        forest = build_forest(scores, shape=mask.shape, cell=4, root=32, budget=leaves)
        assert errors_of(forest, mask, q) == least


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_at_any_length_and_edge_it_is_near_the_best_and_below_other_criteria() -> None:
    totals = dict.fromkeys(("best", "scores", "cells with an outline", "length of outline"), 0)
    for seed in range(3):
        rng = np.random.default_rng(seed)
        mask, q = smooth_mask(rng, (int(rng.integers(20, 40)), int(rng.integers(33, 60)))), int(rng.choice([1, 2]))
        outline = np.zeros(mask.shape)
        outline[1:] += mask[1:] != mask[:-1]
        outline[:, 1:] += mask[:, 1:] != mask[:, :-1]
        length = sums(outline, 4)
        rivals = {
            "scores": label_scores(mask, cell=4, root=32, q=q),
            "cells with an outline": (length > 0).astype(np.float32),
            "length of outline": length.astype(np.float32),
        }
        for leaves, least in best_forests(mask, 32, 4, q)[::8]:
            totals["best"] += least
            for name, scores in rivals.items():
                forest = build_forest(scores, shape=mask.shape, cell=4, root=32, budget=leaves)
                totals[name] += errors_of(forest, mask, q)
    assert totals["best"] <= totals["scores"] < 1.02 * totals["best"]
    assert min(totals["cells with an outline"], totals["length of outline"]) > 1.05 * totals["best"]


@pytest.mark.parametrize("q", [1, 4, 8])
def test_errors_are_those_of_painted_leaves(q: int) -> None:
    rng = np.random.default_rng(q)
    mask = (rng.random((21, 40)) < 0.3).astype(np.int16)
    mask[rng.random(mask.shape) < 0.1] = -1
    errors = label_errors(mask, cell=4, root=16, q=q)
    for side, found in zip((4, 8, 16), errors, strict=True):
        assert found.dtype == np.float32
        assert found.shape == (-(-21 // side), -(-40 // side))
        for row, column in np.ndindex(found.shape):
            expected = wrong(mask, (row * side, column * side), side, q) / (mask == 1).sum()
            assert found[row, column] == pytest.approx(expected, abs=1e-6)


def test_classes_count_by_their_share() -> None:
    mask = np.zeros((16, 16), np.int16)
    mask[0, 0], mask[8:, 8:] = 1, 2
    mask[8, 8] = 0
    cells, roots = label_errors(mask, cell=8, root=16, q=1)
    assert cells.tolist() == [[1.0, 0.0], [0.0, pytest.approx(1 / 63)]]
    assert roots[0, 0] == pytest.approx(2.0)  # each class is the smaller share of the one block


def test_by_hand_a_split_that_helps_only_with_the_next_is_worth_half() -> None:
    mask = np.zeros((16, 16), np.int16)
    mask[:4, :4] = 1
    scores = label_scores(mask, cell=4, root=16, q=1)
    assert [s.shape for s in scores] == [(4, 4), (2, 2), (1, 1)]
    assert not scores[0].any()
    assert scores[1].tolist() == [[pytest.approx(1 / 3), 0.0], [0.0, 0.0]]
    assert scores[2][0, 0] == pytest.approx(1 / 6)  # both splits, six leaves more, set all 16 pixels right


def test_a_split_that_adds_no_leaf_counts_as_part_of_one() -> None:
    mask = np.zeros((4, 4), np.int16)
    mask[0, 0] = 1
    one, two, three = (
        split_scores(label_errors(mask, cell=1, root=4, q=1)),
        label_errors(mask, cell=4, root=8, q=1),
        FEW,
    )
    assert [float(s[0, 0]) for s in one] == pytest.approx([0.0, 1 / 3, 1 / 6])
    cells, roots = split_scores([two[0] * 0, two[1]])
    assert (cells[0, 0], roots[0, 0]) == (0.0, pytest.approx(1 / three))


def test_empty_masks_score_nothing() -> None:
    for mask in (np.zeros((16, 16), np.int16), np.full((16, 16), -1, np.int16)):
        assert not any(s.any() for s in label_scores(mask, cell=4, root=16, q=2))


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_the_ceiling_of_its_forest_is_the_higher() -> None:
    rng = np.random.default_rng(7)
    mask = smooth_mask(rng, (128, 128), (2, 5, 9))
    forest = build_forest(label_scores(mask, cell=8, root=128, q=4), shape=mask.shape, cell=8, root=128, budget=64)
    grid = build_forest(np.ones((16, 16)), shape=mask.shape, cell=8, root=128, uniform=16)
    assert len(forest) == len(grid) == 64
    assert label_ceiling(mask, forest, 4) > label_ceiling(mask, grid, 4)


@pytest.mark.parametrize("shape", [(5, 7), (2, 8, 3), (1, 1)])
def test_sums_are_those_of_squares(shape: tuple[int, ...]) -> None:
    values = np.random.default_rng(0).integers(0, 255, shape).astype(np.uint8)
    for side in (1, 2, 8):
        found = sums(values, side)
        for at in np.ndindex(found.shape):
            row, column = (slice(i * side, (i + 1) * side) for i in at[-2:])
            assert found[at] == values[(*at[:-2], row, column)].sum(dtype=int)


def test_what_does_not_fit_is_said() -> None:
    assert node_sides((40, 70), 8, None, 4) == [8, 16, 32]
    mask = np.zeros((16, 16), np.int16)
    with pytest.raises(ValueError, match=r"label must be \(H, W\)"):
        label_errors(mask[None])
    with pytest.raises(ValueError, match=r"root must be cell \(4\) times a power of two; got 2"):
        label_errors(mask, cell=4, root=2)
    with pytest.raises(ValueError, match=r"q must be cell \(4\) times or by a power of two; got 3"):
        label_errors(mask, cell=4, root=16, q=3)
