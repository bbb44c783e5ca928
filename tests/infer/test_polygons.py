"""Polygons of masks against a flood fill and a brute-force even-odd fill; whatever the bands, every pixel counts."""

from __future__ import annotations

import itertools
from collections import deque

import numpy as np
import pytest

from patchforest.infer.polygons import Polygon, polygons_of


def components(mask: np.ndarray) -> dict[tuple[int, int], tuple[int, np.ndarray]]:
    """First pixel in reading order -> class and pixels (bool) of every 4-connected component, by flooding."""
    left, found = mask > 0, {}
    for seed in zip(*np.nonzero(mask)):
        if not left[seed]:
            continue
        inside, queue = np.zeros(mask.shape, bool), deque([seed])
        left[seed] = False
        while queue:
            y, x = queue.popleft()
            inside[y, x] = True
            for v, u in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)):
                if 0 <= v < mask.shape[0] and 0 <= u < mask.shape[1] and left[v, u] and mask[v, u] == mask[seed]:
                    left[v, u] = False
                    queue.append((v, u))
        found[int(seed[0]), int(seed[1])] = (int(mask[seed]), inside)
    return found


def filled(polygon: Polygon, shape: tuple[int, int]) -> np.ndarray:
    """(H, W) bool by the even-odd rule: each vertical edge turns over all pixels to its right."""
    inside = np.zeros(shape, bool)
    for ring in (polygon.exterior, *polygon.holes):
        for (r0, c0), (r1, c1) in zip(ring, np.roll(ring, -1, axis=0)):
            if c0 == c1:
                inside[min(r0, r1) : max(r0, r1), c0:] ^= True
    return inside


def turned(ring: np.ndarray) -> int:
    """Signed area of a ring, x = column and y = row."""
    y, x = ring.T
    twice = int((x * np.roll(y, -1) - y * np.roll(x, -1)).sum())
    assert twice % 2 == 0
    return twice // 2


def cut(mask: np.ndarray, ends: list[int]) -> list[np.ndarray]:
    return [mask[a:b] for a, b in itertools.pairwise([0, *ends, len(mask)])]


def same(one: list[Polygon], other: list[Polygon]) -> bool:
    """Whether two lists of polygons are equal in everything, the order too."""
    return len(one) == len(other) and all(
        (p.value, p.area, p.probability) == (q.value, q.area, q.probability)
        and len(p.holes) == len(q.holes)
        and all(np.array_equal(a, b) for a, b in zip((p.exterior, *p.holes), (q.exterior, *q.holes)))
        for p, q in zip(one, other)
    )


def check(mask: np.ndarray, polygons: list[Polygon]) -> None:
    """Everything the docstrings promise about the polygons of a mask."""
    known = components(mask)
    painted = np.zeros(mask.shape, np.int64)
    assert len(polygons) == len(known)
    lasts = []
    for polygon in polygons:
        rings = (polygon.exterior, *polygon.holes)
        value, inside = known.pop(tuple(polygon.exterior[0].tolist()))
        assert polygon.value == value
        assert polygon.area == inside.sum() == sum(turned(ring) for ring in rings)
        assert np.array_equal(filled(polygon, mask.shape), inside)
        painted[inside] += polygon.value
        assert turned(rings[0]) > 0
        assert all(turned(ring) < 0 for ring in rings[1:])
        starts = [ring[0].tolist() for ring in polygon.holes]
        assert starts == sorted(starts)
        for ring in rings:
            assert ring.dtype == np.int64
            assert len(set(map(tuple, ring.tolist()))) == len(ring) >= 4  # no corner twice: rings are simple there
            assert ring[0].tolist() == min(ring.tolist())
            steps = np.roll(ring, -1, axis=0) - ring
            assert ((steps == 0).sum(axis=1) == 1).all()
            assert ((steps == 0) != np.roll(steps == 0, 1, axis=0)).all()  # every corner is a turn
        lasts.append(polygon.exterior[:, 0].max())
    assert not known
    assert np.array_equal(painted, mask)
    assert lasts == sorted(lasts)


def random_mask(rng: np.random.Generator) -> np.ndarray:
    """Masks of every density and grain, one to four classes, uint8 or uint16."""
    shape = tuple(rng.integers(1, 24, 2))
    density, classes = rng.uniform(), int(rng.integers(1, 5))
    grain = int(rng.integers(1, 4))
    coarse = rng.integers(1, classes + 1, shape) * (rng.random(shape) < density)
    mask = np.repeat(np.repeat(coarse, grain, 0), grain, 1)[: shape[0] * 2, : shape[1]]
    return mask.astype(np.uint8) if classes < 3 else (mask * 16383).astype(np.uint16)


@pytest.mark.parametrize("seed", range(120))
def test_random_masks(seed: int) -> None:
    rng = np.random.default_rng(seed)
    mask = random_mask(rng)
    whole = list(polygons_of([mask], width=mask.shape[1]))
    check(mask, whole)
    for _ in range(3):
        ends = sorted(rng.integers(0, len(mask) + 1, rng.integers(0, 6)).tolist())
        assert same(whole, list(polygons_of(cut(mask, ends), width=mask.shape[1])))


def rings_in_rings(size: int) -> np.ndarray:
    """Nested square rings, one pixel apart."""
    y, x = np.indices((size, size))
    return (np.minimum.reduce([y, x, size - 1 - y, size - 1 - x]) % 2 == 0).astype(np.uint8)


CASES = {
    "one pixel": np.ones((1, 1), np.uint8),
    "no pixel": np.zeros((1, 1), np.uint8),
    "whole": np.full((7, 5), 3, np.uint8),
    "a row": np.array([[1, 0, 2, 2, 0, 1]], np.uint8),
    "a column": np.array([[1], [0], [2], [2], [0], [1]], np.uint8),
    "checkerboard": (np.indices((9, 8)).sum(0) % 2).astype(np.uint8),
    "checkerboard of two classes": (np.indices((8, 9)).sum(0) % 2 + 1).astype(np.uint8),
    "diagonal": np.eye(6, dtype=np.uint8),
    "nested": rings_in_rings(13),
    "nested classes": rings_in_rings(12) + 1,
    "a pocket closed at a corner": np.array([[1, 1, 0], [1, 0, 1], [1, 1, 1]], np.uint8),
    "a hole on the exterior": np.array([[1, 1, 1, 1], [1, 0, 1, 1], [1, 1, 0, 1], [1, 1, 1, 0]], np.uint8),
    "holes in a chain": np.array(
        [[1, 1, 1, 1, 1], [1, 0, 1, 0, 1], [1, 1, 0, 1, 1], [1, 0, 1, 0, 1], [1, 1, 1, 1, 1]], np.uint8
    ),
    "a spiral": np.array(
        [[1, 1, 1, 1, 1, 1], [0, 0, 0, 0, 0, 1], [1, 1, 1, 1, 0, 1], [1, 0, 1, 1, 0, 1], [1, 0, 0, 0, 0, 1],
         [1, 1, 1, 1, 1, 1]], np.uint8,
    ),
    "a comb": np.array([[1, 0, 1, 0, 1], [1, 0, 1, 0, 1], [1, 1, 1, 1, 1]], np.uint8),
    "the greatest class": np.array([[65535, 65535], [0, 65535]], np.uint16),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_named_masks(name: str) -> None:
    mask = CASES[name]
    whole = list(polygons_of([mask], width=mask.shape[1]))
    check(mask, whole)
    assert same(whole, list(polygons_of(mask[:, None], width=mask.shape[1])))


def test_a_case_by_hand() -> None:
    """A pixel missing in a corner of 3 x 3, and the middle one: they touch, so the hole touches the exterior."""
    (polygon,) = polygons_of([CASES["a pocket closed at a corner"]], width=3)
    assert polygon.exterior.tolist() == [[0, 0], [0, 2], [1, 2], [1, 3], [3, 3], [3, 0]]
    assert [hole.tolist() for hole in polygon.holes] == [[[1, 1], [2, 1], [2, 2], [1, 2]]]
    assert (polygon.value, polygon.area, polygon.probability) == (1, 7, None)


def test_polygons_are_valid() -> None:
    shapely = pytest.importorskip("shapely", reason="shapely is not installed")
    rng = np.random.default_rng(5)
    masks = [*CASES.values(), *(random_mask(rng) for _ in range(150))]
    for mask in masks:
        for polygon in polygons_of([mask], width=mask.shape[1]):
            shape = shapely.Polygon(polygon.exterior[:, ::-1], [hole[:, ::-1] for hole in polygon.holes])
            assert shapely.is_valid(shape), shapely.is_valid_reason(shape)
            assert shape.area == polygon.area
            assert shape.exterior.is_ccw
            assert not any(ring.is_ccw for ring in shape.interiors)


@pytest.mark.parametrize("dtype", [np.uint8, np.float16, np.float32, np.float64])
def test_probabilities_are_means(dtype: type) -> None:
    rng = np.random.default_rng(3)
    mask = random_mask(np.random.default_rng(77))
    mask[:, 0] = mask[-1] = 1  # a comb, joined at the end
    mask[:-1, 1] = 0
    values = rng.integers(0, 256, mask.shape).astype(np.uint8)
    weights = values if dtype == np.uint8 else (values / 255).astype(dtype)
    known = components(mask)
    whole = list(polygons_of([mask], width=mask.shape[1], probabilities=[weights]))
    assert len(whole) > 5
    for polygon in whole:
        _, inside = known[tuple(polygon.exterior[0].tolist())]
        mean = values[inside].mean() / 255
        assert polygon.probability == pytest.approx(mean, rel=2e-3 if dtype == np.float16 else 1e-6)
    ends = [1, 1, 4, 9]
    parts = polygons_of(cut(mask, ends), width=mask.shape[1], probabilities=iter(cut(weights, ends)))
    assert same(whole, list(parts))
    (full,) = polygons_of([np.ones((3, 3), bool)], width=3, probabilities=[np.full((3, 3), np.ones(1, dtype))])
    assert full.probability == (1 / 255 if dtype == np.uint8 else 1)


def test_a_component_comes_as_soon_as_it_is_finished() -> None:
    taken = []

    def bands() -> object:
        for row in ([1, 0, 0], [0, 0, 2], [0, 0, 0], [3, 3, 3]):
            taken.append(row)
            yield np.array([row], np.uint8)

    stream = polygons_of(bands(), width=3)
    assert [(next(stream).value, len(taken)) for _ in range(3)] == [(1, 2), (2, 3), (3, 4)]
    assert next(stream, None) is None


def test_bands_in_any_layout() -> None:
    mask = random_mask(np.random.default_rng(77))
    width = mask.shape[1]
    whole = list(polygons_of([mask], width=width))
    assert len(whole) > 3
    assert same(whole, list(polygons_of([np.asfortranarray(mask)], width=width)))
    assert same(whole, list(polygons_of([mask.astype(mask.dtype.newbyteorder(">"))], width=width)))
    assert same(whole, list(polygons_of([np.repeat(mask, 2, axis=1)[:, ::2]], width=width)))


@pytest.mark.parametrize(
    ("bands", "probabilities", "complaint"),
    [
        ([np.zeros((2, 4), np.uint8)], None, r"band must be \(rows, 3\); got shape \(2, 4\)"),
        ([np.zeros((2, 3, 1), np.uint8)], None, r"band must be \(rows, 3\)"),
        ([np.zeros((2, 3), np.int64)], None, "must hold uint8, uint16; got int64"),
        ([np.zeros((2, 3), np.uint8)], [np.zeros((1, 3), np.uint8)], "2 rows has probabilities of 1 rows"),
        ([np.zeros((2, 3), np.uint8)], [np.zeros((2, 3), np.uint16)], "must hold uint8, float32, float64; got uint16"),
        ([np.zeros((2, 3), np.uint8)], [], "fewer bands"),
        ([np.zeros((2, 3), np.uint8)], [np.zeros((2, 3), np.uint8)] * 2, "more bands"),
        ([np.ones((2, 3), np.uint8)], [np.full((2, 3), 255.0)], "between 0 and 1"),
        ([np.ones((2, 3), np.uint8)], [np.full((2, 3), np.nan)], "between 0 and 1"),
        ([np.ones((2, 3), np.uint8)], [np.full((2, 3), -0.1)], "between 0 and 1"),
    ],
)
def test_bands_that_do_not_fit(bands: list, probabilities: list | None, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        list(polygons_of(bands, width=3, probabilities=probabilities))


def test_no_width() -> None:
    with pytest.raises(ValueError, match="at least one pixel wide; got width 0"):
        list(polygons_of([], width=0))
