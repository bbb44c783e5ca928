"""Headers of Zarr arrays: every claim checked before Zarr sees it, nothing looked up by a file's words."""

from __future__ import annotations

import json
import resource
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from patchforest.errors import InputError
from patchforest.io.chunks import array_header, read_json

V2: dict[str, Any] = {
    "zarr_format": 2,
    "shape": [40, 50],
    "chunks": [16, 20],
    "dtype": "<u2",
    "compressor": {"id": "zlib", "level": 1},
    "fill_value": 0,
    "order": "C",
    "filters": None,
}
V3: dict[str, Any] = {
    "zarr_format": 3,
    "node_type": "array",
    "shape": [40, 50],
    "data_type": "uint16",
    "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [16, 20]}},
    "chunk_key_encoding": {"name": "default"},
    "fill_value": 0,
    "codecs": [{"name": "bytes", "configuration": {"endian": "little"}}],
}
SHARDED: dict[str, Any] = {
    "name": "sharding_indexed",
    "configuration": {
        "chunk_shape": [8, 10],
        "codecs": [{"name": "bytes"}],
        "index_codecs": [{"name": "bytes", "configuration": {"endian": "little"}}, "crc32c"],
    },
}


def header(folder: Path, doc: dict[str, Any]) -> Any:
    name = "zarr.json" if doc.get("zarr_format") == 3 else ".zarray"
    (folder / name).write_text(json.dumps(doc))
    return array_header(folder)


def test_names_of_files(tmp_path: Path) -> None:
    assert header(tmp_path, V2).key((1, 2)) == "1.2"
    assert header(tmp_path, V2 | {"dimension_separator": "/"}).key((1, 2)) == "1/2"
    assert header(tmp_path, V3).key((1, 2)) == "c/1/2"
    dots = {"name": "default", "configuration": {"separator": "."}}
    assert header(tmp_path, V3 | {"chunk_key_encoding": dots}).key((1, 2)) == "c.1.2"
    assert header(tmp_path, V3 | {"chunk_key_encoding": {"name": "v2"}}).key((1, 2)) == "1.2"


def test_places_under_a_box(tmp_path: Path) -> None:
    found = header(tmp_path, V2)
    assert list(found.places((0, 0), (40, 50))) == [(i, j) for i in range(3) for j in range(3)]
    assert list(found.places((16, 19), (32, 20))) == [(1, 0)]
    assert list(found.places((15, 19), (17, 21))) == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert found.box((2, 2)) == ((32, 40), (40, 50))


def test_absent_chunks_by_brute_force(tmp_path: Path, rng: np.random.Generator) -> None:
    found = header(tmp_path, V2 | {"compressor": None})
    there = {(i, j) for i in range(3) for j in range(3) if rng.integers(2)}
    for place in there:
        (tmp_path / found.key(place)).write_bytes(bytes(16 * 20 * 2))
    for _ in range(50):
        start = rng.integers((40, 50))
        stop = start + 1 + rng.integers((40, 50) - start)
        under = {(r // 16, c // 20) for r in range(start[0], stop[0]) for c in range(start[1], stop[1])}
        assert {place for place, _ in found.absent(tuple(start), tuple(stop))} == under - there
    (tmp_path / "0.0").write_bytes(bytes(639))
    with pytest.raises(InputError, match=r"0.0: holds a chunk of 639 bytes, too few for 640"):
        list(found.absent((0, 0), (1, 1)))


def test_absent_chunks_inside_shards(tmp_path: Path) -> None:
    found = header(tmp_path, V3 | {"codecs": [SHARDED]})
    assert (found.stored, found.chunk) == ((16, 20), (8, 10))
    index = np.full((2, 2, 2), 2**64 - 1, "<u8")
    index[0, 1] = (0, 160)
    (tmp_path / "c" / "0").mkdir(parents=True)
    (tmp_path / "c" / "0" / "0").write_bytes(bytes(160) + index.tobytes() + bytes(4))
    absent = [place for place, _ in found.absent((0, 0), (16, 30))]
    assert absent == [(0, 0), (0, 2), (1, 0), (1, 1), (1, 2)]
    index[1, 1] = (100, 2**40)
    (tmp_path / "c" / "0" / "0").write_bytes(bytes(160) + index.tobytes() + bytes(4))
    with pytest.raises(InputError, match=f"ends at byte {100 + 2**40} of 228"):
        list(found.absent((8, 10), (9, 11)))
    (tmp_path / "c" / "0" / "0").write_bytes(bytes(67))
    with pytest.raises(InputError, match="has 67 bytes, its index alone 68"):
        list(found.absent((0, 0), (1, 1)))


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"dtype": "|O"}, "holds .*, which is no image"),
        ({"dtype": [["a", "<u2"]]}, "holds .*, which is no image"),
        ({"dtype": "<M8[s]"}, "holds .*, which is no image"),
        ({"dtype": "<u3"}, "is a damaged header"),
        ({"filters": [{"id": "pickle"}]}, "codec 'pickle'"),
        ({"compressor": {"id": "json2"}}, "codec 'json2'"),
        ({"filters": [{"id": "blosc"}]}, "codec 'blosc'"),
        ({"compressor": {"id": ["zlib"]}}, "damaged header"),
        ({"chunks": [0, 16]}, "damaged header"),
        ({"chunks": [16]}, "damaged header"),
        ({"chunks": [1 << 20, 1 << 20]}, "more than 1 GiB each"),
        ({"shape": [0, 50]}, "has shape"),
        ({"shape": [True, 50]}, "damaged header"),
        ({"shape": [1.5, 50]}, "damaged header"),
        ({"shape": [-1, 50]}, "damaged header"),
        ({"shape": [1 << 70, 50]}, "damaged header"),
        ({"shape": [50], "chunks": [16]}, r"has shape .50,."),
        ({"shape": "many"}, "damaged header"),
        ({"order": "Z"}, "order 'Z'"),
        ({"dimension_separator": "../"}, "separator"),
        ({"zarr_format": 1}, "no image"),
    ],
)
def test_version_2_headers_that_are_refused(tmp_path: Path, change: dict[str, Any], fault: str) -> None:
    with pytest.raises(InputError, match=fault):
        header(tmp_path, V2 | change)


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"data_type": "string"}, "holds string"),
        ({"data_type": "complex64"}, "holds complex64"),
        ({"data_type": {"name": "struct"}}, "damaged header|no image"),
        ({"codecs": [{"name": "vlen-bytes"}]}, "codec 'vlen-bytes'"),
        ({"codecs": [{"name": "numcodecs.pickle"}]}, "codec 'numcodecs.pickle'"),
        ({"codecs": []}, "damaged header"),
        ({"codecs": [SHARDED, {"name": "gzip"}]}, "codec 'sharding_indexed'"),
        ({"chunk_grid": {"name": "rectilinear", "configuration": {}}}, "unknown kind"),
        ({"chunk_key_encoding": {"name": "odd"}}, "unknown kind"),
        ({"storage_transformers": [{"name": "x"}]}, "unknown kind"),
        ({"chunk_key_encoding": {"name": "default", "configuration": {"separator": "/../"}}}, "separator"),
        ({"node_type": "group"}, "is a Zarr group, not an array"),
        ({"shape": None}, "damaged header"),
    ],
)
def test_version_3_headers_that_are_refused(tmp_path: Path, change: dict[str, Any], fault: str) -> None:
    with pytest.raises(InputError, match=fault):
        header(tmp_path, V3 | change)


@pytest.mark.parametrize(
    "change",
    [
        {"index_codecs": [{"name": "gzip"}]},
        {"index_codecs": [{"name": "bytes", "configuration": {"endian": "big"}}]},
        {"index_location": "middle"},
        {"chunk_shape": [7, 10]},
    ],
)
def test_shards_that_are_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    codec = {"name": "sharding_indexed", "configuration": SHARDED["configuration"] | change}
    with pytest.raises(InputError, match="has shards"):
        header(tmp_path, V3 | {"codecs": [codec]})


def test_a_header_of_a_trillion_pixels_costs_nothing(tmp_path: Path) -> None:
    before, begun = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
    for doc in (V2 | {"chunks": [512, 512]}, V3):
        found = header(tmp_path, doc | {"shape": [1 << 20, 1 << 20]})
        assert found.shape == (1 << 20, 1 << 20)
        assert next(found.absent((0, 0), found.shape))[0] == (0, 0)
    assert time.perf_counter() - begun < 1
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50 * 1024


def test_headers_that_are_no_json(tmp_path: Path) -> None:
    path = tmp_path / "zarr.json"
    for text in ("", "{", "[1, 2]", "\xff\xfe", "[" * 100_000, "3"):
        path.write_bytes(text.encode("latin-1"))
        with pytest.raises(InputError, match=r"is no JSON"):
            read_json(path)
    with open(path, "wb") as file:
        file.truncate(1 << 27)
    with pytest.raises(InputError, match="more than 64 MiB"):
        read_json(path)
    with pytest.raises(InputError, match="lacks a Zarr array"):
        array_header(tmp_path / "absent")
