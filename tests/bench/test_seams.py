"""Seams against probabilities whose jumps at leaves are known."""

import numpy as np
import pytest

from patchforest.bench import seams
from patchforest.bench.seams import find_seams
from patchforest.tree.forest import build_forest
from patchforest.tree.paint import paint


def forest_of(seed=0, shape=(96, 120)):
    detail = np.random.default_rng(seed).gamma(0.3, size=(-(-shape[0] // 8), -(-shape[1] // 8))).astype(np.float32)
    return build_forest(detail, shape=shape, cell=8, budget=40, root=64)


def test_a_constant_per_leaf_has_nothing_inside_and_all_at_its_borders():
    forest = forest_of()
    values = np.random.default_rng(1).random((len(forest), 2, 1, 1)).astype(np.float32)
    found = find_seams(paint(values, forest), forest, rng=np.random.default_rng(0))
    assert found.inside == 0
    assert found.excess == found.border > 0.2
    # every pair of neighbouring pixels of different leaves, by a plain loop
    owner = paint(np.arange(len(forest)).reshape(-1, 1, 1, 1), forest)[0].astype(int)
    leaf = values[:, :, 0, 0]
    pairs = [(owner[r, c], owner[r + d, c + e]) for d, e in ((0, 1), (1, 0))
             for r in range(owner.shape[0] - d) for c in range(owner.shape[1] - e)]  # fmt: skip
    jumps = [np.abs(leaf[a] - leaf[b]).mean() for a, b in pairs if a != b]
    assert found.places == len(jumps)
    assert found.border == pytest.approx(np.mean(jumps), rel=1e-5)


def test_a_smooth_slope_has_no_seams():
    forest = forest_of()
    slope = np.add.outer(np.arange(96) * 0.01, np.arange(120) * 0.01)[None]
    for reach in (1, 2, 3):
        found = find_seams(slope, forest, rng=np.random.default_rng(0), reach=reach)
        assert found.border == pytest.approx(0.01 * (2 * reach - 1))
        assert found.excess == pytest.approx(0, abs=1e-9)


def test_noise_that_does_not_know_the_forest_has_no_seams_though_leaves_are_unequal():
    forest = forest_of(3)
    rough = np.random.default_rng(2).random((1, 96, 120)) * np.linspace(0, 1, 120)  # rougher to the right
    found = find_seams(rough, forest, rng=np.random.default_rng(0))
    assert abs(found.excess) < 0.03 * found.border


def test_both_pixels_of_a_place_inside_are_of_one_leaf(monkeypatch):
    for shape in ((96, 120), (90, 115)):  # leaves at the far edges are 2 and 3 pixels long inside the image
        forest = forest_of(4, shape)
        values = np.arange(len(forest), dtype=np.float32).reshape(-1, 1, 1, 1)
        for reach in (1, 2, 4):
            assert find_seams(paint(values, forest), forest, rng=np.random.default_rng(1), reach=reach).inside == 0
    monkeypatch.setattr(seams, "MOST_PLACES", 50)
    assert find_seams(paint(values, forest), forest, rng=np.random.default_rng(1)).places <= 100


def test_reach_looks_beyond_what_enlarging_has_blended():
    forest = forest_of(5)
    raster = paint(np.random.default_rng(1).random((len(forest), 1, 1, 1)), forest)
    blended = (raster + np.roll(raster, 1, 1) + np.roll(raster, 1, 2)) / 3  # over one pixel
    near = find_seams(blended, forest, rng=np.random.default_rng(0), reach=1)
    far = find_seams(blended, forest, rng=np.random.default_rng(0), reach=2)
    assert far.border > 1.2 * near.border


def test_one_leaf_has_no_borders_and_shapes_must_fit():
    one = build_forest(np.ones((4, 4), np.float32), shape=(32, 32), cell=8, budget=1, root=32)
    found = find_seams(np.zeros((1, 32, 32)), one, rng=np.random.default_rng(0))
    assert found.places == 0
    assert np.isnan(found.excess)
    with pytest.raises(ValueError, match="for this forest"):
        find_seams(np.zeros((1, 32, 33)), one, rng=np.random.default_rng(0))
