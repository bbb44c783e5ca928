"""Simulated road cores: all classes there, stones apart, the image tells the classes, and the seed decides all."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from patchforest.data.roadcore import (
    ASPHALT,
    CRACK,
    MORTAR,
    ROADCORE_CLASSES,
    STONE,
    VOID,
    RoadMix,
    make_roadcore,
    make_structure,
)


@pytest.fixture(scope="module")
def slice_() -> tuple[np.ndarray, np.ndarray]:
    return make_roadcore((320, 384), seed=5)


def test_types_sizes_and_shares(slice_: tuple[np.ndarray, np.ndarray]) -> None:
    image, label = slice_
    assert image.shape == label.shape == (320, 384)
    assert image.dtype == label.dtype == np.uint8
    share = {name: (label == k).mean() for k, name in enumerate(ROADCORE_CLASSES)}
    assert 0.4 < share["stone"] < 0.7
    assert 0.02 < share["void"] < 0.07
    assert 0.001 < share["crack"] < 0.04
    assert share["mortar"] > 0.1
    assert share["asphalt"] > 0.05


def test_grey_values_follow_the_classes_yet_overlap(slice_: tuple[np.ndarray, np.ndarray]) -> None:
    image, label = slice_
    core = {k: cv2.erode((label == k).astype(np.uint8), np.ones((3, 3))) > 0 for k in range(5)}
    mean = {k: image[core[k]].mean() for k in (MORTAR, STONE, VOID, ASPHALT)}
    assert mean[VOID] < mean[ASPHALT] < mean[MORTAR] < mean[STONE]
    assert mean[STONE] - mean[MORTAR] < 60
    assert image[core[STONE]].min() < np.quantile(image[core[MORTAR]], 0.9)  # no threshold separates them


def test_same_seed_same_bits_other_seed_other_slice() -> None:
    first, again, other = (make_roadcore((96, 80), seed=s) for s in (7, 7, 8))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not np.array_equal(first[1], other[1])
    assert not np.array_equal(first[0], other[0])


def test_noise_changes_the_image_never_the_truth() -> None:
    quiet, noisy = (make_roadcore((128, 128), seed=3, noise=n, ring=0.0) for n in (0.0, 0.1))
    assert np.array_equal(quiet[1], noisy[1])
    difference = noisy[0].astype(float) - quiet[0]
    assert difference[40:88, 40:88].std() == pytest.approx(0.1 * 255 / 1.4, rel=0.3)


def test_stones_are_separate_convex_and_graded() -> None:
    label, owner = make_structure((400, 400), RoadMix(), np.random.default_rng(2))
    inside = owner[1:-1, 1:-1]
    for other in (owner[:-2, 1:-1], owner[2:, 1:-1], owner[1:-1, :-2], owner[1:-1, 2:]):
        touching = (inside > 0) & (other > 0) & (inside != other)
        assert touching.sum() < 10  # a gap was kept; rough outlines may close it here and there
    assert np.array_equal(owner > 0, label == STONE)
    areas = np.bincount(owner.ravel())[1:]
    areas = areas[areas > 0]
    assert areas.max() > 40 * np.median(areas)  # many small, few large
    solidity = []
    for k in np.argsort(-np.bincount(owner.ravel())[1:])[:12] + 1:
        outline = max(cv2.findContours((owner == k).astype(np.uint8), 0, 2)[0], key=cv2.contourArea)
        solidity.append(cv2.contourArea(outline) / cv2.contourArea(cv2.convexHull(outline)))
    assert min(solidity) > 0.88


def test_cracks_are_thin_long_and_outside_stones() -> None:
    mix = RoadMix(cracks=3)
    label, owner = make_structure((384, 384), mix, np.random.default_rng(4))
    crack = (label == CRACK).astype(np.uint8)
    assert crack.sum() > 200
    assert not (crack[owner > 0]).any()
    assert cv2.distanceTransform(crack, cv2.DIST_L2, 5).max() <= mix.crack_width
    assert not (make_structure((64, 64), RoadMix(cracks=0), np.random.default_rng(4))[0] == CRACK).any()


def test_scale_enlarges_the_material() -> None:
    def typical(scale: float) -> float:
        _, owner = make_structure((300, 300), RoadMix(scale=scale), np.random.default_rng(1))
        areas = np.bincount(owner.ravel())[1:]
        return float(np.median(areas[areas > 0]))

    assert typical(2.0) > 2.5 * typical(1.0)


def test_shifted_slices_look_different() -> None:
    usual, shifted = make_roadcore((256, 256), seed=1), make_roadcore((256, 256), seed=1, shifted=True)

    def spread(image: np.ndarray, label: np.ndarray) -> float:
        core = cv2.erode((label == STONE).astype(np.uint8), np.ones((5, 5))) > 0
        return float((image.astype(float) - cv2.blur(image, (9, 9)))[core].std())

    assert spread(*shifted) > 1.1 * spread(*usual)
    assert (shifted[1] == STONE).mean() < (usual[1] == STONE).mean()


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (7, 33), (33, 70)])
def test_any_size_works(shape: tuple[int, int]) -> None:
    image, label = make_roadcore(shape, seed=0)
    assert image.shape == label.shape == shape
    assert label.max() < len(ROADCORE_CLASSES)


def test_wrong_arguments_say_why() -> None:
    with pytest.raises(ValueError, match="2-D"):
        make_roadcore((8, 8, 8), seed=0)
    with pytest.raises(ValueError, match="min <= max"):
        RoadMix(stone_min=20, stone_max=10)
    with pytest.raises(ValueError, match="corners"):
        RoadMix(corners=(2, 5))
