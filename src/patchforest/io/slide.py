"""Whole slides in the scanners' own formats, read through OpenSlide (install extra ``wsi``).

TIFF slides that ``tiff.py`` can read (Aperio in JPEG, generic pyramids) do not come here: there every tile is checked
at open. What OpenSlide alone knows does: Hamamatsu, MIRAX, Leica, Ventana, Philips, Trestle, Sakura, Zeiss, DICOM, and
JPEG 2000 in Aperio files.
"""

from __future__ import annotations

import math
import os
import threading
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from patchforest.errors import InputError
from patchforest.io.array import composite_on_white, window_of
from patchforest.io.pages import TIFF_MAGIC, require_plausible_directories
from patchforest.values import Array

INSTALL = "to read slides, run: pip install 'patchforest[wsi]'"
_AGAIN = "copy the slide again, with every file that belongs to it"
_MPP = ("openslide.mpp-x", "openslide.mpp-y")
_TILE = ("openslide.level[0].tile-height", "openslide.level[0].tile-width")
_POWER = "openslide.objective-power"
_PROPERTIES = (*_MPP, *_TILE, _POWER, "openslide.vendor")
_BAND = 1 << 22  # pixels that OpenSlide draws at once
_SERIES = b"\x20\x00\x0e\x00"  # DICOM tag (0020,000E), SeriesInstanceUID, little-endian
_DICOM_HEAD = 1 << 16


class SlideSource:
    """A slide as an ``ImageSource`` of (H, W, 3) uint8, with every level of its file.

    Where the scanner recorded nothing, and wherever else OpenSlide returns transparent pixels, the image is white: a
    tile that a scanner left out is background by its format. Level 0 and levels whose down-sampling factor is whole
    give the same pixels in any window; at other factors OpenSlide places a window to the nearest level-0 pixel and
    interpolates. ``mpp`` is the geometric mean of the slide's two where they differ by at most 1 % and lie between 0.05
    and 20 micron, else None.

    The handle is opened at the first ``read`` of a process, can be used by several threads at once, is never pickled,
    and is replaced after damage, which would fail every later read through it.

    Raises
    ------
    InputError
        At open: OpenSlide is not installed, or does not take the file. At ``read``: damage under the window.
    """

    format = "slide"

    def __init__(self, path: Path) -> None:
        try:
            if _head(path, 4) in TIFF_MAGIC:
                require_plausible_directories(path)
        except OSError as fault:
            what = f"cannot be read ({fault.strerror or fault})"
            raise InputError(path, what, "check the path and its permissions") from fault
        self._path = path
        self._lock = threading.Lock()
        self._handle: Any = None
        self._pid = 0
        self._inherited: list[Any] = []
        handle = self._current()
        try:
            self._levels = tuple((int(height), int(width)) for width, height in handle.level_dimensions)
            self._scales = tuple(float(factor) for factor in handle.level_downsamples)
            properties = {name: str(handle.properties.get(name, "")) for name in _PROPERTIES}
        except (_library().OpenSlideError, ValueError) as fault:
            raise InputError(path, f"cannot be opened as a slide ({_short(fault)})", _AGAIN) from fault
        if not self._levels or min(map(min, self._levels)) < 1:
            raise InputError(path, f"is a slide of {self._levels} pixels", _AGAIN)
        self.vendor = properties["openslide.vendor"]
        self._mpp = _microns(properties)
        self.magnification = _power(properties)
        self._tile = _tile(properties, self._levels[0])

    @property
    def shape(self) -> tuple[int, int, int]:
        """(H, W, 3)."""
        return *self._levels[0], 3

    @property
    def levels(self) -> tuple[tuple[int, int], ...]:
        """(H, W) of every level, level 0 first."""
        return self._levels

    @property
    def mpp(self) -> float | None:
        """Microns per level-0 pixel, or None."""
        return self._mpp

    @property
    def tile(self) -> tuple[int, int]:
        """(rows, columns) of a tile of level 0 as the file says, else 256 whole rows; at most (H, W)."""
        return self._tile

    def read(
        self,
        level: int = 0,
        row: int = 0,
        column: int = 0,
        height: int | None = None,
        width: int | None = None,
    ) -> Array:
        """(height, width, 3) uint8; drawn in bands, so that it costs little more memory than its result."""
        row, column, height, width = window_of(self._levels, level, row, column, height, width)
        step = max(self._tile[0], _BAND // width // self._tile[0] * self._tile[0])
        if step >= height:
            return self._region(level, row, column, height, width)
        out = np.empty((height, width, 3), np.uint8)
        for start in range(0, height, step):
            rows = min(step, height - start)
            out[start : start + rows] = self._region(level, row + start, column, rows, width)
        return out

    def stored(self) -> Array:
        """As ``read()``: a slide has no other values."""
        return self.read()

    def __getstate__(self) -> dict[str, object]:
        state = {**self.__dict__, "_handle": None, "_pid": 0, "_inherited": []}
        del state["_lock"]
        return state

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)
        self._lock = threading.Lock()

    def _region(self, level: int, row: int, column: int, height: int, width: int) -> Array:
        """(height, width, 3) of a window within the level.

        Damage under another thread's window fails a shared handle, so a failed read is tried again with one of its own.
        """
        scale = self._scales[level]
        place, size = (round(column * scale), round(row * scale)), (width, height)
        handle = self._current()
        try:
            return _on_white(np.asarray(handle.read_region(place, level, size)))
        except (_library().OpenSlideError, OSError, ValueError):
            self._discard(handle)
        try:
            return _on_white(np.asarray(_opened(self._path).read_region(place, level, size)))
        except InputError:
            raise
        except (_library().OpenSlideError, OSError, ValueError) as fault:
            where = f"level {level} at row {row}, column {column}, {height} x {width} pixels"
            raise InputError(self._path, f"cannot be decoded in {where} ({_short(fault)})", _AGAIN) from fault

    def _current(self) -> Any:
        """This process's handle, opened if need be."""
        with self._lock:
            if self._handle is not None and self._pid != os.getpid():
                self._inherited.append(self._handle)  # a parent's: closing it here could wait for a lock held there
                self._handle = None
            if self._handle is None:
                self._handle, self._pid = _opened(self._path), os.getpid()
            return self._handle

    def _discard(self, handle: Any) -> None:
        """Forgets a handle that has failed; it is closed when the last thread that reads through it is done."""
        with self._lock:
            if self._handle is handle:
                self._handle = None


def dicom_slide(folder: Path) -> SlideSource | None:
    """The slide whose DICOM files lie in ``folder``, or None where it holds none, or other files too.

    Raises
    ------
    InputError
        The files are of more than one series, or are no slide.
    """
    files = []
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or path.name == "DICOMDIR" or not path.is_file():
            continue
        if _head(path, 132)[128:] != b"DICM":
            return None
        files.append(path)
    if not files:
        return None
    series = series_of(files[0])
    other = next((path for path in files if series not in _head(path)), None)
    if other is not None:
        what = f"holds DICOM files of more than one series ({files[0].name} and {other.name} differ)"
        raise InputError(folder, what, "give one file of the series that is meant, in a folder of its own")
    return SlideSource(files[0])


def series_of(path: Path) -> bytes:
    """The bytes of a DICOM file's series element, b"" where it is not near the beginning."""
    head = _head(path)
    place = head.find(_SERIES + b"UI")
    return head[place : place + 8 + int.from_bytes(head[place + 6 : place + 8], "little")] if place >= 0 else b""


def _head(path: Path, size: int = _DICOM_HEAD) -> bytes:
    with open(path, "rb") as file:
        return file.read(size)


def has_openslide() -> bool:
    """Whether OpenSlide can be imported here."""
    try:
        _library()
    except (ImportError, OSError):  # OSError: the C library is there but of another build
        return False
    return True


def _library() -> Any:
    """The module ``openslide``, imported when first needed; ModuleNotFoundError where it or its C library is absent."""
    import openslide

    return openslide


def _opened(path: Path) -> Any:
    if not has_openslide():
        raise InputError(path, "is a slide, and OpenSlide is not installed", INSTALL)
    library = _library()
    try:
        return library.OpenSlide(path)
    except library.OpenSlideUnsupportedFormatError as fault:
        raise InputError(path, "is no slide that OpenSlide knows", _AGAIN) from fault
    except (library.OpenSlideError, OSError, ValueError) as fault:
        raise InputError(path, f"cannot be opened as a slide ({_short(fault)})", _AGAIN) from fault


def _short(fault: BaseException) -> str:
    return str(fault)[:160] or type(fault).__name__


def _on_white(pixels: Array) -> Array:
    """(h, w, 3) of RGBA (h, w, 4) over white; colours are not multiplied by alpha."""
    return composite_on_white(cv2.cvtColor(pixels, cv2.COLOR_RGBA2RGB), pixels[:, :, 3])


def _microns(properties: dict[str, str]) -> float | None:
    """Microns per pixel where the slide states both, alike and plausible."""
    try:
        x, y = (float(properties[name]) for name in _MPP)
    except (KeyError, ValueError):
        return None
    plausible = 0.05 <= min(x, y) <= max(x, y) <= 20 and max(x, y) <= 1.01 * min(x, y)
    return (x if x == y else math.sqrt(x * y)) if plausible else None


def _power(properties: dict[str, str]) -> float | None:
    """Magnification of the objective, or None where the slide does not say."""
    try:
        power = float(properties[_POWER])
    except (KeyError, ValueError):
        return None
    return power if 0.1 <= power <= 200 else None


def _tile(properties: dict[str, str], size: tuple[int, int]) -> tuple[int, int]:
    try:
        rows, columns = (int(properties[name]) for name in _TILE)
    except (KeyError, ValueError):
        rows, columns = 256, size[1]
    return max(1, min(rows, size[0])), max(1, min(columns, size[1]))
