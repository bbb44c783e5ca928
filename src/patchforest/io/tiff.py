"""TIFF and BigTIFF files as image sources: tiles or strips, pyramids, any window without reading the rest.

The structure is read and checked once at open: every tile's place and length against the file's size, every header's
claim against what its bytes can hold. The file is opened anew for each ``read``, so sources can be pickled to workers.
"""

from __future__ import annotations

import logging
import re
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from patchforest.errors import InputError
from patchforest.io.array import (
    composite_on_white,
    image_values,
    native,
    orient,
    oriented_size,
    stored_window,
    window_of,
)
from patchforest.io.segment import CODECS, PREDICTING, Packing, decode_segment
from patchforest.values import Array

logging.getLogger("tifffile").addHandler(logging.NullHandler())  # its remarks on odd tags are not for standard error

_AGAIN = "copy or export the file again"
_CONVERT = "convert it with another program, e.g. to a deflate-compressed RGB TIFF"
_KINDS = {1: "u", 2: "i", 3: "f", 4: "u"}
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _PALETTE, _MASK, _YCBCR = 0, 1, 2, 3, 4, 6
_OTHER_COLOURS = {5: "CMYK", 6: "YCbCr", 8: "CIELAB", 9: "ICCLAB", 10: "ITULAB", 32803: "CFA", 34892: "raw"}
_MAX_PAGES = 4096
_MICRONS = {2: 25_400.0, 3: 10_000.0}  # per inch, per centimetre


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


class TiffSource:
    """A page of a TIFF as an ``ImageSource``, upright by its orientation tag, with every stored resolution as a level.

    Levels are the sub-images of the page or the reduced pages after it. Palettes become RGB, 1-bit becomes 0/255, 2-
    and 4-bit grey is scaled to 0..255, white-is-zero is inverted; 10 to 16 bits stay uint16 with their values. Alpha is
    composited on white, with one warning. ``mpp`` comes from the resolution tags (inch or centimetre) or Aperio's text
    where it lies between 0.05 and 20 micron, else it is None.

    Parameters
    ----------
    page : number of the page in the file, from 0; None takes the first, and refuses a file that is a stack of pages.

    Raises
    ------
    InputError
        At open or ``read``, for anything the file does wrong: truncated, missing tiles, unknown compression, CMYK, NaN.
    """

    format = "TIFF"

    def __init__(self, path: Path, page: int | None = None) -> None:
        self._path = path
        try:
            with tifffile.TiffFile(path) as tif:
                self._parse(tif, page)
        except InputError:
            raise
        except (
            Exception
        ) as fault:  # tifffile on foreign bytes raises struct.error, KeyError, TypeError, MemoryError, ...
            reason = f"cannot be read as TIFF ({str(fault)[:120] or type(fault).__name__})"
            raise InputError(path, reason, _AGAIN) from fault
        self._warned = False

    def _parse(self, tif: tifffile.TiffFile, number: int | None) -> None:
        path, size = self._path, self._path.stat().st_size
        pages = tif.pages
        try:
            page = pages[number or 0]
        except IndexError:
            if not len(pages):
                raise InputError(path, "is a truncated TIFF (it holds no page)", _AGAIN) from None
            raise InputError(path, f"has no page {number or 0}, only {len(pages)}", "choose another page") from None
        self._look = _look(page, path)
        self._stored = [_level(page, path, size)]
        for other in _reduced_pages(pages, number, page, path):
            level = _level(other, path, size)
            if _same_kind(level, self._stored[0]) and _continues(level, self._stored[0], self._stored[-1]):
                self._stored.append(level)
        self._mpp = _microns_per_pixel(page)

    @property
    def mpp(self) -> float | None:
        """Microns per level-0 pixel, or None."""
        return self._mpp

    @property
    def inverted(self) -> bool:
        """Whether the file counts from white (photometric 0), as 1-bit files of some programs do."""
        return self._look.photometric == _WHITE_IS_ZERO

    @property
    def shape(self) -> tuple[int, int, int]:
        """(H, W, C), upright."""
        look = self._look
        channels = 3 if look.photometric == _PALETTE else look.samples - (look.alpha is not None)
        return *self.levels[0], channels

    @property
    def levels(self) -> tuple[tuple[int, int], ...]:
        """(H, W) of every level, upright, level 0 first."""
        return tuple(oriented_size((part.height, part.width), self._look.orientation) for part in self._stored)

    def read(
        self,
        level: int = 0,
        row: int = 0,
        column: int = 0,
        height: int | None = None,
        width: int | None = None,
    ) -> Array:
        """(height, width, C) in the file's dtype; only the tiles or strips under the window are read."""
        window = window_of(self.levels, level, row, column, height, width)
        if self._look.alpha is not None and not self._warned:
            warnings.warn(f"{self._path}: has transparency, which is composited on white", stacklevel=2)
            self._warned = True
        pixels = _shown(self._read_stored(level, window), self._look)
        return image_values(pixels, self._path, window[0], window[1])

    def stored(self) -> Array:
        """(H, W, C) upright, level 0: the numbers in the file, with palette indices and alpha as they are."""
        values = self._read_stored(0, (0, 0, *self.levels[0]))
        return native(values.astype(np.uint8) if values.dtype == bool else values)

    def _read_stored(self, number: int, window: tuple[int, int, int, int]) -> Array:
        """(height, width, samples) of an upright window, values as stored."""
        level, code = self._stored[number], self._look.orientation
        row, column, height, width = stored_window(window, self.levels[number], code)
        packing = level.packing
        across, down = -(-level.width // packing.width), -(-level.height // packing.height)
        dtype = np.dtype(bool) if packing.bits == 1 else packing.dtype.newbyteorder("=")
        out = np.empty((height, width, packing.samples * level.planes), dtype)
        with open(self._path, "rb") as file:
            for plane in range(level.planes):
                for i in range(row // packing.height, (row + height - 1) // packing.height + 1):
                    for j in range(column // packing.width, (column + width - 1) // packing.width + 1):
                        segment = self._segment(file, level, (plane * down + i) * across + j, i)
                        top, left = i * packing.height - row, j * packing.width - column
                        rows = slice(max(top, 0), min(top + len(segment), height))
                        columns = slice(max(left, 0), min(left + packing.width, width))
                        part = segment[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]
                        out[rows, columns, plane * packing.samples : (plane + 1) * packing.samples] = part
        return orient(out, code)

    def _segment(self, file: Any, level: Level, index: int, i: int) -> Array:
        """One decoded tile or strip; InputError naming it."""
        packing = level.packing
        rows = (
            min(packing.height, level.height - i * packing.height) if packing.width >= level.width else packing.height
        )
        try:
            file.seek(int(level.offsets[index]))
            return decode_segment(packing, file.read(int(level.counts[index])), rows)
        except MemoryError:
            raise
        except Exception as fault:  # decoders of foreign bytes raise OSError, zlib.error, SyntaxError, ValueError, ...
            what = f"has an undecodable tile or strip, number {index} ({str(fault)[:120] or type(fault).__name__})"
            raise InputError(self._path, what, _AGAIN) from fault


def _look(page: Any, path: Path) -> Look:
    """The page's colour model; InputError for one that has no place here."""
    photometric, samples, bits = int(page.photometric), int(page.samplesperpixel), page.bitspersample
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
    if photometric == _PALETTE:
        if page.colormap is None or page.colormap.shape != (3, 1 << bits) or samples != 1:
            raise InputError(path, "has a palette of the wrong size", _CONVERT)
        palette = (page.colormap.T >> 8).astype(np.uint8)
    tag = page.tags.get(274)
    code = int(tag.value) if tag is not None else 1
    return Look(photometric, bits, samples, alpha, bool(alpha is not None and extra[place or 0] == 1), palette, code)


def _level(page: Any, path: Path, file_size: int) -> Level:
    """The page's geometry and segment table, checked; InputError where it cannot be read whole."""
    height, width, samples, bits = (
        int(page.imagelength),
        int(page.imagewidth),
        int(page.samplesperpixel),
        _single(page.bitspersample),
    )
    compression, kind = int(page.compression), _KINDS.get(_single(page.sampleformat), "?")
    if compression not in CODECS:
        name = getattr(page.compression, "name", str(compression))
        raise InputError(path, f"is compressed as {name}, which is not supported", _CONVERT)
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
        raise InputError(path, what, _AGAIN)
    missing = int(((level.counts <= 0) | (level.offsets <= 0)).sum())
    if missing:
        raise InputError(path, f"lacks {missing} of {number} tiles or strips (their length is 0)", _AGAIN)
    end = int((level.offsets + level.counts).max())
    if end > file_size or end < 0:
        raise InputError(path, f"is truncated: its data ends at byte {end} but the file at {file_size}", _AGAIN)
    strips = packing.width >= level.width
    for count, rows in (
        (int(level.counts.min()), level.height - (down - 1) * packing.height if strips else packing.height),
        (int(level.counts.max()), packing.height if down > 1 or not strips else min(packing.height, level.height)),
    ):
        if packing.capacity(count) < rows * packing.row_bytes:
            what = f"says a tile or strip of {count} bytes holds {rows} x {packing.width} pixels, which it cannot"
            raise InputError(path, what, _AGAIN)


def _reduced_pages(pages: Any, number: int | None, page: Any, path: Path) -> list[Any]:
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


def _same_kind(level: Level, base: Level) -> bool:
    """Whether two levels hold samples of one kind."""
    here, there = level.packing, base.packing
    return (here.samples * level.planes, here.bits, here.dtype.kind) == (
        there.samples * base.planes,
        there.bits,
        there.dtype.kind,
    )


def _continues(level: Level, base: Level, last: Level) -> bool:
    """Whether a level is the whole of ``base``, smaller than ``last``: label and macro pictures are not."""
    if level.height >= last.height or level.width >= last.width:
        return False
    factor = base.height / level.height
    return abs(level.width * factor - base.width) <= 2 * max(factor, base.width / level.width)


def _microns_per_pixel(page: Any) -> float | None:
    """Microns per pixel from Aperio's description or the resolution tags, where plausible (0.05 to 20)."""
    text = re.search(r"\bMPP\s*=\s*([0-9.]+)", str(page.description)[:4096])
    if text and str(page.description).startswith("Aperio"):
        values = [float(text.group(1))]
    else:
        unit, tags = page.tags.get(296), [page.tags.get(282), page.tags.get(283)]
        microns = _MICRONS.get(int(unit.value) if unit is not None else 2)
        pairs = [tag.value for tag in tags if tag is not None]
        if microns is None or not pairs or any(len(pair) != 2 or min(pair) <= 0 for pair in pairs):
            return None
        values = [microns * pair[1] / pair[0] for pair in pairs]
    plausible = all(0.05 <= value <= 20 for value in values) and max(values) <= 1.01 * min(values)
    return values[0] if plausible else None


def _shown(values: Array, look: Look) -> Array:
    """(h, w, C) as an image, from stored samples."""
    if look.palette is not None:
        return look.palette[values[:, :, 0].astype(np.uint8)]
    if look.bits in (2, 4):
        values = values * np.uint8(255 // ((1 << look.bits) - 1))
    if look.photometric == _WHITE_IS_ZERO:
        top = 255 if look.bits < 8 else (1 << look.bits) - 1
        if values.dtype == bool:
            values = ~values
        elif values.dtype.kind == "u":
            values = values.dtype.type(top) - values
    if look.alpha is not None:
        return composite_on_white(values[:, :, :-1], values[:, :, -1], associated=look.associated)
    return values


def _single(value: Any) -> int:
    """The one number of a tag that may be a tuple of equal numbers, or -1."""
    if isinstance(value, tuple):
        return int(value[0]) if len(set(value)) == 1 else -1
    return int(value)
