"""Images at a wanted physical scale: the level, the microns per pixel or the magnification that a user names.

A view is an ``ImageSource`` like any other, whose level 0 is the image at that scale. Its pixels do not depend on the
windows in which they are read.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from patchforest.errors import InputError
from patchforest.io.array import window_of
from patchforest.values import Array, ImageSource

SAME = 0.01
"""A stored level whose scale is this close to the wanted one (relative) is taken as it is."""
_STRIP = 1 << 24  # stored pixels that are read at once
LARGEST = 4
"""An image is enlarged so many times at most."""
MPP_AT_1X = 10.0
"""Microns per pixel at magnification 1, by the convention that 40 x is 0.25."""
LOWEST, HIGHEST = 0.01, 1000.0
_REMEDY = "give --input-mpp, the microns per pixel of the file"


@dataclass(frozen=True)
class Scale:
    """How large an image is to be seen: at most one of ``level``, ``mpp`` and ``magnification``; none: as stored.

    Attributes
    ----------
    level : number of a stored level, 0 the largest.
    mpp : microns per pixel of the view.
    magnification : 10 / mpp by convention, or by the objective that the file names where it lacks mpp.
    input_mpp : microns per level-0 pixel, in place of what the file says.
    """

    level: int | None = None
    mpp: float | None = None
    magnification: float | None = None
    input_mpp: float | None = None

    def __post_init__(self) -> None:
        chosen = [n for n in ("level", "mpp", "magnification") if getattr(self, n) is not None]
        if len(chosen) > 1:
            raise ValueError(f"give one of level, mpp and magnification; got {' and '.join(chosen)}")
        for name in ("mpp", "magnification", "input_mpp"):
            value = getattr(self, name)
            if value is not None and not LOWEST <= value <= HIGHEST:
                raise ValueError(f"{name} must lie between {LOWEST} and {HIGHEST:g}; got {value}")
        if self.level is not None and self.level < 0:
            raise ValueError(f"level counts from 0; got {self.level}")


AS_STORED = Scale()


def at_scale(source: ImageSource, scale: Scale, path: str | Path = "image") -> ImageSource:
    """A view of an image at a scale; the source itself where nothing is asked.

    Raises
    ------
    InputError
        The image has no such level, is far coarser than what is asked for, or neither states its physical scale nor
        is it given. ``path`` is its name.
    """
    if scale == AS_STORED:
        return source
    known = source.mpp if scale.input_mpp is None else scale.input_mpp
    if scale.level is not None:
        if scale.level >= len(source.levels):
            have = f"has levels 0 to {len(source.levels) - 1}" if len(source.levels) > 1 else "has only level 0"
            raise InputError(path, f"{have}, not {scale.level}", "choose one of them, or give --mpp")
        return ScaledSource(source, level=scale.level, mpp=known)
    wanted = scale.mpp if scale.magnification is None else MPP_AT_1X / scale.magnification
    if wanted is None:
        return ScaledSource(source, level=0, mpp=known)
    if known is not None:
        if wanted * LARGEST < known:
            what = f"has {known:.4g} microns per pixel, more than {LARGEST} times the {wanted:.4g} that are asked for"
            raise InputError(path, what, f"ask for --mpp {known:.4g} or more")
        return ScaledSource(source, factor=wanted / known, mpp=known)
    power = getattr(source, "magnification", None)
    if scale.magnification is not None and power is not None:
        return ScaledSource(source, factor=power / scale.magnification, mpp=None)
    raise InputError(path, "does not state its microns per pixel (or not plausibly)", _REMEDY)


class ScaledSource:
    """A view of an image: a stored level, or any factor between or beyond them.

    Pixels come from the coarsest stored level that is no coarser than the view, by exact area averages (rounded to the
    file's dtype); a view finer than level 0 is interpolated linearly, with a warning. Pixel (r, c) of the view covers
    rows r · f to (r + 1) · f of level 0, f being ``factor``; at the far edges the last pixels are repeated.

    Levels after the first are the stored ones that are coarser than the view.

    Parameters
    ----------
    level : take a stored level as it is; else
    factor : level-0 pixels a pixel of the view.
    mpp : microns per level-0 pixel, or None where unknown.
    """

    def __init__(
        self, source: ImageSource, *, level: int | None = None, factor: float = 1.0, mpp: float | None = None
    ) -> None:
        full = source.shape[:2]
        downs = [math.sqrt(full[0] / h * full[1] / w) for h, w in source.levels]
        if level is None:
            near = [k for k, down in enumerate(downs) if abs(down / factor - 1) <= SAME]
            level = near[0] if near else None
        if level is not None:
            self._base, shape, wanted = level, source.levels[level], downs[level]
        else:
            below = [k for k, down in enumerate(downs) if down <= factor]
            self._base = max(below, key=lambda k: downs[k]) if below else 0
            wanted = factor
            shape = (max(1, math.ceil(full[0] / factor - 1e-6)), max(1, math.ceil(full[1] / factor - 1e-6)))
            if factor < 1 - SAME:
                warnings.warn(
                    f"the image is enlarged {1 / factor:.3g} times: it holds nothing finer than it stores", stacklevel=3
                )
        self.source, self._stored = source, level is not None
        rows, columns = source.levels[self._base]
        self.factor: tuple[float, float] = (wanted, wanted)
        if self._stored:
            self.factor = (full[0] / rows, full[1] / columns)
        self._ratio = (wanted * rows / full[0], wanted * columns / full[1])
        self._coarser = [k for k, down in enumerate(downs) if down > wanted * (1 + SAME)]
        self._levels = ((int(shape[0]), int(shape[1])), *(source.levels[k] for k in self._coarser))
        self._mpp = None if mpp is None else mpp * math.sqrt(self.factor[0] * self.factor[1])
        self.format = getattr(source, "format", "image")

    @property
    def shape(self) -> tuple[int, ...]:
        """(H, W, C) of the view."""
        return (*self._levels[0], *self.source.shape[2:])

    @property
    def levels(self) -> tuple[tuple[int, int], ...]:
        """(H, W) of the view, then of the stored levels coarser than it."""
        return self._levels

    @property
    def mpp(self) -> float | None:
        """Microns per pixel of the view, or None."""
        return self._mpp

    @property
    def tile(self) -> tuple[int, int]:
        """(rows, columns) of the view that about one stored tile covers."""
        rows, columns = (max(1, round(t / r)) for t, r in zip(self.source.tile, self._ratio))
        return min(rows, self._levels[0][0]), min(columns, self._levels[0][1])

    def read(
        self, level: int = 0, row: int = 0, column: int = 0, height: int | None = None, width: int | None = None
    ) -> Array:
        """(height, width, C) of one level in the file's dtype; errors as of the image's own reader."""
        row, column, height, width = window_of(self._levels, level, row, column, height, width)
        if level:
            return self.source.read(self._coarser[level - 1], row, column, height, width)
        if self._stored:
            return self.source.read(self._base, row, column, height, width)
        step = max(1, round(_STRIP / (width * self._ratio[0] * self._ratio[1])))
        if step < height:  # strip by strip, so that memory is that of the view
            return np.concatenate(
                [self.read(0, row + at, column, min(step, height - at), width) for at in range(0, height, step)]
            )
        rows, columns = self.source.levels[self._base]
        down = _taps(row, height, self._ratio[0], rows)
        across = _taps(column, width, self._ratio[1], columns)
        top, left = int(down[0].min()), int(across[0].min())
        bottom, right = int(down[0].max()) + 1, int(across[0].max()) + 1
        pixels = self.source.read(self._base, top, left, bottom - top, right - left)
        mean = _weighed(pixels, down[0] - top, down[1])
        mean = _weighed(mean.swapaxes(0, 1), across[0] - left, across[1]).swapaxes(0, 1)
        if pixels.dtype.kind in "ui":
            info = np.iinfo(pixels.dtype)
            mean = np.clip(np.rint(mean), info.min, info.max)
        return np.ascontiguousarray(mean.astype(pixels.dtype))


def thumbnail(source: ImageSource, side: int = 2048) -> Array:
    """(h, w, C) of the whole image, its longer side at most ``side`` pixels, read band by band where it is large."""
    full = source.levels[0]
    small = next((k for k, shape in enumerate(source.levels) if max(shape) <= side), None)
    if small is not None:
        return source.read(small)
    view = ScaledSource(source, factor=max(full) / side * (1 + 1e-9))
    height, width = view.levels[0]
    out: Array | None = None
    step = max(1, view.tile[0])
    for row in range(0, height, step):
        band = view.read(0, row, 0, min(step, height - row), width)
        out = np.empty((height, width, band.shape[2]), band.dtype) if out is None else out
        out[row : row + len(band)] = band
    assert out is not None
    return out if max(out.shape[:2]) <= side else cv2.resize(out, (min(width, side), min(height, side)))


def linear_taps(start: int, count: int, ratio: float, length: int) -> tuple[Array, Array]:
    """(count,) first of two neighbours, and share of the second, at the centres of new entries from ``start`` on."""
    place = np.arange(start, start + count, dtype=np.float64)
    centre = np.clip((place + 0.5) * ratio - 0.5, 0, length - 1)
    first = np.minimum(np.floor(centre), max(length - 2, 0))
    return first.astype(np.int64), centre - first


def _taps(start: int, count: int, ratio: float, length: int) -> tuple[Array, Array]:
    """(T, count) indices and weights of the entries that make ``count`` new ones from ``start`` on.

    ``ratio`` old entries make a new one: their shares for ratios from 1 on, two neighbours by distance below.
    """
    if ratio < 1:
        first, share = linear_taps(start, count, ratio, length)
        return np.stack([first, np.minimum(first + 1, length - 1)]), np.stack([1 - share, share])
    place = np.arange(start, start + count, dtype=np.float64)
    low, high = place * ratio, (place + 1) * ratio
    index = np.floor(low) + np.arange(math.ceil(ratio) + 1)[:, None]
    share = np.clip(np.minimum(high, index + 1) - np.maximum(low, index), 0, None) / ratio
    return np.minimum(index, length - 1).astype(np.int64), share


def _weighed(pixels: Array, index: Array, weight: Array) -> Array:
    """Σ over T of ``weight[t, i] · pixels[index[t, i]]``: (count, ...) in float32 (64 for wide integers and floats)."""
    narrow = pixels.dtype.itemsize <= 2 and pixels.dtype.kind != "f"
    out = np.zeros((index.shape[1], *pixels.shape[1:]), np.float32 if narrow else np.float64)
    shape = (-1,) + (1,) * (pixels.ndim - 1)
    for places, share in zip(index, weight.astype(out.dtype)):
        if share.any():
            out += pixels[places] * share.reshape(shape)
    return out
