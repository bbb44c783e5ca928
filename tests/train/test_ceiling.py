"""Ceilings: the exact one for a whole forest, blends and blocks otherwise, and never below what was reached."""

from __future__ import annotations

import numpy as np
import pytest

from patchforest.infer.predict import predict
from patchforest.train.ceiling import OutputGrid, model_ceiling, output_grid
from patchforest.tree.ceiling import label_ceiling
from patchforest.values import Array
from tests.infer.fakes import Bright, fake, tiny


def discs(shape: tuple[int, int], classes: int = 2, seed: int = 0) -> tuple[Array, Array]:
    """An image and its mask with thin and thick structures."""
    rng = np.random.default_rng(seed)
    mask = np.zeros(shape, np.uint8)
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    for k in range(5):
        centre, radius = rng.uniform(0, shape), rng.uniform(3, 18)
        mask[(rows - centre[0]) ** 2 + (columns - centre[1]) ** 2 < radius**2] = 1 + k % (classes - 1)
    image = (60 + 120 * (mask[..., None] > 0) + rng.integers(0, 40, (*shape, 3))).astype(np.uint8)
    return image, mask


def test_grids_of_the_models() -> None:
    assert output_grid(tiny("shf")) == OutputGrid(q=16, stride=1)
    assert output_grid(tiny("shf", downscale=2)) == OutputGrid(q=16, stride=2)
    assert output_grid(tiny("unet")) == OutputGrid(q=None, stride=1)
    assert output_grid(tiny("apf_unetr", downscale=2)) == OutputGrid(q=None, stride=2)


@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("downscale", [1, 2])
def test_one_forest_gives_the_label_ceiling(classes: int, downscale: int) -> None:
    image, mask = discs((90, 120), classes)
    bundle = tiny("shf", classes=classes, downscale=downscale)
    prediction = predict(bundle, image, window="whole")
    assert prediction.forest is not None
    for q in (2, 4):
        expected = label_ceiling(mask, prediction.forest, q, num_classes=classes)
        assert model_ceiling(prediction, mask, OutputGrid(q, downscale), classes) == expected
        assert 0.3 < expected < 1


def test_blended_windows_come_near_the_whole_forest() -> None:
    image, mask = discs((120, 150))
    bundle = tiny("shf")
    whole = model_ceiling(predict(bundle, image, window="whole"), mask, OutputGrid(4, 1), 2)
    parts = model_ceiling(predict(bundle, image, window=64), mask, OutputGrid(4, 1), 2)
    assert whole is not None
    assert parts is not None
    assert abs(whole - parts) < 0.1
    assert model_ceiling(predict(bundle, image, window=64), mask, OutputGrid(64, 1), 2) == pytest.approx(1.0)


def test_blocks_by_brute_force() -> None:
    image, mask = discs((30, 41))
    prediction = predict(fake(Bright()), image)
    padded = np.pad(mask, ((0, 2), (0, 3)), mode="edge").astype(float)
    means = padded.reshape(8, 4, 11, 4).mean((1, 3))
    nearest = means.repeat(4, 0).repeat(4, 1)[:30, :41]
    weights = []
    for count in means.shape:  # linear between the middles of blocks
        place = np.clip((np.arange(4 * count) + 0.5) / 4 - 0.5, 0, count - 1)
        weights.append(np.maximum(0, 1 - np.abs(place[:, None] - np.arange(count))))
    linear = (weights[0] @ means @ weights[1].T)[:30, :41]
    best = [
        max(2 * (mask[share >= t].sum()) / ((share >= t).sum() + mask.sum()) for t in np.unique(share)[1:])
        for share in (nearest, linear)
    ]
    assert best[1] > best[0]
    assert model_ceiling(prediction, mask, OutputGrid(None, 4), 2) == pytest.approx(max(best), abs=1e-4)
    assert model_ceiling(prediction, mask, OutputGrid(None, 1), 2) == 1.0


def test_ends() -> None:
    image, mask = discs((40, 40))
    bundle = tiny("shf", downscale=3)
    assert model_ceiling(predict(bundle, image), np.zeros_like(mask), OutputGrid(16, 3), 2) == 1.0
    assert model_ceiling(predict(bundle, image), mask, OutputGrid(16, 3), 2) is None  # 24-pixel leaves, 16 values
