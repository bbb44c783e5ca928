"""Arrays as sources, and the steps every reader shares, against NumPy and Pillow."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from patchforest.errors import InputError
from patchforest.io.array import (
    ArraySource,
    composite_on_white,
    image_values,
    open_npy,
    orient,
    oriented_size,
    stored_window,
    window_of,
)
from patchforest.values import ImageSource


@pytest.mark.parametrize("dtype", ["u1", "u2", ">u2", "i2", "f2", "f4", ">f8"])
@pytest.mark.parametrize("shape", [(1, 1), (7, 5), (7, 5, 1), (7, 5, 3), (6, 9, 12)])
def test_npy_keeps_dtype_and_values_in_every_window(
    tmp_path: Path, rng: np.random.Generator, dtype: str, shape: tuple[int, ...]
) -> None:
    pixels = rng.integers(0, 100, shape).astype(dtype)
    np.save(tmp_path / "a.npy", pixels if len(shape) == 2 else np.asfortranarray(pixels))
    source = open_npy(tmp_path / "a.npy")
    assert isinstance(source, ImageSource)
    expected = pixels.reshape(*shape[:2], -1)
    assert source.shape == expected.shape
    assert source.levels == (shape[:2],)
    whole = source.read()
    assert whole.dtype == np.dtype(dtype).newbyteorder("=")
    assert whole.flags.c_contiguous
    assert whole.flags.writeable
    np.testing.assert_array_equal(whole, expected)
    if shape[0] > 5:
        np.testing.assert_array_equal(source.read(row=2, column=1, height=3, width=2), expected[2:5, 1:3])
        np.testing.assert_array_equal(source.read(row=4), expected[4:])


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
def test_all_npy_versions(tmp_path: Path, version: tuple[int, int]) -> None:
    pixels = np.arange(12, dtype=np.uint16).reshape(3, 4)
    with open(tmp_path / "a.npy", "wb") as file:
        np.lib.format.write_array(file, pixels, version=version)
    np.testing.assert_array_equal(open_npy(tmp_path / "a.npy").read()[..., 0], pixels)


def test_bool_becomes_0_and_255_for_images_and_stays_for_labels(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([[True, False]]))
    source = open_npy(tmp_path / "a.npy")
    assert source.read().dtype == np.uint8
    assert source.read()[0, :, 0].tolist() == [255, 0]
    assert source.stored().dtype == bool


@pytest.mark.parametrize(
    ("pixels", "fault"),
    [
        (np.zeros(5), r"has shape \(5,\)"),
        (np.zeros((2, 2, 2, 2)), "has shape"),
        (np.zeros((0, 4)), "has shape"),
        (np.zeros((4, 4), complex), "holds complex128"),
        (np.array([["a", "b"]]), "holds <U1"),
        (np.zeros((3, 3), "M8[s]"), "holds datetime64"),
        (np.zeros((3, 40, 50)), "channels first"),
    ],
)
def test_arrays_that_are_no_image(tmp_path: Path, pixels: np.ndarray, fault: str) -> None:
    np.save(tmp_path / "a.npy", pixels)
    with pytest.raises(InputError, match=fault):
        open_npy(tmp_path / "a.npy")


def test_pickled_objects_are_never_loaded(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (Path.touch, (tmp_path / "executed",))  # type: ignore[return-value]

    np.save(tmp_path / "a.npy", np.array([[Evil()]], dtype=object), allow_pickle=True)
    with pytest.raises(InputError, match="cannot be read as a NumPy array"):
        open_npy(tmp_path / "a.npy")
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_are_counted_and_placed(bad: float) -> None:
    pixels = np.zeros((20, 30, 2), np.float32)
    pixels[7, 11, 1] = pixels[15, 2, 0] = bad
    source = ArraySource(pixels, "f.npy")
    with pytest.raises(InputError, match=r"f.npy: has 2 NaN or infinite values, .* \(7, 11, 1\); replace"):
        source.read()
    with pytest.raises(InputError, match=r"has 1 NaN .* \(15, 2, 0\)"):
        source.read(row=10, column=1)
    assert source.read(height=7).shape == (7, 30, 2)


def test_windows() -> None:
    levels = ((10, 20), (5, 10))
    assert window_of(levels, 0, 0, 0, None, None) == (0, 0, 10, 20)
    assert window_of(levels, 1, 4, 3, None, 2) == (4, 3, 1, 2)
    for bad in (
        (2, 0, 0, 1, 1),
        (-1, 0, 0, 1, 1),
        (0, -1, 0, 1, 1),
        (0, 0, 0, 11, 1),
        (0, 10, 0, None, 1),
        (1, 0, 0, 1, 0),
    ):
        with pytest.raises(ValueError, match=r"level"):
            window_of(levels, *bad)


@pytest.mark.parametrize("code", range(10))
def test_orientation_is_pillows_and_windows_agree(rng: np.random.Generator, code: int) -> None:
    stored = rng.integers(0, 256, (11, 6), dtype=np.uint8)
    picture = Image.fromarray(stored)
    picture.getexif()[0x0112] = code if 1 <= code <= 8 else 1
    seen = orient(stored, code)
    np.testing.assert_array_equal(seen, np.asarray(ImageOps.exif_transpose(picture)))
    assert oriented_size((11, 6), code) == seen.shape
    for _ in range(10):
        row, column = rng.integers(0, seen.shape[0]), rng.integers(0, seen.shape[1])
        height, width = rng.integers(1, seen.shape[0] - row + 1), rng.integers(1, seen.shape[1] - column + 1)
        r, c, h, w = stored_window((row, column, height, width), seen.shape, code)
        part = orient(stored[r : r + h, c : c + w], code)
        np.testing.assert_array_equal(part, seen[row : row + height, column : column + width])


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_compositing(dtype: type) -> None:
    top = int(np.iinfo(dtype).max)
    pixels = np.array([[[100, 0, top], [100, 0, top], [100, 0, top]]], dtype)
    alpha = np.array([[top, 0, top // 5]], dtype)
    out = composite_on_white(pixels, alpha)
    assert out.dtype == dtype
    assert out[0, 0].tolist() == [100, 0, top]
    assert out[0, 1].tolist() == [top, top, top]
    assert out[0, 2].tolist() == [round(100 * 0.2 + 0.8 * top), round(0.8 * top), top]
    ready = np.array([[[20, 0, top // 5]]], dtype)
    assert composite_on_white(ready, alpha[:, 2:], associated=True)[0, 0].tolist() == out[0, 2].tolist()


def test_image_values_copies() -> None:
    pixels = np.zeros((2, 2, 1), np.uint8)
    image_values(pixels, "a")[:] = 9
    assert pixels.sum() == 0
