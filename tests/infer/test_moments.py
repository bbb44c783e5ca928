"""Moments: as fractions of Python's integers say, near the corner and far from it, for few points and very many."""

from fractions import Fraction

import numpy as np

from patchforest.infer.moments import central_moments
from patchforest.values import Array

PAIRS = ((0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2))


def limbs(values: list[int]) -> tuple[Array, Array]:
    return np.array([[v & 0xFFFFFFFF for v in values]]), np.array([[v >> 32 for v in values]])


def test_as_fractions_of_points(rng: np.random.Generator) -> None:
    for scale in (5, 300, 1 << 20):
        for _ in range(40):
            n, corner = int(rng.integers(1, 12)), rng.integers(0, (1 << 20) - min(scale, 1 << 19), 3)
            points = (corner + rng.integers(0, min(scale, 1 << 19), (n, 3))).tolist()
            sums = [sum(p[a] for p in points) for a in range(3)]
            lower, upper = limbs([sum(p[a] * p[b] for p in points) for a, b in PAIRS])
            extent = np.array([[max(p[a] for p in points) - min(p[a] for p in points) + 1 for a in range(3)]])
            centroid, covariance = central_moments(np.array([n]), np.array([sums]), lower, upper, extent)
            for a, b in PAIRS:
                mean = Fraction(sum(p[a] * p[b] for p in points), n) - Fraction(sums[a], n) * Fraction(sums[b], n)
                spread = float(extent[0, a] * extent[0, b])
                assert abs(covariance[0, a, b] - float(mean)) <= 1e-14 * spread
                assert covariance[0, a, b] == covariance[0, b, a]
            assert centroid[0].tolist() == [float(Fraction(s, n)) for s in sums] or np.allclose(
                centroid[0], [s / n for s in sums], rtol=1e-15
            )


def test_a_square_of_a_million_pixels_a_side() -> None:
    """2^40 points, whose sums of products have 80 bits: variance (side² - 1) / 12."""
    side = 1 << 20
    n, along = side * side, side * (side - 1) // 2
    square = side * ((side - 1) * side * (2 * side - 1) // 6)
    lower, upper = limbs([0, square, square, 0, 0, along * along])
    assert square.bit_length() > 64
    sums, extent = np.array([[0, side * along, side * along]]), np.array([[1, side, side]])
    centroid, covariance = central_moments(np.array([n]), sums, lower, upper, extent)
    assert centroid[0].tolist() == [0, (side - 1) / 2, (side - 1) / 2]
    assert np.allclose(np.diag(covariance[0]), [0, (side**2 - 1) / 12, (side**2 - 1) / 12], rtol=1e-15)
    assert abs(covariance[0, 1, 2]) < 1e-4
