"""Boundaries of connected components, traced while the mask goes by row by row.

Between two rows of pixels only corners matter where a run of equal values starts or ends above or below. A corner of a
component's boundary joins one horizontal and one vertical edge, so whatever is open at a row is known by the last
corner on every vertical edge that the row cuts. Corners live in one table and are linked in the direction in which the
component lies to the right; components are joined by union-find over runs. A component that the new row no longer
touches is finished: its corners are read out ring by ring and their places used again. Memory therefore follows the
boundaries of open components.

The idea of open arms on a scan line is that of Teng, Wang & Liu (2008), "An efficient algorithm for raster-to-vector
data conversion"; holes that touch their surroundings in a point, streaming and the table are ours.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from patchforest.infer.outlines import (
    ABOVE,
    AREA,
    AT,
    CHAIN,
    COLUMN,
    CORNERS,
    CORNERS_LEFT,
    ENDED,
    FREE_CORNER,
    FREE_LABEL,
    HEAD,
    LABELS_LEFT,
    NEXT,
    NUMBER,
    PARENT,
    ROW,
    SEEN,
    TAIL,
    TWIN,
    VALUE,
    read_out,
)
from patchforest.tree.kernel import kernel
from patchforest.values import Array

_QUEUED = 1 << 62
_FEW = 1 << 14


@dataclass(frozen=True, eq=False)
class Finished:
    """Components that have ended, in the order in which they did.

    Attributes
    ----------
    corners : (N, 2) int64 (row, column), ring after ring, component after component; no ring repeats its first corner.
    lengths : (R,) int64 corners of each ring.
    rings : (K,) int64 rings of each component: its exterior, then its holes by their first corner.
    values, areas : (K,) int64 class number, and number of pixels.
    sums : (K,) float64 what its pixels weigh together.
    """

    corners: Array
    lengths: Array
    rings: Array
    values: Array
    areas: Array
    sums: Array


class Rings:
    """The open components of a mask ``width`` pixels wide."""

    def __init__(self, width: int) -> None:
        self._line = np.zeros((4, width + 2), np.int32)  # runs above: start, value, label; labels of the new row
        self._line[0, 1] = width
        self._line[2, :2] = -1
        self._left, self._right = np.empty((2, width + 1), np.int32)  # open corner of the pixel left, right of an edge
        self._corners = np.empty((0, 6), np.int32)
        self._labels, self._sums = np.empty((0, 7), np.int64), np.empty(0)
        self._ended = np.empty(0, np.int32)
        self._state = np.array([-1, 0, -1, 0, 0, 1, 0], np.int64)
        self._most = 4 * (width + 1)  # corners a row can add; labels: a quarter of it

    def push(self, starts: Array, values: Array, sums: Array, offsets: Array, rows: int) -> list[Finished]:
        """Take ``rows`` rows as runs; gives what has ended with them.

        Row k is entries ``offsets[k]`` to ``offsets[k + 1]``: the first column, value and weight of every run of equal
        values, background too, and an end mark (width, 0, 0).
        """
        done, at = [], 0
        while True:
            at = _advance(
                starts, values, sums, offsets, at, rows, self._line, self._left, self._right, self._corners,
                self._labels, self._sums, self._ended, self._state,
            )  # fmt: skip
            if self._state[ENDED]:
                done.append(self._collect())
            if at == rows:
                return done
            self._make_room()

    def _collect(self) -> Finished:
        """What has ended, read out; its places are free again."""
        ended = self._ended[: self._state[ENDED]]
        total = int(self._labels[ended, CORNERS].sum())
        found = Finished(
            np.empty((total, 2), np.int64), np.empty(total // 4, np.int64), np.empty(len(ended), np.int64),
            self._labels[ended, VALUE], self._labels[ended, AREA], self._sums[ended],
        )  # fmt: skip
        num_rings = read_out(ended, self._corners, self._labels, self._state, found.corners, found.lengths, found.rings)
        return Finished(found.corners, found.lengths[:num_rings], found.rings, found.values, found.areas, found.sums)

    def _make_room(self) -> None:
        """Larger tables where more than half of one is in use."""
        size = len(self._corners)
        if self._state[CORNERS_LEFT] < max(size // 2, self._most):
            more = max(2 * size, 4 * self._most, _FEW)
            if more >= 1 << 31:
                raise MemoryError(f"{size} corners of open components are more than can be held: smooth the mask first")
            self._corners = _grown(self._corners, more)
            _thread(self._corners, size, CHAIN, self._state, FREE_CORNER)
        size = len(self._labels)
        if self._state[LABELS_LEFT] < max(size // 2, self._most // 4):
            more = max(2 * size, self._most, _FEW)
            self._labels, self._sums = _grown(self._labels, more), _grown(self._sums, more)
            self._ended = np.empty(more, np.int32)
            _thread(self._labels, size, HEAD, self._state, FREE_LABEL)


def _grown(table: Array, length: int) -> Array:
    """The table with undefined entries after its own."""
    larger = np.empty((length, *table.shape[1:]), table.dtype)
    larger[: len(table)] = table
    return larger


@kernel
def _thread(table, begin, field, state, head):  # type: ignore[no-untyped-def]
    """Entries from ``begin`` on become the first free ones."""
    for i in range(len(table) - 1, begin - 1, -1):
        table[i, field] = state[head]
        state[head] = i
    state[head + 1] += len(table) - begin


@kernel
def _root(labels, label):  # type: ignore[no-untyped-def]
    while labels[label, PARENT] != label:
        labels[label, PARENT] = labels[labels[label, PARENT], PARENT]
        label = labels[label, PARENT]
    return label


@kernel
def _new_label(labels, sums, state, value):  # type: ignore[no-untyped-def]
    label = state[FREE_LABEL]
    state[FREE_LABEL] = labels[label, HEAD]
    state[LABELS_LEFT] -= 1
    labels[label, PARENT], labels[label, VALUE], labels[label, AREA], labels[label, CORNERS] = label, value, 0, 0
    labels[label, HEAD], labels[label, TAIL] = -1, -1
    sums[label] = 0.0
    return label


@kernel
def _merge(corners, labels, sums, one, other):  # type: ignore[no-untyped-def]
    """``other`` becomes part of ``one``; its own label is no longer needed after this row."""
    labels[other, PARENT] = one
    labels[one, AREA] += labels[other, AREA]
    labels[one, CORNERS] += labels[other, CORNERS]
    sums[one] += sums[other]
    corners[labels[one, TAIL], CHAIN] = labels[other, HEAD]  # neither is empty: a component's first row has corners
    labels[one, TAIL] = labels[other, TAIL]


@kernel
def _new_corner(corners, labels, state, label, row, column):  # type: ignore[no-untyped-def]
    corner = state[FREE_CORNER]
    state[FREE_CORNER] = corners[corner, CHAIN]
    state[CORNERS_LEFT] -= 1
    corners[corner, CHAIN], corners[corner, TWIN], corners[corner, NUMBER] = -1, -1, -1
    corners[corner, ROW], corners[corner, COLUMN] = row, column
    if labels[label, HEAD] < 0:
        labels[label, HEAD] = corner
    else:
        corners[labels[label, TAIL], CHAIN] = corner
    labels[label, TAIL] = corner
    labels[label, CORNERS] += 1
    return corner


@kernel
def _advance(  # type: ignore[no-untyped-def]
    starts, values, weights, offsets, at, rows, line, left, right, corners, labels, sums, ended, state
):
    """Take rows from ``at`` on, as far as there is room for all that a row can add; returns the first not taken."""
    width = len(left) - 1
    above, labels_above, label = line[:2], line[2], line[3]
    while at < rows and state[CORNERS_LEFT] >= 4 * (width + 1) and state[LABELS_LEFT] > width:
        first, row, num_above = offsets[at], state[AT], state[ABOVE]
        num_runs = offsets[at + 1] - first - 1
        start, value = starts[first : first + num_runs + 1], values[first : first + num_runs + 1]
        weight = weights[first : first + num_runs + 1]
        dead = _label_runs(
            above, labels_above, num_above, start, value, weight, label, row, corners, labels, sums, state
        )
        for i in range(num_above):
            if labels_above[i] >= 0:
                labels_above[i] = _root(labels, labels_above[i])
        for j in range(num_runs):
            if label[j] >= 0:
                label[j] = _root(labels, label[j])
        label[num_runs] = -1
        _trace(above, labels_above, start, value, label, row, left, right, corners, labels, state)
        for i in range(num_above):
            k = labels_above[i]
            if k >= 0 and labels[k, SEEN] < row:
                labels[k, SEEN] = _QUEUED
                ended[state[ENDED]] = k
                state[ENDED] += 1
        while dead >= 0:
            after = labels[dead, HEAD]
            labels[dead, HEAD] = state[FREE_LABEL]
            state[FREE_LABEL] = dead
            state[LABELS_LEFT] += 1
            dead = after
        for j in range(num_runs + 1):
            above[0, j], above[1, j], labels_above[j] = start[j], value[j], label[j]
        state[ABOVE] = num_runs
        state[AT] += 1
        at += 1
    return at


@kernel
def _label_runs(  # type: ignore[no-untyped-def]
    above, labels_above, num_above, start, value, weight, label, row, corners, labels, sums, state
):
    """The component of every run of the new row in ``label``; returns the first of the labels merged away."""
    i, dead = 0, -1
    for j in range(len(start) - 1):
        mine = -1
        if value[j] != 0:
            while above[0, i + 1] <= start[j]:
                i += 1
            t = i
            while t < num_above and above[0, t] < start[j + 1]:
                if above[1, t] == value[j]:
                    other = _root(labels, labels_above[t])
                    if mine < 0:
                        mine = other
                    elif mine != other:
                        _merge(corners, labels, sums, mine, other)
                        labels[other, HEAD] = dead
                        dead = other
                t += 1
            if mine < 0:
                mine = _new_label(labels, sums, state, value[j])
            labels[mine, AREA] += start[j + 1] - start[j]
            labels[mine, SEEN] = row
            sums[mine] += weight[j]
        label[j] = mine
    return dead


@kernel
def _trace(above, labels_above, start, value, label, row, left, right, corners, labels, state):  # type: ignore[no-untyped-def]
    """Corners on the line between two rows, linked to those before them.

    At a column, a and b are the values of the pixels above, d and e below; where a group of equal ones fills one or
    three of the four quarters, its boundary turns. ``left[x]`` is the last corner on the vertical edge at x of the
    boundary of the pixel left of it; ``over`` and ``under`` likewise for the pixel above, below a horizontal edge.
    """
    i, j, x, width = 0, 0, 0, len(left) - 1
    over, under = -1, -1
    a, d, of_a, of_d = 0, 0, -1, -1
    while True:
        b, e, of_b, of_e = above[1, i], value[j], labels_above[i], label[j]
        if a != b or d != e:
            at_a, at_b, at_d, at_e = -1, -1, -1, -1
            if a != 0 and a != b and a != d:
                at_a = _new_corner(corners, labels, state, of_a, row, x)
                corners[at_a, NEXT] = over
                corners[left[x], NEXT] = at_a
            if b != 0 and b != a and b != e:
                at_b = _new_corner(corners, labels, state, of_b, row, x)
                corners[at_b, NEXT] = right[x]
            if d != 0 and d != a and d != e:
                at_d = _new_corner(corners, labels, state, of_d, row, x)
                corners[under, NEXT] = at_d
            if e != 0 and e != b and e != d:
                at_e = _new_corner(corners, labels, state, of_e, row, x)
            if a == e and at_a >= 0:
                corners[at_a, TWIN], corners[at_e, TWIN] = at_e, at_a
            if b == d and at_b >= 0:
                corners[at_b, TWIN], corners[at_d, TWIN] = at_d, at_b
            if b == e and e == d and b != 0 and a != b:
                inner = _new_corner(corners, labels, state, of_b, row, x)
                corners[under, NEXT] = inner
                corners[inner, NEXT] = right[x]
            if a == d and d == e and a != 0 and b != a:
                inner = _new_corner(corners, labels, state, of_a, row, x)
                corners[left[x], NEXT] = inner
                under = inner
            if a == b and b == e and a != 0 and d != a:
                inner = _new_corner(corners, labels, state, of_a, row, x)
                corners[inner, NEXT] = over
                right[x] = inner
            if a == b and b == d and a != 0 and e != a:
                inner = _new_corner(corners, labels, state, of_a, row, x)
                over = inner
                left[x] = inner
            if at_b >= 0:
                over = at_b
            if at_d >= 0:
                left[x] = at_d
            if at_e >= 0:
                under = right[x] = at_e
        if x == width:
            return
        x, a, d, of_a, of_d = min(above[0, i + 1], start[j + 1]), b, e, of_b, of_e
        if above[0, i + 1] == x:
            i += 1
        if start[j + 1] == x:
            j += 1
