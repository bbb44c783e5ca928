"""Edges of single tiles against OpenCV's, and what a tile hands on at its seams."""

import cv2
import numpy as np
import pytest

from patchforest.tree.canny import STRONG, Workspace, edge_tile, gradient_tile

WHOLE = (0, 0, 0, 0)


def gradient(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return cv2.spatialGradient(image, borderType=cv2.BORDER_REPLICATE)


def counted(mask: np.ndarray, cell: int) -> np.ndarray:
    rows, columns = (np.arange(0, s, cell) for s in mask.shape)
    return np.add.reduceat(np.add.reduceat(mask.astype(int), rows, 0), columns, 1)


@pytest.mark.parametrize("seed", range(30))
def test_a_whole_image_is_opencv_bit_for_bit(seed: int) -> None:
    rng = np.random.default_rng(seed)
    shape = tuple(rng.integers(1, 90, 2)) if seed % 3 else tuple(rng.integers(1, 5, 2))
    image = rng.integers(0, 256, shape).astype(np.uint8)
    if seed % 2:
        image = cv2.GaussianBlur(image, (5, 5), 0).reshape(shape)
    low = float(rng.uniform(0, 500))
    high, cell = low + float(rng.uniform(0, 700)), int(rng.integers(1, 17))
    tile = edge_tile(
        *gradient(image), (0, 0), shape, halo=WHOLE, low=low, high=high, cell=cell, work=Workspace(100, 100)
    )
    assert np.array_equal(tile.counts, counted(cv2.Canny(image, low, high) > 0, cell))
    assert tile.chains == 0


def test_a_part_of_a_larger_gradient_with_its_halo() -> None:
    image = np.random.default_rng(5).integers(0, 256, (60, 70)).astype(np.uint8)
    dx, dy = gradient(cv2.GaussianBlur(image, (5, 5), 0))
    work = Workspace(64, 80)
    # no weak pixels: what is found inside a tile is what the whole image has there
    options = {"low": 90, "high": 90, "cell": 1, "work": work}
    whole = edge_tile(dx, dy, (0, 0), image.shape, halo=WHOLE, **options).counts
    part = edge_tile(dx, dy, (13, 20), (30, 25), halo=(1, 1, 1, 1), **options).counts
    assert np.array_equal(part, whole[13:43, 20:45])
    corner = edge_tile(dx, dy, (40, 45), (20, 25), halo=(1, 0, 1, 0), **options).counts
    assert np.array_equal(corner, whole[40:, 45:])


def test_an_open_chain_is_handed_on_with_its_pixels() -> None:
    image = np.full((24, 32), 100, np.uint8)
    image[:, 11:] = 140  # a weak vertical step through the whole tile
    image[12:, 20:] = 255  # and a strong one
    dx, dy = gradient(image)
    tile = edge_tile(dx, dy, (1, 0), (22, 32), halo=(1, 1, 0, 0), low=100, high=300, cell=8, work=Workspace(24, 32))
    assert tile.chains == 1
    place = np.flatnonzero(tile.top == 1)
    assert len(place) == 1
    assert place[0] in (10, 11)
    assert tile.bottom[place[0]] == 1
    assert (tile.bottom == STRONG).any()
    assert not (tile.top == STRONG).any()
    assert (tile.records[:, 0] == 1).all()
    assert tile.records[:, 3].sum() == 22  # one pixel a row
    assert tile.records[:, 1].tolist() == [0, 1, 2]
    assert (tile.records[:, 2] == 1).all()
    assert tile.counts[:, 1].sum() == 0


def test_a_weak_chain_inside_is_nobodys_business() -> None:
    image = np.full((24, 24), 100, np.uint8)
    image[10:14, 10:14] = 140
    dx, dy = gradient(image)
    tile = edge_tile(dx, dy, (0, 0), (24, 24), halo=WHOLE, low=50, high=900, cell=8,
                     work=Workspace(24, 24))  # fmt: skip
    assert tile.counts.sum() == 0
    assert tile.chains == 0


def test_a_workspace_serves_tiles_of_any_smaller_size() -> None:
    rng, work = np.random.default_rng(0), Workspace(64, 64)
    for shape in ((64, 64), (3, 61), (64, 5), (20, 20)):
        image = rng.integers(0, 256, shape).astype(np.uint8)
        tile = edge_tile(*gradient(image), (0, 0), shape, halo=WHOLE, low=200, high=500, cell=4, work=work)
        assert np.array_equal(tile.counts, counted(cv2.Canny(image, 200, 500) > 0, 4))


def test_lengths_of_the_gradient() -> None:
    rng = np.random.default_rng(1)
    dx, dy = (rng.integers(-900, 900, (40, 50)).astype(np.int16) for _ in range(2))
    tile = gradient_tile(dx, dy, (3, 5), (30, 41), 8)
    length = np.hypot(dx[3:33, 5:46].astype(float), dy[3:33, 5:46])
    rows, columns = np.arange(0, 30, 8), np.arange(0, 41, 8)
    assert np.allclose(tile.counts, np.add.reduceat(np.add.reduceat(length, rows, 0), columns, 1), rtol=1e-6)
    assert tile.counts.dtype == np.float32
    assert tile.chains == 0
