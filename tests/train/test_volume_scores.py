"""Scores of volumes against scipy and loops; the ceiling is what the best blocks reach."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from patchforest.errors import InputError
from patchforest.infer.volume import VolumePrediction, cover_volume
from patchforest.models.build import build_model
from patchforest.models.bundle import Bundle, ModelSpec
from patchforest.models.config import ModelConfig, VolumeSpec
from patchforest.nn.raster import ForestBatch
from patchforest.nn.readout.output import TokenMask
from patchforest.train.metrics import score_case
from patchforest.train.scoring import score_picture
from patchforest.train.volume_scores import (
    ceiling_of_windows,
    score_volume,
    score_volume_case,
    surface_distances,
    volume_ceiling,
)
from patchforest.tree.ceiling import label_ceiling
from patchforest.tree.volume import cut_volume, working_shape
from patchforest.values import Array, ForestPolicy, Region
from tests.data.volumes import make_volumes
from tests.forests import random_forest


def balls(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    place = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1)
    mask = np.zeros(shape, np.uint8)
    for k in (1, 2, 1):
        mask[np.linalg.norm(place - rng.uniform(0.2, 0.8, 3) * shape, axis=-1) < max(shape) / 5] = k
    return mask


@pytest.mark.parametrize("apart", [1.0, 2.5])
def test_surface_distances_against_scipy(rng: np.random.Generator, apart: float) -> None:
    ndimage = pytest.importorskip("scipy.ndimage", reason="scipy is the reference")
    masks = [balls(rng, (9, 20, 23)) > 0 for _ in range(2)]
    got = surface_distances(*masks, apart)
    cross = ndimage.generate_binary_structure(3, 1)
    edges = [m & ~ndimage.binary_erosion(m, cross) for m in masks]
    far = [ndimage.distance_transform_edt(~e, sampling=(apart, 1, 1)) for e in edges]
    np.testing.assert_allclose(np.sort(got[0]), np.sort(far[1][edges[0]]), atol=1e-4)
    np.testing.assert_allclose(np.sort(got[1]), np.sort(far[0][edges[1]]), atol=1e-4)


def test_scores_of_volumes(rng: np.random.Generator) -> None:
    truth, said = balls(rng, (8, 20, 20)), balls(rng, (8, 20, 20))
    scores = score_volume(said, truth, 4, spacing=(4.0, 2.0, 2.0))
    for k, score in enumerate(scores[:3]):
        both, either = ((said == k) & (truth == k)).sum(), ((said == k) | (truth == k)).sum()
        assert score.iou == pytest.approx(both / either)
        assert score.dice == pytest.approx(2 * both / ((said == k).sum() + (truth == k).sum()))
        assert score.hd95 is not None
        assert 0 <= score.boundary_f <= 1
    assert scores[3].empty
    assert (scores[3].dice, scores[3].boundary_f, scores[3].hd95) == (1.0, 1.0, None)
    perfect = score_volume(truth, truth, 3)
    assert [(s.dice, s.boundary_f, s.hd95) for s in perfect] == [(1.0, 1.0, 0.0)] * 3
    missed = score_volume(np.zeros_like(truth), truth, 3)[1]
    assert (missed.dice, missed.boundary_f, missed.hd95) == (0.0, 0.0, None)
    one = score_volume(said[:1] * 0 + (said[3:4] > 0), truth[:1] * 0 + (truth[3:4] > 0), 2)[1].dice
    assert one == pytest.approx(score_case((said[3] > 0) * 1, (truth[3] > 0) * 1, 2)[1].dice)


@pytest.mark.parametrize("q", [1, 2, 4, 8])
@pytest.mark.parametrize("shape", [(16, 32, 32), (7, 21, 30)])
def test_ceiling_of_one_octree_is_the_label_ceiling(
    rng: np.random.Generator, q: int, shape: tuple[int, int, int]
) -> None:
    truth = balls(rng, shape)
    forest = random_forest(rng, shape, cell=4, root=16, budget=90)
    windows = ((Region((0, 0, 0), shape), forest),)
    got = volume_ceiling(VolumePrediction(truth, None, windows, (1, 1, 1), 0, 0.0), truth, q, 3)
    assert got == pytest.approx(label_ceiling(truth, forest, q, num_classes=3), abs=1e-5)
    assert volume_ceiling(VolumePrediction(truth, None, windows, (1, 1, 1), 0, 0.0), truth, 3, 3) is None
    assert volume_ceiling(VolumePrediction(truth, None, windows, (1, 1, 1), 0, 0.0), truth * 0, q, 3) == 1.0


@pytest.mark.parametrize("factors", [(1, 2, 2), (2, 3, 1)])
def test_no_painted_mask_beats_the_ceiling_and_the_best_one_reaches_it(
    rng: np.random.Generator, factors: tuple[int, int, int]
) -> None:
    truth = balls(rng, (11, 30, 25)) * (rng.random((11, 30, 25)) < 0.8)
    shape = working_shape(truth.shape, factors)
    forest = random_forest(rng, shape, cell=2, root=8, budget=200)
    got = ceiling_of_windows(truth, ((Region((0, 0, 0), shape), forest),), factors, 2, 3)
    batch = ForestBatch.stack([forest])

    def dice(values: Array, k: int) -> float:
        mask = TokenMask(torch.from_numpy(values)[None, :, None], batch).raster(shape, "nearest")[0, 0].numpy()
        for axis, factor in enumerate(factors):
            mask = mask.repeat(factor, axis)
        mask = mask[tuple(slice(0, s) for s in truth.shape)] > 0.5
        return 2 * (mask & (truth == k)).sum() / (mask.sum() + (truth == k).sum())

    for k in (1, 2):
        shares = np.zeros((len(forest), 2, 2, 2))
        room = np.zeros_like(shares)
        for leaf, block in itertools.product(range(len(forest)), itertools.product(range(2), repeat=3)):
            half = forest.size[leaf] // 2
            box = tuple(
                slice((o + b * half) * f, (o + (b + 1) * half) * f)
                for o, b, f in zip(forest.origin[leaf], block, factors)
            )
            shares[(leaf, *block)], room[(leaf, *block)] = (truth[box] == k).sum(), truth[box].size
        share = shares / np.maximum(room, 1)
        best = max(dice((share >= t).astype(float), k) for t in np.unique(share))
        assert got[k] == pytest.approx(best, abs=1e-6)
        assert dice(rng.integers(0, 2, share.shape).astype(float), k) <= got[k] + 1e-9  # type: ignore[operator]
    grid = ceiling_of_windows(truth, (), factors, None, 3)
    assert all(a >= b - 1e-9 for a, b in zip(grid, got))  # type: ignore[operator]
    assert ceiling_of_windows(truth, (), (1, 1, 1), None, 4) == (1.0, 1.0, 1.0, None)


def test_blended_windows_of_single_voxels_reach_everything(rng: np.random.Generator) -> None:
    truth = balls(rng, (8, 24, 24))
    regions, _ = cover_volume(truth.shape, (8, 16, 16), (8, 16, 16))
    policy = ForestPolicy(uniform=4, cell=4)
    windows = tuple((r, cut_volume(np.zeros((*r.shape, 1), np.float32), policy, r.shape)) for r in regions)
    assert len(windows) == 4
    fine = ceiling_of_windows(truth, windows, (1, 1, 1), 4, 3)
    assert fine == pytest.approx((1.0, 1.0, 1.0))
    coarse = ceiling_of_windows(truth, windows, (1, 1, 1), 1, 3)
    assert all(c is not None and 0.5 < c < 1 for c in coarse)


@pytest.mark.parametrize("spatial", [2, 3])
def test_a_case_is_scored(tmp_path: Path, spatial: int) -> None:
    case = make_volumes(tmp_path, ((8, 24, 20),))[0]
    config = ModelConfig(
        "shf", 1, 3, width=8, depth=1, heads=2, patch=4, cell=4, q=4, stem=(), spatial=spatial
    )  # fmt: skip
    spec = ModelSpec(config, ForestPolicy(budget=30, cell=4, criterion="gradient"), ("a", "b", "c"), window=16)
    score = score_volume_case(Bundle(build_model(config).eval(), spec), case, None)
    assert score.id == "v0"
    assert len(score.classes) == 3
    assert int(score.confusion.sum()) == 8 * 24 * 20
    assert (score.ceiling is None) == (spatial == 2)
    assert score.tokens > 0
    with pytest.raises(ValueError, match="has no mask"):
        score_volume_case(Bundle(build_model(config), spec), replace(case, label=None), None)


def test_a_mask_of_another_shape_is_refused_and_what_is_shown_is_what_is_scored(tmp_path: Path) -> None:
    case, other = make_volumes(tmp_path, ((8, 24, 20), (6, 24, 20)))
    config = ModelConfig("shf", 1, 3, width=8, depth=1, heads=2, patch=4, cell=4, q=4, stem=(), spatial=3)
    spec = ModelSpec(
        config, ForestPolicy(budget=30, cell=4, criterion="gradient"), ("a", "b", "c"), window=16, volume=VolumeSpec()
    )
    bundle = Bundle(build_model(config).eval(), spec)
    shown = score_picture(bundle, case)
    np.testing.assert_array_equal(shown.confusion, score_volume_case(bundle, case, None).confusion)
    for score in (lambda c: score_volume_case(bundle, c, None), lambda c: score_picture(bundle, c)):
        with pytest.raises(InputError):
            score(replace(case, label=other.label))
