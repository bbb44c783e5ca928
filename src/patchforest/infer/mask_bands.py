"""Mask files as bands of class numbers, read in parts: images as rows, volumes as planes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tifffile

from patchforest.errors import InputError
from patchforest.io.open import Source, open_source
from patchforest.io.tiff import TiffSource
from patchforest.values import Array

BAND = 1 << 24
"""Pixels of a band, as far as whole rows of tiles (planes) allow."""
_GREY = "save class numbers 0, 1, 2, ... in one grey channel (PNG or TIFF)"


@dataclass(frozen=True)
class MaskFile:
    """A mask on disk, which can be gone through any number of times.

    Attributes
    ----------
    shape : (H, W) of an image, (D, H, W) of a volume.
    scale : microns a pixel, or millimetres a voxel, along each axis, as the file says; None where it does not.
    step : rows (planes) of a band.
    read : (first row, number of rows) to what the file holds there, (h, W, C) or (d, H, W, C).
    """

    path: Path
    shape: tuple[int, ...]
    scale: tuple[float, ...] | None
    step: int
    read: Callable[[int, int], Array]

    def bands(self) -> Iterator[Array]:
        """Class numbers, whole, from the top. InputError for colours, real numbers, and what is no class number."""
        for top in range(0, self.shape[0], self.step):
            yield _class_numbers(self.read(top, min(self.step, self.shape[0] - top)), self.path)


def open_mask(path: str | Path) -> MaskFile:
    """The mask in an image or volume file: PNG, TIFF, NPY, Zarr, or a stack, NIfTI, NRRD, DICOM; by content.

    Tiled and mapped files are read in parts; PNG, palette and 1-bit files are held as a whole. Any values are taken as
    class numbers as they are (255 is class 255); 1-bit files have class 1.

    Raises
    ------
    InputError : as ``open_image`` and ``open_volume``; JPEG and slides, whose compression changes class numbers.
    """
    from patchforest.io.volume import is_volume

    path = Path(path)
    return _open_volume(path) if is_volume(path) else _open_image(path)


def _open_image(path: Path) -> MaskFile:
    source = open_source(path)
    if source.format in ("JPEG", "slide"):
        raise InputError(path, f"is a {source.format}, whose compression changes class numbers", _GREY)
    if getattr(source, "inverted", False):  # programs disagree whether its foreground is 0 or 1
        raise InputError(path, "is a TIFF that counts from white, so its foreground is uncertain", _GREY)
    height, width = source.levels[0]
    scale = None if source.mpp is None else (source.mpp, source.mpp)
    tall = 1 if source.format == "array" else source.tile[0]
    if not _reads_as_stored(source, path):
        held = source.stored()
        return MaskFile(path, (height, width), scale, _step(height, width, 1), lambda top, n: held[top : top + n])
    return MaskFile(
        path, (height, width), scale, _step(height, width, tall), lambda top, n: source.read(0, top, 0, n, width)
    )


def _open_volume(path: Path) -> MaskFile:
    from patchforest.io.volume import open_volume

    source = open_volume(path)
    depth, height, width, _ = source.shape
    scale = None if source.spacing is None else tuple(source.spacing)
    step = _step(depth, height * width, 1)
    return MaskFile(
        path, (depth, height, width), scale, step, lambda first, n: source.read((first, 0, 0), (n, height, width))
    )


def _reads_as_stored(source: Source, path: Path) -> bool:
    """Whether ``read`` gives the numbers in the file: not so for palettes, few bits a pixel, and transparency."""
    if isinstance(source, TiffSource):
        with tifffile.TiffFile(path) as tif:
            page = tif.pages.first
            return page.bitspersample >= 8 and page.samplesperpixel == 1 and page.colormap is None
    if source.format == "array":
        return np.load(path, mmap_mode="r", allow_pickle=False).dtype != bool
    return source.format == "Zarr"


def _step(length: int, line: int, multiple: int) -> int:
    """Rows of a band: a multiple of a tile's, at least one, at most all."""
    return min(length, max(BAND // (line * multiple), 1) * multiple)


def _class_numbers(values: Array, path: Path) -> Array:
    """One channel of what a file holds, (..., C), as whole numbers from 0 to 65535."""
    if values.shape[-1] in (2, 4) and values.dtype.kind in "ui":
        if (values[..., -1] != np.iinfo(values.dtype).max).any():
            raise InputError(path, "is a mask with transparency", _GREY)
        values = values[..., :-1]
    if (values[..., 1:] != values[..., :1]).any():
        raise InputError(path, "is a colour image, not a mask of class numbers", _GREY)
    values = values[..., 0]
    if values.dtype.kind == "f" and np.array_equal(values, np.rint(values)):  # as programs save label volumes
        values = values.astype(np.int64)
    if values.dtype.kind not in "bui":
        raise InputError(path, "holds real numbers, but class numbers are whole", "save it as 8- or 16-bit integers")
    if values.dtype.itemsize > 2 or values.dtype.kind == "i":
        low, high = int(values.min()), int(values.max())
        if low < 0 or high > 65535:
            what = f"holds values from {low} to {high}, but class numbers go from 0 to 65535"
            raise InputError(path, what, "correct the mask")
        return values.astype(np.uint16)
    return values
