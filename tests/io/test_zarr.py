"""Zarr and OME-Zarr: axes, pyramids, scale, and chunks that are lost or damaged as one line that names them."""

from __future__ import annotations

import copy
import json
import shutil
import sys
import warnings
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from patchforest.errors import InputError
from patchforest.io.label import read_label
from patchforest.io.open import open_image
from patchforest.io.zarr import ZarrSource, is_zarr
from patchforest.values import ImageSource

zarr = pytest.importorskip("zarr", minversion="3", reason="Zarr 3 is not installed (extra wsi)")


def saved(path: Path, pixels: np.ndarray, chunks: tuple[int, ...], **settings: Any) -> Path:
    """A Zarr array in a folder."""
    array = zarr.create_array(str(path), shape=pixels.shape, chunks=chunks, dtype=pixels.dtype, **settings)
    array[...] = pixels
    return path


def ome(
    path: Path,
    levels: list[np.ndarray],
    axes: str,
    *,
    version: int = 3,
    unit: str | None = "micrometer",
    scale: tuple[float, float] = (0.5, 0.5),
    whole: float = 1.0,
    chunk: int = 16,
) -> Path:
    """An OME-Zarr image (0.5 for version 3, 0.4 for version 2) whose axes are the letters of ``axes``."""
    group = zarr.create_group(str(path), zarr_format=version)
    kinds = {"t": "time", "c": "channel"}
    described = [
        {"name": a, "type": kinds.get(a, "space")} | ({"unit": unit} if unit and a in "yx" else {}) for a in axes
    ]
    datasets = []
    for number, pixels in enumerate(levels):
        chunks = tuple(chunk if a in "yx" else 1 for a in axes)
        array = group.create_array(str(number), shape=pixels.shape, chunks=chunks, dtype=pixels.dtype)
        array[...] = pixels
        factors = [scale["yx".index(a)] * 2**number if a in "yx" else 1.0 for a in axes]
        datasets.append({"path": str(number), "coordinateTransformations": [{"type": "scale", "scale": factors}]})
    image: dict[str, Any] = {"axes": described, "datasets": datasets}
    if whole != 1:
        image["coordinateTransformations"] = [{"type": "scale", "scale": [whole] * len(axes)}]
    group.attrs.update(
        {"ome": {"version": "0.5", "multiscales": [image]}} if version == 3 else {"multiscales": [image]}
    )
    return path


def edit(path: Path, change: Any) -> None:
    """Rewrites a JSON header by a function of its object."""
    found = json.loads(path.read_text())
    change(found)
    path.write_text(json.dumps(found))


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("dtype", ["bool", "u1", "u2", "i2", "f4", "f8"])
@pytest.mark.parametrize("shape", [(45, 53), (45, 53, 3)])
def test_plain_arrays(
    tmp_path: Path, rng: np.random.Generator, version: int, dtype: str, shape: tuple[int, ...]
) -> None:
    pixels = rng.integers(0, 2 if dtype == "bool" else 120, shape).astype(dtype)
    path = saved(tmp_path / "a", pixels, (16, 20, 3)[: len(shape)], zarr_format=version)
    source, expected = open_image(path), pixels.reshape(45, 53, -1)
    assert isinstance(source, ImageSource)
    assert isinstance(source, ZarrSource)
    assert (source.shape, source.levels, source.mpp, source.tile) == (expected.shape, ((45, 53),), None, (16, 20))
    np.testing.assert_array_equal(source.stored(), expected)
    assert source.stored().dtype == pixels.dtype
    seen = expected.astype("u1") * 255 if dtype == "bool" else expected
    assert source.read().dtype == seen.dtype
    for window in ((0, 0, 0, 1, 1), (0, 44, 52, 1, 1), (0, 13, 30, 20, 7), (0, 0, 0, 45, 53)):
        _, row, column, height, width = window
        read = source.read(*window)
        np.testing.assert_array_equal(read, seen[row : row + height, column : column + width])
        assert read.flags.carray
    with pytest.raises(ValueError, match="is not within level 0"):
        source.read(0, 0, 0, 46, 1)


@pytest.mark.parametrize(
    "settings",
    [
        {"zarr_format": 2, "compressors": None, "dtype": ">u2"},
        {"zarr_format": 2, "order": "F", "chunk_key_encoding": {"name": "v2", "separator": "/"}},
        {"zarr_format": 3, "shards": (32, 40, 3)},
        {"zarr_format": 3, "chunk_key_encoding": {"name": "v2", "separator": "."}},
        {"zarr_format": 3, "chunk_key_encoding": {"name": "default", "separator": "."}, "compressors": None},
        {"zarr_format": 3, "filters": [{"name": "transpose", "configuration": {"order": [2, 0, 1]}}]},
    ],
    ids=lambda settings: "-".join(settings),
)
def test_every_layout_of_chunks(tmp_path: Path, rng: np.random.Generator, settings: dict[str, Any]) -> None:
    pixels = rng.integers(0, 60000, (45, 53, 3)).astype(settings.get("dtype", "u2"))
    path = saved(tmp_path / "a", pixels, (16, 20, 3), **{k: v for k, v in settings.items() if k != "dtype"})
    source = ZarrSource(path)
    assert source.tile == (16, 20)
    np.testing.assert_array_equal(source.read(), pixels)
    np.testing.assert_array_equal(source.read(0, 14, 19, 3, 3), pixels[14:17, 19:22])


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("axes", ["yx", "cyx", "zyx", "tczyx", "yxc", "czyx", "xy"])
def test_ome_images_with_any_axes(tmp_path: Path, rng: np.random.Generator, version: int, axes: str) -> None:
    image = rng.integers(1, 200, (40, 52, 3 if "c" in axes else 1), dtype=np.uint8)
    levels = []
    for pixels in (image, image[::2, ::2], image[::4, ::4]):
        full = pixels[None, None]  # t z y x c
        order = [("tzyxc").index(a) for a in axes]
        rest = [k for k in range(5) if k not in order]
        levels.append(full.transpose(rest + order).reshape([full.shape[k] for k in order]))
    source = open_image(ome(tmp_path / "a.zarr", levels, axes, version=version))
    assert source.shape == image.shape
    assert source.levels == ((40, 52), (20, 26), (10, 13))
    assert source.mpp == 0.5
    assert source.tile == (16, 16)
    np.testing.assert_array_equal(source.read(), image)
    np.testing.assert_array_equal(source.read(1, 3, 5, 10, 20), image[::2, ::2][3:13, 5:25])
    np.testing.assert_array_equal(source.read(2), image[::4, ::4])


@pytest.mark.parametrize(
    ("unit", "scale", "whole", "expected"),
    [
        ("micrometer", (0.25, 0.25), 1.0, 0.25),
        ("nanometer", (8.0, 8.0), 1.0, 0.008),
        ("millimeter", (0.001, 0.001), 1.0, 1.0),
        ("micrometer", (0.25, 0.25), 2.0, 0.5),
        ("micrometer", (0.2500, 0.2510), 1.0, np.sqrt(0.25 * 0.251)),
        ("micrometer", (0.25, 0.5), 1.0, None),
        ("micrometer", (0.0, 0.0), 1.0, None),
        (None, (0.25, 0.25), 1.0, None),
        ("parsec", (0.25, 0.25), 1.0, None),
    ],
)
def test_microns_per_pixel(
    tmp_path: Path, unit: str | None, scale: tuple[float, float], whole: float, expected: float | None
) -> None:
    pixels = np.ones((8, 8), np.uint8)
    source = ZarrSource(ome(tmp_path / "a", [pixels], "yx", unit=unit, scale=scale, whole=whole))
    assert source.mpp == (pytest.approx(expected) if expected else None)


@pytest.mark.parametrize(
    ("axes", "shape", "fault"),
    [
        ("tyx", (3, 20, 20), "has 3 times, not one image"),
        ("zyx", (5, 20, 20), "has 5 planes, not one image"),
        ("qyx", (1, 20, 20), "has axes q, y, x"),
        ("zcy", (1, 1, 20), "has axes z, c, y"),
    ],
)
def test_axes_that_make_no_image(tmp_path: Path, axes: str, shape: tuple[int, ...], fault: str) -> None:
    with pytest.raises(InputError, match=fault):
        ZarrSource(ome(tmp_path / "a", [np.ones(shape, np.uint8)], axes))


def test_channels_first_needs_names(tmp_path: Path) -> None:
    pixels = np.arange(3 * 30 * 40, dtype=np.uint16).reshape(3, 30, 40)
    with pytest.raises(InputError, match=r"channels first; save it as \(H, W, C\), or name its dimensions c, y, x"):
        ZarrSource(saved(tmp_path / "a", pixels, (1, 16, 16)))
    source = ZarrSource(saved(tmp_path / "b", pixels + 1, (1, 16, 16), dimension_names=("c", "y", "x")))
    np.testing.assert_array_equal(source.read(), np.moveaxis(pixels + 1, 0, -1))


@pytest.mark.parametrize(("axes", "version"), [(None, 2), (["c", "y", "x"], 2)])
def test_older_axes(tmp_path: Path, axes: list[str] | None, version: int) -> None:
    pixels = np.arange(1, 1 + 2 * 30 * 40, dtype=np.uint16).reshape(2, 30, 40)
    path = ome(tmp_path / "a", [pixels if axes else pixels[None, :, None]], "cyx" if axes else "tczyx", version=version)

    def change(found: dict[str, Any]) -> None:
        found["multiscales"][0].pop("axes")
        if axes:
            found["multiscales"][0]["axes"] = axes

    edit(path / ".zattrs", change)
    source = ZarrSource(path)
    np.testing.assert_array_equal(source.read(), np.moveaxis(pixels, 0, -1))
    assert source.mpp is None


@pytest.mark.parametrize("settings", [{"zarr_format": 2}, {"zarr_format": 3}, {"shards": (32, 32)}])
def test_a_missing_chunk_is_an_error_unless_asked(tmp_path: Path, settings: dict[str, Any]) -> None:
    pixels = np.ones((64, 64), np.uint8)
    pixels[16:32, 48:] = 7  # all fill value: Zarr does not store it
    path = saved(tmp_path / "a", pixels, (16, 16), fill_value=7, **settings)
    source = open_image(path)
    with pytest.raises(InputError, match=r"lacks chunk .*rows 16 to 31, columns 48 to 63.*missing='fill'"):
        source.read()
    with pytest.raises(InputError, match="lacks chunk"):
        source.read(0, 31, 63, 1, 1)
    np.testing.assert_array_equal(source.read(0, 0, 0, 64, 48)[..., 0], pixels[:, :48])
    np.testing.assert_array_equal(open_image(path, missing="fill").read()[..., 0], pixels)
    with pytest.raises(ValueError, match="'error' or 'fill'"):
        ZarrSource(path, missing="zero")  # type: ignore[arg-type]


def test_a_lost_chunk_without_fill_value_is_never_filled(tmp_path: Path) -> None:
    path = saved(tmp_path / "a", np.ones((32, 48), np.uint8), (16, 16), zarr_format=2)
    edit(path / ".zarray", lambda found: found.update(fill_value=None))
    (path / "1.2").unlink()
    (path / "0.1").write_bytes(b"")
    for missing in ("error", "fill"):
        with pytest.raises(InputError, match=r"lacks chunk 0.1 \(rows 0 to 15, columns 16 to 31\) and 1 more; copy"):
            open_image(path, missing=missing).read()  # type: ignore[arg-type]


def test_a_damaged_chunk_is_named(tmp_path: Path, rng: np.random.Generator) -> None:
    pixels = rng.integers(1, 250, (64, 64, 3), dtype=np.uint8)
    for codec in ("gzip", "zstd", "blosc"):
        path = saved(tmp_path / codec, pixels, (16, 16, 3), compressors={"name": codec, "configuration": {}})
        chunk = path / "c" / "2" / "1" / "0"
        data = chunk.read_bytes()
        for bad in (data[:40], bytes(len(data)), data[:-1]):
            chunk.write_bytes(bad)
            source = ZarrSource(path)
            with pytest.raises(InputError, match=r"rows 32 to 47, columns 16 to 31|c/2/1/0: ") as caught:
                source.read()
            assert len(str(caught.value).splitlines()) == 1
            np.testing.assert_array_equal(source.read(0, 0, 0, 32, 64), pixels[:32])


def test_a_truncated_shard_is_an_error(tmp_path: Path, rng: np.random.Generator) -> None:
    pixels = rng.integers(1, 250, (64, 64), dtype=np.uint8)
    for where in ("start", "end"):
        codec = {
            "name": "sharding_indexed",
            "configuration": {
                "chunk_shape": [16, 16],
                "codecs": [{"name": "bytes"}],
                "index_codecs": [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "crc32c"}],
                "index_location": where,
            },
        }
        path = saved(tmp_path / where, pixels, (64, 64), compressors=None, filters=None, serializer=codec)
        np.testing.assert_array_equal(ZarrSource(path).read()[..., 0], pixels)
        shard = path / "c" / "0" / "0"
        data = shard.read_bytes()
        for length in (10, 300, len(data) - 1):
            shard.write_bytes(data[:length])
            with pytest.raises(InputError, match=r"truncated|cannot be decoded|too few|lacks"):
                ZarrSource(path).read()


def test_nan_is_counted_and_placed(tmp_path: Path) -> None:
    pixels = np.ones((40, 40), np.float32)
    pixels[21, 33] = np.nan
    with pytest.raises(InputError, match=r"has 1 NaN .* \(21, 33, 0\)"):
        ZarrSource(saved(tmp_path / "a", pixels, (16, 16))).read(0, 20, 20)


def test_labels_are_read_from_zarr(tmp_path: Path) -> None:
    mask = np.kron([[0, 1], [2, 1]], np.ones((16, 16))).astype(np.uint8)
    path = saved(tmp_path / "a", mask, (16, 16), config={"write_empty_chunks": True})
    np.testing.assert_array_equal(read_label(path, num_classes=3), mask)


def test_groups_without_an_image_say_what_is_in_them(tmp_path: Path) -> None:
    group = zarr.create_group(str(tmp_path / "a"))
    group.create_array("raw", shape=(4, 4), dtype="u1")
    group.create_array("mask", shape=(4, 4), dtype="u1")
    with pytest.raises(InputError, match="group without one multiscale image; give one of its members: mask, raw"):
        open_image(tmp_path / "a")
    zarr.create_group(str(tmp_path / "b"), zarr_format=2)
    with pytest.raises(InputError, match="group without one multiscale image; copy"):
        open_image(tmp_path / "b")
    root = zarr.create_group(str(tmp_path / "c"), zarr_format=2, attributes={"bioformats2raw.layout": 3})
    root.create_group("OME")
    ome(tmp_path / "c" / "0", [np.ones((20, 20), np.uint8)], "yx", version=2)
    assert open_image(tmp_path / "c").shape == (20, 20, 1)
    ome(tmp_path / "c" / "1", [np.ones((20, 20), np.uint8)], "yx", version=2)
    with pytest.raises(InputError, match="members: 0, 1"):
        open_image(tmp_path / "c")
    (tmp_path / "d").mkdir()
    assert not is_zarr(tmp_path / "d")
    with pytest.raises(InputError, match="is a folder, not an image"):
        open_image(tmp_path / "d")


def test_pyramids_that_are_none(tmp_path: Path) -> None:
    image = np.ones((32, 32), np.uint8)
    for name, second in (("larger", np.ones((40, 16), np.uint8)), ("dtype", np.ones((16, 16), np.uint16))):
        with pytest.raises(InputError, match="is level 1 with shape"):
            ZarrSource(ome(tmp_path / name, [image, second], "yx"))
    path = ome(tmp_path / "a", [image, image[::2, ::2]], "yx")
    for bad in ("../a/0", str(path / "0"), "", None, 3, "a\0b", "7"):
        edit(
            path / "zarr.json",
            lambda found, bad=bad: found["attributes"]["ome"]["multiscales"][0]["datasets"][1].update(path=bad),
        )
        with pytest.raises(InputError, match="lacks a Zarr array" if bad == "7" else "lists a level at"):
            ZarrSource(path)
    for none in (None, [], {}, "0"):
        edit(
            path / "zarr.json",
            lambda found, none=none: found["attributes"]["ome"]["multiscales"][0].update(datasets=none),
        )
        with pytest.raises(InputError, match="lists 0 levels"):
            ZarrSource(path)


def _corner(source: ZarrSource) -> int:
    return int(source.read(0, 5, 5, 20, 20).sum())


@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.filterwarnings("ignore:.*fork")
def test_sources_go_to_workers(tmp_path: Path, rng: np.random.Generator, method: str) -> None:
    source = ZarrSource(saved(tmp_path / "a", rng.integers(1, 9, (64, 64), dtype=np.uint8), (16, 16)))
    expected = _corner(source)
    assert not source.__getstate__()["_arrays"]
    assert _corner(copy.deepcopy(source)) == expected
    with get_context(method).Pool(1) as pool:
        assert pool.apply_async(_corner, (source,)).get(60) == expected


def test_without_zarr_the_error_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(tmp_path / "a", np.ones((8, 8), np.uint8), (8, 8))
    monkeypatch.setitem(sys.modules, "zarr", None)
    with pytest.raises(InputError, match=r"Zarr is not installed; .*pip install 'patchforest\[wsi\]'"):
        open_image(path)
    with pytest.raises(InputError, match="has no page 2"):
        open_image(path, page=2)


@pytest.mark.parametrize("seed", range(3))
def test_mutants_end_in_whole_pixels_or_one_line(tmp_path: Path, seed: int) -> None:
    """360 damaged folders in all: a header or a chunk cut short, with bits flipped or bytes overwritten, or removed."""
    rng, counts = np.random.default_rng(seed), {"read": 0, "refused": 0}
    pixels = np.random.default_rng(1).integers(1, 250, (40, 40), dtype=np.uint8)
    for number, settings in enumerate(({"zarr_format": 2}, {}, {"shards": (32, 32)}, {"ome": True})):
        whole = tmp_path / f"whole{number}"
        if settings.pop("ome", False):
            ome(whole, [pixels, pixels[::2, ::2]], "yx")
        else:
            saved(whole, pixels, (16, 16), **settings)
        for k in range(30):
            path = tmp_path / f"{number}-{k}"
            shutil.copytree(whole, path)
            files = [file for file in sorted(path.rglob("*")) if file.is_file()]
            headers = [file for file in files if file.name in ("zarr.json", ".zarray", ".zattrs")]
            chosen = headers if rng.integers(2) else files
            file = chosen[rng.integers(len(chosen))]
            data = bytearray(file.read_bytes())
            kind, place = rng.integers(4), int(rng.integers(len(data)))
            if kind == 0:
                file.unlink()
            elif kind == 1:
                file.write_bytes(data[:place])
            else:
                data[place : place + 1 + kind] = rng.bytes(1 + kind) if kind == 2 else bytes([data[place] ^ 1 << k % 8])
                file.write_bytes(data)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                try:
                    source = open_image(path)
                    if np.prod(source.shape) < 1e6:
                        for level in range(len(source.levels)):
                            assert source.read(level).shape == (*source.levels[level], source.shape[2])
                    counts["read"] += 1
                except InputError as fault:
                    counts["refused"] += str(fault).startswith(str(path)) and len(str(fault).splitlines()) == 1
    assert sum(counts.values()) == 120
    assert counts["refused"] > 40


def test_an_absurd_number_of_channels_is_refused_at_once(tmp_path: Path) -> None:
    """The places of so many chunks alone took more memory than there was."""
    zarr = pytest.importorskip("zarr")
    zarr.create_array(str(tmp_path / "a.zarr"), shape=(9, 8, 1 << 32), chunks=(9, 8, 3), dtype="u1")
    with pytest.raises(InputError, match="has 4294967296 channels"):
        open_image(tmp_path / "a.zarr")
