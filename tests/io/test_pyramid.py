"""Pyramids come back exactly, level by level, through our reader, tifffile and OpenSlide; a kill leaves no file."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import textwrap
import tracemalloc
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from patchforest.errors import InputError
from patchforest.io import pyramid
from patchforest.io.open import open_image
from patchforest.io.pyramid import halve_mask, halve_mean, level_sizes, tile_rows, write_pyramid

SUFFIXES = (".tif", ".ome.tif", ".ome.zarr")
SHAPES = ((1, 1), (1, 90), (90, 1), (31, 33), (32, 64), (97, 101), (65, 63), (17, 48), (113, 200), (2, 75), (129, 40))


def brute(pixels: np.ndarray, *, mask: bool) -> np.ndarray:
    """Half of (h, w, C), a block at a time, in plain Python."""
    height, width, channels = pixels.shape
    out = np.zeros((-(-height // 2), -(-width // 2), channels), pixels.dtype)
    for i, j, c in np.ndindex(*out.shape):
        block = [int(v) for v in pixels[2 * i : 2 * i + 2, 2 * j : 2 * j + 2, c].ravel()]
        if mask:
            out[i, j, c] = max((number, value) for value, number in Counter(block).items())[1]
        else:
            out[i, j, c] = (2 * sum(block) + len(block)) // (2 * len(block))
    return out


def brute_levels(pixels: np.ndarray, number: int, *, mask: bool) -> list[np.ndarray]:
    found = [pixels]
    while len(found) < number:
        found.append(brute(found[-1], mask=mask))
    return found


def cut(pixels: np.ndarray, rng: np.random.Generator, most: int = 70) -> Iterator[np.ndarray]:
    """Bands of random heights, sometimes none."""
    row = 0
    while row < len(pixels):
        height = int(rng.integers(0, most))
        yield pixels[row : row + height]
        row += height


def blobs(rng: np.random.Generator, shape: tuple[int, ...], top: int, dtype: type) -> np.ndarray:
    """(H, W, C) pixels with patches of one value, single pixels, and the largest values of the type."""
    coarse = rng.integers(0, top, (shape[0] // 5 + 1, shape[1] // 5 + 1, *shape[2:]), endpoint=True)
    out = coarse.repeat(5, 0).repeat(5, 1)[: shape[0], : shape[1]].astype(dtype)
    noise = rng.random(shape) < 0.3
    out[noise] = rng.integers(0, top, int(noise.sum()), endpoint=True)
    return out


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pyramids go down to 20 pixels, so that small images have several levels."""
    monkeypatch.setattr(pyramid, "_SMALLEST", 20)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("mask", [True, False])
def test_halving_against_plain_python(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch, dtype: type, mask: bool
) -> None:
    monkeypatch.setattr(pyramid, "_SLAB", 100)
    halve, most = (halve_mask if mask else halve_mean), np.iinfo(dtype).max
    for shape in ((1, 1, 1), (1, 9, 1), (9, 1, 1), (21, 34, 1), (33, 20, 3)):
        for low, top in ((0, 1), (0, 3), (most - 2, most)):
            pixels = rng.integers(low, top, shape, dtype, endpoint=True)
            half = halve(pixels)
            assert half.dtype == dtype
            np.testing.assert_array_equal(half, brute(pixels, mask=mask))


def test_every_block_of_five_classes_has_its_majority() -> None:
    blocks = np.array(list(itertools.product(range(5), repeat=4)), np.uint8)
    pixels = blocks.reshape(-1, 2, 2).transpose(1, 0, 2).reshape(2, -1, 1)
    np.testing.assert_array_equal(halve_mask(pixels), brute(pixels, mask=True))


def test_a_thin_line_lives_on_and_a_lone_pixel_goes() -> None:
    pixels = np.zeros((8, 8, 1), np.uint8)
    pixels[:, 3] = 2
    pixels[0, 6] = 1
    half = halve_mask(pixels)[..., 0]
    assert (half[:, 1] == 2).all()
    assert half.sum() == 8
    assert halve_mean(np.array([[0, 0], [1, 1]], np.uint8)[..., None]).tolist() == [[[1]]]


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((1024, 1024), ((1024, 1024),)),
        ((1025, 3), ((1025, 3), (513, 2))),
        ((5000, 2049), ((5000, 2049), (2500, 1025), (1250, 513), (625, 257))),
        ((1, 9999), ((1, 9999),)),
        ((3, 99999), ((3, 99999), (2, 50000), (1, 25000))),
    ],
)
def test_level_sizes(shape: tuple[int, int], expected: tuple[tuple[int, int], ...]) -> None:
    assert level_sizes(shape) == expected


def test_tile_rows_gives_every_row_of_every_level_in_order(rng: np.random.Generator) -> None:
    for height in (1, 15, 16, 17, 64, 101):
        pixels = rng.integers(0, 4, (height, 37, 1), np.uint8)
        sizes = ((height, 37), (-(-height // 2), 19), (-(-height // 4), 10))
        found: list[list[np.ndarray]] = [[], [], []]
        for level, rows in tile_rows(cut(pixels, rng, 40), sizes, 16, halve_mask):
            found[level].append(rows.copy())
        for level, expected in enumerate(brute_levels(pixels, 3, mask=True)):
            assert [len(rows) for rows in found[level][:-1]] == [16] * (len(found[level]) - 1)
            np.testing.assert_array_equal(np.concatenate(found[level]), expected)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize(("dtype", "top"), [(np.uint8, 4), (np.uint8, 255), (np.uint16, 65535)])
@pytest.mark.usefixtures("small")
def test_masks_come_back_at_every_level(
    tmp_path: Path, rng: np.random.Generator, suffix: str, dtype: type, top: int
) -> None:
    for number, shape in enumerate(SHAPES):
        pixels, mpp = blobs(rng, (*shape, 1), top, dtype), float(rng.uniform(0.06, 19))
        path = tmp_path / f"{number}{suffix}"
        bands = cut(pixels[..., 0] if number % 2 else pixels, rng)
        write_pyramid(path, bands, shape=shape, dtype=dtype, mpp=mpp, tile=32, names=("background", "a"))
        source, sizes = open_image(path), level_sizes(shape)
        assert source.levels == sizes
        assert source.shape == (*shape, 1)
        assert source.mpp == pytest.approx(mpp, rel=1e-6)
        assert source.tile == (min(32, shape[0]), min(32, shape[1]))
        for level, expected in enumerate(brute_levels(pixels, len(sizes), mask=True)):
            got = source.read(level)
            assert got.dtype == dtype
            np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize(("kind", "channels"), [("image", 3), ("image", 1), ("probability", 1), ("probability", 5)])
@pytest.mark.usefixtures("small")
def test_pictures_and_probabilities_come_back_at_every_level(
    tmp_path: Path, rng: np.random.Generator, suffix: str, kind: Any, channels: int
) -> None:
    for dtype in (np.uint8, np.uint16):
        pixels = blobs(rng, (67, 95, channels), np.iinfo(dtype).max, dtype)
        path = tmp_path / f"{np.dtype(dtype)}{suffix}"
        write_pyramid(path, cut(pixels, rng), shape=(67, 95), dtype=dtype, mpp=None, kind=kind, tile=16)
        source = open_image(path)
        assert source.mpp is None
        assert source.levels == ((67, 95), (34, 48), (17, 24), (9, 12))
        for level, expected in enumerate(brute_levels(pixels, 4, mask=False)):
            np.testing.assert_array_equal(source.read(level), expected)


@pytest.mark.parametrize("suffix", [".tif", ".ome.tif"])
@pytest.mark.parametrize("shape", [(40, 333), (3, 500), (601, 33)])
@pytest.mark.usefixtures("small")
def test_long_images_keep_their_levels(
    tmp_path: Path, rng: np.random.Generator, suffix: str, shape: tuple[int, int]
) -> None:
    write_pyramid(tmp_path / f"a{suffix}", [blobs(rng, shape, 3, np.uint8)], shape=shape, dtype="u1", mpp=1, tile=16)
    assert open_image(tmp_path / f"a{suffix}").levels == level_sizes(shape)


@pytest.mark.usefixtures("small")
def test_openslide_sees_every_level_the_scale_and_the_values(tmp_path: Path, rng: np.random.Generator) -> None:
    openslide = pytest.importorskip("openslide", reason="OpenSlide is not installed (extra wsi)")
    for number, shape in enumerate([*SHAPES, (300, 61)]):
        channels = 3 if number % 3 == 2 else 1
        kind: Any = "image" if channels == 3 else ("mask", "probability")[number % 2]
        pixels, mpp = blobs(rng, (*shape, channels), 255, np.uint8), float(rng.uniform(0.1, 4))
        path = tmp_path / f"{number}.tif"
        write_pyramid(path, cut(pixels, rng), shape=shape, dtype=np.uint8, mpp=mpp, kind=kind, tile=32)
        with openslide.OpenSlide(path) as slide:
            assert slide.properties["openslide.vendor"] == "generic-tiff"
            assert slide.level_dimensions == tuple((w, h) for h, w in level_sizes(shape))
            for axis in "xy":
                assert float(slide.properties[f"openslide.mpp-{axis}"]) == pytest.approx(mpp, rel=1e-6)
            expected = brute_levels(pixels, slide.level_count, mask=kind == "mask")
            for level, (width, height) in enumerate(slide.level_dimensions):
                seen = np.asarray(slide.read_region((0, 0), level, (width, height)))
                np.testing.assert_array_equal(seen[..., :3], np.broadcast_to(expected[level], (height, width, 3)))
                assert (seen[..., 3] == 255).all()


@pytest.mark.parametrize("suffix", [".png", ".tif", ".ome.zarr"])
@pytest.mark.parametrize("names", [(), ("background", 'Drüse <1> & "2"', "腺")])
def test_one_level_where_the_image_is_small(
    tmp_path: Path, rng: np.random.Generator, suffix: str, names: tuple[str, ...]
) -> None:
    pixels = blobs(rng, (100, 70), 3, np.uint16)
    write_pyramid(tmp_path / f"a{suffix}", cut(pixels, rng), shape=(100, 70), dtype="u2", mpp=0.5, names=names)
    source = open_image(tmp_path / f"a{suffix}")
    assert source.levels == ((100, 70),)
    np.testing.assert_array_equal(source.read()[..., 0], pixels)
    assert source.read().dtype == np.uint16


def test_bytes_of_another_order_are_turned(tmp_path: Path, rng: np.random.Generator) -> None:
    pixels = blobs(rng, (40, 50), 60000, np.uint16)
    pixels[:32, :32] = 256  # a tile of one value, stored once for 1 and once for 256 where bytes were compared
    pixels[:32, 32:] = 1
    for suffix in SUFFIXES:
        bands = [pixels[:7].astype(">u2"), pixels[7:].astype("<u2")]
        write_pyramid(tmp_path / f"a{suffix}", bands, shape=(40, 50), dtype=">u2", mpp=None, tile=16)
        np.testing.assert_array_equal(open_image(tmp_path / f"a{suffix}").read()[..., 0], pixels)


@pytest.mark.parametrize("suffix", [".tif", ".ome.tif", ".zarr", ".png"])
@pytest.mark.parametrize(
    ("heights", "width", "dtype", "fault"),
    [
        ((30, 9), 50, "u1", "40 rows were promised, and the bands have only 39"),
        ((), 50, "u1", "40 rows were promised, and the bands have only 0"),
        ((30, 11), 50, "u1", "40 rows were promised, and band 1 reaches to row 41"),
        ((30, 10), 49, "u1", r"bands of 50 columns, uint8, were promised; band 0, from row 0 on, has shape \(30, 49\)"),
        ((30, 10), 50, "u2", r"bands of 50 columns, uint8, were promised; .* has shape \(30, 50\), uint16"),
    ],
)
def test_bands_that_are_not_as_promised_write_nothing(
    tmp_path: Path, suffix: str, heights: tuple[int, ...], width: int, dtype: str, fault: str
) -> None:
    bands = [np.ones((height, width), dtype) for height in heights]
    with pytest.raises(ValueError, match=fault):
        write_pyramid(tmp_path / f"a{suffix}", bands, shape=(40, 50), dtype=np.uint8, mpp=None)
    assert os.listdir(tmp_path) == []


def test_a_band_that_changes_midway_writes_nothing(tmp_path: Path) -> None:
    first, colour = np.ones((20, 50), np.uint8), np.ones((20, 50, 3), np.uint8)
    for kind, bands, fault in (
        ("image", [colour, first], "band 1, from row 20 on, has 1 channels, those above 3"),
        ("mask", [colour, colour], "a band of kind 'mask' has 1 channels; got 3"),
        ("image", [np.ones((40, 50, 4), np.uint8)], "a band of kind 'image' has 1 or 3 channels; got 4"),
    ):
        with pytest.raises(ValueError, match=fault):
            write_pyramid(tmp_path / "a.tif", bands, shape=(40, 50), dtype="u1", mpp=None, kind=kind)  # type: ignore[arg-type]
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"shape": (0, 5)}, r"at least one pixel; got \(0, 5\)"),
        ({"dtype": "f4"}, "uint8 or uint16; got float32"),
        ({"dtype": bool}, "uint8 or uint16; got bool"),
        ({"mpp": 0.0}, "mpp must lie between .* got 0.0"),
        ({"mpp": float("nan")}, "mpp must lie between"),
        ({"kind": "picture"}, "kind must be one of mask, image, probability; got 'picture'"),
        ({"tile": 500}, "tile must be a multiple of 16; got 500"),
        ({"names": "gland"}, "names must be a sequence"),
        ({"names": ("a\nb",)}, "names must be a sequence of words on one line"),
    ],
)
def test_settings_that_name_no_pyramid(tmp_path: Path, change: dict[str, Any], fault: str) -> None:
    settings: dict[str, Any] = {"shape": (5, 5), "dtype": "u1", "mpp": None} | change
    with pytest.raises(ValueError, match=fault):
        write_pyramid(tmp_path / "a.tif", [np.ones((5, 5), np.uint8)], **settings)
    assert os.listdir(tmp_path) == []


def test_names_that_no_format_has_and_png_too_large_are_refused_before_the_first_band(tmp_path: Path) -> None:
    def never() -> Iterator[np.ndarray]:
        raise AssertionError("a band was asked for")
        yield

    for name in ("a.jpg", "a", "a.tif.gz"):
        with pytest.raises(InputError, match=r"end it in .tif, .ome.tif, .ome.zarr or .png"):
            write_pyramid(tmp_path / name, never(), shape=(5, 5), dtype="u1", mpp=None)
    with pytest.raises(InputError, match=r"cannot hold 65536 x 2 pixels.*write a .tif"):
        write_pyramid(tmp_path / "a.png", never(), shape=(65536, 2), dtype="u1", mpp=None)
    with pytest.raises(InputError, match="cannot hold 5 channels as PNG"):
        write_pyramid(
            tmp_path / "a.png", [np.ones((5, 5, 5), "u1")], shape=(5, 5), dtype="u1", mpp=None, kind="probability"
        )
    assert os.listdir(tmp_path) == []


def test_memory_is_that_of_a_few_rows_of_tiles(tmp_path: Path) -> None:
    band = np.random.default_rng(5).integers(0, 255, (16, 4096), np.uint8)
    bands = (band for _ in range(2048 // 16))
    tracemalloc.start()
    write_pyramid(tmp_path / "a.tif", bands, shape=(2048, 4096), dtype="u1", mpp=None, tile=64)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 * 64 * 4096 + 2 * pyramid._SLAB  # of 8 MiB


_KILLED = textwrap.dedent(
    """
    import sys, time
    import numpy as np
    from patchforest.io.pyramid import write_pyramid

    def bands():
        for number in range(40):
            if number == 39:
                print("late", flush=True)
                time.sleep(60)
            yield np.random.default_rng(number).integers(0, 9, (64, 512), np.uint8)

    write_pyramid(sys.argv[1], bands(), shape=(2560, 512), dtype=np.uint8, mpp=0.5, tile=64)
    """
)


@pytest.mark.parametrize("suffix", [".tif", ".ome.zarr"])
def test_a_kill_in_the_middle_leaves_what_was_there(tmp_path: Path, suffix: str) -> None:
    old = np.full((20, 20), 3, np.uint8)
    write_pyramid(tmp_path / f"old{suffix}", [old], shape=(20, 20), dtype="u1", mpp=None)
    for name in ("old", "new"):
        with subprocess.Popen(
            [sys.executable, "-c", _KILLED, str(tmp_path / f"{name}{suffix}")], stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "late\n"
            process.send_signal(signal.SIGKILL)
    assert not (tmp_path / f"new{suffix}").exists()
    np.testing.assert_array_equal(open_image(tmp_path / f"old{suffix}").read()[..., 0], old)
    assert len([name for name in os.listdir(tmp_path) if name.startswith(".patchforest-")]) == 2  # of the killed


def test_an_error_of_the_bands_leaves_what_was_there(tmp_path: Path) -> None:
    def broken() -> Iterator[np.ndarray]:
        yield np.ones((20, 20), np.uint8)
        raise RuntimeError("the model failed")

    for suffix in SUFFIXES:
        path = tmp_path / f"a{suffix}"
        write_pyramid(path, [np.full((40, 20), 3, np.uint8)], shape=(40, 20), dtype="u1", mpp=None, tile=16)
        with pytest.raises(RuntimeError, match="the model failed"):
            write_pyramid(path, broken(), shape=(40, 20), dtype="u1", mpp=None, tile=16)
        assert (open_image(path).read() == 3).all()
    assert sorted(os.listdir(tmp_path)) == ["a.ome.tif", "a.ome.zarr", "a.tif"]


def test_a_run_twice_gives_the_same_bytes(tmp_path: Path, rng: np.random.Generator) -> None:
    pixels = blobs(rng, (400, 300), 4, np.uint8)
    for name in ("a.tif", "b.tif"):
        write_pyramid(tmp_path / name, cut(pixels, rng), shape=(400, 300), dtype="u1", mpp=0.3, tile=64)
    assert (tmp_path / "a.tif").read_bytes() == (tmp_path / "b.tif").read_bytes()
    with tifffile.TiffFile(tmp_path / "a.tif") as tif:
        assert tif.is_bigtiff


def test_more_rows_than_there_are_end_in_an_error() -> None:
    rows = tile_rows([np.zeros((9, 4, 1), np.uint8)], ((8, 4),), 4, halve_mask)
    with pytest.raises(ValueError, match="more rows than level 0, which has 8"):
        list(rows)
