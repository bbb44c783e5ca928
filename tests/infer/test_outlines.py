"""Reading rings out of a table of corners that was filled by hand."""

from __future__ import annotations

import itertools

import numpy as np

from patchforest.infer.outlines import (
    AREA,
    CHAIN,
    CORNERS,
    CORNERS_LEFT,
    ENDED,
    FREE_CORNER,
    FREE_LABEL,
    HEAD,
    LABELS_LEFT,
    NEXT,
    NUMBER,
    TAIL,
    TWIN,
    read_out,
)

# Clockwise on the screen, from inside the pocket: a 3 x 3 square without its middle and its upper right pixel.
RING = [(1, 2), (2, 2), (2, 1), (1, 1), (1, 2), (0, 2), (0, 0), (3, 0), (3, 3), (1, 3)][::-1]


def table(places: list[tuple[int, int]], slots: list[int], chain: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """Corners of one ring at the given slots, in the given order of the component's chain, and its label."""
    corners = np.full((max(slots) + 3, 6), -1, np.int32)
    for k, slot in enumerate(slots):
        corners[slot, 4:] = places[k]
        corners[slot, NEXT] = slots[(k + 1) % len(slots)]
    for one, other in itertools.pairwise(chain):
        corners[slots[one], CHAIN] = slots[other]
    labels = np.zeros((2, 7), np.int64)
    labels[1, [HEAD, TAIL, CORNERS, AREA]] = slots[chain[0]], slots[chain[-1]], len(slots), 7
    return corners, labels


def read(corners: np.ndarray, labels: np.ndarray) -> tuple[list, list, list, np.ndarray]:
    """Rings as lists, their lengths, rings a component, and the state after."""
    state = np.array([-1, 0, -1, 0, 0, 0, 1])
    count = int(labels[1, CORNERS])
    points, lengths, rings = np.empty((count, 2), np.int64), np.empty(count // 4, np.int64), np.empty(1, np.int64)
    number = read_out(np.array([1], np.int32), corners, labels, state, points, lengths, rings)
    ends = np.cumsum(lengths[:number])
    return [ring.tolist() for ring in np.split(points, ends)[:number]], lengths[:number].tolist(), rings.tolist(), state


def test_a_ring_that_meets_itself_becomes_two() -> None:
    slots, chain = [7, 2, 9, 0, 5, 1, 8, 4, 3, 6], [4, 2, 0, 9, 1, 8, 3, 7, 5, 6]
    corners, labels = table(RING, slots, chain)
    twins = [slots[k] for k, place in enumerate(RING) if place == (1, 2)]
    corners[twins, TWIN] = twins[::-1]
    rings, lengths, numbers, state = read(corners, labels)
    assert rings[0] == [[0, 0], [0, 2], [1, 2], [1, 3], [3, 3], [3, 0]]
    assert rings[1] == [[1, 1], [2, 1], [2, 2], [1, 2]]
    assert (lengths, numbers) == ([6, 4], [2])
    assert state[[CORNERS_LEFT, LABELS_LEFT, ENDED]].tolist() == [10, 1, 0]
    assert (state[FREE_CORNER], state[FREE_LABEL]) == (slots[chain[0]], 1)
    assert corners[slots[chain[-1]], CHAIN] == -1


def test_a_twin_of_another_component_is_left_alone() -> None:
    """Whatever the twin's slot holds now: nothing, a corner elsewhere, or a number that happens to fit."""
    square = [(0, 0), (0, 2), (2, 2), (2, 0)]
    for number in (-1, 0, 2, 99):
        corners, labels = table(square, [3, 1, 2, 0], [0, 1, 2, 3])
        corners[1, TWIN], corners[4, TWIN], corners[4, NUMBER] = 4, 1, number
        corners[4, 4:] = 0, 2
        rings, _, numbers, _ = read(corners, labels)
        assert rings == [[list(place) for place in square]]
        assert numbers == [1]


def test_two_rings_that_touch_stay_two() -> None:
    """A hole meets the exterior in (1, 2): the visits belong to different rings."""
    outer = [(0, 0), (0, 2), (1, 2), (1, 3), (3, 3), (3, 0)]
    inner = [(1, 1), (2, 1), (2, 2), (1, 2)]
    corners, labels = table(outer + inner, list(range(10)), [9, 0, 1, 8, 2, 3, 7, 4, 5, 6])
    corners[5, NEXT], corners[9, NEXT] = 0, 6
    corners[2, TWIN], corners[9, TWIN] = 9, 2
    rings, lengths, _, _ = read(corners, labels)
    assert [[tuple(place) for place in ring] for ring in rings] == [outer, inner]
    assert lengths == [6, 4]
