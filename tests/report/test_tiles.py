"""Tile pyramids against whole-image pyramids, pixel for pixel; what is read, and how often."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from patchforest.io.array import ArraySource
from patchforest.io.pyramid import halve_mask, halve_mean
from patchforest.report import tiles
from patchforest.report.tiles import half, halved, level_shapes, read_bands, write_tiles
from patchforest.tree.stream import Workers
from patchforest.values import Array

SHAPES = [(1, 1), (1, 200), (130, 1), (64, 64), (65, 63), (63, 129), (257, 190), (128, 300), (333, 77)]


def brute_mean(image: Array) -> Array:
    """Half the size: mean of the pixels there, halves up."""
    height, width = half(image.shape[:2])
    out = np.empty((height, width, image.shape[2]), np.uint8)
    for i in range(height):
        for j in range(width):
            out[i, j] = np.floor(image[2 * i : 2 * i + 2, 2 * j : 2 * j + 2].mean(axis=(0, 1)) + 0.5)
    return out


def brute_majority(mask: Array) -> Array:
    """Half the size: the class of most pixels there, on a tie the largest."""
    height, width = half(mask.shape[:2])
    out = np.empty((height, width, 1), mask.dtype)
    for i in range(height):
        for j in range(width):
            values, counts = np.unique(mask[2 * i : 2 * i + 2, 2 * j : 2 * j + 2], return_counts=True)
            out[i, j] = values[counts == counts.max()].max()
    return out


def cut(image: Array, rng: np.random.Generator) -> Iterator[Array]:
    """The image as bands of random heights."""
    row = 0
    while row < len(image):
        step = int(rng.integers(1, 90))
        yield image[row : row + step]
        row += step


def raw(part: Array) -> bytes:
    return np.array(part.shape, "<i4").tobytes() + np.ascontiguousarray(part).tobytes()


def tile_of(path: Path, dtype: np.dtype) -> Array:
    data = path.read_bytes()
    return np.frombuffer(data[12:], dtype).reshape(np.frombuffer(data[:12], "<i4"))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", ["image", "mask"])
def test_every_tile_of_every_level_is_exact(
    tmp_path: Path, rng: np.random.Generator, shape: tuple[int, int], kind: str
) -> None:
    mask = kind == "mask"
    whole = rng.integers(0, 4 if mask else 256, (*shape, 1 if mask else 3)).astype(np.uint16 if mask else np.uint8)
    with Workers(2) as workers:
        done = write_tiles(
            tmp_path / "t",
            cut(whole, rng),
            shape=shape,
            encode=raw,
            halve=halve_mask if mask else halve_mean,
            suffix=".raw",
            workers=workers,
            tile=64,
        )
    files = 0
    for level in range(done.levels - 1, -1, -1):
        found = sorted((tmp_path / "t" / str(level)).iterdir())
        rows, columns = (-(-n // 64) for n in whole.shape[:2])
        assert {p.name for p in found} == {f"{c}_{r}.raw" for r in range(rows) for c in range(columns)}
        for r in range(rows):
            for c in range(columns):
                expected = whole[64 * r : 64 * r + 64, 64 * c : 64 * c + 64]
                np.testing.assert_array_equal(
                    tile_of(tmp_path / "t" / str(level) / f"{c}_{r}.raw", whole.dtype), expected
                )
        files += rows * columns
        if level:
            assert max(whole.shape) > 64
            whole = brute_majority(whole) if mask else brute_mean(whole)
    assert max(whole.shape[:2]) <= 64
    assert done.files == files
    assert done.bytes == sum(p.stat().st_size for p in tmp_path.rglob("*.raw"))
    assert done.shape == shape


def test_levels_by_hand() -> None:
    assert level_shapes((512, 512)) == ((512, 512),)
    assert level_shapes((513, 2)) == ((513, 2), (257, 1))
    assert level_shapes((2967, 2220)) == ((2967, 2220), (1484, 1110), (742, 555), (371, 278))


@pytest.mark.parametrize("shape", SHAPES)
def test_bands_of_half_the_size(rng: np.random.Generator, shape: tuple[int, int]) -> None:
    whole = rng.integers(0, 256, (*shape, 2), dtype=np.uint8)
    np.testing.assert_array_equal(np.concatenate(list(halved(cut(whole, rng), halve_mean))), brute_mean(whole))


class Recorder(ArraySource):
    """Remembers the windows that were read, and says how it is stored."""

    def __init__(self, pixels: Array, tile: tuple[int, int]) -> None:
        super().__init__(pixels)
        self._tile, self.windows = tile, list[tuple[int, ...]]()

    @property
    def tile(self) -> tuple[int, int]:
        return self._tile

    def read(self, level: int = 0, row: int = 0, column: int = 0, height=None, width=None) -> Array:  # type: ignore[no-untyped-def]
        self.windows.append((row, column, height, width))
        return super().read(level, row, column, height, width)


@pytest.mark.parametrize("tile", [(240, 240), (256, 256), (1, 1500), (700, 512), (16, 1500)])
def test_every_stored_tile_is_read_once(rng: np.random.Generator, tile: tuple[int, int]) -> None:
    pixels = rng.integers(0, 256, (1700, 1500, 1), dtype=np.uint8)
    source = Recorder(pixels, tile)
    with Workers(3) as workers:
        bands = list(read_bands(source, workers))
    np.testing.assert_array_equal(np.concatenate(bands), pixels)
    counts = np.zeros((-(-1700 // tile[0]), -(-1500 // tile[1])), int)
    for row, column, height, width in source.windows:
        down = slice(row // tile[0], (row + height - 1) // tile[0] + 1)
        counts[down, column // tile[1] : (column + width - 1) // tile[1] + 1] += 1
    assert (counts == 1).all()


def test_an_image_decoded_as_a_whole_is_read_once(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiles, "_MOST_BAND", 1)  # as if it were too large for one band
    pixels = rng.integers(0, 256, (1700, 1500, 1), dtype=np.uint8)
    source = Recorder(pixels, (1700, 1500))
    with Workers(2) as workers:
        np.testing.assert_array_equal(np.concatenate(list(read_bands(source, workers))), pixels)
    assert len(source.windows) == 1


class Endless:
    """A tall image that exists only where it is read."""

    shape, levels, tile, mpp = (40_000, 1024, 3), ((40_000, 1024),), (256, 256), None

    def read(self, level: int = 0, row: int = 0, column: int = 0, height: int = 0, width: int = 0) -> Array:
        return np.full((height, width, 3), row // 256 % 256, np.uint8)


def test_memory_does_not_grow_with_the_height(tmp_path: Path) -> None:
    tracemalloc.start()
    with Workers(2) as workers:
        bands = read_bands(Endless(), workers)
        write_tiles(
            tmp_path / "t",
            bands,
            shape=(40_000, 1024),
            encode=lambda part: b"x",
            halve=halve_mean,
            suffix=".x",
            workers=workers,
        )
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20e6  # the image has 123 MB


def test_what_goes_wrong_in_a_thread_is_raised(tmp_path: Path) -> None:
    def fail(part: Array) -> bytes:
        raise OSError(28, "No space left on device")

    with Workers(2) as workers, pytest.raises(OSError, match="No space"):
        write_tiles(
            tmp_path / "t",
            iter([np.zeros((600, 600, 1), np.uint8)]),
            shape=(600, 600),
            encode=fail,
            halve=halve_mask,
            suffix=".x",
            workers=workers,
        )
