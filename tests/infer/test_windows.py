"""Windows cover every pixel, overlap, and their weights leave no gap."""

from __future__ import annotations

import numpy as np
import pytest

from patchforest.infer.windows import blend_weights, cover


@pytest.mark.parametrize("side", [2, 7, 16, 50, 200])
def test_every_pixel_is_covered_by_windows_of_one_size(side: int, rng: np.random.Generator) -> None:
    for _ in range(20):
        shape = tuple(int(s) for s in rng.integers(1, 120, 2))
        regions = cover(shape, side, trained=64)
        total = np.zeros(shape)
        for region in regions:
            assert region.shape == (min(side, shape[0]), min(side, shape[1]))
            assert all(o >= 0 and o + s <= n for o, s, n in zip(region.origin, region.shape, shape))
            rows, columns = (slice(o, o + s) for o, s in zip(region.origin, region.shape))
            total[rows, columns] += blend_weights(region.shape)
        assert total.min() > 0


def test_neighbours_overlap_by_at_least_a_quarter() -> None:
    starts = sorted({r.origin[1] for r in cover((64, 1000), 64, trained=64)})
    assert starts[0] == 0
    assert starts[-1] == 1000 - 64
    assert max(np.diff(starts)) <= 48


def test_auto_cuts_only_what_has_more_pixels_than_32_training_windows() -> None:
    assert len(cover((800, 400), "auto", trained=100)) == 1
    regions = cover((800, 401), "auto", trained=100)
    assert len(regions) > 32
    assert regions.side == (100, 100)
    assert len(cover((3000, 4000), "whole", trained=100)) == 1


def test_weights_are_symmetric_smooth_and_one_in_the_middle() -> None:
    weight = blend_weights((40, 60))
    assert np.array_equal(weight, weight[::-1, ::-1])
    assert weight[20, 30] == 1.0
    assert 0 < weight.min() < 0.01
    assert np.abs(np.diff(weight, axis=1)).max() < 0.12
    assert blend_weights((1, 1)).shape == (1, 1)
    assert blend_weights((1, 3)).min() > 0


def test_windows_of_a_row_and_windows_that_are_no_squares() -> None:
    grid = cover((500, 900), "auto", trained=(50, 90))
    assert grid.side == (50, 90)
    assert [r for k in range(len(grid.rows)) for r in grid.row(k)] == list(grid)


def test_weights_are_such_that_sums_are_exact() -> None:
    weight = blend_weights((37, 50)).astype(np.float64)
    assert np.array_equal(weight * 2**16, np.rint(weight * 2**16))


@pytest.mark.parametrize("bad", ["all", 0, -3])
def test_wrong_window_is_named(bad: str | int) -> None:
    with pytest.raises(ValueError, match=str(bad)):
        cover((10, 10), bad, trained=8)
