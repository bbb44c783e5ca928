"""The table of open components: places are used again, tables grow in the middle of a mask, stale twins are ignored."""

from __future__ import annotations

import numpy as np
import pytest

from patchforest.infer import rings
from patchforest.infer.rings import Finished, Rings


def runs_of(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Starts, values, weights (one a pixel) and offsets of the runs of every row."""
    starts, values, offsets = [], [], [0]
    for row in mask:
        begins = [0, *(np.flatnonzero(np.diff(row.astype(int))) + 1).tolist()]
        starts += [*begins, len(row)]
        values += [*row[begins].tolist(), 0]
        offsets.append(len(starts))
    lengths = np.diff(starts, append=0).clip(0)
    return np.array(starts, np.int32), np.array(values, np.int32), lengths.astype(float), np.array(offsets)


def traced(mask: np.ndarray, rows: int = 1 << 30) -> tuple[list[tuple], Rings]:
    """(class, area, sum, rings as lists) of every component, fed ``rows`` rows at a time, and the table after it."""
    table, found = Rings(mask.shape[1]), []
    padded = np.vstack([mask, np.zeros_like(mask[:1])])
    for begin in range(0, len(padded), rows):
        part = padded[begin : begin + rows]
        for done in table.push(*runs_of(part), len(part)):
            found += unpacked(done)
    return found, table


def unpacked(done: Finished) -> list[tuple]:
    ends = np.cumsum(done.lengths)
    parts = [ring.tolist() for ring in np.split(done.corners, ends)[: len(ends)]]
    firsts = np.cumsum(done.rings) - done.rings
    return [
        (value, area, weight, parts[first : first + count])
        for value, area, weight, first, count in zip(
            done.values.tolist(), done.areas.tolist(), done.sums.tolist(), firsts.tolist(), done.rings.tolist()
        )
    ]


def test_two_components_by_hand() -> None:
    """A ring around a pixel of another class; the inner one is finished a row earlier."""
    found, _ = traced(np.array([[5, 5, 5], [5, 2, 5], [5, 5, 5]]))
    hole = [[1, 1], [2, 1], [2, 2], [1, 2]]
    assert found == [
        (2, 1, 1.0, [[[1, 1], [1, 2], [2, 2], [2, 1]]]),
        (5, 8, 8.0, [[[0, 0], [0, 3], [3, 3], [3, 0]], hole]),
    ]


def test_places_are_used_again() -> None:
    """A long mask of short components needs no larger table than a short one."""
    rng = np.random.default_rng(0)
    tile = (rng.random((40, 60)) < 0.4).astype(np.uint8)
    tile[-1] = 0
    one, small = traced(tile)
    many, large = traced(np.tile(tile, (80, 1)))
    assert len(many) == 80 * len(one)
    assert len(large._corners) == len(small._corners)
    assert len(large._labels) == len(small._labels)
    for table in (small, large):  # at the end nothing is held
        assert table._state[rings.CORNERS_LEFT] == len(table._corners)
        assert table._state[rings.LABELS_LEFT] == len(table._labels)


@pytest.mark.parametrize("seed", range(20))
def test_tables_grow_in_the_middle(monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    rng = np.random.default_rng(seed)
    mask = (rng.random((300, int(rng.integers(1, 9)))) < rng.uniform(0.5, 0.95)).astype(np.uint8)
    mask *= rng.integers(1, 3, mask.shape, dtype=np.uint8) if seed % 2 else 1
    mask[:, 0] = 1  # one component stays open to the end
    whole, roomy = traced(mask)
    monkeypatch.setattr(rings, "_FEW", 0)
    sparing, tight = traced(mask)
    assert sparing == whole == traced(mask, 7)[0]
    assert all(area == weight for _, area, weight, _ in whole)
    first = 16 * (mask.shape[1] + 1)
    if mask.shape[1] > 2:
        assert first < len(tight._corners) < len(roomy._corners)


def test_a_twin_whose_component_has_ended() -> None:
    """Diagonal neighbours of different components; the first one's places are taken by others before the last ends."""
    rng = np.random.default_rng(1)
    mask = np.zeros((200, 12), np.uint8)
    mask[:, 6] = 1
    mask[::2, 5] = rng.random(100) < 0.5  # teeth of the long component: diagonals touch from left below
    mask[1::4, 4] = 1
    mask[:, :4] = rng.random((200, 4)) < 0.5
    found, table = traced(mask)
    long = max(found, key=lambda one: one[1])
    assert len({tuple(corner) for corner in long[3][0]}) == len(long[3][0])
    assert sum(area for _, area, _, _ in found) == mask.sum()
    assert table._state[rings.CORNERS_LEFT] == len(table._corners)


def test_more_corners_than_can_be_numbered(monkeypatch: pytest.MonkeyPatch) -> None:
    table = Rings(4)
    monkeypatch.setattr(rings, "_FEW", 1 << 31)
    with pytest.raises(MemoryError, match="smooth the mask first"):
        table.push(*runs_of(np.ones((1, 4), np.uint8)), 1)
