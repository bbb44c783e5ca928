"""Gather against a float64 average of every block, pixel by pixel, with the image continued by its edge."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from patchforest.tree.forest import build_forest
from patchforest.tree.gather import gather
from patchforest.tree.paint import paint
from patchforest.values import Forest
from tests.tree import reference


def random_forest(shape: tuple[int, ...], cell: int, seed: int, root: int | None = None) -> Forest:
    rng = np.random.default_rng(seed)
    grid = tuple(-(-s // cell) for s in shape)
    detail = rng.integers(0, 3, grid) * (rng.random(grid) < 0.4)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        side = root or build_forest(detail, shape=shape, cell=cell, uniform=cell).root
        roots = int(np.prod([-(-s // side) for s in shape]))
        budget = int(rng.integers(roots, max(roots, detail.size) + 1))
        return build_forest(detail, shape=shape, cell=cell, budget=budget, root=side)


def expected(image: np.ndarray, forest: Forest, patch: int) -> np.ndarray:
    values = image if image.ndim == forest.ndim + 1 else image[..., None]
    return np.stack([reference.area_average(values, c, s, patch) for c, s in reference.table(forest)])


SHAPES = [
    ((64, 64), 8, None),
    ((61, 45), 8, None),
    ((33, 129), 4, 32),
    ((7, 70), 4, None),
    ((1, 1), 8, None),
    ((1, 37), 2, 8),
    ((50, 23), 1, 16),
    ((16, 16, 16), 4, None),
    ((17, 9, 22), 4, 8),
    ((5, 14, 3), 2, 8),
    ((9, 8, 7), 1, 4),
]


@pytest.mark.parametrize(("shape", "cell", "root"), SHAPES)
@pytest.mark.parametrize("channels", [None, 1, 3, 5])
def test_equals_the_mean_of_every_block(
    shape: tuple[int, ...], cell: int, root: int | None, channels: int | None
) -> None:
    rng = np.random.default_rng(len(shape) * 100 + shape[0])
    image = rng.random(shape if channels is None else (*shape, channels)).astype(np.float32)
    for seed in range(2):
        forest = random_forest(shape, cell, seed, root)
        for patch in {cell, max(cell // 2, 1), cell * 2, 1}:
            out = gather(image, forest, patch)
            assert out.patches.dtype == np.float32
            assert out.patches.shape == (len(forest), channels or 1) + (patch,) * len(shape)
            np.testing.assert_allclose(out.patches, expected(image, forest, patch), rtol=2e-6, atol=2e-7)


@pytest.mark.parametrize(
    ("dtype", "top"), [(np.uint8, 255), (np.uint16, 65535), (np.int16, 3000), (np.float64, 1), (bool, 1)]
)
def test_the_image_keeps_its_own_scale(dtype: type, top: int) -> None:
    """No division by 255, no clipping, no wrap-around while averaging."""
    rng = np.random.default_rng(3)
    image = (
        (rng.random((61, 45, 3)) * (top + 1)).astype(dtype)
        if dtype is not np.float64
        else rng.normal(0, 9, (61, 45, 3))
    )
    image.flat[:50] = top
    forest = random_forest((61, 45), 8, 1)
    out = gather(image, forest, 4).patches
    np.testing.assert_allclose(out, expected(image, forest, 4), rtol=1e-5, atol=1e-5)
    assert out.max() <= max(float(image.max()), 1.0)


def test_by_hand() -> None:
    """16 × 12 pixels, root 16, four leaves of 8, the right ones cut at column 12: their columns 12 to 15 repeat 11."""
    image = np.arange(16 * 12, dtype=np.float32).reshape(16, 12)
    forest = build_forest(np.ones((2, 2)), shape=(16, 12), cell=8, root=16, budget=4)
    out = gather(image, forest, patch=2)
    assert out.patches[0, 0].tolist() == [[19.5, 23.5], [67.5, 71.5]]
    # leaf (0, 8), upper right block: rows 0..3, column 11 four times
    assert out.patches[1, 0, 0, 1] == np.mean([11, 23, 35, 47])
    assert out.coord.tolist() == [[4, 4], [4, 12], [12, 4], [12, 12]]


def test_what_travels_with_the_patches() -> None:
    forest = random_forest((100, 37), 8, 5)
    out = gather(np.zeros((100, 37, 3), np.uint8), forest)
    assert len(out) == len(forest)
    assert out.patches.shape == (len(forest), 3, 8, 8)  # patch=8 by default
    assert out.coord.dtype == np.float32
    assert (out.coord == forest.origin + forest.size[:, None] / 2).all()
    assert (out.size == forest.size).all()
    assert out.valid.dtype == bool
    assert out.valid.all()
    out.size[:] = 0  # a copy: the forest stays as it is
    assert forest.size.min() >= 8


@pytest.mark.parametrize(
    ("shape", "cell"), [((64, 64), 8), ((61, 45), 8), ((33, 129), 4), ((17, 9, 30), 4), ((16, 16, 16), 2)]
)
def test_constant_per_leaf_picture_is_recovered(shape: tuple[int, ...], cell: int) -> None:
    """What public reshapes fail: leaf i painted with i (and, per channel, other numbers) comes back."""
    for seed in range(3):
        forest = random_forest(shape, cell, seed)
        index = np.arange(len(forest), dtype=np.float32)
        colours = np.stack([index, -index, index % 7], axis=1)  # (L, C)
        image = np.zeros((*shape, 3), np.float32)
        for (corner, side), colour in zip(reference.table(forest), colours, strict=True):
            image[tuple(slice(c, c + side) for c in corner)] = colour
        for patch in (cell, cell // 2, 1):
            patches = gather(image, forest, patch).patches
            assert (patches == colours.reshape(*colours.shape, *(1,) * len(shape))).all()


@pytest.mark.parametrize(
    ("shape", "cell", "root"),
    [((64, 96), 8, 32), ((128, 128), 8, 128), ((61, 45), 8, None), ((32, 16, 16), 4, 16), ((17, 9, 30), 4, 8)],
)
def test_gather_undoes_paint(shape: tuple[int, ...], cell: int, root: int | None) -> None:
    """gather(paint(u)) = u for leaves at least as large as q, where they lie inside the image."""
    rng = np.random.default_rng(9)
    n = len(shape)
    for seed in range(3):
        forest = random_forest(shape, cell, seed, root)
        for q in (cell, cell // 2, 1):
            values = rng.normal(size=(len(forest), 2) + (q,) * n).astype(np.float32)
            again = gather(np.moveaxis(paint(values, forest), 0, -1), forest, q).patches
            inside = (forest.extent == forest.size[:, None]).all(axis=1)
            assert inside.any()
            np.testing.assert_allclose(again[inside], values[inside], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("shape", "cell", "root"), [((64, 96), 8, 32), ((128, 128), 4, 128), ((32, 16, 16), 4, 16), ((64, 64), 8, 8)]
)
def test_adjoint(shape: tuple[int, ...], cell: int, root: int) -> None:
    """<paint(u), image> = Σ a_i <u_i, gather(image)_i>, a_i = (side/q)^n, on images without an incomplete leaf."""
    rng = np.random.default_rng(10)
    n = len(shape)
    for seed in range(3):
        forest = random_forest(shape, cell, seed, root)
        image = rng.normal(size=(*shape, 3))
        for q in (cell, cell // 2, 1):
            values = rng.normal(size=(len(forest), 3) + (q,) * n)
            left = float((np.moveaxis(paint(values, forest), 0, -1) * image).sum())
            area = (forest.size / q) ** n
            parts = (values * gather(image, forest, q).patches.astype(np.float64)).reshape(len(forest), -1).sum(axis=1)
            assert left == pytest.approx(float((area * parts).sum()), abs=2e-3)


def test_mean_is_kept() -> None:
    """Area-weighted mean of the patches = mean of the picture (complete leaves)."""
    rng = np.random.default_rng(12)
    image = rng.random((128, 64)).astype(np.float32)
    forest = random_forest((128, 64), 8, 2, 64)
    means = gather(image, forest, 8).patches.mean(axis=(1, 2, 3), dtype=np.float64)
    assert float((means * forest.area).sum()) / image.size == pytest.approx(
        float(image.mean(dtype=np.float64)), rel=1e-6
    )


def test_views_and_repeats() -> None:
    """Flipped and strided views give what their copies give; twice gives the same; the image is left alone."""
    rng = np.random.default_rng(1)
    image = rng.integers(0, 255, (70, 70, 3), np.uint8)
    kept = image.copy()
    forest = random_forest((70, 35), 8, 0)
    view = image[::-1, ::2, ::-1]
    first = gather(view, forest, 8).patches
    assert (first == gather(view.copy(), forest, 8).patches).all()
    assert (first == gather(view, forest, 8).patches).all()
    assert (image == kept).all()


def test_errors() -> None:
    forest = random_forest((64, 64), 8, 0)
    with pytest.raises(ValueError, match=r"\(64, 64\).*\(64, 63, 3\)"):
        gather(np.zeros((64, 63, 3)), forest)
    with pytest.raises(ValueError, match=r"\(64, 64\)"):
        gather(np.zeros((3, 64, 64)), forest)  # channels first
    with pytest.raises(ValueError, match=r"\(64, 64\)"):
        gather(np.zeros((64, 64, 3, 1)), forest)
    for patch in (0, -8, 3, 12):
        with pytest.raises(ValueError, match=rf"patch.*{patch}"):
            gather(np.zeros((64, 64)), forest, patch)
