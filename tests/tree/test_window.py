"""The one window: 8-bit passes unchanged, everything else by a named range, nothing by its own minimum and maximum."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from patchforest.tree.window import to_uint8, unit_range


@pytest.mark.parametrize(
    ("dtype", "low", "high"),
    [(np.uint8, 0, 255), (np.uint16, 0, 65535), (np.float32, 0.0, 1.0), (np.float64, 0.0, 1.0), (bool, 0, 1)],
)
def test_default_windows(dtype: type, low: float, high: float) -> None:
    image: np.ndarray = np.array([[low, high]]).astype(dtype)
    assert unit_range(image).tolist() == [[0.0, 1.0]]
    assert to_uint8(image).tolist() == [[0, 255]]
    assert unit_range(image).dtype == np.float32
    assert to_uint8(image).dtype == np.uint8


def test_eight_bit_is_unchanged() -> None:
    image = np.arange(256, dtype=np.uint8).reshape(16, 16)
    assert (to_uint8(image) == image).all()
    assert (to_uint8(image, (0, 255)) == image).all()
    np.testing.assert_allclose(unit_range(image), image / 255, rtol=1e-6)
    assert (np.diff(unit_range(image).ravel()) > 0).all()


def test_sixteen_bits_keep_every_step() -> None:
    ramp = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    scaled = unit_range(ramp)
    assert len(np.unique(scaled)) == 65536
    assert len(np.unique(to_uint8(ramp))) == 256
    np.testing.assert_allclose(scaled, ramp / 65535, rtol=1e-6)
    assert (to_uint8((np.arange(256) * 257).astype(np.uint16)) == np.arange(256)).all()


def test_a_named_window_maps_and_clips() -> None:
    image = np.array([-1000.0, -200.0, 50.0, 300.0, 3000.0], np.float32)
    np.testing.assert_allclose(unit_range(image, (-200, 300)), [0, 0, 0.5, 1, 1], atol=1e-6)
    assert to_uint8(image, (-200, 300)).tolist() == [0, 0, 128, 255, 255]
    twelve = np.array([0, 2048, 4095, 60000], np.uint16)
    np.testing.assert_allclose(unit_range(twelve, (0, 4095)), [0, 2048 / 4095, 1, 1], rtol=1e-6)
    hounsfield = np.array([-1024, 50, 3000], np.int16)
    np.testing.assert_allclose(unit_range(hounsfield, (-200, 300)), [0, 0.5, 1])
    assert to_uint8(np.array([100, 200], np.uint8), (100, 200)).tolist() == [0, 255]


def test_nothing_depends_on_the_images_own_extremes() -> None:
    """A dark picture stays dark; one bright pixel changes no other."""
    dark = np.full((4, 4), 0.1, np.float32)
    bright = dark.copy()
    bright[0, 0] = 1.0
    assert (unit_range(dark) == np.float32(0.1)).all()
    assert (unit_range(dark)[1:] == unit_range(bright)[1:]).all()
    assert (to_uint8(dark)[1:] == to_uint8(bright)[1:]).all()
    assert unit_range(np.full((4, 4), 6553, np.uint16)).max() < 0.11
    assert to_uint8(np.full((4, 4), 200, np.uint8)).min() == 200


def test_the_input_is_left_alone() -> None:
    for image in (np.full((3, 3), 0.5, np.float32), np.full((3, 3), 7, np.uint8)):
        kept = image.copy()
        unit_range(image)[:] = 0
        assert (image == kept).all()


@pytest.mark.parametrize("convert", [unit_range, to_uint8])
@pytest.mark.parametrize(
    "image",
    [
        np.array([0.0, 1.5]),
        np.array([-0.1, 0.5], np.float32),
        np.array([0, 100], np.int16),
        np.array([0, 100], np.int64),
    ],
)
def test_an_unknown_range_asks_for_a_window(convert: object, image: np.ndarray) -> None:
    with pytest.raises(ValueError, match="window") as caught:
        convert(image)  # type: ignore[operator]
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_none_are_named_not_windowed(value: float) -> None:
    for window in (None, (0.0, 1.0)):
        with pytest.raises(ValueError, match="NaN"):
            unit_range(np.array([0.5, value]), window)


def test_twelve_bits_in_sixteen_are_said_aloud() -> None:
    with pytest.warns(UserWarning, match=r"4095.*window") as seen:
        unit_range(np.array([0, 4095], np.uint16))
    assert len(seen) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        unit_range(np.array([0, 4095], np.uint16), (0, 4095))
        unit_range(np.array([0, 60000], np.uint16))
        unit_range(np.array([0, 3], np.uint8))
        unit_range(np.zeros(4, np.uint16))


def test_the_message_names_dtype_and_range() -> None:
    with pytest.raises(ValueError, match=r"int16.*-1000.*3000"):
        unit_range(np.array([-1000, 3000], np.int16))


def test_bad_windows_and_values() -> None:
    image = np.zeros((2, 2), np.float32)
    for window in ((1.0, 0.0), (0.5, 0.5), (0.0, float("nan")), (float("-inf"), 1.0)):
        with pytest.raises(ValueError, match="low < high"):
            unit_range(image, window)
    image[0, 0] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        unit_range(image, (0.0, 1.0))
    with pytest.raises(ValueError, match="NaN"):
        to_uint8(image, (0.0, 1.0))
