"""Tile pyramids for the viewer from images of any size: every pixel read once, a few rows of tiles in memory at a time.

A pyramid halves until one tile holds the image. Its levels count from the smallest, 0, as viewers do, and the tile in
row r and column c of a level is the file ``LEVEL/c_r.SUFFIX``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from patchforest.io.pyramid import tile_rows
from patchforest.tree.stream import Workers, block_side, held
from patchforest.values import Array, ImageSource

TILE = 512
_BAND = 1 << 27  # bytes of a band, about: rows of tiles of a file are put together up to it
_MOST_BAND = 1 << 28  # bytes up to which a band is as high as the tiles of a file, so that none is decoded twice
_COLUMNS = 1024  # of the blocks in which a band is read, about

Encode = Callable[[Array], bytes]
Halve = Callable[[Array], Array]


@dataclass(frozen=True)
class TilePyramid:
    """What ``write_tiles`` wrote: (H, W) of its largest level, how many levels and files, and the bytes in them."""

    shape: tuple[int, int]
    levels: int
    files: int
    bytes: int


def level_shapes(shape: tuple[int, int], tile: int = TILE) -> tuple[tuple[int, int], ...]:
    """(H, W) of every level from the largest: halves, rounded up, until a tile holds it."""
    shapes = [shape]
    while max(shapes[-1]) > tile:
        shapes.append(half(shapes[-1]))
    return tuple(shapes)


def half(shape: tuple[int, int]) -> tuple[int, int]:
    """(H, W) of the next smaller level."""
    return -(-shape[0] // 2), -(-shape[1] // 2)


def read_bands(source: ImageSource, workers: Workers, *, level: int = 0) -> Iterator[Array]:
    """The pixels of a level as bands (h, W, C) from the top, read along the tiles in which the file stores them.

    The next band is read while the caller works on one.
    """
    if level == 0:
        source = held(source)
    height, width = source.levels[level]
    row_bytes = width * int(np.prod(source.shape[2:]))
    most = max(2 * TILE, _MOST_BAND // row_bytes)
    step = block_side(min(source.tile[0], height), 1, min(TILE, max(_BAND // row_bytes, 1)), most)
    columns = block_side(min(source.tile[1], width), 1, _COLUMNS, 8 * _COLUMNS)

    def begin(row: int) -> list[Future[Array]]:
        def read(column: int) -> Array:
            return source.read(level, row, column, min(step, height - row), min(columns, width - column))

        return workers.begin(read, range(0, width, columns))

    coming = begin(0)
    for row in range(0, height, step):
        parts = [part.result() for part in coming]
        if row + step < height:
            coming = begin(row + step)
        yield parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)


def halved(bands: Iterable[Array], halve: Halve) -> Iterator[Array]:
    """The bands of an image of half the size, from those (h, W, C) of the whole one."""
    kept: Array | None = None
    for band in bands:
        rows = band if kept is None else np.concatenate([kept, band])
        even = len(rows) // 2 * 2
        if even:
            yield halve(rows[:even])
        kept = rows[even:] if even < len(rows) else None
    if kept is not None:
        yield halve(kept)


def write_tiles(
    folder: Path,
    bands: Iterable[Array],
    *,
    shape: tuple[int, int],
    encode: Encode,
    halve: Halve,
    suffix: str,
    workers: Workers,
    tile: int = TILE,
) -> TilePyramid:
    """Writes the pyramid of an image (H, W) that comes as bands (h, W, C) from the top, of any heights.

    Parameters
    ----------
    folder : of the pyramid; the folders of its levels are made in it.
    encode : the bytes of the file of a tile (h, w, C); called from several threads.
    halve : (h, W, C) pixels to those of the next smaller level.
    suffix : of the files, with its dot.
    tile : side of a tile in pixels, even.
    """
    shapes = level_shapes(shape, tile)
    places = [folder / str(len(shapes) - 1 - number) for number in range(len(shapes))]
    for place in places:
        place.mkdir(parents=True)
    next_row = [0] * len(shapes)
    files = size = 0
    for number, rows in tile_rows(bands, shapes, tile, halve):

        def write(column: int, number: int = number, rows: Array = rows) -> int:
            name = f"{column}_{next_row[number]}{suffix}"
            return (places[number] / name).write_bytes(encode(rows[:, column * tile : (column + 1) * tile]))

        written = [done.result() for done in workers.begin(write, range(-(-rows.shape[1] // tile)))]
        next_row[number] += 1
        files, size = files + len(written), size + sum(written)
    return TilePyramid(shape, len(shapes), files, size)
