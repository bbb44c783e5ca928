"""What a page of a TIFF says of itself, checked: its levels and their segments, its colour model, its scale.

Every tile's place and length is held against the file's size, every header's claim against what its bytes can hold,
before anything is allocated.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from patchforest.errors import InputError
from patchforest.io.segment import CODECS, NONE, PREDICTING, Packing
from patchforest.values import Array

TIFF_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
AGAIN = "copy or export the file again"
_CONVERT = "convert it with another program, e.g. to a deflate-compressed RGB TIFF"
_KINDS = {1: "u", 2: "i", 3: "f", 4: "u"}
WHITE_IS_ZERO, _RGB, PALETTE, _YCBCR = 0, 2, 3, 6
_OTHER_COLOURS = {5: "CMYK", 6: "YCbCr", 8: "CIELAB", 9: "ICCLAB", 10: "ITULAB", 32803: "CFA", 34892: "raw"}
_MAX_PAGES = 4096
_TYPE_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_NDPI_MARK = 65420
_MAX_TILE = 1 << 26  # pixels
_SEGMENT_BYTES = (279, 325)  # byte counts of strips and tiles
_TRUSTED = (*_SEGMENT_BYTES, 322, 323)  # and width and height of tiles
# What decides how pixels are read: tifffile leaves a tag out whose values lie behind the end of the file.
_DECISIVE = frozenset((254, 256, 257, 258, 259, 262, 266, 273, 274, 277, 278, 284, 317, 320, 324, 338, 339, 347, 530))
_SLACK = 64  # bytes that a writer may leave behind a strip or tile that is not compressed
_MICRONS = {2: 25_400.0, 3: 10_000.0}  # per inch, per centimetre
_MICRONS_OF = {"µm": 1.0, "um": 1.0, "&#181;m": 1.0, "&#xB5;m": 1.0, "nm": 1e-3, "mm": 1e3, "cm": 1e4, "m": 1e6}


class VendorFormat(InputError):
    """A TIFF that only a slide library reads; ``certain`` for a scanner's format, not just an unknown compression."""

    certain = False


@dataclass(frozen=True)
class Level:
    """One stored resolution: (H, W) as stored, where its segments lie and how they are packed.

    ``offsets`` and ``counts`` run plane by plane, row by row of tiles; ``planes`` is 1 where samples are interleaved.
    """

    height: int
    width: int
    planes: int
    packing: Packing
    offsets: Array
    counts: Array


@dataclass(frozen=True)
class Look:
    """How stored samples become an image: photometric code, bits, which sample is alpha, the palette, orientation."""

    photometric: int
    bits: int
    samples: int
    alpha: int | None
    associated: bool
    palette: Array | None
    orientation: int


def require_no_vendor(page: Any, path: Path) -> None:
    """VendorFormat for files that are TIFF by structure but whose tiles are not simply the image's."""
    xmp = page.tags.get(700)
    if page.is_ndpi:
        name = "a Hamamatsu slide (NDPI)"
    elif page.is_scn:
        name = "a Leica slide (SCN)"
    elif page.is_bif or (xmp is not None and b"<iScan" in bytes(xmp.value)[:8192]):
        name = "a Ventana slide (BIF)"
    elif page.is_philips:
        name = "a Philips slide"
    elif page.software.startswith("MedScan") and "Background Color=" in page.description:
        name = "a Trestle slide"
    else:
        return
    fault = VendorFormat(path, f"is {name}", _CONVERT)
    fault.certain = True
    raise fault


def _require_codec(page: Any, path: Path) -> None:
    """InputError for an unknown compression; VendorFormat where the page may be a slide's: upright 8-bit RGB tiles."""
    if int(page.compression) in CODECS:
        return
    name, turned = getattr(page.compression, "name", str(page.compression)), page.tags.get(274)
    upright = turned is None or turned.value == 1
    slide = page.is_tiled and page.bitspersample == 8 and int(page.samplesperpixel) in (3, 4) and upright
    kind = VendorFormat if slide and int(page.photometric) in (_RGB, _YCBCR) else InputError
    raise kind(path, f"is compressed as {name}, which is not supported", _CONVERT)


def look_of(page: Any, path: Path) -> Look:
    """The page's colour model; InputError for one that has no place here."""
    _require_codec(page, path)
    photometric, samples, bits = int(page.photometric), int(page.samplesperpixel), page.bitspersample
    if page.tags.get(262) is None or (page.tags.get(258) is None and (samples > 1 or photometric not in (0, 1))):
        raise InputError(path, "is a damaged TIFF: it does not say what its numbers mean (tags 258 and 262)", AGAIN)
    if photometric in _OTHER_COLOURS and not (photometric == _YCBCR and int(page.compression) == 7):
        raise InputError(path, f"is in {_OTHER_COLOURS[photometric]} colours", _CONVERT)
    colours = 3 if photometric in (_RGB, _YCBCR) else 1
    if photometric not in (0, 1, 2, 3, 4, 6) or samples < colours or not isinstance(bits, int):
        raise InputError(path, f"has colour model {photometric}, {samples} samples of {bits} bits", _CONVERT)
    extra = [int(kind) for kind in page.extrasamples or ()]
    place = next((k for k, kind in enumerate(extra) if kind in (1, 2)), None)
    alpha = None if place is None else samples - len(extra) + place
    unsigned = _KINDS.get(_single(page.sampleformat), "?") == "u"
    if alpha is not None and not (unsigned and bits in (8, 16) and alpha == samples - 1):
        raise InputError(path, f"has alpha as sample {alpha} of {samples} with {bits} bits", _CONVERT)
    palette = None
    if photometric == PALETTE:
        if page.colormap is None or page.colormap.shape != (3, 1 << bits) or samples != 1:
            raise InputError(path, "has a palette of the wrong size", _CONVERT)
        palette = (page.colormap.T >> 8).astype(np.uint8)
    tag = page.tags.get(274)
    code = int(tag.value) if tag is not None else 1
    return Look(photometric, bits, samples, alpha, bool(alpha is not None and extra[place or 0] == 1), palette, code)


def level_of(page: Any, path: Path, file_size: int) -> Level:
    """The page's geometry and segment table, checked; InputError where it cannot be read whole."""
    height, width, samples, bits = (
        int(page.imagelength),
        int(page.imagewidth),
        int(page.samplesperpixel),
        _single(page.bitspersample),
    )
    compression, kind = int(page.compression), _KINDS.get(_single(page.sampleformat), "?")
    _require_codec(page, path)
    if min(height, width, samples) < 1 or page.imagedepth != 1 or int(page.fillorder) != 1:
        raise InputError(path, f"has a page of {page.imagedepth} x {height} x {width} x {samples}", _CONVERT)
    if (kind == "u" and bits in (1, 2, 4, 6, 10, 12, 14)) or bits in {"u": (8, 16, 32), "i": (8, 16, 32)}.get(kind, ()):
        dtype = np.dtype(f"{page.parent.byteorder}{kind}{(bits + 7) // 8}")
    elif kind == "f" and bits in (16, 32, 64):
        dtype = np.dtype(f"{page.parent.byteorder}f{bits // 8}")
    else:
        raise InputError(path, f"has samples of {bits} bits in format {page.sampleformat}", _CONVERT)
    apart = int(page.planarconfig) == 2 and samples > 1
    tall = int(page.tilelength) if page.is_tiled else min(int(page.rowsperstrip or height), height)
    wide = int(page.tilewidth) if page.is_tiled else width
    predictor = int(page.predictor)
    if min(tall, wide) < 1 or predictor not in (1, 2, 3) or (predictor > 1 and bits not in (8, 16, 32, 64)):
        raise InputError(path, f"has tiles of {tall} x {wide} with predictor {predictor}", _CONVERT)
    packing = Packing(
        height=tall,
        width=wide,
        samples=1 if apart else samples,
        bits=bits,
        dtype=dtype,
        compression=compression,
        predictor=predictor if compression in PREDICTING else 1,
        photometric=int(page.photometric),
        tables=page.jpegtables or b"",
    )
    offsets, counts = np.asarray(page.dataoffsets, np.int64), np.asarray(page.databytecounts, np.int64)
    level = Level(height, width, samples if apart else 1, packing, offsets, counts)
    _require_segments(level, path, file_size)
    return level


def _require_segments(level: Level, path: Path, file_size: int) -> None:
    """InputError unless every segment is there, lies within the file and can hold its pixels."""
    packing = level.packing
    down = -(-level.height // packing.height)
    number = down * -(-level.width // packing.width) * level.planes
    if len(level.offsets) != number or len(level.counts) != number:
        what = (
            f"needs {number} tiles or strips for {level.height} x {level.width} pixels but lists {len(level.offsets)}"
        )
        raise InputError(path, what, AGAIN)
    missing = int(((level.counts <= 0) | (level.offsets <= 0)).sum())
    if missing:
        raise InputError(path, f"lacks {missing} of {number} tiles or strips (their length is 0)", AGAIN)
    end = int((level.offsets + level.counts).max())
    if end > file_size or end < 0:
        raise InputError(path, f"is truncated: its data ends at byte {end} but the file at {file_size}", AGAIN)
    strips = packing.width >= level.width
    for count, rows in (
        (int(level.counts.min()), level.height - (down - 1) * packing.height if strips else packing.height),
        (int(level.counts.max()), packing.height if down > 1 or not strips else min(packing.height, level.height)),
    ):
        if packing.capacity(count) < rows * packing.row_bytes:
            what = f"says a tile or strip of {count} bytes holds {rows} x {packing.width} pixels, which it cannot"
            raise InputError(path, what, AGAIN)
    most = packing.height * packing.row_bytes
    if packing.compression == NONE and int(level.counts.max()) > most + _SLACK:
        what = f"has {int(level.counts.max())} bytes in a tile or strip of {most} that is not compressed"
        raise InputError(path, what, AGAIN)


def reduced_pages(pages: Any, number: int | None, page: Any, path: Path) -> list[Any]:
    """Pages that may be smaller copies of ``page``: its sub-images, or reduced or tiled pages after it, in order."""
    if page.subifds:
        return list(page.pages)
    aperio, found = str(page.description).startswith("Aperio"), []
    for k in range((number or 0) + 1, _MAX_PAGES):
        try:
            other = pages[k]
        except IndexError:
            break
        reduced = bool(int(other.subfiletype) & 1)
        if reduced or (other.is_tiled and other.imagelength < page.imagelength):
            if other.is_tiled or not aperio:
                found.append(other)
        elif not aperio:
            if number is None and (other.imagelength, other.imagewidth) == (page.imagelength, page.imagewidth):
                what = f"is a stack of pages of {page.imagelength} x {page.imagewidth}"
                raise InputError(path, what, "choose one with open_image(path, page=0) or save each page as a file")
            break
    return found


def same_kind(level: Level, base: Level) -> bool:
    """Whether two levels hold samples of one kind."""
    here, there = level.packing, base.packing
    return (here.samples * level.planes, here.bits, here.dtype.kind) == (
        there.samples * base.planes,
        there.bits,
        there.dtype.kind,
    )


def continues(level: Level, base: Level, last: Level) -> bool:
    """Whether a level is the whole of ``base``, smaller than ``last``: label and macro pictures are not."""
    if level.height >= last.height or level.width >= last.width:
        return False
    return abs(level.width * base.height - base.width * level.height) <= 2 * max(base.height, base.width)


def microns_per_pixel(page: Any) -> float | None:
    """Microns per pixel from Aperio's or OME's description or the resolution tags, where plausible (0.05 to 20)."""
    description = str(page.description)[:65536]
    text = re.search(r"\bMPP\s*=\s*([0-9.]+)", description) if description.startswith("Aperio") else None
    if text:
        values = [float(text.group(1))]
    elif sizes := _ome_sizes(description):
        values = sizes
    else:
        unit, tags = page.tags.get(296), [page.tags.get(282), page.tags.get(283)]
        microns = _MICRONS.get(int(unit.value) if unit is not None else 2)
        pairs = [tag.value for tag in tags if tag is not None]
        if microns is None or not pairs or any(len(pair) != 2 or min(pair) <= 0 for pair in pairs):
            return None
        values = [microns * pair[1] / pair[0] for pair in pairs]
    plausible = all(0.05 <= value <= 20 for value in values) and max(values) <= 1.01 * min(values)
    return values[0] if plausible else None


def _ome_sizes(description: str) -> list[float]:
    """Microns per pixel along x and y of the first image of an OME description; none where it does not say."""
    if "<OME" not in description:
        return []
    pixels = re.search(r"<(?:\w+:)?Pixels\b[^>]*>", description)
    found = []
    for axis in "XY":
        size = re.search(rf'\bPhysicalSize{axis}="([0-9.eE+-]+)"', pixels[0]) if pixels else None
        unit = re.search(rf'\bPhysicalSize{axis}Unit="([^"]*)"', pixels[0]) if pixels else None
        factor = _MICRONS_OF.get(unit.group(1) if unit else "µm")
        try:
            value = float(size.group(1)) * factor if size and factor else 0.0
        except ValueError:
            return []
        if value <= 0:
            return []
        found.append(value)
    return found


def objective_power(page: Any) -> float | None:
    """Magnification of the objective by Aperio's description, or None."""
    description = str(page.description)[:4096]
    text = re.search(r"\bAppMag\s*=\s*([0-9.]+)", description) if description.startswith("Aperio") else None
    try:
        power = float(text.group(1)) if text else 0.0
    except ValueError:
        return None
    return power if 0.1 <= power <= 200 else None


def _single(value: Any) -> int:
    """The one number of a tag that may be a tuple of equal numbers, or -1."""
    if isinstance(value, tuple):
        return int(value[0]) if len(set(value)) == 1 else -1
    return int(value)


def require_plausible_directories(path: Path) -> None:
    """InputError for a TIFF with a directory entry that claims more than the file can hold, or absurd tiles.

    For libraries that trust these numbers: GLib ends the process when memory for them cannot be had.
    """
    size = path.stat().st_size
    with open(path, "rb") as file:
        head = file.read(16)
        order = "<" if head[:2] == b"II" else ">"
        big = head[2:4] in (b"+\0", b"\0+")
        if len(head) < (16 if big else 8):
            raise InputError(path, f"is a truncated TIFF ({size} bytes)", AGAIN)
        place = _whole(head[8:16] if big else head[4:8], order)
        seen: set[int] = set()
        while place and place not in seen and len(seen) < _MAX_PAGES:
            seen.add(place)
            place = _next_directory(file, min(place, size), size, order, big, path)


def _next_directory(file: Any, place: int, size: int, order: str, big: bool, path: Path) -> int:
    """Checks the entries of the directory at ``place``; returns where the next one lies, 0 for none."""
    form = order + ("HHQ8s" if big else "HHI4s")
    file.seek(place)
    number = file.read(8 if big else 2)
    length = _whole(number, order) * struct.calcsize(form)
    table = file.read(length) if length <= size else b""
    if not table or len(table) < length:
        raise InputError(path, f"is a truncated TIFF (its directory at byte {place} is not whole)", AGAIN)
    entries = {tag: rest for tag, *rest in struct.iter_unpack(form, table)}
    ndpi = not big and _NDPI_MARK in entries  # whose offsets have upper halves elsewhere
    link = _whole(file.read(8 if big or ndpi else 4), order)
    tiles = 1
    for tag, (kind, count, value) in entries.items():
        width = _TYPE_BYTES.get(kind, 1)
        if count * width > size:
            raise InputError(path, f"says that its tag {tag} has {count} values, more than its bytes can hold", AGAIN)
        end = _whole(value, order) + count * width if count * width > len(value) else 0
        if end > size and tag in _DECISIVE and not ndpi:
            raise InputError(path, f"is truncated: its tag {tag} ends at byte {end} but the file at {size}", AGAIN)
        if tag not in _TRUSTED or kind not in (3, 4, 16) or ndpi:
            continue
        if count * width > len(value):
            file.seek(min(_whole(value, order), size))
            value = file.read(count * width)
        numbers = np.frombuffer(value[: len(value) // width * width], f"{order}u{width}")[:count]
        if len(numbers) < count or (count and int(numbers.max()) > size and tag in _SEGMENT_BYTES):
            raise InputError(path, f"is truncated: a tile or strip is longer than the file's {size} bytes", AGAIN)
        tiles *= int(numbers[0]) if count and tag not in _SEGMENT_BYTES else 1
    if tiles > _MAX_TILE:
        raise InputError(path, f"says that its tiles have {tiles} pixels each", AGAIN)
    return link


def _whole(data: bytes, order: str) -> int:
    return int.from_bytes(data, "little" if order == "<" else "big")
