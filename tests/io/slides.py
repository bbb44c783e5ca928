"""A small writer of pyramidal tiled BigTIFF whose tiles are encoded already, so that tests can make JPEG slides."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

_JPEG, _YCBCR, _RGB = 7, 6, 2
_SHORT, _LONG8, _ASCII, _RATIONAL = 3, 16, 2, 5
_FORMATS = {_SHORT: "H", _LONG8: "Q", _RATIONAL: "II"}


def jpeg_tiles(pixels: np.ndarray, tile: int, *, quality: int = 85, subsampling: int = 2) -> Iterator[bytes]:
    """The tiles of (H, W, 3) uint8, row by row, each a whole JPEG, the last ones filled up with white."""
    for row in range(0, pixels.shape[0], tile):
        for column in range(0, pixels.shape[1], tile):
            part = pixels[row : row + tile, column : column + tile]
            full = np.full((tile, tile, 3), 255, np.uint8)
            full[: part.shape[0], : part.shape[1]] = part
            out = io.BytesIO()
            Image.fromarray(full).save(out, "JPEG", quality=quality, subsampling=subsampling)
            yield out.getvalue()


def write_tiled(
    path: Path,
    levels: Sequence[tuple[tuple[int, int], Iterable[bytes]]],
    tile: int,
    *,
    compression: int = _JPEG,
    photometric: int = _YCBCR,
    mpp: float = 0.5,
    description: str = "",
    extra: Sequence[tuple[int, int, tuple[int, ...] | bytes]] = (),
) -> None:
    """A little-endian BigTIFF of one page a level, RGB in tiles of ``tile`` pixels a side.

    ``levels``: ((H, W), encoded tiles row by row) a level; an empty tile is stored with offset and length 0.
    ``extra``: (tag, type, values) of the first page.
    """
    with open(path, "wb") as file:
        file.write(struct.pack("<2sHHHQ", b"II", 43, 8, 0, 0))
        link = 8
        for number, ((height, width), tiles) in enumerate(levels):
            offsets, counts = [], []
            for data in tiles:
                offsets.append(file.tell() if data else 0)
                counts.append(len(data))
                file.write(data)
            per_cm = round(1e4 / mpp * 2**-number * 1000)
            tags: dict[int, tuple[int, tuple[int, ...] | bytes]] = {
                254: (_LONG8, (int(number > 0),)),
                256: (_LONG8, (width,)),
                257: (_LONG8, (height,)),
                258: (_SHORT, (8, 8, 8)),
                259: (_SHORT, (compression,)),
                262: (_SHORT, (photometric,)),
                277: (_SHORT, (3,)),
                282: (_RATIONAL, (per_cm, 1000)),
                283: (_RATIONAL, (per_cm, 1000)),
                284: (_SHORT, (1,)),
                296: (_SHORT, (3,)),
                322: (_LONG8, (tile,)),
                323: (_LONG8, (tile,)),
                324: (_LONG8, tuple(offsets)),
                325: (_LONG8, tuple(counts)),
            }
            if photometric == _YCBCR:
                tags[530] = (_SHORT, (2, 2))
            if number == 0:
                tags |= {270: (_ASCII, description.encode() + b"\0")} if description else {}
                tags |= {tag: (kind, values) for tag, kind, values in extra}
            link = _directory(file, tags, link)


def _directory(file: io.BufferedWriter, tags: dict[int, tuple[int, tuple[int, ...] | bytes]], link: int) -> int:
    """Appends a directory, points ``link`` at it, and returns where its own link lies."""
    packed: dict[int, tuple[int, int, bytes]] = {}
    for tag, (kind, values) in sorted(tags.items()):
        if isinstance(values, bytes):
            packed[tag] = (kind, len(values), values)
        elif kind == _RATIONAL:
            packed[tag] = (kind, len(values) // 2, struct.pack(f"<{len(values)}I", *values))
        else:
            packed[tag] = (kind, len(values), struct.pack(f"<{len(values)}{_FORMATS[kind]}", *values))
    fields = {}
    for tag, (_, _, data) in packed.items():
        if len(data) <= 8:
            fields[tag] = data.ljust(8, b"\0")
        else:
            fields[tag] = struct.pack("<Q", file.tell())
            file.write(data)
    start = file.tell()
    file.write(struct.pack("<Q", len(packed)))
    for tag, (kind, count, _) in packed.items():
        file.write(struct.pack("<HHQ", tag, kind, count) + fields[tag])
    end = file.tell()
    file.write(struct.pack("<Q", 0))
    file.seek(link)
    file.write(struct.pack("<Q", start))
    file.seek(0, io.SEEK_END)
    return end
