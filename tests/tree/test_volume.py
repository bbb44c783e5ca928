"""The working grid: blocks are exact means and majorities, reading in slabs changes nothing, and back without shift."""

from __future__ import annotations

import itertools
import warnings

import numpy as np
import pytest

from patchforest.tree import volume as module
from patchforest.tree.volume import (
    block_majority,
    block_means,
    check_factors,
    cut_volume,
    enlarged_planes,
    nearest_factors,
    read_working,
    working_shape,
)
from patchforest.values import Array, ForestPolicy


class Stack:
    """A volume source that remembers how much was read at a time."""

    spacing = affine = None

    def __init__(self, array: Array) -> None:
        self.array, self.shape, self.most = array, array.shape, 0

    def read(self, origin: tuple[int, ...] = (0, 0, 0), shape: tuple[int, ...] | None = None) -> Array:
        """A box."""
        assert shape is not None
        self.most = max(self.most, int(np.prod(shape)))
        return self.array[tuple(slice(o, o + s) for o, s in zip(origin, shape))]


def by_hand(volume: Array, factors: tuple[int, int, int]) -> tuple[Array, Array]:
    """Means of a volume continued by its ends, and majorities of its rounded values, block by block."""
    shape = working_shape(volume.shape[:3], factors)
    means = np.empty(shape + volume.shape[3:])
    most = np.empty(shape, int)
    for at in itertools.product(*map(range, shape)):
        index = np.ix_(*[np.minimum(np.arange(a * f, a * f + f), s - 1) for a, f, s in zip(at, factors, volume.shape)])
        means[at] = volume[index].mean((0, 1, 2))
        most[at] = np.bincount(volume[index][..., 0].astype(int).ravel()).argmax()
    return means, most


@pytest.mark.parametrize("factors", [(1, 1, 1), (1, 2, 3), (2, 4, 4), (5, 1, 2)])
def test_blocks_against_a_loop(rng: np.random.Generator, factors: tuple[int, int, int]) -> None:
    volume = rng.integers(0, 4, (7, 11, 9, 2)).astype(np.float32)
    means, most = by_hand(volume, factors)
    np.testing.assert_allclose(block_means(volume, factors), means, atol=1e-6)
    assert np.array_equal(block_majority(volume[..., 0].astype(np.uint8), factors), most)
    assert block_means(volume, factors).dtype == np.float32


@pytest.mark.parametrize("factors", [(1, 2, 2), (3, 1, 2)])
def test_reading_by_slabs_is_reading_at_once(
    rng: np.random.Generator, factors: tuple[int, int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    array = rng.integers(-900, 1500, (10, 12, 7, 1)).astype(np.int16)
    whole = read_working(Stack(array), factors, (-200, 300))
    monkeypatch.setattr(module, "_SLAB", 200)
    source = Stack(array)
    assert np.array_equal(read_working(source, factors, (-200, 300)), whole)
    assert source.most <= 84 * max(2, factors[0])
    unit = np.clip((array.astype(np.float32) + 200) / 500, 0, 1)
    np.testing.assert_allclose(whole, by_hand(unit, factors)[0], atol=1e-6)
    with pytest.raises(ValueError, match="no known range"):
        read_working(source, factors)


def test_factors_bring_voxels_nearest_to_the_wanted_ones() -> None:
    assert nearest_factors((2.0, 0.977, 0.977), (3.0, 3.0, 3.0)) == (2, 3, 3)
    assert nearest_factors((45.0, 4.6, 4.6), (45.0, 18.4, 18.4)) == (1, 4, 4)
    assert nearest_factors((5.0, 1.0, 1.0), (1.0, 1.0, 1.4)) == (1, 1, 1)
    assert nearest_factors((1.0, 1.0, 1.0), (1.0, 1.42, 2.4)) == (1, 2, 2)
    with pytest.raises(ValueError, match="positive"):
        nearest_factors((0.0, 1.0, 1.0), (1.0, 1.0, 1.0))
    for bad in ((1, 2), (0, 1, 1)):
        with pytest.raises(ValueError, match="three factors"):
            check_factors(bad)  # type: ignore[arg-type]


@pytest.mark.parametrize("factors", [(1, 1, 1), (1, 3, 2), (4, 2, 2), (3, 1, 1)])
def test_enlarging_is_linear_between_block_centres(rng: np.random.Generator, factors: tuple[int, int, int]) -> None:
    shape = (9, 11, 13)
    small = rng.random((2, *working_shape(shape, factors))).astype(np.float32)
    got = np.stack(list(enlarged_planes(small, factors, shape)), 1)
    wanted: Array = small.astype(float)
    for axis, (length, factor) in enumerate(zip(shape, factors), start=1):
        place = np.clip((np.arange(length) + 0.5) / factor - 0.5, 0, wanted.shape[axis] - 1)
        low = np.minimum(place.astype(int), max(wanted.shape[axis] - 2, 0))
        high = np.minimum(low + 1, wanted.shape[axis] - 1)
        share = (place - low).reshape([-1 if a == axis else 1 for a in range(4)])
        wanted = wanted.take(low, axis) * (1 - share) + wanted.take(high, axis) * share
    assert got.shape == (2, *shape)
    np.testing.assert_allclose(got, wanted, atol=2e-3)  # OpenCV interpolates with few digits
    flat = list(enlarged_planes(np.full_like(small, 0.3), factors, shape))
    assert np.ptp(np.stack(flat)) < 1e-6


def test_the_budget_is_for_one_window(rng: np.random.Generator) -> None:
    policy = ForestPolicy(budget=100, cell=4, criterion="gradient", window=999)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        one = cut_volume(rng.random((16, 32, 32, 1)).astype(np.float32), policy, (16, 32, 32))
        four = cut_volume(rng.random((16, 64, 64, 1)).astype(np.float32), policy, (16, 32, 32))
    assert 93 <= len(one) <= 100
    assert 393 <= len(four) <= 400
    assert int(four.area.sum()) == 16 * 64 * 64
    thin = cut_volume(rng.random((1, 17, 33, 1)).astype(np.float32), policy, (16, 32, 32))
    assert len(thin) == 5 * 9  # never below one leaf a root
    again = cut_volume(np.zeros((16, 32, 32, 1), np.float32), ForestPolicy(uniform=8, cell=4), (16, 32, 32))
    assert len(again) == 32
    one_by_threshold = cut_volume(rng.random((9, 9, 9, 1)), ForestPolicy(threshold=0, cell=4, root=16), (1, 1, 1))
    assert int(one_by_threshold.area.sum()) == 729
