"""Mask files in bands: every format gives the numbers that were saved, in parts, and wrong ones say so in a line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from patchforest.errors import InputError
from patchforest.infer import mask_bands
from patchforest.infer.mask_bands import open_mask
from patchforest.values import Array

Save = Callable[[Path, Array], object]


def _palette(path: Path, mask: Array, bits: int = 8) -> None:
    picture = Image.fromarray(mask, mode="P")
    picture.putpalette([v for k in range(1 << bits) for v in (k, 255 - k, 7)])
    picture.save(path, bits=bits)


def _palette_tiff(path: Path, mask: Array) -> None:
    colours = np.random.default_rng(0).integers(0, 65536, (3, 256), dtype=np.uint16)
    tifffile.imwrite(path, mask, photometric="palette", colormap=colours)


def _pyramid(path: Path, mask: Array) -> None:
    with tifffile.TiffWriter(path, bigtiff=True) as tif:
        tif.write(mask, tile=(16, 16), compression="adobe_deflate", resolution=(20000, 20000), resolutionunit=3)
        tif.write(mask[::2, ::2], tile=(16, 16), subfiletype=1)


IMAGES: dict[str, tuple[str, Save]] = {
    "png": ("m.png", lambda p, m: Image.fromarray(m).save(p)),
    "palette png": ("m.png", _palette),
    "three equal channels": ("m.png", lambda p, m: Image.fromarray(np.stack([m] * 3, axis=-1)).save(p)),
    "opaque": ("m.png", lambda p, m: Image.fromarray(np.dstack([m, np.full_like(m, 255)]), mode="LA").save(p)),
    "palette tiff": ("m.tif", _palette_tiff),
    "opaque tiff": ("m.tif", lambda p, m: Image.fromarray(np.dstack([m, np.full_like(m, 255)]), mode="LA").save(p)),
    "npy": ("m.npy", np.save),
    "npy of 64 bits": ("m.npy", lambda p, m: np.save(p, m.astype(np.int64))),
    "pyramid": ("m.tif", _pyramid),
    "strips": ("m.tif", lambda p, m: tifffile.imwrite(p, m, rowsperstrip=3)),
    "16 bits": ("m.tif", lambda p, m: tifffile.imwrite(p, m.astype(np.uint16))),
    "32 bits": ("m.tif", lambda p, m: tifffile.imwrite(p, m.astype(np.uint32))),
    "four bits": ("m.png", lambda p, m: _palette(p, m, bits=4)),
}


@pytest.mark.parametrize("name", IMAGES)
def test_an_image_gives_its_numbers_in_bands(
    rng: np.random.Generator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    file, save = IMAGES[name]
    mask = rng.integers(0, 8, (75, 41), dtype=np.uint8)
    save(tmp_path / file, mask)
    monkeypatch.setattr(mask_bands, "BAND", 41 * 10)
    opened = open_mask(tmp_path / file)
    bands = list(opened.bands())
    assert opened.shape == (75, 41)
    assert len(bands) == {"pyramid": 5, "strips": 9, "16 bits": 1, "32 bits": 1}.get(name, 8)  # tiles, strips: whole
    assert np.array_equal(np.concatenate(bands), mask)
    assert np.array_equal(np.concatenate(list(opened.bands())), mask)
    assert opened.scale == ((0.5, 0.5) if name == "pyramid" else None)


def test_only_the_rows_asked_for_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _pyramid(tmp_path / "m.tif", np.ones((64, 48), np.uint8))
    monkeypatch.setattr(mask_bands, "BAND", 1)
    opened = open_mask(tmp_path / "m.tif")
    assert opened.step == 16
    assert next(iter(opened.bands())).shape == (16, 48)


def test_one_bit_is_class_one_and_255_is_class_255(tmp_path: Path) -> None:
    mask = np.eye(9, dtype=bool)
    Image.fromarray(mask).save(tmp_path / "a.png")
    Image.fromarray(mask).save(tmp_path / "a.tif")
    np.save(tmp_path / "a.npy", mask)
    Image.fromarray(mask.astype(np.uint8) * 255).save(tmp_path / "b.png")
    for file, top in (("a.png", 1), ("a.tif", 1), ("a.npy", 1), ("b.png", 255)):
        (band,) = open_mask(tmp_path / file).bands()
        assert np.array_equal(band.astype(int), mask * top), file


def test_zarr_is_read_in_chunks(rng: np.random.Generator, tmp_path: Path) -> None:
    zarr = pytest.importorskip("zarr")
    mask = rng.integers(0, 3, (50, 30)).astype(np.uint16)
    array = zarr.open_array(tmp_path / "m.zarr", mode="w", shape=mask.shape, chunks=(16, 16), dtype=mask.dtype)
    array[:] = mask
    assert np.array_equal(np.concatenate(list(open_mask(tmp_path / "m.zarr").bands())), mask)


@pytest.mark.parametrize("file", ["v.npy", "v.tif"])
def test_a_volume_gives_its_planes(
    rng: np.random.Generator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str
) -> None:
    mask = rng.integers(0, 4, (7, 12, 11), dtype=np.uint8)
    (np.save if file == "v.npy" else tifffile.imwrite)(tmp_path / file, mask)
    monkeypatch.setattr(mask_bands, "BAND", 2 * 12 * 11)
    opened = open_mask(tmp_path / file)
    bands = list(opened.bands())
    assert [len(band) for band in bands] == [2, 2, 2, 1]
    assert np.array_equal(np.concatenate(bands), mask)
    assert opened.scale is None


def test_a_nifti_of_whole_real_numbers_is_a_mask_with_its_spacing(rng: np.random.Generator, tmp_path: Path) -> None:
    nibabel = pytest.importorskip("nibabel")
    mask = rng.integers(0, 4, (5, 6, 7))
    nibabel.save(nibabel.Nifti1Image(mask.astype(np.float32), np.diag([2.0, 3.0, 4.0, 1.0])), tmp_path / "m.nii.gz")
    opened = open_mask(tmp_path / "m.nii.gz")
    assert opened.scale == (4.0, 3.0, 2.0)
    planes = np.concatenate(list(opened.bands()))
    assert sorted(planes.ravel().tolist()) == sorted(mask.ravel().tolist())
    assert planes.shape == (7, 6, 5)


BAD: dict[str, tuple[str, Save, str]] = {
    "jpeg": ("m.jpg", lambda p, m: Image.fromarray(m).save(p), "JPEG"),
    "colours": ("m.png", lambda p, m: Image.fromarray(np.stack([m, m, 255 - m], -1)).save(p), "colour"),
    "see-through": ("m.png", lambda p, m: Image.fromarray(np.dstack([m, m]), mode="LA").save(p), "transparency"),
    "see-through tiff": ("m.tif", lambda p, m: Image.fromarray(np.dstack([m, m]), mode="LA").save(p), "transparency"),
    "real numbers": ("m.npy", lambda p, m: np.save(p, m * 0.5), "real"),
    "negative": ("m.npy", lambda p, m: np.save(p, m.astype(np.int16) - 9), "from -9 to"),
    "instances": ("m.npy", lambda p, m: np.save(p, m.astype(np.uint32) + 70000), "from 70000"),
    "counts from white": ("m.tif", lambda p, m: tifffile.imwrite(p, m, photometric="miniswhite"), "white"),
    "empty": ("m.tif", lambda p, m: p.write_bytes(b""), "empty"),
    "text": ("m.png", lambda p, m: p.write_text("no mask at all\n"), "text"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_mask_is_refused_in_a_line(tmp_path: Path, name: str) -> None:
    file, save, word = BAD[name]
    save(tmp_path / file, np.arange(77 * 30, dtype=np.uint8).reshape(77, 30) % 9)
    with pytest.raises(InputError, match=word) as caught:
        list(open_mask(tmp_path / file).bands())
    assert str(tmp_path / file) in str(caught.value)
