"""Filling against point-in-polygon in exact fractions."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from patchforest.io.scanline import draw


def inside(rings: list[np.ndarray], x: Fraction, y: Fraction) -> bool:
    """Even-odd: a ray to the left, counting edges it crosses; upper ends count, a point on an edge is right of it."""
    odd = False
    for ring in rings:
        points = [(Fraction(float(a)), Fraction(float(b))) for a, b in ring]
        for (x0, y0), (x1, y1) in zip(points, points[1:] + points[:1]):
            if (y0 <= y) != (y1 <= y) and x >= x0 + (y - y0) * (x1 - x0) / (y1 - y0):
                odd = not odd
    return odd


def brute(shapes: list[tuple[int, list[np.ndarray]]], window: tuple[int, int, int, int], factor: float) -> np.ndarray:
    row, column, height, width = window
    out, scale, half = np.zeros((height, width), np.uint8), Fraction(factor), Fraction(1, 2)
    for value, rings in shapes:
        for i in range(height):
            for j in range(width):
                if inside(rings, (column + j + half) * scale, (row + i + half) * scale):
                    out[i, j] = value
    return out


def drawn(
    shapes: list[tuple[int, list[np.ndarray]]], window: tuple[int, int, int, int], factor: float
) -> tuple[np.ndarray, np.ndarray]:
    """Labels, and the work space afterwards."""
    row, column, height, width = window
    rings = [ring for _, parts in shapes for ring in parts]
    work = np.zeros((height, width), np.uint8), np.full(height, width + 1), np.full(height, -1)
    out = np.zeros((height, width), np.uint8)
    draw(
        out, np.arange(len(shapes)), np.array([value for value, _ in shapes]),
        np.cumsum([0, *(len(parts) for _, parts in shapes)]), np.cumsum([0, *map(len, rings)]),
        np.concatenate(rings).astype(float), row, column, factor, *work,
    )  # fmt: skip
    assert not work[0].any()
    assert (work[1] == width + 1).all()
    assert (work[2] == -1).all()
    return out


def random_shapes(rng: np.random.Generator, grid: float) -> list[tuple[int, list[np.ndarray]]]:
    """Polygons of any form, crossing themselves too, with corners on a grid so that centres lie on borders."""
    shapes = []
    for value in range(1, int(rng.integers(2, 5))):
        rings = []
        for _ in range(int(rng.integers(1, 4))):
            ring = rng.uniform(-4, 20, (int(rng.integers(3, 9)), 2))
            rings.append(np.round(ring / grid) * grid if grid else ring)
        shapes.append((value, rings))
    return shapes


@pytest.mark.parametrize("seed", range(60))
def test_random_polygons(seed: int) -> None:
    rng = np.random.default_rng(seed)
    factor = float(rng.choice([1.0, 2.0, 0.5, 3.7, 1 / 3]))
    shapes = random_shapes(rng, float(rng.choice([0, 0.25, 0.5, 1])) if factor in (1, 2, 0.5) else 0)
    window = (*rng.integers(-3, 6, 2).tolist(), *rng.integers(1, 14, 2).tolist())
    assert np.array_equal(drawn(shapes, window, factor), brute(shapes, window, factor))


def test_left_and_upper_borders_are_inside() -> None:
    square = np.array([[0.5, 0.5], [2.5, 0.5], [2.5, 2.5], [0.5, 2.5]])
    expected = [[1, 1, 0], [1, 1, 0], [0, 0, 0]]
    for ring in (square, square[::-1]):
        assert drawn([(1, [ring])], (0, 0, 3, 3), 1.0).tolist() == expected


@pytest.mark.parametrize("seed", range(20))
def test_shared_borders_leave_no_gap_and_do_not_overlap(seed: int) -> None:
    """A fan of triangles around a point, each border run through in both directions."""
    rng = np.random.default_rng(seed)
    middle, angles = rng.uniform(4, 8, 2), np.sort(rng.uniform(0, 2 * np.pi, 9))
    rim = middle + 30 * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    fan = [np.array([middle, rim[k - 1], rim[k]]) for k in range(9)]
    count = sum(drawn([(1, [part])], (0, 0, 12, 12), 1.0).astype(int) for part in fan)
    whole = drawn([(1, [rim])], (0, 0, 12, 12), 1.0)
    odd = np.max(np.diff(angles, append=angles[0] + 2 * np.pi)) > np.pi  # then the point lies outside its rim
    assert odd or np.array_equal(count, whole)
    assert odd or (count == 1).all()


def test_far_and_steep() -> None:
    far = np.array([[-(2.0**31), 3], [2.0**31, 3.0001], [2.0**31, 2.0**31], [-(2.0**31), 2.0**31]])
    window = (0, 100, 6, 5)
    assert np.array_equal(drawn([(7, [far])], window, 1.0), brute([(7, [far])], window, 1.0))
    away = np.array([[1e6, 1e6], [2e6, 1e6], [2e6, 2e6]])
    assert not drawn([(7, [away])], window, 1.0).any()
