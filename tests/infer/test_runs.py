"""Runs and their kernels: runs give the rows back, joining follows reach, sums carry over 32 bits."""

import numpy as np
import pytest

from patchforest.infer import runs
from patchforest.values import Array

ALL = np.ones(65536, bool)


def painted(first: Array, start: Array, end: Array, value: Array, width: int) -> Array:
    rows = np.zeros((len(first) - 1, width), np.int64)
    for k in range(len(rows)):
        for i in range(first[k], first[k + 1]):
            rows[k, start[i] : end[i]] = value[i]
    return rows


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_runs_give_the_rows_back_and_are_as_few_as_can_be(rng: np.random.Generator, dtype: type) -> None:
    for _ in range(30):
        shape = tuple(rng.integers(1, 20, 2))
        rows = (rng.integers(0, 4, shape) * (rng.random(shape) < rng.random())).astype(dtype)
        kept = ALL.copy()
        kept[2] = rng.random() < 0.5
        found = runs.runs_of(rows, kept)
        assert np.array_equal(painted(*found, shape[1]), np.where(kept[rows], rows, 0))
        padded = np.pad(np.where(kept[rows], rows, 0).astype(int), ((0, 0), (1, 0)))
        starts = (padded[:, 1:] != padded[:, :-1]) & (padded[:, 1:] != 0)
        assert found[0].tolist() == [0, *np.cumsum(starts.sum(axis=1))]


@pytest.mark.parametrize(
    ("reach", "gap", "joined"), [(0, 0, False), (1, 0, True), (1, 1, False), (0, -1, True), (-1, 0, False)]
)
def test_reach_says_how_far_aside_runs_touch(reach: int, gap: int, joined: bool) -> None:
    """A run of three, and one below it that starts ``gap`` pixels after its end."""
    rows = np.zeros((2, 12), np.uint8)
    rows[0, 2:5] = rows[1, 5 + gap : 9] = 1
    for mirrored in (rows, rows[:, ::-1]):
        first, start, end, value = runs.runs_of(np.ascontiguousarray(mirrored), ALL)
        parent = np.arange(len(start))
        runs.join(first, start, end, value, parent, 0, runs.ENDLESS, reach, -1, -1)
        assert (parent[0] == parent[1]) == joined


def test_pieces_are_numbered_by_their_first_runs_and_joined_by_tags() -> None:
    parent = np.arange(6)
    runs.join_tagged(parent, np.array([1, 0, 1]), 2)
    assert runs.number(parent).tolist() == [0, 1, 0, 2, 3, 4]


def test_sums_over_32_bits_are_whole(rng: np.random.Generator) -> None:
    """Lines merged in two halves hold the same sums of products as Python's integers give."""
    width = 1 << 20
    first = np.arange(401)
    start = rng.integers(0, width // 2, 400).astype(np.int32)
    end = (start + rng.integers(1, width // 2, 400)).astype(np.int32)
    value, pairs = np.ones(400, np.int32), np.zeros((400, 3), np.int64)
    table = runs.empty_table(1)
    for half in (slice(0, 200), slice(200, 400)):
        place = (0, 1, 1_000_000 + half.start, runs.ENDLESS, width)
        of_half = (first[:201], start[half], end[half], value[half], np.zeros(200, np.int32), pairs[half])
        runs.merge(table, runs.add_up(*of_half, *place), np.zeros(1, np.int64))
    line = table[0]
    rows = range(1_000_000, 1_000_400)
    spans = [(int(a), int(b)) for a, b in zip(start, end)]
    squares = sum((b - 1) * b * (2 * b - 1) // 6 - (a - 1) * a * (2 * a - 1) // 6 for a, b in spans)
    assert squares.bit_length() > 64
    for k, wanted in (
        (1, sum(r * r * (b - a) for r, (a, b) in zip(rows, spans))),
        (2, squares),
        (5, sum(r * (b - a) * (a + b - 1) // 2 for r, (a, b) in zip(rows, spans))),
    ):
        assert int(line[runs.LOWER + k]) + (int(line[runs.UPPER + k]) << 32) == wanted
        assert 0 <= line[runs.LOWER + k] < 1 << 32
    assert line[runs.FIRST] == 1_000_000 * width + int(start[0])
    assert line[runs.SIZE] == sum(b - a for a, b in spans)


def test_rows_are_filled_with_the_numbers_of_pieces() -> None:
    rows = np.array([[9, 9, 9, 9], [1, 1, 0, 2], [0, 2, 2, 0]], np.uint8)
    first, start, end, _ = runs.runs_of(rows, ALL)
    out = np.full((2, 4), 77, np.uint32)
    runs.fill_rows(first, start, end, np.arange(4, dtype=np.int32), np.array([5, 6, 7, 1 << 31], np.uint32), 1, out)
    assert out.tolist() == [[6, 6, 0, 7], [0, 1 << 31, 1 << 31, 0]]
