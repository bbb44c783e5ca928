"""Synthetic labelled slides of any size and scale: glands with bright lumens in pink stroma on glass, and their mask.

What lies where is a function of microns, so that slides of several scales show the same world; it repeats every 2,048
microns, so that a slide of 64,000 pixels a side is written in seconds.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image

from patchforest.io.pyramid import write_pyramid
from tests.io.slides import write_tiled

TILE = 512
CELL, CELLS = 128.0, 16  # microns of a square with at most one gland; squares until the pattern repeats
BLOCK = 1024.0  # microns of the squares that are tissue or glass
NAMES = ("background", "gland")
_GLASS, _STROMA, _WALL, _LUMEN = (
    np.array(colour, np.float32) for colour in ((243, 242, 244), (228, 168, 200), (118, 62, 148), (238, 226, 236))
)


class World:
    """The glands of a seed, and the tissue of a slide of so many microns."""

    def __init__(self, seed: int, extent: tuple[float, float]) -> None:
        rng = np.random.default_rng([seed, 1])
        shape = (CELLS, CELLS)
        self.there = rng.random(shape) < 0.7
        self.radius = rng.uniform(22, 44, (*shape, 2))
        self.centre = CELL / 2 + rng.uniform(-15, 15, (*shape, 2))
        self.angle = rng.uniform(0, np.pi, shape)
        self.tint = rng.uniform(-10, 10, 3).astype(np.float32)
        blocks = tuple(max(1, int(np.ceil(e / BLOCK))) for e in extent)
        rows, columns = np.indices(blocks) + 0.5
        inside = ((rows / blocks[0] - 0.5) / 0.42) ** 2 + ((columns / blocks[1] - 0.5) / 0.36) ** 2 < 1
        self.tissue = inside & (rng.random(blocks) < 0.93)
        self.noise = rng.normal(0, 5, (TILE, TILE, 1)).astype(np.float32)

    def look(self, y: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Colours (h, w, 3) float32 and labels (h, w) uint8 of stroma and glands at microns y (h,) and x (w,)."""
        rows, columns = ((v // CELL).astype(int) % CELLS for v in (y, x))
        cell = np.ix_(rows, columns)
        dy = (y % CELL)[:, None] - self.centre[..., 0][cell]
        dx = (x % CELL)[None] - self.centre[..., 1][cell]
        cos, sin = np.cos(self.angle)[cell], np.sin(self.angle)[cell]
        a, b = self.radius[..., 0][cell], self.radius[..., 1][cell]
        far = np.sqrt(((dy * cos + dx * sin) / a) ** 2 + ((dx * cos - dy * sin) / b) ** 2)
        gland = self.there[cell] & (far <= 1)
        colours = np.broadcast_to(_STROMA + self.tint, (*gland.shape, 3)).copy()
        colours[gland] = _WALL + self.tint
        colours[gland & (far < 0.5)] = _LUMEN
        return colours, gland.astype(np.uint8)

    def on_tissue(self, y: np.ndarray, x: np.ndarray) -> np.ndarray:
        """(h, w) bool."""
        rows, columns = ((v // BLOCK).astype(int) for v in (y, x))
        inside = (rows[:, None] < self.tissue.shape[0]) & (columns[None] < self.tissue.shape[1])
        rows, columns = (np.minimum(v, n - 1) for v, n in zip((rows, columns), self.tissue.shape))
        return inside & self.tissue[np.ix_(rows, columns)]


def write_gland_slide(
    image: Path, mask: Path | None, *, shape: tuple[int, int], mpp: float, seed: int = 0, quality: int = 85
) -> None:
    """A pyramidal JPEG BigTIFF with ``mpp``, and its mask as ``write_pyramid`` writes one.

    ``mpp`` is a power of two (0.25, 0.5, 1, ...), so that the tiles of the pattern repeat.
    """
    world = World(seed, (shape[0] * mpp, shape[1] * mpp))
    levels, size, scale = [], shape, mpp
    while True:
        levels.append((size, _encoded(world, size, scale, quality)))
        if max(size) <= 1024:
            break
        size, scale = (-(-size[0] // 2), -(-size[1] // 2)), scale * 2
    image.parent.mkdir(parents=True, exist_ok=True)
    write_tiled(image, levels, TILE, mpp=mpp)
    if mask is not None:
        bands = _labels(world, shape, mpp)
        write_pyramid(mask, bands, shape=shape, dtype=np.uint8, mpp=mpp, names=NAMES)


def label_bands(shape: tuple[int, int], mpp: float, seed: int) -> Iterator[np.ndarray]:
    """The mask of a slide in bands of 512 rows."""
    return _labels(World(seed, (shape[0] * mpp, shape[1] * mpp)), shape, mpp)


def _places(start: int, scale: float) -> np.ndarray:
    return (np.arange(start, start + TILE) + 0.5) * scale


def _encoded(world: World, size: tuple[int, int], scale: float, quality: int) -> Iterator[bytes]:
    rng = np.random.default_rng(7)
    glass = [_jpeg(_GLASS + rng.normal(0, 1.5, (TILE, TILE, 3)), quality) for _ in range(4)]
    repeat = round(CELL * CELLS / (TILE * scale))  # tiles until the pattern repeats

    @lru_cache(maxsize=512)
    def pattern(row: int, column: int) -> bytes:
        colours, _ = world.look(_places(row * TILE, scale), _places(column * TILE, scale))
        return _jpeg(colours + world.noise, quality)

    for row in range(-(-size[0] // TILE)):
        for column in range(-(-size[1] // TILE)):
            y, x = _places(row * TILE, scale), _places(column * TILE, scale)
            tissue = world.on_tissue(y, x)
            if not tissue.any():
                yield glass[(row * 7 + column) % 4]
            elif tissue.all() and repeat >= 1:
                yield pattern(row % repeat, column % repeat)
            else:
                colours, _ = world.look(y, x)
                colours += world.noise
                colours[~tissue] = _GLASS
                yield _jpeg(colours, quality)


def _labels(world: World, shape: tuple[int, int], mpp: float) -> Iterator[np.ndarray]:
    repeat = max(1, round(CELL * CELLS / (TILE * mpp)))

    @lru_cache(maxsize=512)
    def pattern(row: int, column: int) -> np.ndarray:
        return world.look(_places(row * TILE, mpp), _places(column * TILE, mpp))[1]

    for row in range(-(-shape[0] // TILE)):
        band = np.zeros((TILE, -(-shape[1] // TILE) * TILE), np.uint8)
        for column in range(band.shape[1] // TILE):
            tissue = world.on_tissue(_places(row * TILE, mpp), _places(column * TILE, mpp))
            if tissue.any():
                part = band[:, column * TILE : (column + 1) * TILE]
                np.multiply(pattern(row % repeat, column % repeat), tissue, out=part, casting="unsafe")
        yield band[: min(TILE, shape[0] - row * TILE), : shape[1]]


def _jpeg(pixels: np.ndarray, quality: int) -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(out, "JPEG", quality=quality, subsampling=0)
    return out.getvalue()
