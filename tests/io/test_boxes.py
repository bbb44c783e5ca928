"""The index of boxes against looking at every one."""

import numpy as np
import pytest

from patchforest.io.boxes import BoxIndex


@pytest.mark.parametrize("seed", range(30))
def test_every_near_box_and_no_other(seed: int) -> None:
    rng = np.random.default_rng(seed)
    number, spread = int(rng.integers(1, 400)), 10.0 ** rng.integers(-1, 6)
    corner = rng.normal(size=(number, 2)) * spread
    size = rng.exponential(0.03, (number, 2)) * spread * (1 + 30 * (rng.random((number, 1)) < 0.1))
    boxes = np.concatenate([corner, corner + size], axis=1)
    index = BoxIndex.over(boxes)
    assert len(index.large) < number or number < 20
    for _ in range(20):
        low = rng.normal(size=2) * spread * 1.5
        window = np.concatenate([low, low + rng.exponential(0.2, 2) * spread])
        if rng.random() < 0.3:
            window = boxes[rng.integers(number), [2, 3, 2, 3]]  # touches a corner
        meets = [k for k, (a, b, c, d) in enumerate(boxes)
                 if a <= window[2] and b <= window[3] and c >= window[0] and d >= window[1]]  # fmt: skip
        assert index.near(window).tolist() == meets


def test_none_one_and_points() -> None:
    assert BoxIndex.over(np.empty((0, 4))).near([0, 0, 9, 9]).tolist() == []
    one = BoxIndex.over(np.array([[3.0, 3, 3, 3]]))
    assert one.near([0, 0, 3, 3]).tolist() == [0]
    assert one.near([0, 0, 2.9, 3]).tolist() == []


def test_a_small_window_looks_at_few() -> None:
    rng = np.random.default_rng(0)
    corner = rng.random((20_000, 2)) * 10_000
    index = BoxIndex.over(np.concatenate([corner, corner + 20], axis=1))
    assert len(index.large) == 0
    first = int(np.searchsorted(index.starts, 1, side="right"))
    assert first < 300  # the boxes are spread over the cells
    assert np.diff(index.starts).max() < 60
