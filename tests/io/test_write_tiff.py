"""The tags and tiles of written TIFF, by tifffile and Pillow."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from patchforest.io import pyramid
from patchforest.io.pyramid import write_pyramid
from patchforest.io.write_tiff import _rational


@pytest.fixture
def pixels(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    monkeypatch.setattr(pyramid, "_SMALLEST", 50)
    return rng.integers(0, 5, (150, 201), np.uint8)


def test_pages_as_tifffile_sees_them(tmp_path: Path, pixels: np.ndarray) -> None:
    names = ("background", "gland ≥ 2")
    write_pyramid(tmp_path / "a.tif", [pixels], shape=(150, 201), dtype="u1", mpp=0.25, tile=64, names=names)
    with tifffile.TiffFile(tmp_path / "a.tif") as tif:
        assert tif.is_bigtiff
        assert tif.flags == set()
        assert json.loads(tif.pages[0].description) == {"patchforest": "mask", "classes": list(names)}
        assert [page.shape for page in tif.pages] == [(150, 201), (75, 101), (38, 51), (19, 26)]
        assert [level.shape for level in tif.series[0].levels] == [(150, 201), (75, 101), (38, 51), (19, 26)]
        for level, page in enumerate(tif.pages):
            assert int(page.subfiletype) == int(level > 0)
            assert (page.tilelength, page.tilewidth, int(page.compression), int(page.photometric)) == (64, 64, 8, 1)
            assert int(page.predictor) == 1
            assert page.tags["ResolutionUnit"].value == 3
            for tag in ("XResolution", "YResolution"):
                up, down = page.tags[tag].value
                assert up / down == pytest.approx(40_000 / 2**level, rel=1e-9)
        np.testing.assert_array_equal(tif.pages[0].asarray(), pixels)
        np.testing.assert_array_equal(
            tif.pages[2].asarray(), pyramid.halve_mask(pyramid.halve_mask(pixels[..., None]))[..., 0]
        )


@pytest.mark.parametrize(("kind", "channels", "photometric"), [("image", 3, 2), ("image", 1, 1), ("probability", 4, 1)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_samples_and_differences(
    tmp_path: Path, rng: np.random.Generator, kind: Any, channels: int, photometric: int, dtype: type
) -> None:
    image = rng.integers(0, np.iinfo(dtype).max, (70, 90, channels), dtype, endpoint=True)
    write_pyramid(tmp_path / "a.tif", [image], shape=(70, 90), dtype=dtype, mpp=None, kind=kind, tile=32)
    with tifffile.TiffFile(tmp_path / "a.tif") as tif:
        page = tif.pages[0]
        assert (int(page.photometric), page.samplesperpixel, int(page.predictor)) == (photometric, channels, 2)
        assert not {"XResolution", "YResolution", "ResolutionUnit"} & {tag.name for tag in page.tags}
        np.testing.assert_array_equal(page.asarray().reshape(image.shape), image)


def test_libtiff_reads_it(tmp_path: Path, pixels: np.ndarray) -> None:
    colour = np.stack([pixels, pixels * 40, 255 - pixels], axis=2)
    write_pyramid(tmp_path / "m.tif", [pixels], shape=(150, 201), dtype="u1", mpp=0.5, tile=64)
    write_pyramid(tmp_path / "c.tif", [colour], shape=(150, 201), dtype="u1", mpp=0.5, tile=64, kind="image")
    with Image.open(tmp_path / "m.tif") as mask, Image.open(tmp_path / "c.tif") as image:
        np.testing.assert_array_equal(np.asarray(mask), pixels)
        np.testing.assert_array_equal(np.asarray(image), colour)
        mask.seek(1)
        assert mask.size == (101, 75)


def test_words_that_mean_a_scanner_do_not_change_what_the_file_is(tmp_path: Path, pixels: np.ndarray) -> None:
    names = ("Aperio MPP = 9", "</OME>", "ImageJ=1", "<iScan", "shape")
    write_pyramid(tmp_path / "a.tif", [pixels], shape=(150, 201), dtype="u1", mpp=0.25, names=names)
    with tifffile.TiffFile(tmp_path / "a.tif") as tif:
        assert tif.flags == set()


def test_ratios_are_near_and_fit_32_bits() -> None:
    draw = random.Random(3)
    for _ in range(2000):
        value = 10 ** draw.uniform(-5.5, 8)
        up, down = _rational(value)
        assert 0 < up < 2**32
        assert 0 < down < 2**32
        assert up / down == pytest.approx(value, rel=1e-8)
