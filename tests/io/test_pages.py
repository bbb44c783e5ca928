"""What a page says of itself: claims that cannot be, and formats that are TIFF by their structure only."""

from __future__ import annotations

import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from patchforest.errors import InputError
from patchforest.io.open import open_source
from patchforest.io.pages import VendorFormat, level_of, require_no_vendor, require_plausible_directories
from patchforest.io.slide import SlideSource, has_openslide
from patchforest.io.tiff import TiffSource
from tests.io.slides import jpeg_tiles, write_tiled


def written(path: Path, **settings: Any) -> bytearray:
    tifffile.imwrite(path, np.arange(96 * 80, dtype=np.uint16).reshape(96, 80), metadata=None, **settings)
    return bytearray(path.read_bytes())


def entry(data: bytes, order: str, big: bool, code: int) -> int:
    """Where the entry of tag ``code`` in the first directory lies."""
    start = struct.unpack_from(order + ("Q" if big else "I"), data, 8 if big else 4)[0]
    number = struct.unpack_from(order + ("Q" if big else "H"), data, start)[0]
    for k in range(number):
        place = start + (8 if big else 2) + k * (20 if big else 12)
        if struct.unpack_from(order + "H", data, place)[0] == code:
            return place
    raise KeyError(code)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("layout", [{"tile": (32, 16)}, {"rowsperstrip": 10}, {"tile": (96, 80)}])
def test_claims_are_held_against_the_file(tmp_path: Path, order: str, big: bool, layout: dict[str, Any]) -> None:
    path, form = tmp_path / "a.tif", order + ("Q" if big else "I")
    whole = written(path, bigtiff=big, byteorder=order, **layout)
    require_plausible_directories(path)
    counts = 325 if "tile" in layout else 279
    for code in (256, counts):  # more values than the file has bytes
        data = bytearray(whole)
        struct.pack_into(form, data, entry(data, order, big, code) + 4, 2**31)
        path.write_bytes(data)
        with pytest.raises(InputError, match=f"tag {code} has 2147483648 values"):
            require_plausible_directories(path)
    data = bytearray(whole)
    wrong = len(whole) + (1 if layout == {"tile": (96, 80)} else -1)  # the one length itself, or where the lengths lie
    struct.pack_into(form, data, entry(data, order, big, counts) + (12 if big else 8), wrong)
    path.write_bytes(data)
    with pytest.raises(InputError, match="longer than the file"):
        require_plausible_directories(path)
    for length in (5, 10, entry(whole, order, big, counts)):
        path.write_bytes(whole[:length])
        with pytest.raises(InputError, match="is a truncated TIFF"):
            require_plausible_directories(path)


@pytest.mark.parametrize("big", [False, True])
def test_a_tag_that_is_lost_is_no_default(tmp_path: Path, big: bool) -> None:
    """Files of before: bits behind the end of the file made a colour image one of single bits, in silence."""
    path = tmp_path / "a.tif"
    pixels = np.random.default_rng(3).integers(0, 255, (40, 50, 3), dtype=np.uint8)
    write_tiled(path, [((40, 50), jpeg_tiles(pixels, 64))], 64)
    if not big:
        Image.fromarray(pixels).save(path, "TIFF", compression="packbits")
    whole = path.read_bytes()
    np.testing.assert_array_equal(TiffSource(path).read().shape, pixels.shape)
    for code, message in ((258, "what its numbers mean"), (262, "what its numbers mean")):
        data = bytearray(whole)
        struct.pack_into("<H", data, entry(data, "<", big, code), 65000)
        path.write_bytes(data)
        with pytest.raises(InputError, match=message):
            TiffSource(path)
    if not big:  # three shorts elsewhere, here at the very end
        data = bytearray(whole) + bytes(struct.pack("<HH", 8, 8))
        struct.pack_into("<I", data, entry(data, "<", big, 258) + 8, len(whole))
        path.write_bytes(data)
        with pytest.raises(InputError, match="is truncated: its tag 258 ends at byte"):
            TiffSource(path)
    bilevel = tmp_path / "b.tif"
    Image.fromarray(pixels[..., 0] > 99).save(bilevel, "TIFF")
    with pytest.raises(KeyError):  # that pixels are bits need not be said
        entry(bytearray(bilevel.read_bytes()), "<", False, 258)
    np.testing.assert_array_equal(TiffSource(bilevel).read()[..., 0] > 0, pixels[..., 0] > 99)


def test_plain_pixels_are_not_compressed_ones_without_their_tag(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    pixels = np.random.default_rng(3).integers(0, 255, (140, 150), dtype=np.uint8)  # noise: it grows
    Image.fromarray(pixels).save(path, "TIFF", compression="tiff_lzw")
    data = bytearray(path.read_bytes())
    struct.pack_into("<H", data, entry(data, "<", False, 259) + 8, 1)
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"bytes in a tile or strip of 21000 that is not compressed"):
        TiffSource(path)


def test_absurd_tiles_and_loops(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    whole = written(path, tile=(32, 16))
    data = bytearray(whole)
    for code in (322, 323):
        place = entry(data, "<", False, code)
        struct.pack_into("<HII", data, place + 2, 4, 1, 2**20)
    path.write_bytes(data)
    with pytest.raises(InputError, match=f"tiles have {2**40} pixels each"):
        require_plausible_directories(path)
    start = struct.unpack_from("<I", whole, 4)[0]
    number = struct.unpack_from("<H", whole, start)[0]
    struct.pack_into("<I", whole, start + 2 + 12 * number, start)
    path.write_bytes(whole)
    require_plausible_directories(path)  # ends


def test_a_refusal_for_vendors_is_an_input_error(tmp_path: Path) -> None:
    written(tmp_path / "a.tif", software="Philips DP v1", description="<DataObject></DataObject>")
    with tifffile.TiffFile(tmp_path / "a.tif") as tif:
        with pytest.raises(VendorFormat, match="is a Philips slide; convert it") as caught:
            require_no_vendor(tif.pages[0], tmp_path / "a.tif")
        assert level_of(tif.pages[0], tmp_path / "a.tif", 10**6).height == 96
    assert caught.value.certain
    assert isinstance(pickle.loads(pickle.dumps(caught.value)), InputError)


@pytest.mark.parametrize(
    ("extra", "name"),
    [
        (((65420, 16, (1,)), (271, 2, b"Hamamatsu\0")), "Hamamatsu slide .NDPI"),
        (((270, 2, b'<?xml version="1.0"?><scn xmlns="http://www.leica-microsystems.com/scn"></scn>\0'),), "Leica"),
        (((700, 1, b"<EncodeInfo><iScan Magnification='40'/></EncodeInfo>"),), "Ventana"),
        (((305, 2, b"Philips DP v1.0\0"), (270, 2, b"<DataObject></DataObject>\0")), "Philips"),
        (((305, 2, b"MedScan 2\0"), (270, 2, b"Background Color=ffffff\0")), "Trestle"),
    ],
)
def test_scanners_whose_tiles_are_not_simply_the_image(tmp_path: Path, extra: tuple, name: str) -> None:
    pixels = np.kron(np.random.default_rng(8).integers(0, 255, (40, 55, 3)), np.ones((8, 8, 1))).astype(np.uint8)
    write_tiled(tmp_path / "a.tif", [(pixels.shape[:2], jpeg_tiles(pixels, 128))], 128, extra=extra)
    with pytest.raises(InputError, match=f"is a {name}"):
        TiffSource(tmp_path / "a.tif")
    assert TiffSource(tmp_path / "a.tif", 0).shape == (320, 440, 3)
    if has_openslide() and name == "Trestle":
        source = open_source(tmp_path / "a.tif")
        assert isinstance(source, SlideSource)
        assert source.vendor == "trestle"
        np.testing.assert_array_equal(source.read(), TiffSource(tmp_path / "a.tif", 0).read())
        return
    with pytest.raises(InputError, match=r"[Ss]lide") as caught:  # OpenSlide wants more of these than a name
        open_source(tmp_path / "a.tif")
    assert "\n" not in str(caught.value)
