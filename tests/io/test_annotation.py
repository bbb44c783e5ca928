"""Annotations as labels: any window is a part of the whole, at any scale, in any thread and process."""

from __future__ import annotations

import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from patchforest.io.annotation import Annotations


def square(x: float, y: float, side: float) -> np.ndarray:
    return np.array([[x, y], [x + side, y], [x + side, y + side], [x, y + side]])


@pytest.fixture
def many(rng: np.random.Generator) -> Annotations:
    """Hundreds of overlapping polygons, small and large."""
    parts = []
    for _ in range(400):
        middle, size = rng.uniform(-20, 320, 2), 60 if rng.random() < 0.05 else 6
        angles = np.sort(rng.uniform(0, 2 * np.pi, int(rng.integers(3, 9))))
        ring = middle + size * np.stack([np.cos(angles), np.sin(angles)], axis=1)
        parts.append((int(rng.integers(0, 4)), [ring, middle + (ring - middle) / 3]))
    return Annotations(parts, names=("nothing", "a", "b", "c"), shape=(300, 280))


@pytest.mark.parametrize("factor", [1.0, 2.0, 3.9997, 0.5])
def test_a_window_is_a_part_of_the_whole(many: Annotations, rng: np.random.Generator, factor: float) -> None:
    height, width = int(300 / factor), int(280 / factor)
    whole = many.read(0, 0, height, width, factor)
    assert set(np.unique(whole)) == {0, 1, 2, 3}
    for _ in range(20):
        row, column = int(rng.integers(height)), int(rng.integers(width))
        h, w = int(rng.integers(1, height - row + 1)), int(rng.integers(1, width - column + 1))
        assert np.array_equal(many.read(row, column, h, w, factor), whole[row : row + h, column : column + w])


def test_the_last_polygon_wins_and_holes_are_open() -> None:
    parts = [(1, [square(0, 0, 6), square(1, 1, 3)]), (2, [square(2, 2, 1)]), (0, [square(5, 5, 1)])]
    labels = Annotations(parts, names=("nothing", "a", "b")).read(0, 0, 7, 7)
    expected = np.zeros((7, 7), int)
    expected[:6, :6] = 1
    expected[1:4, 1:4] = 0
    expected[2, 2] = 2
    expected[5, 5] = 0
    assert labels.tolist() == expected.tolist()
    assert labels.dtype == np.uint8


def test_windows_beyond_the_edges() -> None:
    one = Annotations([(1, [square(-5, -5, 7)])], names=("nothing", "a"))
    assert one.read(-4, -4, 8, 8).sum() == 36
    assert one.read(100, 100, 3, 3).sum() == 0
    assert one.read(-5, 1, 2, 2).tolist() == [[1, 0], [1, 0]]


def test_many_classes_need_16_bits() -> None:
    names = tuple(map(str, range(300)))
    wide = Annotations([(299, [square(0, 0, 1)])], names=names)
    assert wide.read(0, 0, 1, 2).tolist() == [[299, 0]]
    assert wide.dtype == wide.read(0, 0, 1, 1).dtype == np.uint16
    assert Annotations([], names=names[:256]).dtype == np.uint8


def test_what_it_says_of_itself(many: Annotations) -> None:
    assert (many.shape, many.levels, many.tile, many.mpp) == ((300, 280, 1), ((300, 280),), (300, 280), None)
    assert len(many) == 400
    small = Annotations([(1, [square(2, 3, 4)]), (1, [square(-2, 5, 1)])], names=("nothing", "a"), shape=(9000, 9000))
    assert small.bounds == (3, -2, 7, 6)
    assert small.outside() == 1
    assert small.tile == (512, 512)
    none = Annotations([], names=("nothing",))
    assert none.bounds is None
    assert none.read(0, 0, 2, 2).tolist() == [[0, 0], [0, 0]]
    with pytest.raises(ValueError, match="give shape"):
        _ = none.shape


def test_threads_and_pickles(many: Annotations) -> None:
    whole, copy = many.read(0, 0, 300, 280), pickle.loads(pickle.dumps(many))
    assert (copy.shape, copy.names, copy.classes_found) == (many.shape, many.names, many.classes_found)
    windows = [(row, column) for row in range(0, 300, 20) for column in range(0, 280, 20)] * 3
    with ThreadPoolExecutor(4) as pool:
        parts = list(pool.map(lambda at: copy.read(*at, 20, 20), windows))
    for (row, column), part in zip(windows, parts):
        assert np.array_equal(part, whole[row : row + 20, column : column + 20])


@pytest.mark.parametrize(
    ("window", "factor", "complaint"),
    [((0, 0, 0, 5), 1.0, "at least one pixel; got 0 x 5"), ((0, 0, 5, 5), 0.0, "factor says"),
     ((0, 0, 5, 5), float("nan"), "factor says"), ((0, 0, 5, 5), -1.0, "factor says")],
)  # fmt: skip
def test_windows_that_make_no_sense(window: tuple[int, ...], factor: float, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        Annotations([], names=("nothing",)).read(*window, factor)
