"""Overlays: a 0/1 mask is seen, the background stays, and each kind of error has its colour."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from patchforest.report import palette
from patchforest.report.overlay import draw_errors, draw_overlay


def _grey(shape: tuple[int, int] = (40, 60)) -> np.ndarray:
    return np.full((*shape, 3), 100, np.uint8)


def test_a_zero_one_mask_is_plainly_seen_and_the_background_untouched() -> None:
    mask = np.zeros((40, 60), np.uint8)
    mask[10:30, 20:40] = 1
    picture = draw_overlay(_grey(), mask, alpha=0.5, outline=1)
    assert (picture[mask == 0] == 100).all()
    colour = palette.class_colours(2)[1].astype(int)
    np.testing.assert_array_equal(picture[10, 20], colour)  # solid rim
    np.testing.assert_allclose(picture[20, 30], (100 + colour) / 2, atol=1)  # half inside


def test_outlines_part_touching_classes_and_can_be_left_out() -> None:
    mask = np.ones((40, 60), np.uint8)
    mask[:, 30:] = 2
    colours = palette.class_colours(3)
    with_rim = draw_overlay(_grey(), mask, outline=2)
    assert with_rim[20, 29].tolist() == colours[1].tolist()
    assert with_rim[20, 30].tolist() == colours[2].tolist()
    assert with_rim[20, 5].tolist() == draw_overlay(_grey(), mask, outline=0)[20, 29].tolist()


def test_ignored_pixels_are_grey_and_many_classes_have_colours() -> None:
    mask = np.full((40, 60), -1, np.int16)
    mask[:20] = 300
    picture = draw_overlay(_grey(), mask, alpha=1.0, outline=0)
    assert picture[30, 5].tolist() == list(palette.IGNORED)
    assert picture[5, 5].tolist() == palette.class_colours(301)[300].tolist()


def test_errors_have_the_colours_of_the_legend() -> None:
    truth = np.array([[0, 1, 1, 0, 2, -1]] * 2, np.int16)
    prediction = np.array([[0, 1, 0, 1, 1, 1]] * 2, np.uint8)
    black = np.zeros((2, 6, 3), np.uint8)
    row = draw_errors(black, prediction, truth)[0].astype(int)
    legend = np.array([rgb for _, rgb in palette.ERROR_LEGEND], float)
    legend /= legend.max(axis=1, keepdims=True)
    apart = np.abs(row[1:5, None] / row[1:5].max(axis=1)[:, None, None] - legend).sum(axis=2)
    names = [palette.ERROR_LEGEND[i][0].split()[0] for i in apart.argmin(axis=1)]
    assert names == ["right", "missed", "too", "wrong"]
    assert np.ptp(row[0]) == 0  # right background stays grey
    assert np.ptp(row[5]) == 0  # so do ignored pixels
    assert row[5].max() > row[0].max()


@pytest.mark.parametrize("shape", [(1, 1), (1, 70), (33, 1), (5000, 3)])
def test_odd_sizes(shape: tuple[int, int], rng: np.random.Generator) -> None:
    image, mask = rng.random(shape), rng.integers(0, 3, shape)
    picture = draw_overlay(image, mask)
    assert picture.shape[0] == min(shape[0], 4096)
    assert draw_errors(image, mask, mask).shape == picture.shape


@pytest.mark.parametrize(
    ("mask", "match"),
    [(np.zeros((4, 5), int), "same"), (np.zeros((40, 60), float), "whole"), (np.zeros((40, 60, 3), int), "same")],
)
def test_masks_that_do_not_fit_are_refused(mask: np.ndarray, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        draw_overlay(_grey(), mask)


def test_a_class_without_a_colour_is_refused() -> None:
    with pytest.raises(ValueError, match="class 3"):
        draw_overlay(_grey(), np.full((40, 60), 3), colours=palette.class_colours(2))


def test_a_real_mask_changes_the_pixels_under_the_mask_only(shared_data: Path) -> None:
    path = sorted((shared_data / "glas" / "images").iterdir())[0]
    image = np.asarray(cv2.imread(str(path)))[:, :, ::-1]
    truth = next((shared_data / "glas" / "masks").glob(path.stem + ".*"))
    mask = np.asarray(cv2.imread(str(truth), cv2.IMREAD_UNCHANGED))
    picture = draw_overlay(image, mask)
    assert (picture[mask == 0] == image[mask == 0]).all()
    assert (picture[mask > 0] != image[mask > 0]).any(axis=1).mean() > 0.99
