"""Pyramids on disk from rows of pixels as they come: masks, pictures and probabilities of any height in bounded memory.

Every level is made while level 0 passes by: nothing is read back, nothing is held but a row of tiles a level.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path

import numpy as np

from patchforest.errors import InputError
from patchforest.io.tiles import Kind, Pyramid
from patchforest.io.write import write_image
from patchforest.io.write_ome import write_ome_tiff
from patchforest.io.write_tiff import write_tiff
from patchforest.io.write_zarr import write_ome_zarr
from patchforest.values import Array

_SMALLEST = 1024  # longest side of the last level
_LARGEST_PNG = 65535
_MPP = (1e-4, 1e6)
_SLAB = 1 << 19  # values that are halved at once
_KINDS = ("mask", "image", "probability")
_WRITERS: tuple[tuple[tuple[str, ...], Callable[[Path, Pyramid, Iterator[tuple[int, Array]]], None]], ...] = (
    ((".ome.tif", ".ome.tiff"), write_ome_tiff),  # before .tif, which they end in
    ((".tif", ".tiff"), write_tiff),
    ((".zarr",), write_ome_zarr),
)


def write_pyramid(
    path: str | Path,
    bands: Iterable[Array],
    *,
    shape: tuple[int, int],
    dtype: np.typing.DTypeLike,
    mpp: float | None,
    kind: Kind = "mask",
    tile: int = 512,
    names: Sequence[str] = (),
) -> None:
    """``path`` holds the image whose rows ``bands`` gives, with every level of its pyramid; ``open_image`` reads it.

    Level k + 1 is level k halved, sizes rounded up, down to at most 1024 pixels on the longest side (or to one pixel on
    the shorter). A mask's pixel becomes the class of most of its 2 x 2 pixels, on a tie the largest class number among
    them, so that thin structures live longer than the background; other kinds take the mean, halves rounded up. Blocks
    that reach over the far edge use the pixels there are.

    Memory, besides the band at hand: at most four times ``tile`` rows of the image, whatever its height. The file
    appears at ``path`` whole or not at all, also when the process is killed.

    Parameters
    ----------
    path : by its suffix

        - ``.tif``, ``.tiff``: BigTIFF with reduced pages, in deflate. OpenSlide, QuPath and tifffile see all levels and
          the scale.
        - ``.ome.tif``, ``.ome.tiff``: OME-TIFF with sub-images. OpenSlide sees level 0 only.
        - ``.zarr``, ``.ome.zarr``: a folder, OME-Zarr 0.4.
        - ``.png``: level 0 alone, held in memory as a whole, without mpp or names.
    bands : consecutive (h, W) or (h, W, C) arrays from the top, of any heights that sum to H. C is 1 for a mask, 1 or 3
        (RGB) for an image.
    shape : (H, W) of the image.
    dtype : uint8 or uint16, of every band.
    mpp : microns per pixel, or None where it is not known: then the file says nothing. ``open_image`` believes a TIFF
        from 0.05 to 20.
    kind : what the numbers mean.
    tile : side of a tile in pixels, a multiple of 16.
    names : of the classes of a mask by number, background first, or of the channels.

    Raises
    ------
    ValueError
        A band has another width, dtype or number of channels, or the bands have more or fewer rows than promised;
        another setting does not fit. Nothing is written.
    InputError
        Another suffix, a PNG of more than 65,535 pixels a side, or a target that cannot be written.
    """
    path, shape, dtype = Path(path), (int(shape[0]), int(shape[1])), np.dtype(dtype)
    _require_settings(shape, dtype, mpp, kind, tile, names)
    png = path.name.lower().endswith(".png")
    write = next((write for endings, write in _WRITERS if path.name.lower().endswith(endings)), None)
    if write is None and not png:
        what = f"ends in {path.suffix or 'no suffix'!r}, which names no format we write"
        raise InputError(path, what, "end it in .tif, .ome.tif, .ome.zarr or .png")
    if png and max(shape) > _LARGEST_PNG:
        what = f"cannot hold {shape[0]} x {shape[1]} pixels: a PNG has at most {_LARGEST_PNG} a side"
        raise InputError(path, what, "write a .tif")
    checked = _checked(bands, shape, dtype, kind)
    first = next(checked)
    checked = chain([first], checked)
    if write is None:
        _write_png(path, checked, shape, first.shape[2])
        return
    levels = level_sizes(shape)
    pyramid = Pyramid(levels, first.shape[2], dtype, tile, mpp, kind, tuple(names))
    write(path, pyramid, tile_rows(checked, levels, tile, halve_mask if kind == "mask" else halve_mean))


def level_sizes(shape: tuple[int, int]) -> tuple[tuple[int, int], ...]:
    """(H, W) of every level: halves, rounded up, until no side is above 1024 or one side is a single pixel."""
    sizes = [shape]
    while max(sizes[-1]) > _SMALLEST and min(sizes[-1]) > 1:
        height, width = sizes[-1]
        sizes.append(((height + 1) // 2, (width + 1) // 2))
    return tuple(sizes)


def halve_mask(pixels: Array) -> Array:
    """(⌈h/2⌉, ⌈w/2⌉, C) of (h, w, C): the most frequent value of each 2 x 2 pixels, on a tie the largest of them."""
    return _halved(pixels, _majority)


def halve_mean(pixels: Array) -> Array:
    """(⌈h/2⌉, ⌈w/2⌉, C) of (h, w, C) uint8 or uint16: the mean of each 2 x 2 pixels, halves rounded up."""
    return _halved(pixels, _mean)


def tile_rows(
    bands: Iterable[Array], levels: Sequence[tuple[int, int]], tile: int, halve: Callable[[Array], Array]
) -> Iterator[tuple[int, Array]]:
    """(level, (h, W, C) pixels) of all levels, each from the top, as soon as ``tile`` rows or its last ones are known.

    Parameters
    ----------
    bands : (h, W, C) rows of level 0, H in all. An array that is yielded may be overwritten after the next step.
    levels : (H, W) of every level, each half of the one before, rounded up.
    tile : rows at a time, an even number.
    halve : (h, W, C) to (⌈h/2⌉, ⌈W/2⌉, C).
    """
    waiting: list[Array | None] = [None] * len(levels)
    filled, left = [0] * len(levels), [height for height, _ in levels]

    def take(level: int, rows: Array) -> Iterator[tuple[int, Array]]:
        while len(rows):
            wanted = min(tile, left[level])
            if not wanted:
                raise ValueError(f"the bands have more rows than level 0, which has {levels[0][0]}")
            if not filled[level] and len(rows) >= wanted:
                full, rows = rows[:wanted], rows[wanted:]
            else:
                store = waiting[level]
                if store is None:
                    store = waiting[level] = np.empty((wanted, *rows.shape[1:]), rows.dtype)
                start, part = filled[level], rows[: wanted - filled[level]]
                store[start : start + len(part)] = part
                filled[level], rows = start + len(part), rows[len(part) :]
                if filled[level] < wanted:
                    return
                full = store[:wanted]
            filled[level] = 0
            left[level] -= wanted
            yield level, full
            if level + 1 < len(levels):
                yield from take(level + 1, halve(full))

    for band in bands:
        yield from take(0, band)


def _halved(pixels: Array, merge: Callable[[Array, Array], Array]) -> Array:
    """``merge`` of the pairs of rows (2 arrays with pairs of columns) a slab at a time; edges are repeated."""
    height, width, channels = pixels.shape
    out = np.empty(((height + 1) // 2, (width + 1) // 2, channels), pixels.dtype)
    step = max(1, _SLAB // (2 * width * channels))
    for start in range(0, len(out), step):
        slab = pixels[2 * start : 2 * (start + step)]
        if slab.shape[0] % 2 or width % 2:  # the value of a block does not change when its pixels are all repeated
            slab = np.pad(slab, ((0, slab.shape[0] % 2), (0, width % 2), (0, 0)), "edge")
        out[start : start + step] = merge(slab[0::2], slab[1::2])
    return out


def _majority(upper: Array, lower: Array) -> Array:
    """The most frequent of 2 x 2 values by sorting them: a pair of equals wins, the larger pair first, else the top."""
    low, high = np.minimum(upper, lower), np.maximum(upper, lower)
    inner, outer = np.maximum(low[:, 0::2], low[:, 1::2]), np.minimum(high[:, 0::2], high[:, 1::2])
    first, last = np.minimum(low[:, 0::2], low[:, 1::2]), np.maximum(high[:, 0::2], high[:, 1::2])
    second, third = np.minimum(inner, outer), np.maximum(inner, outer)
    few = np.where(first == second, first, last)
    return np.where(third == last, last, np.where(second == third, second, few))


def _mean(upper: Array, lower: Array) -> Array:
    """The mean of 2 x 2 values, halves rounded up."""
    wide = np.uint16 if upper.dtype.itemsize == 1 else np.uint32
    sums: Array = np.add(upper, lower, dtype=wide)
    sums = sums[:, 0::2] + sums[:, 1::2]
    return ((sums + 2) >> 2).astype(upper.dtype)


def _checked(bands: Iterable[Array], shape: tuple[int, int], dtype: np.dtype, kind: Kind) -> Iterator[Array]:
    """The bands as (h, W, C), at least one; ValueError as soon as they are not what was promised."""
    (height, width), row, channels = shape, 0, None
    for number, given in enumerate(bands):
        band = np.asarray(given)
        band = band[:, :, None] if band.ndim == 2 else band
        if band.ndim != 3 or band.shape[1] != width or band.dtype.newbyteorder("=") != dtype.newbyteorder("="):
            raise ValueError(
                f"bands of {width} columns, {dtype}, were promised; band {number}, from row {row} on, has shape "
                f"{np.shape(given)}, {band.dtype}"
            )
        if channels is None:
            channels = band.shape[2]
            allowed = {"mask": (1,), "image": (1, 3)}.get(kind)
            if channels < 1 or (allowed is not None and channels not in allowed):
                raise ValueError(f"a band of kind {kind!r} has 1{' or 3' * (kind == 'image')} channels; got {channels}")
        if band.shape[2] != channels:
            raise ValueError(f"band {number}, from row {row} on, has {band.shape[2]} channels, those above {channels}")
        row += len(band)
        if row > height:
            raise ValueError(f"{height} rows were promised, and band {number} reaches to row {row}")
        yield band.astype(band.dtype.newbyteorder("="), copy=False)
    if row < height:
        raise ValueError(f"{height} rows were promised, and the bands have only {row}")


def _require_settings(
    shape: tuple[int, int], dtype: np.dtype, mpp: float | None, kind: str, tile: int, names: Sequence[str]
) -> None:
    """ValueError for settings that name no pyramid."""
    if min(shape) < 1:
        raise ValueError(f"shape must be (H, W) with at least one pixel; got {shape}")
    if dtype.kind != "u" or dtype.itemsize > 2:
        raise ValueError(f"dtype must be uint8 or uint16; got {dtype}: scale or number the values first")
    if mpp is not None and not (math.isfinite(mpp) and _MPP[0] <= mpp <= _MPP[1]):
        raise ValueError(f"mpp must lie between {_MPP[0]} and {_MPP[1]:.0f} micron a pixel, or be None; got {mpp}")
    if kind not in _KINDS:
        raise ValueError(f"kind must be one of {', '.join(_KINDS)}; got {kind!r}")
    if tile < 16 or tile % 16:
        raise ValueError(f"tile must be a multiple of 16; got {tile}")
    if isinstance(names, str) or not all(isinstance(name, str) and name.isprintable() for name in names):
        raise ValueError(f"names must be a sequence of words on one line; got {names!r}")


def _write_png(path: Path, bands: Iterable[Array], shape: tuple[int, int], channels: int) -> None:
    """The bands as one picture; InputError where PNG has no place for the channels."""
    if channels not in (1, 3):
        raise InputError(path, f"cannot hold {channels} channels as PNG", "write a .tif")
    whole: Array | None = None
    row = 0
    for band in bands:
        if whole is None:
            whole = np.empty((*shape, channels), band.dtype)
        whole[row : row + len(band)] = band
        row += len(band)
    assert whole is not None
    write_image(path, whole)
