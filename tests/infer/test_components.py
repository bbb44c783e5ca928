"""Components: the same as a flood fill for every connectivity and cut, measured exactly, numbered by first pixels."""

from __future__ import annotations

import itertools
from collections import deque

import numpy as np
import pytest

from patchforest.data.roadcore import STONE, RoadMix, make_structure
from patchforest.infer.components import CONNECTIVITIES, Components, components_of, label_components
from patchforest.values import Array

STEPS = {4: 1, 8: 2, 6: 1, 18: 2, 26: 3}  # how many coordinates a neighbour may differ in
DENSITIES = (0.02, 0.2, 0.4, 0.6, 0.8, 0.98, 1.0)


def neighbours(ndim: int, connectivity: int) -> list[tuple[int, ...]]:
    every = itertools.product((-1, 0, 1), repeat=ndim)
    return [step for step in every if 0 < sum(map(abs, step)) <= STEPS[connectivity]]


def flood(mask: Array, connectivity: int) -> Array:
    """Numbers of components in scan order, by filling one after the other."""
    labels, count = np.zeros(mask.shape, np.int64), 0
    steps = neighbours(mask.ndim, connectivity)
    for place in zip(*np.nonzero(mask), strict=True):
        if labels[place]:
            continue
        count += 1
        labels[place], queue = count, deque([place])
        while queue:
            here = queue.popleft()
            for step in steps:
                there = tuple(int(a + b) for a, b in zip(here, step))
                inside = all(0 <= a < s for a, s in zip(there, mask.shape))
                if inside and not labels[there] and mask[there] == mask[here]:
                    labels[there] = count
                    queue.append(there)
    return labels


def cut(mask: Array, rng: np.random.Generator) -> list[Array]:
    """Bands of random heights."""
    places = np.flatnonzero(rng.random(len(mask) - 1) < rng.random()) + 1 if len(mask) > 1 else []
    return np.split(mask, places)


def random_mask(rng: np.random.Generator, shape: tuple[int, ...], density: float, num_classes: int) -> Array:
    mask = rng.integers(1, num_classes + 1, shape) * (rng.random(shape) < density)
    return mask.astype(rng.choice([np.uint8, np.uint16, np.int64]))


def require_same(one: Components, other: Components) -> None:
    for name in ("value", "size", "first", "low", "high", "centroid", "covariance", "faces", "diagonals"):
        assert np.array_equal(getattr(one, name), getattr(other, name)), name
    assert (one.shape, one.connectivity, one.dropped) == (other.shape, other.connectivity, other.dropped)


@pytest.mark.parametrize("connectivity", [4, 8, 6, 18, 26])
@pytest.mark.parametrize("density", DENSITIES)
def test_as_a_flood_fill_for_any_cut(rng: np.random.Generator, connectivity: int, density: float) -> None:
    ndim = 2 if connectivity in (4, 8) else 3
    for _ in range(4):
        shape = tuple(int(s) for s in rng.integers(1, 24 if ndim == 2 else 9, ndim))
        mask = random_mask(rng, shape, density, int(rng.integers(1, 4)))
        truth, bands = flood(mask, connectivity), cut(mask, rng)
        found = components_of(bands, connectivity=connectivity)
        assert len(found) == truth.max()
        labels = np.concatenate(list(label_components(bands, found)))
        assert labels.dtype == np.uint32
        assert np.array_equal(labels, truth)  # numbers too: by first pixels
        require_same(found, components_of([mask], connectivity=connectivity))
        for k in range(len(found)):
            places = np.argwhere(truth == k + 1)
            assert found.size[k] == len(places)
            assert found.value[k] == mask[tuple(places[0])]
            assert found.first[k] == np.ravel_multi_index(tuple(places[0]), shape)
            assert found.low[k].tolist() == places.min(axis=0).tolist()
            assert found.high[k].tolist() == (places.max(axis=0) + 1).tolist()
            assert np.allclose(found.centroid[k], places.mean(axis=0), rtol=0, atol=1e-12)
            assert np.allclose(found.covariance[k], np.cov(places.T, bias=True).reshape(ndim, ndim), atol=1e-11)
            edge = (places == 0).any() or (places == np.array(shape) - 1).any()
            assert found.touches_border[k] == edge


@pytest.mark.parametrize("connectivity", [4, 8, 6, 18, 26])
def test_faces_and_diagonals_are_steps_out_of_a_component(rng: np.random.Generator, connectivity: int) -> None:
    ndim = 2 if connectivity in (4, 8) else 3
    for _ in range(6):
        shape = tuple(int(s) for s in rng.integers(1, 12 if ndim == 2 else 7, ndim))
        mask = random_mask(rng, shape, rng.random(), 2)
        found = components_of(cut(mask, rng), connectivity=connectivity)
        labels = np.pad(flood(mask, connectivity), 1)
        around = np.pad(mask, 1)
        faces, diagonals = np.zeros_like(found.faces), np.zeros_like(found.diagonals)
        for place in zip(*np.nonzero(labels), strict=True):
            k = labels[place] - 1
            for axis, way in itertools.product(range(ndim), (-1, 1)):
                there = tuple(p + way * (a == axis) for a, p in enumerate(place))
                faces[k, axis] += labels[there] != k + 1
            for down, right in itertools.product((-1, 1), (-1, 1)) if ndim == 2 else ():
                r, c = place
                same = around[r + down, c + right] == around[place]
                beside = around[place] in (around[r + down, c], around[r, c + right])
                diagonals[k] += not (same and (connectivity == 8 or beside))
        assert np.array_equal(found.faces, faces)
        if ndim == 2:
            assert np.array_equal(found.diagonals, diagonals)


def test_by_hand() -> None:
    mask = np.array(
        [
            [1, 1, 0, 2],
            [0, 0, 1, 2],
            [3, 0, 1, 2],
        ]
    )
    found = components_of([mask[:1], mask[1:]])
    assert found.connectivity == 4
    assert found.value.tolist() == [1, 2, 1, 3]
    assert found.size.tolist() == [2, 3, 2, 1]
    assert found.first.tolist() == [0, 3, 6, 8]
    assert found.centroid.tolist() == [[0, 0.5], [1, 3], [1.5, 2], [2, 0]]
    assert found.faces.tolist() == [[4, 2], [2, 6], [2, 4], [2, 2]]
    assert len(components_of([mask], connectivity=8)) == 3
    assert components_of([mask], classes=[1, 3]).value.tolist() == [1, 1, 3]
    kept = components_of([mask[:2], mask[2:]], min_size=2)
    assert kept.value.tolist() == [1, 2, 1]
    assert kept.dropped == {3: 1}
    labels = np.concatenate(list(label_components([mask[:2], mask[2:]], kept)))
    assert labels.tolist() == [[1, 1, 0, 2], [0, 0, 3, 2], [0, 0, 3, 2]]


def test_default_in_three_dimensions_is_faces() -> None:
    mask = np.zeros((2, 2, 2), np.uint8)
    mask[0, 0, 0] = mask[1, 1, 1] = mask[0, 1, 1] = 1
    assert [len(components_of([mask], connectivity=c)) for c in (None, 6, 18, 26)] == [2, 2, 1, 1]
    mask[0, 1, 1] = 0
    assert [len(components_of([mask], connectivity=c)) for c in CONNECTIVITIES[3]] == [2, 2, 1]


def test_long_detours_meet_in_the_end() -> None:
    """A comb whose teeth join in the last row, and a spiral: one component each, however narrow the bands."""
    comb = np.zeros((40, 41), np.uint8)
    comb[:, ::2] = comb[-1] = 1
    found = components_of(np.split(comb, 40))
    assert len(found) == 1
    assert found.size[0] == comb.sum()
    assert np.array_equal(np.concatenate(list(label_components(np.split(comb, 40), found))), comb)
    spiral, row, column, ways = np.zeros((31, 31), np.uint8), 0, 0, itertools.cycle([(0, 1), (1, 0), (0, -1), (-1, 0)])
    spiral[0, 0] = 1
    for length in [30, 30, 30, *itertools.chain.from_iterable((n, n) for n in range(28, 0, -2))]:
        down, right = next(ways)
        for _ in range(length):
            row, column = row + down, column + right
            spiral[row, column] = 1
    assert len(components_of(np.split(spiral, 31))) == 1


def test_sums_lose_nothing_far_from_the_corner() -> None:
    """Coordinates of 10^6, where sums of squares need more than 64 bits: as at the corner."""
    near = np.zeros((3, 700), np.uint8)
    near[0, 5:400] = near[1, 100:600] = near[2, 90:120] = 1
    far = np.zeros((3, 1 << 20), np.uint8)
    far[:, -700:] = near
    empty = np.zeros((1 << 13, 1), np.uint8)
    one, other = components_of([near]), components_of([far])
    assert np.array_equal(one.covariance, other.covariance)
    assert np.array_equal(one.centroid + [0, (1 << 20) - 700], other.centroid)
    tall = [*[empty] * 127, np.pad(near.T, ((0, 0), (0, 0)))[:, :1]]
    assert components_of(tall).centroid[0, 0] == components_of(tall[-1:]).centroid[0, 0] + 127 * (1 << 13)


def test_what_does_not_fit_is_refused() -> None:
    good = np.ones((3, 4), np.uint8)
    for bands, word in (
        ([], "no band"),
        ([good, np.ones((3, 5), np.uint8)], "every band"),
        ([good, np.ones((1, 3, 4), np.uint8)], "every band"),
        ([np.ones(3, np.uint8)], "a band is"),
        ([np.ones((0, 4), np.uint8)], "a band is"),
        ([good * 0.5], "dtype"),
        ([good.astype(np.int32) * -1], "class numbers"),
        ([good.astype(np.int32) << 16], "class numbers"),
        ([np.ones((1, (1 << 20) + 1), np.uint8)], "no side"),
    ):
        with pytest.raises(ValueError, match=word):
            components_of(bands)
    with pytest.raises(ValueError, match=r"one of \(4, 8\); got 6"):
        components_of([good], connectivity=6)
    with pytest.raises(ValueError, match=r"one of \(6, 18, 26\); got 4"):
        components_of([good[None]], connectivity=4)
    with pytest.raises(ValueError, match="min_size"):
        components_of([good], min_size=0)
    with pytest.raises(ValueError, match="a class"):
        components_of([good], classes=[0])


def test_labels_are_of_the_same_bands_only() -> None:
    mask = np.eye(6, dtype=np.uint8)
    found = components_of([mask[:2], mask[2:]])
    for bands in ([mask], [mask[:2]], [mask[:3], mask[3:]], [mask[:2], mask[2:], mask[:1]], [mask[:2], mask[2:] * 0]):
        with pytest.raises(ValueError, match="give the same bands"):
            list(label_components(bands, found))
    with pytest.raises(ValueError, match="not there before"):
        list(label_components([mask[:2], np.eye(4, 6, 1, dtype=np.uint8) + mask[2:, ::-1]], found))


def test_types_and_views_are_the_same_mask(rng: np.random.Generator) -> None:
    mask = rng.random((20, 30)) < 0.5
    wanted = components_of([mask.astype(np.uint8)])
    for same in (mask, mask.astype(">u2"), mask.astype(np.int32), np.asfortranarray(mask), mask[:, ::-1][:, ::-1]):
        require_same(components_of([same]), wanted)
    assert len(components_of([np.zeros((4, 5), np.uint8)] * 3)) == 0
    assert components_of([np.full((1, 1), 65535, np.uint16)]).value.tolist() == [65535]


def test_stones_of_a_simulated_road_core_are_counted() -> None:
    """Stones are packed with gaps; each is one component, but for crumbs its rough outline leaves."""
    label, owner = make_structure((400, 500), RoadMix(), np.random.default_rng(3))
    bands = np.array_split(label, 7)
    found = components_of(bands, classes=[STONE], min_size=20)
    labels = np.concatenate(list(label_components(bands, found)))
    stones, sizes = np.unique(owner[owner > 0], return_counts=True)
    assert len(found) == len(stones[sizes >= 20])
    assert len(np.unique(np.stack([labels, owner])[:, labels > 0], axis=1).T) == len(found)  # one stone each
