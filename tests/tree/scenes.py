"""Images in which chains of edges run far, and a source that says what was read of it."""

from __future__ import annotations

import cv2
import numpy as np


def spiral(side: int, *, seeded: bool, gap: int = 6) -> np.ndarray:
    """A faint line that winds through the whole image, with one strong spot at its inner end where ``seeded``."""
    image = np.full((side, side), 100, np.uint8)
    low, high, points = 2, side - 3, []
    row = column = low
    points.append((column, row))
    top, bottom, left, right = low, high, low, high
    while right - left > gap and bottom - top > gap:
        points += [(right, top), (right, bottom), (left, bottom), (left, top + gap)]
        top, bottom, left, right = top + gap, bottom - gap, left + gap, right - gap
        points.append((left, top))
    cv2.polylines(image, [np.array(points, np.int32)], False, 133, 1)
    if seeded:
        x, y = points[-1]
        image[y, x] = 255
    return image


def scene(rng: np.random.Generator, shape: tuple[int, int], channels: int = 3) -> np.ndarray:
    """Blurred noise with stretched contrast, and faint long lines across it: (H, W, channels) uint8."""
    image = rng.integers(0, 256, (*shape, channels)).astype(np.float32)
    image = cv2.GaussianBlur(image, (0, 0), float(rng.uniform(0.6, 3))).reshape(*shape, channels)
    image = np.clip((image - 128) * rng.uniform(1, 15) + 128, 0, 255).astype(np.uint8)
    if rng.random() < 0.5:
        image[:] = 120
    image = np.ascontiguousarray(image)
    for _ in range(int(rng.integers(0, 12))):
        ends = [tuple(int(rng.integers(0, s)) for s in shape[::-1]) for _ in range(2)]
        value = int(rng.integers(60, 200))
        for c in range(channels):
            plane = np.ascontiguousarray(image[..., c])
            cv2.line(plane, *ends, value, 1)
            image[..., c] = plane
    return image


class Tiled:
    """An array as an ``ImageSource`` stored in tiles, that counts the pixels read."""

    mpp = None

    def __init__(self, pixels: np.ndarray, tile: tuple[int, int] = (64, 64), coarser: int = 0) -> None:
        self.pixels = [pixels if pixels.ndim == 3 else pixels[..., None]]
        for _ in range(coarser):
            below = self.pixels[-1].astype(np.float32)
            even = below[: len(below) // 2 * 2, : below.shape[1] // 2 * 2]
            means = (even[::2, ::2] + even[1::2, ::2] + even[::2, 1::2] + even[1::2, 1::2]) / 4
            self.pixels.append(np.rint(means).astype(pixels.dtype))
        self.tile = (min(tile[0], pixels.shape[0]), min(tile[1], pixels.shape[1]))
        self.read_pixels, self.largest = [0] * len(self.pixels), 0

    @property
    def shape(self) -> tuple[int, ...]:
        return self.pixels[0].shape

    @property
    def levels(self) -> tuple[tuple[int, int], ...]:
        return tuple(p.shape[:2] for p in self.pixels)

    def read(
        self, level: int = 0, row: int = 0, column: int = 0, height: int | None = None, width: int | None = None
    ) -> np.ndarray:
        rows, columns = self.levels[level]
        height, width = rows - row if height is None else height, columns - column if width is None else width
        assert 0 <= row < row + height <= rows
        assert 0 <= column < column + width <= columns
        self.read_pixels[level] += height * width
        self.largest = max(self.largest, height * width)
        return self.pixels[level][row : row + height, column : column + width].copy()
