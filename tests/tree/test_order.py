"""Z-order keys against interleaving by strings, and the property they are for: blocks are contiguous."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from patchforest.tree.order import morton
from tests.tree.reference import z_key


@pytest.mark.parametrize(("n", "bits"), [(2, 31), (3, 21)])
def test_equals_interleaving_by_strings(n: int, bits: int, rng: np.random.Generator) -> None:
    for width in (1, 2, 5, 9, 16, 17, bits):
        coords = rng.integers(0, 1 << width, (200, n))
        keys = morton(coords)
        assert keys.dtype == np.uint64
        assert keys.shape == (200,)
        assert [int(k) for k in keys] == [z_key(tuple(int(v) for v in row)) for row in coords]


@pytest.mark.parametrize(("n", "bits"), [(2, 31), (3, 21)])
def test_every_single_bit_has_its_place(n: int, bits: int) -> None:
    for axis, bit in itertools.product(range(n), range(bits)):
        coords = np.zeros(n, np.int64)
        coords[axis] = 1 << bit
        assert int(morton(coords)) == 1 << (n * bit + (n - 1 - axis))


def test_by_hand_row_above_column() -> None:
    """NW, NE, SW, SE."""
    assert morton(np.array([[0, 0], [0, 1], [1, 0], [1, 1], [2, 0]])).tolist() == [0, 1, 2, 3, 8]


@pytest.mark.parametrize("n", [2, 3])
def test_aligned_blocks_are_contiguous(n: int) -> None:
    side = 8
    coords = np.array(list(itertools.product(range(side), repeat=n)))
    keys = morton(coords).astype(np.int64)
    assert sorted(keys.tolist()) == list(range(side**n))
    for block in (2, 4):
        for corner in itertools.product(range(0, side, block), repeat=n):
            inside = ((coords >= corner) & (coords < np.add(corner, block))).all(axis=1)
            mine = keys[inside]
            assert mine.max() - mine.min() == block**n - 1


def test_any_leading_shape_and_integer_dtype() -> None:
    coords = np.arange(24).reshape(3, 4, 2)
    assert morton(coords).shape == (3, 4)
    for dtype in (np.uint8, np.int16, np.uint32, np.int64, np.uint64):
        assert (morton(coords.astype(dtype)) == morton(coords)).all()
    assert morton(np.zeros((0, 2), np.int64)).shape == (0,)


def test_errors() -> None:
    with pytest.raises(ValueError, match="2 or 3 axes"):
        morton(np.zeros((5, 4), np.int64))
    with pytest.raises(ValueError, match=r"2\^31.*-1"):
        morton(np.array([[-1, 0]]))
    with pytest.raises(ValueError, match=r"2\^31"):
        morton(np.array([[0, 1 << 31]]))
    with pytest.raises(ValueError, match=r"2\^21"):
        morton(np.array([[0, 0, 1 << 21]]))
