"""NumPy arrays as image sources, and the steps every reader shares: windows, orientation, alpha, finite values."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from patchforest.errors import InputError
from patchforest.values import Array

_ROWS = 256  # that a block of a plain array has
# EXIF / TIFF orientation -> (transpose first, then flip rows, then flip columns). Other codes mean upright.
_ORIENTATIONS = {
    1: (False, False, False),
    2: (False, False, True),
    3: (False, True, True),
    4: (False, True, False),
    5: (True, False, False),
    6: (True, False, True),
    7: (True, True, True),
    8: (True, True, False),
}


class ArraySource:
    """An (H, W) or (H, W, C) array as an ``ImageSource`` of one level; ``path`` is named in errors.

    Raises
    ------
    InputError
        No pixels, a number of axes other than 2 or 3, a dtype that is no number, or axes in (C, H, W) order.
    """

    format = "array"

    def __init__(self, pixels: Array, path: str | Path = "array", *, mpp: float | None = None) -> None:
        self.mpp = mpp
        self.magnification: float | None = None
        if pixels.ndim not in (2, 3) or pixels.size == 0:
            raise InputError(
                path, f"has shape {pixels.shape}", "give an image of shape (H, W) or (H, W, C) with pixels in it"
            )
        if pixels.dtype.kind not in "buif":
            raise InputError(path, f"holds {pixels.dtype}, which is no image", "save it as integers or real numbers")
        if pixels.ndim == 3 and pixels.shape[0] <= 4 < 16 < pixels.shape[2]:
            raise InputError(
                path, f"has shape {pixels.shape}, channels first", "save it as (H, W, C): moveaxis(a, 0, -1)"
            )
        self._pixels = pixels if pixels.ndim == 3 else pixels[:, :, None]
        self._path = path

    @property
    def shape(self) -> tuple[int, int, int]:
        """(H, W, C)."""
        height, width, channels = self._pixels.shape
        return height, width, channels

    @property
    def levels(self) -> tuple[tuple[int, int], ...]:
        """((H, W),): the array itself is the only level."""
        return (self.shape[:2],)

    @property
    def tile(self) -> tuple[int, int]:
        """(rows, columns): whole rows, 256 of them where there are as many."""
        height, width = self.levels[0]
        return min(height, _ROWS), width

    def read(
        self,
        level: int = 0,
        row: int = 0,
        column: int = 0,
        height: int | None = None,
        width: int | None = None,
    ) -> Array:
        """A copy of (height, width, C) pixels; bool becomes uint8 0/255. Errors: ``window_of``, ``image_values``."""
        row, column, height, width = window_of(self.levels, level, row, column, height, width)
        part = self._pixels[row : row + height, column : column + width]
        return image_values(part, self._path, row, column)

    def stored(self) -> Array:
        """(H, W, C): every value as it is stored."""
        return native(self._pixels)


def open_npy(path: Path) -> ArraySource:
    """The array in a ``.npy`` file (format versions 1 to 3), mapped from disk, read only as far as asked for."""
    try:
        pixels = np.load(path, mmap_mode="r", allow_pickle=False)
    except (
        Exception
    ) as fault:  # a parser of foreign bytes: ValueError, SyntaxError, EOFError, OverflowError, MemoryError...
        reason = f"cannot be read as a NumPy array ({str(fault)[:120] or type(fault).__name__})"
        raise InputError(path, reason, "copy the file again, or save the array anew with numpy.save") from fault
    return ArraySource(pixels, path)


def window_of(
    levels: tuple[tuple[int, int], ...],
    level: int,
    row: int,
    column: int,
    height: int | None,
    width: int | None,
) -> tuple[int, int, int, int]:
    """(row, column, height, width), None filled in up to the far edge; ValueError where it is not within the level."""
    if not 0 <= level < len(levels):
        raise ValueError(f"level {level} does not exist; this image has levels 0 to {len(levels) - 1}")
    rows, columns = levels[level]
    height = rows - row if height is None else height
    width = columns - column if width is None else width
    if row < 0 or column < 0 or height < 1 or width < 1 or row + height > rows or column + width > columns:
        raise ValueError(
            f"the window of {height} x {width} pixels at row {row}, column {column} is not within level {level}, "
            f"which has {rows} x {columns}"
        )
    return row, column, height, width


def image_values(pixels: Array, path: str | Path, row: int = 0, column: int = 0, *, fresh: bool = False) -> Array:
    """``pixels`` (h, w, C) as images hold them: bool as uint8 0/255, native byte order, contiguous, all finite.

    ``row`` and ``column`` are the window's place, for the message. A copy, unless ``fresh`` says that nobody else
    holds these pixels and they are in that form already.

    Raises
    ------
    InputError
        NaN or infinite values: their number and the first (row, column, channel).
    """
    if pixels.dtype == bool:
        return np.where(pixels, np.uint8(255), np.uint8(0))
    if not (fresh and pixels.flags.carray and pixels.dtype.isnative):
        pixels = native(pixels)
    if pixels.dtype.kind == "f":
        bad = ~np.isfinite(pixels)
        count = int(bad.sum())
        if count:
            first = np.unravel_index(int(bad.argmax()), bad.shape)
            at = (row + int(first[0]), column + int(first[1]), int(first[2]))
            what = f"has {count} NaN or infinite values, the first at (row, column, channel) {at}"
            raise InputError(path, what, "replace them by a number before saving the image")
    return pixels


def native(pixels: Array) -> Array:
    """A C-contiguous copy in native byte order, never a view of a mapped file."""
    return np.array(pixels, dtype=pixels.dtype.newbyteorder("="), order="C", copy=True, subok=False)


def orient(pixels: Array, code: int) -> Array:
    """Stored pixels (H, W, ...) as they are to be seen, by EXIF / TIFF orientation ``code`` (1 to 8, else upright)."""
    transpose, flip_rows, flip_columns = _ORIENTATIONS.get(code, _ORIENTATIONS[1])
    if transpose:
        pixels = pixels.swapaxes(0, 1)
    return pixels[:: -1 if flip_rows else 1, :: -1 if flip_columns else 1]


def oriented_size(size: tuple[int, int], code: int) -> tuple[int, int]:
    """(H, W) as seen, from (H, W) as stored."""
    return (size[1], size[0]) if _ORIENTATIONS.get(code, _ORIENTATIONS[1])[0] else size


def stored_window(window: tuple[int, int, int, int], size: tuple[int, int], code: int) -> tuple[int, int, int, int]:
    """Where to read so that ``orient`` of it is ``window`` (row, column, height, width) of the upright image.

    ``size`` is (H, W) of the upright image; the result is in stored rows and columns.
    """
    row, column, height, width = window
    transpose, flip_rows, flip_columns = _ORIENTATIONS.get(code, _ORIENTATIONS[1])
    row = size[0] - row - height if flip_rows else row
    column = size[1] - column - width if flip_columns else column
    return (column, row, width, height) if transpose else (row, column, height, width)


def composite_on_white(pixels: Array, alpha: Array, *, associated: bool = False) -> Array:
    """Unsigned ``pixels`` (h, w, C) over white through ``alpha`` (h, w), in their own dtype, rounded to the nearest.

    ``associated``: the colours were multiplied by alpha before they were stored.
    """
    white = np.iinfo(pixels.dtype).max
    if (alpha == white).all():
        return pixels
    opacity = np.divide(alpha[:, :, None], white, dtype=np.float32 if white < 256 else np.float64)
    colour = pixels if associated else pixels * opacity
    return np.rint(np.minimum(colour + (1 - opacity) * white, white)).astype(pixels.dtype)
