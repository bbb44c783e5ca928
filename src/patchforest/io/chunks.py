"""The header of a Zarr array, versions 2 and 3, checked without Zarr: shape, dtype, codecs, and where each chunk lies.

Only codecs that hold plain numbers are let through: nothing is unpickled, and no codec is looked up by a file's words.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from patchforest.errors import InputError

_AGAIN = "copy or export the folder again"
_CONVERT = "write it again as 2-D or 3-D numbers in Zstandard, Blosc or gzip"
_MAX_HEADER = 1 << 26
_MAX_CHUNK = 1 << 30
_MAX_AXES = 8
# How many bytes one stored byte can become at most, rounded up; only these codecs are decoded.
_EXPANSION_2 = {
    **dict.fromkeys(("zlib", "gzip"), 1040),
    **dict.fromkeys(("zstd", "blosc"), 40_000),
    **dict.fromkeys(("crc32", "crc32c", "adler32", "fletcher32", "shuffle", "bitround"), 1),
    **dict.fromkeys(("delta", "fixedscaleoffset", "quantize", "packbits"), 8),
    "lz4": 260,
    "lzma": 20_000,
    "bz2": 1 << 21,
}
_EXPANSION_3 = {"bytes": 1, "transpose": 1, "crc32c": 1, "gzip": 1040, "zstd": 40_000, "blosc": 40_000}
_TYPES_3 = {f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)} | {
    "bool",
    "float16",
    "float32",
    "float64",
}
_ABSENT = 2**64 - 1  # in the index of a shard


@dataclass(frozen=True)
class ChunkedArray:
    """Where a Zarr array's numbers lie.

    ``folder`` of the array, ``version`` 2 or 3, ``shape``, ``dtype``; ``stored``: shape of what one file holds;
    ``chunk``: shape of what is decoded at once, smaller than ``stored`` in shards; ``prefix`` and ``separator`` of the
    files' names, ``codecs`` in the order of writing, ``fill``: whether there is a fill value,
    ``index``: (at the front, has a checksum) of a shard's index, ``names`` of the axes where the header states them.
    """

    folder: Path
    version: int
    shape: tuple[int, ...]
    dtype: np.dtype
    stored: tuple[int, ...]
    chunk: tuple[int, ...]
    prefix: str
    separator: str
    codecs: tuple[str, ...]
    fill: bool
    index: tuple[bool, bool] | None = None
    names: tuple[str, ...] | None = None

    def key(self, place: Sequence[int]) -> str:
        """The name, below ``folder``, of the file at ``place`` in the grid of files."""
        return self.prefix + self.separator.join(map(str, place))

    def places(self, start: Sequence[int], stop: Sequence[int]) -> Iterator[tuple[int, ...]]:
        """Every place in the grid of chunks under the box from ``start`` to ``stop``."""
        return itertools.product(
            *(range(a // size, (b - 1) // size + 1) for a, b, size in zip(start, stop, self.chunk, strict=True))
        )

    def box(self, place: Sequence[int]) -> tuple[tuple[int, int], ...]:
        """(start, stop) along each axis of the chunk at ``place``, inside the array."""
        return tuple(
            (i * size, min((i + 1) * size, end)) for i, size, end in zip(place, self.chunk, self.shape, strict=True)
        )

    def absent(self, start: Sequence[int], stop: Sequence[int]) -> Iterator[tuple[tuple[int, ...], str]]:
        """(place, name of its file) of each chunk under a box that is not stored.

        Raises
        ------
        InputError
            A chunk is there, but has too few bytes for its pixels, or its shard's index is damaged.
        """
        per_file = tuple(outer // inner for outer, inner in zip(self.stored, self.chunk, strict=True))
        shards: dict[str, tuple[np.ndarray | None, int]] = {}
        for place in self.places(start, stop):
            key = self.key([i // n for i, n in zip(place, per_file, strict=True)])
            path = self.folder / key
            if self.index is None:
                offset, size = 0, _size(path)
            else:
                if key not in shards:
                    shards[key] = self._shard(path, per_file)
                table, end = shards[key]
                offset, size = 0, 0
                if table is not None:
                    offset, size = (int(v) for v in table[tuple(i % n for i, n in zip(place, per_file, strict=True))])
                    size = 0 if (offset, size) == (_ABSENT, _ABSENT) else size
                    if size and offset + size > end:
                        raise InputError(path, f"is truncated: its data ends at byte {offset + size} of {end}", _AGAIN)
            if not size:
                yield place, key
            else:
                self._require_plausible(path, offset, size)

    def _require_plausible(self, path: Path, offset: int, size: int) -> None:
        """InputError where a stored chunk cannot hold its pixels, or says of itself that it is of another size."""
        known, needed = _EXPANSION_2 if self.version == 2 else _EXPANSION_3, math.prod(self.chunk) * self.dtype.itemsize
        if size * math.prod(known[name] for name in self.codecs) < needed:
            raise InputError(path, f"holds a chunk of {size} bytes, too few for {needed} bytes of pixels", _AGAIN)
        if self.codecs[-1:] == ("blosc",):  # whose library reads on behind the end of a chunk that was cut short
            with open(path, "rb") as file:
                file.seek(offset)
                head = file.read(16)
            said = (int.from_bytes(head[4:8], "little"), int.from_bytes(head[12:16], "little"))
            plain = all(known[name] == 1 for name in self.codecs[:-1])  # no filter changes the number of bytes
            if said[1] != size or (plain and said[0] != needed):
                what = f"holds a chunk of {size} bytes that should have {said[1]}, for {said[0]} bytes of pixels"
                raise InputError(path, what, _AGAIN)

    def _shard(self, path: Path, per_file: tuple[int, ...]) -> tuple[np.ndarray | None, int]:
        """(index of offset and length per chunk, or None where there is no file; size of the file)."""
        assert self.index is not None
        front, checked = self.index
        size, length = _size(path), math.prod(per_file) * 16
        whole = length + 4 * checked
        if not size:
            return None, 0
        if size < whole:
            raise InputError(path, f"is truncated: it has {size} bytes, its index alone {whole}", _AGAIN)
        with open(path, "rb") as file:
            file.seek(0 if front else size - whole)
            data = file.read(length)
        return np.frombuffer(data, "<u8").reshape(*per_file, 2), size


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a small file; InputError otherwise."""
    try:
        if path.stat().st_size > _MAX_HEADER:
            raise InputError(path, f"is a header of more than {_MAX_HEADER >> 20} MiB", _AGAIN)
        found = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as fault:  # InputError is a ValueError
        if isinstance(fault, InputError):
            raise
        raise InputError(path, f"is no JSON ({str(fault)[:80]})", _AGAIN) from fault
    if not isinstance(found, dict):
        raise InputError(path, "is no JSON object", _AGAIN)
    return found


def array_header(folder: Path) -> ChunkedArray:
    """The header of the array in ``folder``; InputError where it is none, or not one of plain numbers."""
    if (folder / "zarr.json").is_file():
        path, parse = folder / "zarr.json", _version_3
    else:
        path, parse = folder / ".zarray", _version_2
        if not path.is_file():
            raise InputError(folder, "lacks a Zarr array (no zarr.json or .zarray in it)", _AGAIN)
    try:
        header = parse(folder, path, read_json(path))
    except InputError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError) as fault:
        reason = f"is a damaged header ({type(fault).__name__}: {str(fault)[:80]})"
        raise InputError(path, reason, _AGAIN) from fault
    if not 2 <= len(header.shape) <= _MAX_AXES or min(header.shape) < 1:
        raise InputError(path, f"has shape {header.shape}", "give an image of shape (H, W) or (H, W, C) with pixels")
    if header.dtype.kind not in "buif" or header.dtype.itemsize > 8:
        raise InputError(path, f"holds {header.dtype}, which is no image", _CONVERT)
    if math.prod(header.chunk) * header.dtype.itemsize > _MAX_CHUNK:
        raise InputError(path, f"is stored in chunks of {header.chunk}, more than 1 GiB each", "write smaller chunks")
    return header


def _version_2(folder: Path, path: Path, doc: dict[str, Any]) -> ChunkedArray:
    kind = doc["dtype"]
    if doc["zarr_format"] != 2 or not isinstance(kind, str) or kind[:1] not in "<>|" or kind[1:2] not in "buif":
        raise InputError(path, f"holds {kind!r}, which is no image", _CONVERT)
    shape, chunk = _sizes(doc["shape"]), _sizes(doc["chunks"], len(doc["shape"]))
    codecs = [*(doc.get("filters") or []), *([doc["compressor"]] if doc["compressor"] else [])]
    separator = doc.get("dimension_separator", ".")
    if separator not in (".", "/") or doc["order"] not in ("C", "F"):
        raise InputError(path, f"has separator {separator!r} and order {doc['order']!r}", _AGAIN)
    names = _known([codec["id"] for codec in codecs], _EXPANSION_2, path)
    fill = doc["fill_value"] is not None
    return ChunkedArray(folder, 2, shape, np.dtype(kind), chunk, chunk, "", separator, names, fill)


def _version_3(folder: Path, path: Path, doc: dict[str, Any]) -> ChunkedArray:
    if doc["zarr_format"] != 3 or doc["node_type"] != "array":
        raise InputError(path, f"is a Zarr {doc['node_type']!s:.20}, not an array", "give the folder of an array")
    kind, grid, encoding = doc["data_type"], doc["chunk_grid"], doc["chunk_key_encoding"]
    if kind not in _TYPES_3:
        raise InputError(path, f"holds {str(kind)[:40]}, which is no image", _CONVERT)
    if grid["name"] != "regular" or encoding["name"] not in ("default", "v2") or doc.get("storage_transformers"):
        raise InputError(path, "has a chunk grid, chunk names or a storage transformer of an unknown kind", _CONVERT)
    shape = _sizes(doc["shape"])
    stored = _sizes(grid["configuration"]["chunk_shape"], len(shape))
    default = encoding["name"] == "default"
    separator = encoding.get("configuration", {}).get("separator", "/" if default else ".")
    if separator not in (".", "/"):
        raise InputError(path, f"has separator {separator!r}", _AGAIN)
    names, codecs, chunk, index = doc.get("dimension_names"), doc["codecs"], stored, None
    if _name(codecs[0]) == "sharding_indexed" and len(codecs) == 1:
        inside = codecs[0]["configuration"]
        codecs, chunk, index = inside["codecs"], _sizes(inside["chunk_shape"], len(shape)), _index(inside, path)
        if any(outer % inner for outer, inner in zip(stored, chunk, strict=True)):
            raise InputError(path, f"has shards of {stored} in chunks of {chunk}", _AGAIN)
    return ChunkedArray(
        folder=folder,
        version=3,
        shape=shape,
        dtype=np.dtype(kind),
        stored=stored,
        chunk=chunk,
        prefix="c" + separator if default else "",
        separator=separator,
        codecs=_known([_name(codec) for codec in codecs], _EXPANSION_3, path),
        fill=doc["fill_value"] is not None,
        index=index,
        names=tuple(map(str, names)) if names and None not in names else None,
    )


def _index(configuration: dict[str, Any], path: Path) -> tuple[bool, bool]:
    """(at the front, has a checksum) of a shard's index; InputError for an index that is packed."""
    codecs = configuration.get("index_codecs", [])
    names, where = [_name(codec) for codec in codecs], configuration.get("index_location", "end")
    little = bool(codecs) and codecs[0].get("configuration", {}).get("endian") == "little"
    if names not in (["bytes"], ["bytes", "crc32c"]) or not little or where not in ("start", "end"):
        raise InputError(path, f"has shards with an index in {names} at the {where!s:.20}", _CONVERT)
    return where == "start", len(names) == 2


def _name(codec: Any) -> str:
    return codec if isinstance(codec, str) else codec["name"]


def _known(names: list[str], known: dict[str, int], path: Path) -> tuple[str, ...]:
    """The names of the codecs; InputError for one that is not known, and for Blosc that is packed once more."""
    for place, name in enumerate(names):
        if name not in known or (name == "blosc" and place < len(names) - 1):
            raise InputError(path, f"is packed with codec {name!r:.40}, which is not supported", _CONVERT)
    return tuple(names)


def _sizes(values: Any, count: int | None = None) -> tuple[int, ...]:
    """A tuple of whole numbers from 0 to 2^62; ValueError otherwise."""
    if not isinstance(values, list) or (count is not None and len(values) != count) or len(values) > _MAX_AXES:
        raise ValueError(f"sizes {str(values)[:60]}")
    for value in values:
        if not isinstance(value, int) or isinstance(value, bool) or not (count is not None) <= value < 1 << 62:
            raise ValueError(f"size {str(value)[:40]}")
    return tuple(values)


def _size(path: Path) -> int:
    """Bytes of a file, 0 where there is none."""
    try:
        return path.stat().st_size
    except (FileNotFoundError, NotADirectoryError):
        return 0
