"""Stacks of TIFF pages against tifffile."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import tifffile

from patchforest.errors import InputError
from patchforest.io.volume_tiff import TiffVolume, is_stack
from patchforest.values import VolumeSource


@pytest.mark.parametrize("dtype", ["u1", "u2", "i2", "f4"])
@pytest.mark.parametrize(
    "layout", [{}, {"compression": "zlib", "tile": (16, 16)}, {"bigtiff": True, "byteorder": ">", "rowsperstrip": 3}]
)
def test_stacks(tmp_path: Path, rng: np.random.Generator, dtype: str, layout: dict) -> None:
    voxels = rng.integers(0, 100, (5, 20, 30)).astype(dtype)
    path = tmp_path / "v.tif"
    tifffile.imwrite(path, voxels, photometric="minisblack", **layout)
    assert is_stack(path)
    source = TiffVolume(path)
    assert isinstance(source, VolumeSource)
    assert source.shape == (5, 20, 30, 1)
    assert source.grid.shape == (30, 20, 5)
    assert (source.spacing, source.affine) == (None, None)
    assert source.read().dtype == dtype
    np.testing.assert_array_equal(source.read()[..., 0], voxels)
    np.testing.assert_array_equal(source.stored()[..., 0], voxels)
    again = pickle.loads(pickle.dumps(source))
    np.testing.assert_array_equal(again.read((1, 4, 7), (3, 10, 20))[..., 0], voxels[1:4, 4:14, 7:27])
    with pytest.raises(ValueError, match="box of"):
        source.read((5, 0, 0))


def test_colours_are_channels(tmp_path: Path, rng: np.random.Generator) -> None:
    voxels = rng.integers(0, 256, (3, 9, 8, 3), dtype=np.uint8)
    tifffile.imwrite(tmp_path / "v.tif", voxels, photometric="rgb")
    np.testing.assert_array_equal(TiffVolume(tmp_path / "v.tif").read(), voxels)


def test_bits_and_white(tmp_path: Path) -> None:
    bits = np.arange(2 * 8 * 8).reshape(2, 8, 8) % 3 == 0
    with tifffile.TiffWriter(tmp_path / "v.tif") as tif:
        for plane in bits:
            tif.write(plane, photometric="miniswhite")
    source = TiffVolume(tmp_path / "v.tif")
    assert source.inverted
    np.testing.assert_array_equal(source.read()[..., 0], np.where(bits, 0, 255))
    np.testing.assert_array_equal(source.stored()[..., 0], bits)


def test_nan_is_placed(tmp_path: Path) -> None:
    voxels = np.zeros((3, 4, 5), np.float32)
    voxels[2, 1, 3] = np.inf
    tifffile.imwrite(tmp_path / "v.tif", voxels)
    with pytest.raises(InputError, match="NaN or infinite"):
        TiffVolume(tmp_path / "v.tif").read()


def test_pages_that_are_no_volume(tmp_path: Path) -> None:
    path = tmp_path / "v.tif"
    with tifffile.TiffWriter(path) as tif:
        for shape in ((8, 9), (8, 9), (8, 10)):
            tif.write(np.zeros(shape, np.uint8), photometric="minisblack", metadata=None)
    with pytest.raises(InputError, match=r"page 2 is 8 x 10 x 1 of 8 bits .u. but page 0 8 x 9 x 1"):
        TiffVolume(path)
    with tifffile.TiffWriter(path) as tif:
        for dtype in (np.uint8, np.uint16):
            tif.write(np.zeros((8, 9), dtype), photometric="minisblack", metadata=None)
    with pytest.raises(InputError, match="page 1 is 8 x 9 x 1 of 16 bits"):
        TiffVolume(path)
    path.write_bytes(b"II*\0")
    with pytest.raises(InputError):
        TiffVolume(path)
    assert not is_stack(path)


def test_a_truncated_stack_is_no_shorter_volume(tmp_path: Path) -> None:
    path = tmp_path / "v.tif"
    voxels, whole = np.arange(288, dtype=np.uint16).reshape(4, 8, 9), 0
    tifffile.imwrite(path, voxels, photometric="minisblack", metadata=None)
    data = path.read_bytes()
    for length in [*range(8, len(data), 31), *range(len(data) - 150, len(data))]:
        path.write_bytes(data[:length])
        try:
            np.testing.assert_array_equal(TiffVolume(path).read()[..., 0], voxels)
            whole += 1  # what is cut off belongs to the text of the last page
        except InputError:
            continue
    assert whole < 30


def test_pages_in_a_circle(tmp_path: Path) -> None:
    path = tmp_path / "v.tif"
    tifffile.imwrite(path, np.zeros((4, 8, 9), np.uint8), photometric="minisblack", metadata=None)
    with tifffile.TiffFile(path) as tif:
        first, last = tif.pages[0].offset, tif.pages[3].offset
    data = bytearray(path.read_bytes())
    tags = int.from_bytes(data[last : last + 2], "little")
    data[last + 2 + 12 * tags : last + 6 + 12 * tags] = first.to_bytes(4, "little")
    path.write_bytes(data)
    with pytest.raises(InputError, match="pages lead in a circle"):
        TiffVolume(path)


def test_too_many_pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("patchforest.io.volume_tiff._MAX_PLANES", 2)
    tifffile.imwrite(tmp_path / "v.tif", np.zeros((3, 8, 9), np.uint8), photometric="minisblack")
    with pytest.raises(InputError, match="pages are more than 2"):
        TiffVolume(tmp_path / "v.tif")


def test_pyramids_are_no_stacks(tmp_path: Path) -> None:
    path = tmp_path / "v.tif"
    with tifffile.TiffWriter(path) as tif:
        tif.write(np.zeros((64, 64), np.uint8), tile=(16, 16), metadata=None)
        tif.write(np.zeros((32, 32), np.uint8), tile=(16, 16), subfiletype=1, metadata=None)
    assert not is_stack(path)
    assert TiffVolume(path).shape == (1, 64, 64, 1)


def test_the_nerve_cord(shared_data: Path) -> None:
    path = shared_data / "em_drosophila_vnc" / "raw.tif"
    if not path.is_file():
        pytest.skip("no em_drosophila_vnc")
    source, expected = TiffVolume(path), tifffile.imread(path)
    assert source.shape == (20, 640, 640, 1)
    np.testing.assert_array_equal(source.read()[..., 0], expected)
    np.testing.assert_array_equal(source.read((7, 100, 200), (3, 50, 60))[..., 0], expected[7:10, 100:150, 200:260])


def test_pages_of_a_slide_are_no_planes(tmp_path: Path) -> None:
    path, plane = tmp_path / "a.svs", np.zeros((16, 16, 3), np.uint8)
    with tifffile.TiffWriter(path) as tif:
        tif.write(plane, photometric="rgb", description="Aperio Image Library v1\n16x16 |AppMag = 20|MPP = 0.5")
        tif.write(plane, photometric="rgb", description="Aperio Image Library v1\nlabel 16x16")
    assert not is_stack(path)


def test_a_real_slide_of_equal_pages_is_no_stack(shared_data: Path) -> None:
    assert not is_stack(shared_data / "wsi" / "odd" / "small.svs")
