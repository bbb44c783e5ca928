"""Arrays of voxels as volume sources: boxes, orientation, the header's scaling, finite values."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from patchforest.errors import InputError
from patchforest.io.array import native
from patchforest.io.orientation import AS_STORED, Grid, require_invertible, voxel_size
from patchforest.values import Array

_NUMBERS = "biuf"


class StoredVolume:
    """A volume whose voxels a function loads, as a ``VolumeSource``.

    Voxels are loaded at the first ``read`` of a process (mapped, or as a whole) and are not pickled.

    Parameters
    ----------
    path : named in errors.
    load : gives the stored voxels (I, J, K, C) of ``dtype``; can be pickled.
    grid : how they lie in the file.
    slope, inter : what the header says a stored number v means: slope v + inter.
    format : for messages.

    Raises
    ------
    InputError
        ``dtype`` is no integer or real number. At ``read``: damage, NaN or infinite values.
    """

    def __init__(
        self,
        path: str | Path,
        load: Callable[[], Array],
        *,
        grid: Grid,
        dtype: np.dtype[Any],
        channels: int = 1,
        slope: float = 1.0,
        inter: float = 0.0,
        format: str = "array",
    ) -> None:
        if dtype.kind not in _NUMBERS or dtype.itemsize > 8:
            raise InputError(path, f"holds {dtype}, which is no volume", "save it as integers or real numbers")
        self.format, self.grid = format, grid
        self._path, self._load = path, load
        self._voxels: Array | None = None
        self._dtype, self._channels = dtype, channels
        self._slope, self._inter = slope, inter

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(D, H, W, C)."""
        return *self.grid.layout.shape(self.grid.shape), self._channels

    @property
    def spacing(self) -> tuple[float, float, float] | None:
        """Millimetres along (plane, row, column), or None."""
        return self.grid.shown_spacing

    @property
    def affine(self) -> Array | None:
        """(4, 4) float64: shown index to millimetres RAS, or None."""
        return self.grid.shown_affine

    def read(self, origin: tuple[int, int, int] = (0, 0, 0), shape: tuple[int, int, int] | None = None) -> Array:
        """A copy of a box (d, h, w, C), scaled as the header says; bool becomes uint8 0/255.

        Integers stay integers, in a type that holds every value the header allows, where the slope is 1 and the
        intercept whole; otherwise they become float32, or float64 where they have more than 16 bits.
        """
        origin, shape = box_of(self.shape[:3], origin, shape)
        values = self._scaled(self._part(origin, shape))
        if values.dtype == bool:
            return np.where(values, np.uint8(255), np.uint8(0))
        require_finite(values, self._path, origin)
        return values

    def stored(self) -> Array:
        """(D, H, W, C): as ``read()``, with bool as it is stored and without a look for NaN."""
        return self._scaled(self._part((0, 0, 0), self.shape[:3]))

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_voxels": None}

    def _part(self, origin: tuple[int, int, int], shape: tuple[int, int, int]) -> Array:
        """A view of the stored numbers of a box, shown."""
        if self._voxels is None:
            voxels = self._load()
            if voxels.shape != (*self.grid.shape, self._channels) or voxels.dtype != self._dtype:
                raise InputError(self._path, "has changed since it was opened", "open it again")
            self._voxels = voxels
        return self.grid.layout.present(self._voxels[self.grid.layout.box(origin, shape, self.grid.shape)])

    def _scaled(self, part: Array) -> Array:
        """A contiguous copy, in native byte order, of what the stored numbers mean."""
        if self._slope == 1 and self._inter == 0:
            return native(part)
        dtype = scaled_dtype(self._dtype, self._slope, self._inter)
        out = np.empty(part.shape, dtype)
        for k in range(len(part)):  # a plane at a time, so that the exact product takes little memory
            if dtype.kind in "iu":
                np.add(part[k], int(self._inter), out=out[k], dtype=dtype, casting="unsafe")
            else:
                out[k] = part[k].astype(np.float64) * self._slope + self._inter
        return out


class ArrayVolume(StoredVolume):
    """A (D, H, W) or (D, H, W, C) array as a ``VolumeSource``, shown as it is.

    Parameters
    ----------
    voxels : integers, real numbers or bool.
    path : named in errors.
    spacing : millimetres along (plane, row, column); taken from ``affine`` where that is given.
    affine : (4, 4), index (plane, row, column, 1) to millimetres RAS.

    Raises
    ------
    InputError
        No voxels, another number of axes, or a dtype that is no number.
    ValueError
        An affine that is no map of a volume.
    """

    def __init__(
        self,
        voxels: Array,
        path: str | Path = "array",
        *,
        spacing: tuple[float, float, float] | None = None,
        affine: Array | None = None,
        load: Callable[[], Array] | None = None,
    ) -> None:
        stored = as_stored(voxels, path)
        shape = (stored.shape[0], stored.shape[1], stored.shape[2])
        grid = Grid(shape, spacing=None if spacing is None else (spacing[2], spacing[1], spacing[0]))
        if affine is not None:
            placed = require_invertible(affine) @ np.linalg.inv(AS_STORED.index(shape))
            grid = Grid(shape, affine=placed, spacing=voxel_size(placed))
        super().__init__(
            path, load or partial(_itself, stored), grid=grid, dtype=stored.dtype, channels=stored.shape[3]
        )


def as_stored(voxels: Array, path: str | Path) -> Array:
    """A view (W, H, D, C) of an array (D, H, W) or (D, H, W, C); InputError for other shapes."""
    if voxels.ndim not in (3, 4) or voxels.size == 0:
        hint = "give a volume of shape (D, H, W) or (D, H, W, C) with voxels in it"
        raise InputError(path, f"has shape {voxels.shape}", hint)
    return (voxels if voxels.ndim == 4 else voxels[..., None]).transpose(2, 1, 0, 3)


def box_of(
    size: tuple[int, int, int], origin: tuple[int, int, int], shape: tuple[int, int, int] | None
) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
    """(origin, shape), the shape filled in up to the far corner; ValueError where the box is not within the volume."""
    if shape is None:
        shape = (size[0] - origin[0], size[1] - origin[1], size[2] - origin[2])
    if (
        len(origin) != 3
        or len(shape) != 3
        or min(origin) < 0
        or min(shape) < 1
        or any(o + s > n for o, s, n in zip(origin, shape, size, strict=True))
    ):
        raise ValueError(f"the box of {shape} voxels at {origin} is not within the volume of {size}")
    return (int(origin[0]), int(origin[1]), int(origin[2])), (int(shape[0]), int(shape[1]), int(shape[2]))


def require_finite(values: Array, path: str | Path, origin: tuple[int, int, int] = (0, 0, 0)) -> None:
    """InputError for NaN or infinite values of a box at ``origin``: their number and the first."""
    if values.dtype.kind != "f":
        return
    count, first = 0, None
    for k, plane in enumerate(values):
        bad = ~np.isfinite(plane)
        found = int(bad.sum())
        if found and first is None:
            row, column, channel = (int(place) for place in np.unravel_index(int(bad.argmax()), bad.shape))
            first = (origin[0] + k, origin[1] + row, origin[2] + column, channel)
        count += found
    if count:
        what = f"has {count} NaN or infinite values, the first at (plane, row, column, channel) {first}"
        raise InputError(path, what, "replace them by a number before saving the volume")


def scaled_dtype(dtype: np.dtype[Any], slope: float, inter: float, bits: int | None = None) -> np.dtype[Any]:
    """The type of slope v + inter for stored numbers v of ``dtype``, of which only ``bits`` bits may be used."""
    if dtype.kind in "iu" and slope == 1 and float(inter).is_integer():
        if inter == 0:
            return dtype.newbyteorder("=")
        low, high = int(np.iinfo(dtype).min), int(np.iinfo(dtype).max)
        if bits is not None:
            low, high = (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if dtype.kind == "i" else (0, (1 << bits) - 1)
        for width in (1, 2, 4, 8):
            limits = np.iinfo(f"i{width}")
            if limits.min <= low + int(inter) and high + int(inter) <= limits.max:
                return np.dtype(f"i{width}")
    wide = dtype.itemsize > 4 or (dtype.kind in "iu" and dtype.itemsize > 2)
    return np.dtype(np.float64 if wide else np.float32)


def _itself(voxels: Array) -> Array:
    return voxels
