"""Sums over blocks, put together from parts of an image."""

import numpy as np
import pytest

from patchforest.tree import reduced as module
from patchforest.tree.reduced import ReducedImage


@pytest.mark.parametrize("shape", [(1, 1), (40, 100), (64, 64), (130, 33)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_sums_and_what_lies_beyond(shape: tuple[int, int], dtype: type, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ENTRIES", 4)
    image = (np.random.default_rng(0).random((*shape, 2)) * 250).astype(dtype)
    reduced = ReducedImage(image.shape)
    f = reduced.factor
    for row in range(0, shape[0], f):
        for column in range(0, shape[1], 2 * f):
            box = (row, min(row + f, shape[0]), column, min(column + 2 * f, shape[1]))
            reduced.add(image[box[0] : box[1], box[2] : box[3]], box, shape)
    rows, columns = reduced.grid
    assert (rows - 2) * f < shape[0] <= (rows - 1) * f
    edged = np.pad(
        image.astype(np.float64), ((0, rows * f - shape[0]), (0, columns * f - shape[1]), (0, 0)), mode="edge"
    )
    expected = edged.reshape(rows, f, columns, f, 2).sum((1, 3))
    assert np.allclose(reduced.sums, expected, rtol=1e-12)
    if dtype is not np.float32:
        assert np.array_equal(reduced.sums, expected)


def test_bounded_whatever_the_image() -> None:
    reduced = ReducedImage((1 << 20, 1 << 20, 3))
    assert reduced.grid[0] * reduced.grid[1] < 1.01 * module.ENTRIES
    assert ReducedImage((100, 100)).factor == 16


def test_empty() -> None:
    with pytest.raises(ValueError, match="empty"):
        _ = ReducedImage((100, 100)).sums


def test_begun_anew_for_another_image_of_its_size_only() -> None:
    reduced = ReducedImage((64, 64, 3))
    reduced.add(np.full((64, 64, 3), 9, np.uint8), (0, 64, 0, 64), (64, 64))
    reduced.complete = True
    reduced.begin((64, 64))
    assert not reduced.complete
    with pytest.raises(ValueError, match="empty"):
        _ = reduced.sums
    with pytest.raises(ValueError, match=r"made for one of \(64, 64\); got one of \(64, 65\)"):
        reduced.begin((64, 65, 3))
