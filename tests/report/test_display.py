"""Pictures for the eye: any dtype and channel count to 8-bit RGB, shrunk by area, never enlarged."""

import numpy as np
import pytest

from patchforest.report.display import display_image, shrink, shrink_labels


@pytest.mark.parametrize("shape", [(7, 5), (7, 5, 1), (7, 5, 2), (7, 5, 3), (7, 5, 9)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32, np.bool_, np.int16])
def test_anything_becomes_rgb(shape: tuple[int, ...], dtype: type, rng: np.random.Generator) -> None:
    picture = display_image((rng.random(shape) * 100).astype(dtype))
    assert picture.shape == (7, 5, 3)
    assert picture.dtype == np.uint8


def test_8_bit_rgb_keeps_its_values(rng: np.random.Generator) -> None:
    image = rng.integers(0, 256, (6, 9, 3), dtype=np.uint8)
    np.testing.assert_array_equal(display_image(image), image)


def test_a_window_maps_low_to_black_and_high_to_white() -> None:
    picture = display_image(np.array([[-200.0, 50.0, 300.0, 900.0, np.nan]]), window=(-200, 300))
    assert picture[0, :, 0].tolist() == [0, 128, 255, 255, 0]


def test_shrinking_averages_areas_and_never_enlarges() -> None:
    board = np.indices((8, 16)).sum(axis=0) % 2 * 200
    image = np.repeat(board[:, :, None].astype(np.uint8), 3, axis=2)
    small = display_image(image, max_side=4)
    assert small.shape == (2, 4, 3)
    assert (small == 100).all()
    assert shrink(image, 100).shape == image.shape
    assert display_image(np.zeros((1, 5000), np.uint8), max_side=100).shape == (1, 100, 3)


def test_labels_are_sampled_not_mixed() -> None:
    labels = np.kron(np.array([[0, 7], [3, 200]]), np.ones((10, 10), int))
    np.testing.assert_array_equal(shrink_labels(labels, 2), [[0, 7], [3, 200]])
    assert shrink_labels(labels, None).shape == (20, 20)


def test_an_empty_image_is_refused() -> None:
    with pytest.raises(ValueError, match="not empty"):
        display_image(np.zeros((0, 4), np.uint8))
