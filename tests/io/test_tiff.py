"""TIFF: layouts, pyramids, colour models, orientation, scale; and damage found before it becomes pixels."""

from __future__ import annotations

import copy
import os
import struct
import subprocess
import sys
import textwrap
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image, TiffImagePlugin

from patchforest.errors import InputError
from patchforest.io.tiff import TiffSource


def written(path: Path, pixels: np.ndarray, **settings: Any) -> TiffSource:
    tifffile.imwrite(path, pixels, metadata=None, **settings)
    return TiffSource(path)


def edit_tag(path: Path, code: int, value: bytes) -> None:
    """Overwrites the value field of a little-endian classic TIFF's first directory entry ``code``."""
    data = bytearray(path.read_bytes())
    start = struct.unpack_from("<I", data, 4)[0]
    for k in range(struct.unpack_from("<H", data, start)[0]):
        entry = start + 2 + 12 * k
        if struct.unpack_from("<H", data, entry)[0] == code:
            data[entry + 8 : entry + 8 + len(value)] = value
            path.write_bytes(data)
            return
    raise KeyError(code)


@pytest.mark.parametrize("dtype", ["u1", "u2", "i2", "u4", "f2", "f4", "f8"])
@pytest.mark.parametrize("layout", [{}, {"tile": (16, 32)}, {"rowsperstrip": 7}, {"bigtiff": True, "tile": (48, 16)}])
@pytest.mark.parametrize("order", ["<", ">"])
def test_any_layout_any_window(
    tmp_path: Path, rng: np.random.Generator, dtype: str, layout: dict[str, Any], order: str
) -> None:
    pixels = rng.integers(0, 120, (45, 53)).astype(dtype)
    source = written(tmp_path / "a.tif", pixels, byteorder=order, compression="zlib", **layout)
    assert source.shape == (45, 53, 1)
    assert source.levels == ((45, 53),)
    assert source.read().dtype == np.dtype(dtype)
    np.testing.assert_array_equal(source.read()[..., 0], pixels)
    for row, column, height, width in ((0, 0, 1, 1), (44, 52, 1, 1), (13, 30, 20, 7), (15, 0, 2, 53)):
        part = source.read(0, row, column, height, width)
        np.testing.assert_array_equal(part[..., 0], pixels[row : row + height, column : column + width])


@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_planar_configurations(tmp_path: Path, rng: np.random.Generator, planar: str, compression: str | None) -> None:
    pixels = rng.integers(0, 65536, (40, 50, 3), dtype=np.uint16)
    stored = pixels if planar == "contig" else pixels.transpose(2, 0, 1)
    source = written(
        tmp_path / "a.tif", stored, photometric="rgb", planarconfig=planar, compression=compression, tile=(16, 16)
    )
    np.testing.assert_array_equal(source.read(), pixels)
    np.testing.assert_array_equal(source.read(0, 17, 3, 9, 33), pixels[17:26, 3:36])


def test_only_the_tiles_under_a_window_are_read(tmp_path: Path, rng: np.random.Generator) -> None:
    path, pixels = tmp_path / "a.tif", rng.integers(0, 256, (64, 64), dtype=np.uint8)
    written(path, pixels, tile=(32, 32), compression="zlib")
    with tifffile.TiffFile(path) as tif:
        start = tif.pages[0].dataoffsets[3]
    data = bytearray(path.read_bytes())
    data[start : start + 20] = bytes(20)
    path.write_bytes(data)
    source = TiffSource(path)
    np.testing.assert_array_equal(source.read(height=32)[..., 0], pixels[:32])
    with pytest.raises(InputError, match="undecodable tile or strip, number 3"):
        source.read()


@pytest.mark.parametrize("style", ["subifds", "reduced pages", "plain pages"])
def test_pyramids(tmp_path: Path, style: str) -> None:
    path, base = tmp_path / "a.tif", np.tile(np.arange(200, dtype=np.uint8), (131, 1))
    small, label = base[::2, ::2], np.zeros((50, 50), np.uint8)
    with tifffile.TiffWriter(path) as tif:
        common: dict[str, Any] = {"metadata": None, "tile": (32, 32), "compression": "zlib"}
        if style == "subifds":
            tif.write(base, subifds=2, **common)
        else:
            tif.write(base, **common)
        for level in (small, small[::2, ::2]):
            tif.write(level, subfiletype=0 if style == "plain pages" else 1, **common)
        tif.write(label, subfiletype=1, metadata=None)
    source = TiffSource(path)
    assert source.levels == ((131, 200), (66, 100), (33, 50))
    np.testing.assert_array_equal(source.read(1)[..., 0], small)
    np.testing.assert_array_equal(source.read(2, 3, 5, 10, 20)[..., 0], small[::2, ::2][3:13, 5:25])
    with pytest.raises(ValueError, match="levels 0 to 2"):
        source.read(3)


def test_the_label_of_an_aperio_slide_is_no_level(tmp_path: Path) -> None:
    path, base = tmp_path / "a.svs", np.zeros((128, 128), np.uint8)
    with tifffile.TiffWriter(path) as tif:
        tif.write(base, tile=(32, 32), metadata=None, description="Aperio Image Library\r\n|AppMag = 40|MPP = 0.2501")
        tif.write(base[:64, :64], metadata=None)  # thumbnail, in strips
        tif.write(base[:32, :32], tile=(32, 32), metadata=None)
        tif.write(base[:16, :16], subfiletype=1, metadata=None)  # label, in strips
    source = TiffSource(path)
    assert source.levels == ((128, 128), (32, 32))
    assert source.mpp == 0.2501


def test_a_stack_asks_for_a_page(tmp_path: Path) -> None:
    pages = np.arange(3, dtype=np.uint8)[:, None, None] * np.ones((3, 20, 30), np.uint8)
    with tifffile.TiffWriter(tmp_path / "a.tif") as tif:
        for page in pages:
            tif.write(page, metadata=None)
    with pytest.raises(InputError, match="stack of pages of 20 x 30; choose one with open_image"):
        TiffSource(tmp_path / "a.tif")
    for k in range(3):
        source = TiffSource(tmp_path / "a.tif", k)
        assert source.levels == ((20, 30),)
        assert (source.read() == k).all()
    with pytest.raises(InputError, match="has no page 3, only 3"):
        TiffSource(tmp_path / "a.tif", 3)


@pytest.mark.parametrize("code", range(1, 9))
def test_orientation(tmp_path: Path, rng: np.random.Generator, code: int) -> None:
    path, pixels = tmp_path / "a.tif", rng.integers(0, 256, (37, 53), dtype=np.uint8)
    source = written(path, pixels, tile=(16, 16), extratags=[(274, "H", 1, code, True)])
    with TiffImagePlugin.TiffImageFile(path) as picture:
        expected = np.asarray(picture)
    assert source.levels == (expected.shape,)
    np.testing.assert_array_equal(source.read()[..., 0], expected)
    np.testing.assert_array_equal(source.stored()[..., 0], expected)
    np.testing.assert_array_equal(source.read(0, 20, 18, 15, 17)[..., 0], expected[20:35, 18:35])


@pytest.mark.parametrize("code", [1, 3, 6])
@pytest.mark.parametrize(
    ("layout", "tile"),
    [({"tile": (16, 32)}, (16, 32)), ({"tile": (64, 16)}, (37, 16)), ({"rowsperstrip": 7}, (7, 53)), ({}, (37, 53))],
)
def test_the_tile_is_upright_and_within_the_image(
    tmp_path: Path, code: int, layout: dict[str, Any], tile: tuple[int, int]
) -> None:
    source = written(tmp_path / "a.tif", np.zeros((37, 53), np.uint8), extratags=[(274, "H", 1, code, True)], **layout)
    assert source.tile == (tile[::-1] if code == 6 else tile)


@pytest.mark.parametrize("size", [1, 7, 100])
def test_what_a_window_returns_is_the_callers_alone(tmp_path: Path, size: int) -> None:
    for settings in ({}, {"compression": "zlib"}, {"compression": "zlib", "predictor": True}, {"tile": (112, 112)}):
        source = written(tmp_path / "a.tif", np.full((100, 100), 9, np.uint8), **settings)
        part = source.read(0, 0, 0, size, 100)
        assert part.flags.carray
        assert part.base is None or part.base.nbytes <= 4 * part.nbytes  # no whole strip is kept alive by a row of it
        part[...] = 0
        assert (source.read() == 9).all()


def test_colour_models(tmp_path: Path) -> None:
    path, grey = tmp_path / "a.tif", np.array([[0, 10, 255]], np.uint8)
    assert written(path, grey, photometric="miniswhite").read()[0, :, 0].tolist() == [255, 245, 0]
    assert TiffSource(path).stored()[0, :, 0].tolist() == [0, 10, 255]
    colours = np.zeros((3, 256), np.uint16)
    colours[:, 1], colours[:, 2] = (65535, 0, 0), (0, 65535, 257)
    source = written(path, np.array([[0, 1, 2]], np.uint8), photometric="palette", colormap=colours)
    assert source.shape == (1, 3, 3)
    assert source.read().tolist() == [[[0, 0, 0], [255, 0, 0], [0, 255, 1]]]
    assert source.stored().tolist() == [[[0], [1], [2]]]
    bits = np.array([[True, False, True, True, False, False, False, True, True]])
    assert not source.inverted
    assert written(path, bits, photometric="miniswhite").inverted
    assert TiffSource(path).read()[0, :, 0].tolist() == (~bits[0] * 255).tolist()
    source = written(path, bits, photometric="minisblack")
    assert not source.inverted
    assert source.read()[0, :, 0].tolist() == (bits[0] * 255).tolist()
    assert source.stored()[0, :, 0].tolist() == bits[0].astype(int).tolist()
    assert source.read().dtype == source.stored().dtype == np.uint8
    with pytest.raises(InputError, match="CMYK colours; convert it"):
        written(path, np.zeros((4, 4, 4), np.uint8), photometric="separated")


@pytest.mark.parametrize("kind", ["unassalpha", "assocalpha", "unspecified"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_the_fourth_channel(tmp_path: Path, kind: str, dtype: type) -> None:
    top = np.iinfo(dtype).max
    pixels = np.full((8, 8, 4), top // 5, dtype)
    pixels[0, 0, 3] = top
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        source = written(tmp_path / "a.tif", pixels, photometric="rgb", extrasamples=[kind])
        read = source.read()
        source.read(row=1)
    if kind == "unspecified":
        assert not caught
        np.testing.assert_array_equal(read, pixels)
        return
    assert len(caught) == 1
    assert source.shape == (8, 8, 3)
    assert (read[0, 0] == top // 5).all()
    colour = top // 5 * (1.0 if kind == "assocalpha" else 0.2) + 0.8 * top
    assert abs(read[1, 1].astype(float) - colour).max() <= 0.6


def test_many_channels_stay(tmp_path: Path, rng: np.random.Generator) -> None:
    pixels = rng.integers(0, 9, (20, 30, 7), dtype=np.uint16)
    source = written(tmp_path / "a.tif", pixels, photometric="minisblack", planarconfig="contig")
    np.testing.assert_array_equal(source.read(), pixels)


def test_jpeg_and_lzw_as_libtiff_decodes_them(tmp_path: Path) -> None:
    y, x = np.mgrid[:96, :80]
    pixels = np.stack([x * 3, y * 2, (x + y) % 256], -1).astype(np.uint8)
    for compression, settings in (
        ("jpeg", {"quality": 90}),
        ("tiff_lzw", {"tiffinfo": {317: 2, 278: 10}}),
        ("zstd", {}),
    ):
        Image.fromarray(pixels).save(tmp_path / "a.tif", compression=compression, **settings)
        with TiffImagePlugin.TiffImageFile(tmp_path / "a.tif") as picture:
            expected = np.asarray(picture)
        np.testing.assert_array_equal(TiffSource(tmp_path / "a.tif").read(), expected)
    assert abs(expected.astype(int) - pixels).max() == 0


def test_jpeg_in_ycbcr_without_a_jfif_mark(tmp_path: Path) -> None:
    Image.new("RGB", (32, 32), (200, 30, 90)).convert("YCbCr").save(tmp_path / "a.tif", compression="jpeg", quality=95)
    assert b"JFIF" not in (tmp_path / "a.tif").read_bytes()
    pixels = TiffSource(tmp_path / "a.tif").read()
    assert abs(pixels.astype(int) - [200, 30, 90]).max() < 4


@pytest.mark.parametrize(
    ("unit", "resolution", "expected"),
    [
        ("CENTIMETER", (20_000, 20_000), 0.5),
        ("INCH", (50_800, 50_800), 0.5),
        ("INCH", (72, 72), None),
        ("NONE", (20_000, 20_000), None),
        ("CENTIMETER", (20_000, 10_000), None),
        ("CENTIMETER", (1, 1), None),
        ("CENTIMETER", (10_000_000, 10_000_000), None),
    ],
)
def test_microns_per_pixel(tmp_path: Path, unit: str, resolution: tuple[int, int], expected: float | None) -> None:
    source = written(tmp_path / "a.tif", np.zeros((4, 4), np.uint8), resolution=resolution, resolutionunit=unit)
    assert source.mpp == pytest.approx(expected) if expected else source.mpp is None


def test_nan_is_counted_and_placed(tmp_path: Path) -> None:
    pixels = np.zeros((40, 40), np.float32)
    pixels[21, 33] = np.nan
    source = written(tmp_path / "a.tif", pixels, tile=(16, 16))
    with pytest.raises(InputError, match=r"has 1 NaN .* \(21, 33, 0\)"):
        source.read()
    with pytest.raises(InputError, match=r"\(21, 33, 0\)"):
        source.read(row=20, column=30)
    assert source.read(height=21).shape == (21, 40, 1)


def test_truncation_is_found_at_open(tmp_path: Path, rng: np.random.Generator) -> None:
    path = tmp_path / "a.tif"
    for settings in ({}, {"compression": "zlib", "tile": (16, 16)}, {"bigtiff": True}):
        written(path, rng.integers(0, 256, (64, 64, 3), dtype=np.uint8), photometric="rgb", **settings)
        data = path.read_bytes()
        for length in (4, 8, 30, 100, len(data) // 2, len(data) - 1):
            path.write_bytes(data[:length])
            with pytest.raises(InputError, match=r"truncated|cannot be read as TIFF|needs|lacks"):
                TiffSource(path)
    path.write_bytes(data[:-1])
    with pytest.raises(
        InputError, match=rf"truncated: its data ends at byte {len(data)} but the file at {len(data) - 1}"
    ):
        TiffSource(path)


def test_a_missing_tile_is_an_error_never_zeros(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    written(path, np.ones((32, 32), np.uint8), rowsperstrip=32)
    edit_tag(path, 279, struct.pack("<I", 0))
    with pytest.raises(InputError, match="lacks 1 of 1 tiles or strips"):
        TiffSource(path)


@pytest.mark.parametrize(
    ("code", "value"),
    [
        (256, struct.pack("<I", 2**31)),
        (257, struct.pack("<I", 2**32 - 1)),
        (278, struct.pack("<I", 1)),
        (259, struct.pack("<H", 52479)),
        (258, struct.pack("<H", 64000)),
        (258, struct.pack("<H", 0)),
        (277, struct.pack("<H", 65535)),
        (339, struct.pack("<H", 6)),
        (262, struct.pack("<H", 999)),
        (273, struct.pack("<I", 2**32 - 1)),
    ],
)
def test_headers_that_lie(tmp_path: Path, code: int, value: bytes) -> None:
    for compression in (None, "zlib"):
        path = tmp_path / "a.tif"
        written(path, np.ones((32, 32), np.int16), compression=compression)
        edit_tag(path, code, value)
        with pytest.raises(InputError):
            TiffSource(path)


_LIES = textwrap.dedent(
    """
    import resource, struct, sys, time
    from pathlib import Path
    from patchforest.errors import InputError
    from patchforest.io.tiff import TiffSource

    def file(entries, number=None, following=0):
        body = b"".join(struct.pack("<HHII", *entry) for entry in entries)
        count = len(entries) if number is None else number
        return struct.pack("<2sHIH", b"II", 42, 8, count) + body + struct.pack("<I", following) + bytes(64)

    def base(**change):
        tags = {256: 16, 257: 16, 258: 8, 259: 1, 262: 1, 273: 8, 277: 1, 278: 16, 279: 50}
        tags.update({int(k[1:]): v for k, v in change.items()})
        return [(code, 4, 1, value) for code, value in sorted(tags.items())]

    lies = {
        "samples": file(base(t277=65535)),
        "side": file(base(t256=2**31, t257=2**31)),
        "deflate bomb": file(base(t256=2**31, t257=2**31, t259=8, t278=2**31)),
        "offset table": file([e if e[0] not in (273, 279) else (e[0], 16, 2**30, 8) for e in base()]),
        "text": file([*base(), (305, 2, 2**32 - 1, 8)]),
        "tags": file(base(), number=65535),
        "loop": file(base(), following=8),
        "self subifd": file([*base(), (330, 4, 1, 8)]),
    }
    path, start = Path(sys.argv[1]), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for name, data in lies.items():
        path.write_bytes(data)
        begun = time.perf_counter()
        try:
            TiffSource(path).read()
            outcome = "opened"
        except InputError as fault:
            outcome = "refused"
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - start) // 1024
        seconds = time.perf_counter() - begun
        print(f"{name}: {outcome}, {'slow' if seconds > 1 else 'quick'}, {'big' if grown > 200 else 'small'}")
    """
)


def test_lies_are_refused_quickly_and_without_allocating(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _LIES, str(tmp_path / "a.tif")], capture_output=True, text=True, timeout=60, check=True
    )
    lines = done.stdout.splitlines()
    assert len(lines) == 8
    assert [line for line in lines if not line.endswith("refused, quick, small")] == []
    assert done.stderr == ""


def test_sources_go_to_workers_and_keep_no_file_open(tmp_path: Path) -> None:
    source = written(tmp_path / "a.tif", np.arange(100, dtype=np.uint8).reshape(10, 10))
    before = len(os.listdir("/proc/self/fd"))
    sources = [TiffSource(tmp_path / "a.tif") for _ in range(20)]
    for other in sources:
        other.read()
    assert len(os.listdir("/proc/self/fd")) == before
    np.testing.assert_array_equal(copy.deepcopy(source).read(), source.read())
