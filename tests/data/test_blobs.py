"""Blobs: an honest pair of pictures, one where detail is rare and one where it is everywhere."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from patchforest.data.blobs import make_blobs


def test_types_shares_and_contrast() -> None:
    image, label = make_blobs((256, 300), seed=4)
    assert image.shape == (256, 300, 3)
    assert label.shape == (256, 300)
    assert image.dtype == label.dtype == np.uint8
    assert set(np.unique(label)) == {0, 1}
    assert image[label == 0].mean() > image[label == 1].mean() + 40


def test_same_seed_same_bits() -> None:
    first, again, other = (make_blobs((64, 64), seed=s) for s in (1, 1, 2))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not np.array_equal(first[0], other[0])


def test_detail_is_rare_without_noise_and_everywhere_with_it() -> None:
    def busy(noise: float) -> float:
        grey = cv2.cvtColor(make_blobs((256, 256), seed=3, noise=noise)[0], cv2.COLOR_RGB2GRAY)
        edges = cv2.Canny(cv2.GaussianBlur(grey, (5, 5), 0), 50, 100)
        return float((cv2.resize(edges, (32, 32), interpolation=cv2.INTER_AREA) > 0).mean())

    assert busy(0.0) < 0.5
    assert busy(60.0) > 0.95
    assert np.array_equal(make_blobs((64, 64), seed=3, noise=60.0)[1], make_blobs((64, 64), seed=3)[1])


def test_arms_are_thin() -> None:
    bare, armed = (make_blobs((256, 256), seed=6, count=3, tentacles=t)[1] for t in (0, 8))
    kernel = np.ones((7, 7), np.uint8)
    thin = [(m & (1 - cv2.morphologyEx(m, cv2.MORPH_OPEN, kernel))).sum() for m in (bare, armed)]
    assert thin[1] > 3 * thin[0] + 50


@pytest.mark.parametrize("shape", [(1, 1), (1, 30), (33, 5)])
def test_any_size_works(shape: tuple[int, int]) -> None:
    assert make_blobs(shape, seed=0)[1].shape == shape


def test_wrong_arguments_say_why() -> None:
    with pytest.raises(ValueError, match="2-D"):
        make_blobs((4, 4, 4), seed=0)
    with pytest.raises(ValueError, match="negative"):
        make_blobs((4, 4), seed=0, noise=-1)
    assert not make_blobs((40, 40), seed=0, count=0)[1].any()
