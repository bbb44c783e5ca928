"""TIFF and BigTIFF files as image sources: tiles or strips, pyramids, any window without reading the rest.

The structure is read and checked once at open: every tile's place and length against the file's size, every header's
claim against what its bytes can hold. The file is opened anew for each ``read``, so sources can be pickled to workers.
"""

from __future__ import annotations

import logging
import warnings
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
from patchforest.io.pages import (
    AGAIN,
    PALETTE,
    WHITE_IS_ZERO,
    Level,
    Look,
    continues,
    level_of,
    look_of,
    microns_per_pixel,
    objective_power,
    reduced_pages,
    require_no_vendor,
    require_plausible_directories,
    same_kind,
)
from patchforest.io.segment import decode_segment
from patchforest.values import Array

logging.getLogger("tifffile").addHandler(logging.NullHandler())  # its remarks on odd tags are not for standard error


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
                require_plausible_directories(path)
                self._parse(tif, page)
        except InputError:
            raise
        except (
            Exception
        ) as fault:  # tifffile on foreign bytes raises struct.error, KeyError, TypeError, MemoryError, ...
            reason = f"cannot be read as TIFF ({str(fault)[:120] or type(fault).__name__})"
            raise InputError(path, reason, AGAIN) from fault
        self._warned = False

    def _parse(self, tif: tifffile.TiffFile, number: int | None) -> None:
        path, size = self._path, self._path.stat().st_size
        pages = tif.pages
        try:
            page = pages[number or 0]
        except IndexError:
            if not len(pages):
                raise InputError(path, "is a truncated TIFF (it holds no page)", AGAIN) from None
            raise InputError(path, f"has no page {number or 0}, only {len(pages)}", "choose another page") from None
        if number is None:
            require_no_vendor(page, path)
        self._look = look_of(page, path)
        self._stored = [level_of(page, path, size)]
        for other in reduced_pages(pages, number, page, path):
            level = level_of(other, path, size)
            if same_kind(level, self._stored[0]) and continues(level, self._stored[0], self._stored[-1]):
                self._stored.append(level)
        self._mpp = microns_per_pixel(page)
        self.magnification = objective_power(page)

    @property
    def mpp(self) -> float | None:
        """Microns per level-0 pixel, or None."""
        return self._mpp

    @property
    def inverted(self) -> bool:
        """Whether the file counts from white (photometric 0), as 1-bit files of some programs do."""
        return self._look.photometric == WHITE_IS_ZERO

    @property
    def plain(self) -> bool:
        """Whether ``read`` gives the numbers that are stored: whole bytes, no palette, no alpha, black is zero."""
        look = self._look
        return look.photometric not in (PALETTE, WHITE_IS_ZERO) and look.bits >= 8 and look.alpha is None

    @property
    def shape(self) -> tuple[int, int, int]:
        """(H, W, C), upright."""
        look = self._look
        channels = 3 if look.photometric == PALETTE else look.samples - (look.alpha is not None)
        return *self.levels[0], channels

    @property
    def levels(self) -> tuple[tuple[int, int], ...]:
        """(H, W) of every level, upright, level 0 first."""
        return tuple(oriented_size((part.height, part.width), self._look.orientation) for part in self._stored)

    @property
    def tile(self) -> tuple[int, int]:
        """(rows, columns) of a tile or strip of level 0, upright, at most (H, W)."""
        base = self._stored[0]
        size = min(base.packing.height, base.height), min(base.packing.width, base.width)
        return oriented_size(size, self._look.orientation)

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
        return image_values(pixels, self._path, window[0], window[1], fresh=True)

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
        all_i = range(row // packing.height, (row + height - 1) // packing.height + 1)
        all_j = range(column // packing.width, (column + width - 1) // packing.width + 1)
        alone = len(all_i) == len(all_j) == level.planes == 1  # then the one segment's pixels need no second place
        out = np.empty((0 if alone else height, width, packing.samples * level.planes), dtype)
        with open(self._path, "rb") as file:
            for plane in range(level.planes):
                for i in all_i:
                    for j in all_j:
                        segment = self._segment(file, level, (plane * down + i) * across + j, i)
                        top, left = i * packing.height - row, j * packing.width - column
                        if alone:
                            part = segment[-top : height - top, -left : width - left]
                            return orient(part if 2 * part.size > segment.size else part.copy(), code)
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
            raise InputError(self._path, what, AGAIN) from fault


def _shown(values: Array, look: Look) -> Array:
    """(h, w, C) as an image, from stored samples."""
    if look.palette is not None:
        return look.palette[values[:, :, 0].astype(np.uint8)]
    if look.bits in (2, 4):
        values = values * np.uint8(255 // ((1 << look.bits) - 1))
    if look.photometric == WHITE_IS_ZERO:
        top = 255 if look.bits < 8 else (1 << look.bits) - 1
        if values.dtype == bool:
            values = ~values
        elif values.dtype.kind == "u":
            values = values.dtype.type(top) - values
    if look.alpha is not None:
        return composite_on_white(values[:, :, :-1], values[:, :, -1], associated=look.associated)
    return values
