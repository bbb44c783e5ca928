"""Paint against one small tensor product a leaf, whose weights are written from the definition."""

from __future__ import annotations

import numpy as np
import pytest

from patchforest.tree.forest import build_forest
from patchforest.tree.paint import paint, resample_matrix
from tests.tree import reference
from tests.tree.test_gather import SHAPES, random_forest


@pytest.mark.parametrize(("shape", "cell", "root"), SHAPES)
@pytest.mark.parametrize("mode", ["nearest", "bilinear"])
def test_any_q_equals_the_definition(shape: tuple[int, ...], cell: int, root: int | None, mode: str) -> None:
    """q that divides the leaves, that does not, that exceeds them; incomplete leaves are cropped."""
    rng = np.random.default_rng(4)
    n = len(shape)
    for seed in range(2):
        forest = random_forest(shape, cell, seed, root)
        for q in (1, 2, 3, 5, 8, 12) if n == 2 else (1, 3, 4):
            values = rng.normal(size=(len(forest), 2) + (q,) * n)
            out = paint(values, forest, mode)
            assert out.shape == (2, *shape)
            assert out.dtype == np.float64
            np.testing.assert_allclose(out, reference.painted(values, forest, mode), rtol=1e-12, atol=1e-12)
            single = paint(values.astype(np.float32), forest, mode)
            assert single.dtype == np.float32
            np.testing.assert_allclose(single, out, rtol=1e-5, atol=1e-5)


def test_nearest_is_the_default_and_repeats() -> None:
    forest = build_forest(np.ones((1, 1)), shape=(4, 4), cell=4, root=4, budget=1)
    values = np.array([[[[1.0, 2.0], [3.0, 4.0]]]])
    assert paint(values, forest)[0].tolist() == [[1, 1, 2, 2], [1, 1, 2, 2], [3, 3, 4, 4], [3, 3, 4, 4]]


def test_bilinear_by_hand() -> None:
    """Two values over four pixels: constant to the border outside the centres, quarters between."""
    forest = build_forest(np.ones((1, 1)), shape=(4, 4), cell=4, root=4, budget=1)
    values = np.array([[[[0.0, 4.0], [0.0, 4.0]]]])
    assert paint(values, forest, "bilinear")[0].tolist() == [[0.0, 1.0, 3.0, 4.0]] * 4


def test_q_larger_than_the_leaf_averages() -> None:
    forest = build_forest(np.ones((1, 1)), shape=(2, 2), cell=2, root=2, budget=1)
    values = np.arange(16.0).reshape(1, 1, 4, 4)
    for mode in ("nearest", "bilinear"):
        assert paint(values, forest, mode)[0].tolist() == [[2.5, 4.5], [10.5, 12.5]]


@pytest.mark.parametrize("mode", ["nearest", "bilinear"])
def test_weights_sum_to_one(mode: str) -> None:
    for q in range(1, 20):
        for side in (1, 2, 4, 8, 16, 32):
            matrix = resample_matrix(q, side, mode)
            np.testing.assert_allclose(matrix, reference.line_weights(q, side, mode), atol=1e-12)
            np.testing.assert_allclose(matrix.sum(axis=1), 1.0, atol=1e-12)


@pytest.mark.parametrize("mode", ["nearest", "bilinear"])
def test_constant_per_leaf(mode: str) -> None:
    """Each leaf painted with its own number is that number all over, for any q; nothing is left unpainted."""
    for shape, cell, root in SHAPES:
        forest = random_forest(shape, cell, 3, root)
        number = np.arange(1, len(forest) + 1, dtype=np.float64)
        picture = np.zeros(shape)
        for (corner, side), value in zip(reference.table(forest), number, strict=True):
            picture[tuple(slice(c, c + side) for c in corner)] = value
        for q in (1, 2, 3):
            column = number.reshape((-1,) + (1,) * (len(shape) + 1))
            values: np.ndarray = np.broadcast_to(column, (len(forest), 1) + (q,) * len(shape))
            np.testing.assert_allclose(paint(values, forest, mode)[0], picture, rtol=1e-12)


def test_bilinear_keeps_a_ramp_inside_a_leaf() -> None:
    """Values at centres of a linear function give that function between the outermost centres."""
    side, q = 32, 4
    forest = build_forest(np.ones((4, 4)), shape=(32, 32), cell=8, root=32, budget=1)
    centre = (np.arange(q) + 0.5) * side / q
    values = np.broadcast_to(centre, (1, 1, q, q)).copy()
    out = paint(values, forest, "bilinear")[0]
    pixel = np.arange(side) + 0.5
    np.testing.assert_allclose(out, np.broadcast_to(np.clip(pixel, centre[0], centre[-1]), (side, side)), atol=1e-9)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int64])
@pytest.mark.parametrize("q", [1, 2, 3, 8])
def test_integers_stay_integers_in_nearest(dtype: type, q: int) -> None:
    """Class numbers are never blended: any q up to the leaf's side, dividing or not."""
    forest = random_forest((61, 45), 8, 1)
    values: np.ndarray = np.random.default_rng(0).integers(0, 100, (len(forest), 1, q, q)).astype(dtype)
    out = paint(values, forest)
    assert out.dtype == dtype
    assert (out == reference.painted(values, forest)).all()


def test_integers_become_float_where_they_blend() -> None:
    forest = random_forest((61, 45), 8, 1)
    values = np.random.default_rng(0).integers(0, 100, (len(forest), 1, 2, 2)).astype(np.uint8)
    out = paint(values, forest, "bilinear")
    assert out.dtype == np.float32
    np.testing.assert_allclose(out, reference.painted(values, forest, "bilinear"), rtol=1e-5)


def test_the_values_are_left_alone_and_the_raster_is_its_own() -> None:
    forest = build_forest(np.ones((1, 1)), shape=(4, 4), cell=4, root=4, budget=1)
    values = np.random.default_rng(0).random((1, 1, 4, 4))
    kept = values.copy()
    out = paint(values, forest)
    out += 1
    assert (values == kept).all()


def test_errors() -> None:
    forest = random_forest((64, 64), 8, 0)
    count = len(forest)
    with pytest.raises(ValueError, match=rf"{count}.*{count + 1}"):
        paint(np.zeros((count + 1, 1, 8, 8)), forest)
    for shape in ((count, 8, 8), (count, 1, 8, 4), (count, 1, 8, 8, 8), (count, 1, 0, 0)):
        with pytest.raises(ValueError, match="values"):
            paint(np.zeros(shape), forest)
    with pytest.raises(ValueError, match=r"nearest.*bilinear.*cubic"):
        paint(np.zeros((count, 1, 8, 8)), forest, "cubic")
