"""Component numbers on disk: tiled deflate BigTIFF of 32 bits, written band by band, a volume as a page a plane."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import tifffile

from patchforest.io.atomic import atomic_path
from patchforest.values import Array

_TILE = 256


def write_labels(path: str | Path, bands: Iterable[Array], shape: tuple[int, ...]) -> None:
    """``path`` holds the uint32 numbers that ``bands`` gives; memory: a band and a row of tiles.

    Parameters
    ----------
    bands : consecutive (h, W) rows or (d, H, W) planes of any heights that make up ``shape``.
    shape : (H, W), or (D, H, W) for one page a plane.

    Raises
    ------
    ValueError : the bands have more or fewer rows or planes than ``shape``. Nothing is written then.
    InputError : the target cannot be written; OSError where the disk is full.
    """
    with atomic_path(path) as temporary, tifffile.TiffWriter(temporary, bigtiff=True) as tif:
        if len(shape) == 2:
            _write_page(tif, bands, shape)
            return
        count = 0
        for band in bands:
            for plane in band:
                _write_page(tif, [plane], shape[1:])
                count += 1
        if count != shape[0]:
            raise ValueError(f"{shape[0]} planes were promised; got {count}")


def _write_page(tif: tifffile.TiffWriter, bands: Iterable[Array], shape: tuple[int, ...]) -> None:
    tif.write(
        _tiles(bands, shape),
        shape=shape,
        dtype=np.uint32,
        tile=(_TILE, _TILE),
        photometric="minisblack",
        compression="adobe_deflate",
        compressionargs={"level": 1},
        metadata=None,
        maxworkers=1,
    )


def _tiles(bands: Iterable[Array], shape: tuple[int, ...]) -> Iterator[Array]:
    """Tiles, row by row, padded with zeros; ValueError where the bands do not make up ``shape``."""
    height, width = shape
    strip, filled, seen = np.zeros((_TILE, -(-width // _TILE) * _TILE), np.uint32), 0, 0
    for band in bands:
        if seen + len(band) > height or band.shape[1:] != (width,):
            raise ValueError(f"{height} rows of {width} were promised; got {seen + len(band)} of {band.shape[1:]}")
        seen += len(band)
        at = 0
        while at < len(band):
            part = band[at : at + _TILE - filled]
            strip[filled : filled + len(part), :width] = part
            at, filled = at + len(part), filled + len(part)
            if filled == _TILE:
                yield from _cut(strip)
                filled = 0
    if seen != height:
        raise ValueError(f"{height} rows were promised; got {seen}")
    if filled:
        strip[filled:] = 0
        yield from _cut(strip)


def _cut(strip: Array) -> Iterator[Array]:
    return (strip[:, left : left + _TILE].copy() for left in range(0, strip.shape[1], _TILE))
