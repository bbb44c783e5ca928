"""Axes and affines, against nibabel's orientations and brute force over world coordinates."""

from __future__ import annotations

import numpy as np
import pytest

from patchforest.io.orientation import (
    AS_STORED,
    Layout,
    affine_gap,
    affines_agree,
    closest_layout,
    placed_grid,
    require_invertible,
    voxel_size,
)
from tests.io.volumes import AFFINE, ORDERS, SIZE, anatomy, reordered, shown, turned

ANGLES = [(0, 0, 0), (3, -5, 8), (-20, 30, 10), (44, 0, 0), (0, 0, 45), (45, 0, 0), (30, 40, 50), (120, -75, 200)]


@pytest.mark.parametrize(("order", "signs"), ORDERS)
def test_every_stored_order_is_shown_alike(order: tuple[int, ...], signs: tuple[int, ...]) -> None:
    ras = anatomy(channels=2)
    stored, affine = reordered(ras, AFFINE, order, signs)
    grid = placed_grid(stored.shape[:3], affine)
    np.testing.assert_array_equal(grid.layout.present(stored), shown(ras))
    np.testing.assert_array_equal(grid.layout.store(grid.layout.present(stored)), stored)
    assert grid.layout.shape(stored.shape[:3]) == SIZE[::-1]
    assert grid.shown_spacing == pytest.approx((2.5, 1.25, 0.75))
    expected = np.array([[0, 0, -0.75, -27.0], [0, -1.25, 0, 26.5], [2.5, 0, 0, -804.5], [0, 0, 0, 1]])
    np.testing.assert_allclose(grid.shown_affine, expected, atol=1e-9)


@pytest.mark.parametrize("angles", ANGLES)
def test_turned_volumes_are_shown_alike_whatever_their_order(angles: tuple[float, float, float]) -> None:
    ras, oblique = anatomy(), turned(AFFINE, angles)
    seen = set()
    for order, signs in ORDERS:
        stored, affine = reordered(ras, oblique, order, signs)
        grid = placed_grid(stored.shape, affine.astype(np.float32))
        seen.add((grid.layout.present(stored).tobytes(), np.round(grid.shown_affine, 2).tobytes()))
    assert len(seen) == 1


def test_the_closest_layout_is_the_one_of_nibabel_where_that_is_certain(rng: np.random.Generator) -> None:
    orientations = pytest.importorskip("nibabel.orientations", reason="compares with nibabel")
    for _ in range(200):
        affine = turned(AFFINE, tuple(rng.uniform(-25, 25, 3)))
        _, affine = reordered(anatomy(), affine, *ORDERS[rng.integers(48)])
        layout = closest_layout(affine)
        ours = {axis: (2 - k, layout.flip[k]) for k, axis in enumerate(layout.order)}  # superior, posterior, left
        for axis, (world, sign) in enumerate(orientations.io_orientation(affine)):
            against = (sign > 0) if world < 2 else (sign < 0)
            assert ours[axis] == (int(world), bool(against))


def test_boxes_and_indices_agree_with_the_whole(rng: np.random.Generator) -> None:
    for order, signs in ORDERS:
        layout = Layout(order, tuple(sign < 0 for sign in signs))
        stored = rng.integers(0, 1000, (4, 5, 6, 2))
        whole = layout.present(stored)
        shape = layout.shape(stored.shape[:3])
        assert whole.shape == (*shape, 2)
        origin = tuple(int(rng.integers(0, n)) for n in shape)
        size = tuple(int(rng.integers(1, n - o + 1)) for n, o in zip(shape, origin))
        part = layout.present(stored[layout.box(origin, size, stored.shape[:3])])
        np.testing.assert_array_equal(part, whole[tuple(slice(o, o + s) for o, s in zip(origin, size))])
        place = layout.index(stored.shape[:3]) @ (*origin, 1)
        np.testing.assert_array_equal(stored[tuple(place[:3].astype(int))], whole[origin])


def test_as_stored_makes_the_slowest_axis_the_plane() -> None:
    stored = np.arange(24).reshape(2, 3, 4)
    np.testing.assert_array_equal(AS_STORED.present(stored), stored.transpose(2, 1, 0))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ((0, 0, np.nan), "finite"),
        ((3, 0, 1), "last row"),
        ((0, 0, 0), "voxels measure 0"),
        ((0, 0, 1e30), "voxels measure 1e"),
    ],
)
def test_affines_that_map_no_volume(change: tuple[int, int, float], message: str) -> None:
    affine = AFFINE.copy()
    affine[change[0], change[1]] = change[2]
    with pytest.raises(ValueError, match=message):
        require_invertible(affine)


def test_flat_axes() -> None:
    affine = AFFINE.copy()
    affine[:3, 1] = affine[:3, 0] * 2
    with pytest.raises(ValueError, match="in one plane"):
        require_invertible(affine)


def test_agreement_is_a_thousandth_of_a_voxel() -> None:
    assert voxel_size(turned(AFFINE, (10, 20, 30))) == pytest.approx((0.75, 1.25, 2.5))
    for change, agrees in [((0, 3, 0.002), True), ((0, 3, 0.01), False), ((0, 0, 7e-4), True), ((0, 0, 8e-4), False)]:
        other = AFFINE.copy()
        other[change[0], change[1]] += change[2]
        assert affines_agree(AFFINE, other) is agrees, change
        assert affines_agree(other, AFFINE) is agrees
    assert affines_agree(AFFINE, AFFINE.astype(np.float32))
    assert affine_gap(AFFINE, AFFINE, SIZE) == 0
    other = AFFINE.copy()
    other[0, 0] += 0.5
    assert affine_gap(AFFINE, other, SIZE) == pytest.approx(3.0)
