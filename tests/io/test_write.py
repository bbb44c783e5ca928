"""Masks and pictures come back exactly."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from patchforest.errors import InputError
from patchforest.io.label import read_label
from patchforest.io.open import open_image
from patchforest.io.write import write_image, write_mask


@pytest.mark.parametrize("suffix", [".png", ".tif", ".TIFF"])
@pytest.mark.parametrize("top", [1, 255, 256, 65535])
def test_mask_values_come_back(tmp_path: Path, rng: np.random.Generator, suffix: str, top: int) -> None:
    for shape in ((1, 1), (1, 70), (37, 1), (513, 600)):
        mask = rng.integers(0, top, shape, endpoint=True)
        mask[0, 0] = top
        write_mask(tmp_path / f"m{suffix}", mask)
        back = read_label(tmp_path / f"m{suffix}", num_classes=top + 1)
        assert back.dtype == (np.uint8 if top < 256 else np.uint16)
        np.testing.assert_array_equal(back, mask)


def test_a_bool_mask_is_stored_as_0_and_1(tmp_path: Path) -> None:
    write_mask(tmp_path / "m.png", np.array([[True, False]]))
    assert np.asarray(Image.open(tmp_path / "m.png")).tolist() == [[1, 0]]


def test_the_tiff_is_tiled_and_deflated(tmp_path: Path) -> None:
    write_mask(tmp_path / "m.tif", np.zeros((700, 900), np.uint8))
    with tifffile.TiffFile(tmp_path / "m.tif") as tif:
        page = tif.pages[0]
        assert page.is_tiled
        assert page.compression.name == "ADOBE_DEFLATE"
        assert len(tif.pages) == 1


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [0, 1, 3])
def test_pictures_come_back(tmp_path: Path, rng: np.random.Generator, suffix: str, dtype: type, channels: int) -> None:
    shape = (33, 47, channels) if channels else (33, 47)
    image = rng.integers(0, np.iinfo(dtype).max, shape, dtype=dtype, endpoint=True)
    write_image(tmp_path / f"p{suffix}", image)
    back = open_image(tmp_path / f"p{suffix}").read()
    assert back.dtype == dtype
    np.testing.assert_array_equal(back, image.reshape(33, 47, channels or 1))


def test_red_is_red_for_another_program(tmp_path: Path) -> None:
    red = np.zeros((4, 4, 3), np.uint8)
    red[..., 0] = 200
    write_image(tmp_path / "r.png", red)
    write_image(tmp_path / "r.tif", red)
    assert Image.open(tmp_path / "r.png").getpixel((0, 0)) == (200, 0, 0)
    assert tifffile.imread(tmp_path / "r.tif")[0, 0].tolist() == [200, 0, 0]


def test_what_cannot_be_written_exactly_is_refused_and_nothing_appears(tmp_path: Path) -> None:
    bad_masks = [
        np.zeros((2, 2, 1), int),
        np.zeros((0, 3), int),
        np.full((2, 2), 0.5),
        np.array([[-1]]),
        np.array([[70000]]),
    ]
    for mask in bad_masks:
        with pytest.raises(ValueError, match=r"mask|class numbers"):
            write_mask(tmp_path / "m.png", mask)
    for image in (np.zeros((2, 2, 4), np.uint8), np.zeros((2, 2, 3), np.float32), np.zeros((0, 2, 3), np.uint8)):
        with pytest.raises(ValueError, match="a picture is"):
            write_image(tmp_path / "p.png", image)
    for name in ("m.jpg", "m", "m.png.exe"):
        with pytest.raises(InputError, match=r"end it in .png or .tif"):
            write_mask(tmp_path / name, np.zeros((2, 2), np.uint8))
    assert os.listdir(tmp_path) == []
