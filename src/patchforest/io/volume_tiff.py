"""Multi-page TIFF files as volumes: every page a plane, read one at a time."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
import tifffile

from patchforest.errors import InputError
from patchforest.io.orientation import Grid
from patchforest.io.pages import AGAIN, require_plausible_directories
from patchforest.io.tiff import TiffSource
from patchforest.io.volume_array import box_of, require_finite
from patchforest.values import Array

_MAX_PLANES = 1 << 16


class TiffVolume:
    """A stack of equal pages as a ``VolumeSource``, shown as stored; only the tiles under a box are read.

    Raises
    ------
    InputError
        A page is damaged or cannot be read (see ``TiffSource``), or differs from the first in size or type.
    """

    format = "TIFF"
    spacing: tuple[float, float, float] | None = None
    affine: Array | None = None

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            require_plausible_directories(path)
            _require_whole_chain(path)
            with tifffile.TiffFile(path) as tif:
                self._planes = [_Page(path, tif, k) for k in range(_number_of_planes(tif, _MAX_PLANES))]
        except InputError:
            raise
        except (
            Exception
        ) as fault:  # tifffile on foreign bytes raises struct.error, KeyError, TypeError, MemoryError, ...
            reason = f"cannot be read as TIFF ({str(fault)[:120] or type(fault).__name__})"
            raise InputError(path, reason, AGAIN) from fault
        if not self._planes:
            raise InputError(path, "is a truncated TIFF (it holds no page)", AGAIN)
        for number, plane in enumerate(self._planes):
            if plane.kind != self._planes[0].kind:
                what = f"is no volume: page {number} is {plane.described} but page 0 {self._planes[0].described}"
                raise InputError(path, what, "save a stack of equal pages, or choose one with open_image(path, page=0)")

    @property
    def inverted(self) -> bool:
        """Whether the file counts from white."""
        return self._planes[0].inverted

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(D, H, W, C)."""
        return len(self._planes), *self._planes[0].shape

    @property
    def grid(self) -> Grid:
        """Columns, rows, pages."""
        planes, height, width, _ = self.shape
        return Grid((width, height, planes))

    def read(self, origin: tuple[int, int, int] = (0, 0, 0), shape: tuple[int, int, int] | None = None) -> Array:
        """Voxels (d, h, w, C) of a box in the file's dtype."""
        origin, shape = box_of(self.shape[:3], origin, shape)
        out: Array | None = None
        for k in range(shape[0]):
            page = self._planes[origin[0] + k].read(0, origin[1], origin[2], shape[1], shape[2])
            out = np.empty((shape[0], *page.shape), page.dtype) if out is None else out
            out[k] = page
        assert out is not None
        require_finite(out, self._path, origin)
        return out

    def stored(self) -> Array:
        """(D, H, W, C): the numbers in the file, with palette indices and alpha as they are."""
        return np.stack([plane.stored() for plane in self._planes])


class _Page(TiffSource):
    """One page of an open file, so that the file is parsed once for all of them."""

    def __init__(self, path: Path, tif: tifffile.TiffFile, number: int) -> None:
        self._path, self._warned = path, False
        self._parse(tif, number)

    @property
    def kind(self) -> tuple[object, ...]:
        """What pages of one volume have in common."""
        packing = self._stored[0].packing
        return self.shape, packing.bits, packing.dtype.kind, self._look.photometric

    @property
    def described(self) -> str:
        height, width, channels = self.shape
        packing = self._stored[0].packing
        return f"{height} x {width} x {channels} of {packing.bits} bits ({packing.dtype.kind})"


def is_stack(path: Path) -> bool:
    """Whether a TIFF has several full pages and the first two are equal in size; False where it cannot be parsed.

    The further pages of a scanner's slide are its label and its pictures, never planes.
    """
    try:
        with tifffile.TiffFile(path) as tif:
            if tif.is_svs or tif.is_ndpi or tif.is_scn or tif.is_bif or tif.is_philips:
                return False
            if _number_of_planes(tif, 2) < 2:
                return False
            first, second = _page(tif, 0), _page(tif, 1)
            return (first.imagelength, first.imagewidth) == (second.imagelength, second.imagewidth)
    except Exception:  # tifffile on foreign bytes raises struct.error, KeyError, TypeError, MemoryError, ...
        return False


def _number_of_planes(tif: tifffile.TiffFile, most: int) -> int:
    """Pages before the first reduced one: what follows is no plane of the volume."""
    for number in range(most):
        try:
            page = _page(tif, number)
        except IndexError:
            return number
        if int(page.subfiletype) & 1:
            return number
    return most


def _require_whole_chain(path: Path) -> None:
    """InputError unless page leads to page up to a last one: tifffile follows circles, and leaves out lost pages."""
    with open(path, "rb") as file:
        head = file.read(16)
        order: Literal["little", "big"] = "little" if head[:2] == b"II" else "big"
        big = head[2:4] in (b"+\0", b"\0+")
        count, entry, width = (8, 20, 8) if big else (2, 12, 4)
        link, seen = head[8:16] if big else head[4:8], set[int]()
        while len(link) == width and any(link):
            place = int.from_bytes(link, order)
            if place in seen or len(seen) == _MAX_PLANES:
                what = "lead in a circle" if place in seen else f"are more than {_MAX_PLANES}"
                raise InputError(path, f"is a TIFF whose pages {what}", AGAIN)
            seen.add(place)
            file.seek(place)
            file.seek(place + count + entry * int.from_bytes(file.read(count), order))
            link = file.read(width)
    if len(link) < width:
        raise InputError(path, f"is a truncated TIFF (it breaks off in page {max(len(seen) - 1, 0)})", AGAIN)


def _page(tif: tifffile.TiffFile, number: int) -> Any:
    return tif.pages[number]
