"""Pyramidal BigTIFF written in one pass: tiles of all levels as they come, the directories last.

tifffile writes one level after the other, and would have to read each back for the next; here all levels grow at once.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import IO

from patchforest.io.atomic import atomic_path
from patchforest.io.tiles import Pyramid, TilePacker
from patchforest.values import Array

_BYTE, _ASCII, _SHORT, _LONG, _RATIONAL, _LONG8, _IFD8 = 1, 2, 3, 4, 5, 16, 18
_FORMATS = {_SHORT: "H", _LONG: "I", _RATIONAL: "I", _LONG8: "Q", _IFD8: "Q"}
_HEADER = struct.Struct("<2sHHHQ")
_ADOBE_DEFLATE, _MIN_IS_BLACK, _RGB, _CENTIMETRE = 8, 1, 2, 3
_MICRONS = 10_000  # in a centimetre
_LARGEST = 2**32 - 1  # half of a RATIONAL

Field = tuple[int, tuple[int, ...] | bytes]


@dataclass
class _Table:
    """Where the tiles of a level lie, row by row."""

    offsets: list[int] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)


def write_tiff(
    path: Path,
    pyramid: Pyramid,
    rows: Iterable[tuple[int, Array]],
    *,
    description: str | None = None,
    sub_images: bool = False,
) -> None:
    """``path`` holds the pyramid as a tiled BigTIFF in deflate, little-endian.

    The levels are pages of their own, reduced ones marked as such (NewSubfileType 1), which is what OpenSlide and most
    viewers look for. Three-channel images are RGB, all else counts from black. Resolution is in pixels per centimetre,
    each level its own.

    Parameters
    ----------
    rows : (level, (h, W, C) pixels), for every level from the top, ``pyramid.tile`` rows at a time and the rest last;
        levels may take turns in any way.
    description : 7-bit text for ImageDescription; without it, a JSON object with the kind and the names.
    sub_images : make the reduced levels sub-images of the one page (tag SubIFDs), as OME-TIFF wants it.
    """
    tables = [_Table() for _ in pyramid.levels]
    text = _about(pyramid) if description is None else description
    packer = TilePacker(pyramid.tile, difference=pyramid.kind != "mask")
    with atomic_path(path) as temporary, packer, open(temporary, "wb") as file:
        file.write(_HEADER.pack(b"II", 43, 8, 0, 0))
        for level, part in rows:
            for data in packer.pack(part):
                tables[level].offsets.append(file.tell())
                tables[level].counts.append(len(data))
                file.write(data)
        below: list[int] = []
        place = 0
        for level in reversed(range(len(tables))):  # from the last: each knows where the next one is
            fields = _fields(pyramid, level, tables[level], text)
            if sub_images and level == 0 and below:
                fields[330] = (_IFD8, tuple(below[::-1]))
            place = _append_directory(file, fields, 0 if sub_images else place)
            below.append(place)
        file.seek(0)
        file.write(_HEADER.pack(b"II", 43, 8, 0, place))


def _about(pyramid: Pyramid) -> str:
    """The kind and names as JSON in 7 bits: ``{"patchforest": "mask", "classes": ["background", "gland"]}``."""
    about: dict[str, object] = {"patchforest": pyramid.kind}
    if pyramid.names:
        about["classes" if pyramid.kind == "mask" else "channels"] = pyramid.names
    return json.dumps(about)


def _fields(pyramid: Pyramid, level: int, table: _Table, description: str) -> dict[int, Field]:
    """Tag -> (type, values) of a level's page."""
    (height, width), channels = pyramid.levels[level], pyramid.channels
    colours = 3 if pyramid.kind == "image" and channels == 3 else 1
    fields: dict[int, Field] = {
        254: (_LONG, (int(level > 0),)),
        256: (_LONG, (width,)),
        257: (_LONG, (height,)),
        258: (_SHORT, (8 * pyramid.dtype.itemsize,) * channels),
        259: (_SHORT, (_ADOBE_DEFLATE,)),
        262: (_SHORT, (_RGB if colours == 3 else _MIN_IS_BLACK,)),
        277: (_SHORT, (channels,)),
        284: (_SHORT, (1,)),
        305: (_ASCII, b"patchforest\0"),
        317: (_SHORT, (1 if pyramid.kind == "mask" else 2,)),
        322: (_LONG, (pyramid.tile,)),
        323: (_LONG, (pyramid.tile,)),
        324: (_LONG8, tuple(table.offsets)),
        325: (_LONG8, tuple(table.counts)),
        339: (_SHORT, (1,) * channels),
    }
    if level == 0:
        fields[270] = (_ASCII, description.encode("ascii") + b"\0")
    if channels > colours:
        fields[338] = (_SHORT, (0,) * (channels - colours))
    if pyramid.mpp is not None:
        per_centimetre = _rational(_MICRONS / (pyramid.mpp * 2**level))
        fields |= {282: (_RATIONAL, per_centimetre), 283: (_RATIONAL, per_centimetre), 296: (_SHORT, (_CENTIMETRE,))}
    return fields


def _rational(value: float) -> tuple[int, int]:
    """The nearest (numerator, denominator) in 32 bits each."""
    share = Fraction(value).limit_denominator(max(1, min(_LARGEST, int(_LARGEST / value) - 1)))
    return share.numerator, share.denominator


def _append_directory(file: IO[bytes], fields: dict[int, Field], following: int) -> int:
    """Where the directory of ``fields`` now lies, at the end of the file; it points to the one at ``following``."""
    entries = []
    for tag, (kind, values) in sorted(fields.items()):
        data = values if isinstance(values, bytes) else struct.pack(f"<{len(values)}{_FORMATS[kind]}", *values)
        count = len(values) // 2 if kind == _RATIONAL else len(values)
        if len(data) > 8:
            _align(file)
            data, start = struct.pack("<Q", file.tell()), data
            file.write(start)
        entries.append(struct.pack("<HHQ8s", tag, kind, count, data))
    _align(file)
    place = file.tell()
    file.write(struct.pack("<Q", len(entries)) + b"".join(entries) + struct.pack("<Q", following))
    return place


def _align(file: IO[bytes]) -> None:
    """Zeros up to the next multiple of 8 bytes."""
    file.write(bytes(-file.tell() % 8))
