"""The label ceiling against every choice of blocks there is, and against masks painted back."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from patchforest.tree.ceiling import label_ceiling, label_shares
from patchforest.tree.forest import build_forest
from patchforest.tree.paint import paint
from patchforest.values import Forest
from tests.tree import reference
from tests.tree.test_gather import random_forest


def block_numbers(forest: Forest, q: int) -> np.ndarray:
    """A raster that names for every pixel the block (leaf, cell of its q × q grid) it belongs to."""
    out = np.zeros(forest.shape, int)
    n = forest.ndim
    for i, (corner, side) in enumerate(reference.table(forest)):
        here = tuple(slice(c, min(c + side, s)) for c, s in zip(corner, forest.shape, strict=True))
        inner = np.zeros([h.stop - h.start for h in here], int)
        for axis in range(n):
            steps = np.arange(inner.shape[axis]) * min(q, side) // side
            inner = inner * q + steps.reshape([-1 if a == axis else 1 for a in range(n)])
        out[here] = i * q**n + inner
    return out


def best_of_all(mask: np.ndarray, forest: Forest, q: int) -> float:
    """Highest Dice over every one of the 2^blocks masks."""
    blocks = block_numbers(forest, q)
    names = np.unique(blocks)
    known = mask >= 0
    inside = np.array([int((known & (blocks == b)).sum()) for b in names])
    hit = np.array([int(((mask == 1) & (blocks == b)).sum()) for b in names])
    choice = np.array(list(itertools.product((0, 1), repeat=len(names))))
    return float((2 * (choice @ hit) / np.maximum(choice @ inside + hit.sum(), 1)).max())


@pytest.mark.parametrize("seed", range(25))
def test_binary_is_the_best_of_all_block_masks(seed: int) -> None:
    rng = np.random.default_rng(seed)
    shape, cell, q, budget = [
        ((8, 8), 2, 2, 4),
        ((13, 7), 4, 1, 9),
        ((16, 16), 4, 2, 3),
        ((5, 9), 4, 2, 4),
        ((4, 4, 6), 2, 1, 12),
    ][seed % 5]
    detail = rng.random(tuple(-(-s // cell) for s in shape))
    root = build_forest(detail, shape=shape, cell=cell, uniform=cell).root
    roots = int(np.prod([-(-s // root) for s in shape]))
    forest = build_forest(detail, shape=shape, cell=cell, budget=max(budget, roots))
    mask = (rng.random(shape) < rng.choice((0.1, 0.5, 0.9))).astype(np.int16)
    if seed % 3 == 0:
        mask[rng.random(shape) < 0.2] = -1
    if not (mask == 1).any():
        mask.flat[0] = 1
    assert len(np.unique(block_numbers(forest, q))) <= 18
    assert label_ceiling(mask, forest, q) == pytest.approx(best_of_all(mask, forest, q), abs=1e-6)


def test_by_hand() -> None:
    """One 4 × 4 block, q = 1, three pixels of foreground: all of it or nothing, 2·3 / (16 + 3)."""
    forest = build_forest(np.ones((1, 1)), shape=(4, 4), cell=4, root=4, budget=1)
    mask = np.zeros((4, 4), np.uint8)
    mask[0, :3] = 1
    assert label_ceiling(mask, forest, 1) == pytest.approx(6 / 19)
    assert label_ceiling(mask, forest, 2) == pytest.approx(4 / 7)  # the upper left block; with its neighbour 6 / 11
    assert label_ceiling(mask, forest, 4) == pytest.approx(1.0)


def test_a_mask_of_blocks_is_reached_and_no_model_can_pass() -> None:
    rng = np.random.default_rng(0)
    forest = random_forest((61, 45), 8, 4)
    for q in (1, 2, 4, 8):
        chosen = (rng.random((len(forest), 1, q, q)) < 0.4).astype(np.uint8)
        mask = paint(chosen, forest)[0]
        assert label_ceiling(mask, forest, q) == pytest.approx(1.0, abs=1e-6)
    mask = rng.random((61, 45)) < 0.3
    for q in (1, 2, 4):
        ceiling = label_ceiling(mask, forest, q)
        for _ in range(20):
            guess = paint((rng.random((len(forest), 1, q, q)) < rng.random()).astype(np.uint8), forest)[0] > 0
            assert reference.dice(guess, mask) <= ceiling + 1e-9


def test_grows_with_q_and_reaches_one() -> None:
    mask = (np.random.default_rng(2).random((64, 64)) < 0.5).astype(np.uint8)
    forest = build_forest(np.ones((8, 8)), shape=(64, 64), cell=8, uniform=8)
    values = [label_ceiling(mask, forest, q) for q in (1, 2, 4, 8, 16)]
    assert values == sorted(values)
    assert values[0] < 0.9
    assert values[3] == values[4] == pytest.approx(1.0)
    assert max(values) <= 1.0


@pytest.mark.parametrize("seed", range(12))
def test_many_classes_by_the_best_of_each(seed: int) -> None:
    """The mean, over the foreground classes present, of the best of all block masks for that class alone."""
    rng = np.random.default_rng(seed)
    shape, cell, q, budget = [((8, 8), 2, 2, 4), ((13, 7), 4, 1, 9), ((16, 16), 4, 2, 4)][seed % 3]
    forest = build_forest(rng.random(tuple(-(-s // cell) for s in shape)), shape=shape, cell=cell, budget=budget)
    assert len(np.unique(block_numbers(forest, q))) <= 18
    mask = rng.choice((0, 1, 2, 3, 5), shape, p=(0.4, 0.3, 0.2, 0.05, 0.05)).astype(np.int16)  # 4 of 6 is absent
    if seed % 2:
        mask[rng.random(shape) < 0.2] = -1
    expected = [best_of_all(np.where(mask < 0, -1, mask == k), forest, q) for k in range(1, 6) if (mask == k).any()]
    assert label_ceiling(mask, forest, q, num_classes=6) == pytest.approx(float(np.mean(expected)), abs=1e-6)


def test_no_answer_of_many_classes_passes_it() -> None:
    rng = np.random.default_rng(3)
    forest = random_forest((61, 45), 8, 4)
    mask = np.repeat(np.repeat(rng.integers(0, 4, (16, 12)), 4, 0), 4, 1)[:61, :45]
    for q in (1, 2, 4):
        ceiling = label_ceiling(mask, forest, q, num_classes=4)
        shares, _ = label_shares(mask, forest, q, 4)
        for weight in (np.ones(4), rng.random(4), rng.random(4)):
            answer = paint((shares * weight.reshape(1, 4, 1, 1)).astype(np.float64), forest).argmax(0)
            assert np.mean([reference.dice(answer == k, mask == k) for k in range(1, 4)]) <= ceiling + 1e-6


def test_two_classes_of_three_differ_from_binary() -> None:
    """Only labels 0 and 2: the class between is absent and does not count."""
    mask = np.zeros((16, 16), np.uint8)
    mask[:8] = 2
    forest = build_forest(np.ones((2, 2)), shape=(16, 16), cell=8, uniform=8)
    assert label_ceiling(mask, forest, 1) == pytest.approx(1.0)


def test_no_foreground_is_one() -> None:
    forest = random_forest((20, 20), 4, 0)
    assert label_ceiling(np.zeros((20, 20), np.uint8), forest, 2) == 1.0
    assert label_ceiling(np.full((20, 20), -1, np.int16), forest, 2) == 1.0
    assert label_ceiling(np.zeros((20, 20), np.uint8), forest, 2, num_classes=4) == 1.0


def test_shares_add_up() -> None:
    """Shares sum to one where anything is known; area x share sums to the pixels of each class inside the image."""
    rng = np.random.default_rng(1)
    mask = rng.integers(-1, 3, (61, 45)).astype(np.int16)
    forest = random_forest((61, 45), 8, 3)
    for q in (1, 4, 16):
        shares, area = label_shares(mask, forest, q, 3)
        assert shares.shape == (len(forest), 3, q, q)
        assert area.shape == (len(forest), q, q)
        np.testing.assert_allclose(shares.sum(axis=1)[area > 0], 1.0, rtol=1e-5)
        pixels = (shares * area[:, None]).sum(axis=(0, 2, 3))
        np.testing.assert_allclose(pixels, [(mask == k).sum() for k in range(3)], rtol=1e-5)
        assert float(area.sum()) == pytest.approx(float((mask >= 0).sum()), rel=1e-6)


def test_any_integer_dtype() -> None:
    mask = np.random.default_rng(0).random((30, 30)) < 0.4
    forest = random_forest((30, 30), 4, 1)
    values = {label_ceiling(mask.astype(t), forest, 2) for t in (bool, np.uint8, np.int16, np.int64)}
    assert len(values) == 1


def test_errors() -> None:
    forest = random_forest((64, 64), 8, 0)
    with pytest.raises(ValueError, match=r"\(64, 64\).*\(64, 60\)"):
        label_ceiling(np.zeros((64, 60), int), forest, 8)
    with pytest.raises(ValueError, match="3"):
        label_ceiling(np.ones((64, 64), int), forest, 3)
    for classes in (0, 1, 3):  # too few to hold the labels, background counted
        with pytest.raises(ValueError, match=rf"largest 3.*{classes}"):
            label_ceiling(np.full((64, 64), 3), forest, 8, num_classes=classes)
    for given in (1, 2):  # would leave foreground out and say 1.0
        with pytest.raises(ValueError, match=f"background.*2.*{given}"):
            label_ceiling(np.full((64, 64), 2), forest, 8, num_classes=given)
