"""Runs of one class along the rows of a mask, which of them touch, and what they add up to: kernels of components.

A block of rows is held as its runs, row after row: ``start`` and ``end`` column (half open), ``value``, and in
``first[k]`` the place where row k begins. Rows of a volume follow each other plane by plane, ``height`` to a plane; an
image is one plane of endless height. Runs that are one piece are joined in ``parent``, always under the smallest, so
that a piece is known by its first pixel in scan order.
"""

from __future__ import annotations

import numpy as np

from patchforest.tree.kernel import kernel
from patchforest.values import Array

ENDLESS = 1 << 62
VALUE, FIRST, SIZE, RUNS, ABOVE, BEHIND, DIAGONAL, LOW, HIGH, SUM, LOWER, UPPER, COLUMNS = (
    0, 1, 2, 3, 4, 5, 6, 7, 10, 13, 16, 22, 28,
)  # fmt: skip
"""Columns of a table of pieces, int64. Three each, (plane, row, column): LOW and HIGH corner, SUM of coordinates.

ABOVE, BEHIND and DIAGONAL count pairs of neighbouring pixels within the piece. LOWER (32 bits) and UPPER are the sums
of the products pp, rr, cc, pr, pc, rc, which of a large mask need more than 64 bits.
"""


def runs_of(rows: Array, kept: Array) -> tuple[Array, Array, Array, Array]:
    """(first, start, end, value) of rows (R, W) of class numbers; classes where ``kept`` is False are background."""
    first = np.zeros(len(rows) + 1, np.int64)
    _count(rows, kept, first)
    start, end, value = (np.empty(first[-1], np.int32) for _ in range(3))
    _fill(rows, kept, first, start, end, value)
    return first, start, end, value


@kernel
def _count(rows, kept, first):  # type: ignore[no-untyped-def]
    total = 0
    for r in range(rows.shape[0]):
        before = np.int64(0)
        for c in range(rows.shape[1]):
            now = np.int64(rows[r, c])
            if now != before:
                if now != 0 and kept[now]:
                    total += 1
                before = now
        first[r + 1] = total


@kernel
def _fill(rows, kept, first, start, end, value):  # type: ignore[no-untyped-def]
    width = rows.shape[1]
    for r in range(rows.shape[0]):
        at, before, inside = first[r], np.int64(0), False
        for c in range(width):
            now = np.int64(rows[r, c])
            if now != before:
                if inside:
                    end[at] = c
                    at += 1
                inside = now != 0 and kept[now]
                if inside:
                    start[at], value[at] = c, now
                before = now
        if inside:
            end[at] = width


@kernel
def join(first, start, end, value, parent, carried, height, above, behind, corner):  # type: ignore[no-untyped-def]
    """(N, 3) pairs of each run with its neighbours above, behind and diagonal; pieces are joined in ``parent``.

    The first ``carried`` rows were joined before. ``above``, ``behind`` and ``corner`` say how far sideways a run
    touches those of the row above, of the same row one plane before, and of the rows beside that: 0, 1, or -1 for not.
    """
    pairs = np.zeros((len(start), 3), np.int64)
    for k in range(carried, len(first) - 1):
        row = k % height
        if row > 0 and k > 0:
            _touch(first, start, end, value, parent, pairs, k, k - 1, above, 0)
        if k >= height:
            _touch(first, start, end, value, parent, pairs, k, k - height, behind, 1)
            if corner >= 0 and row > 0:
                _touch(first, start, end, value, parent, pairs, k, k - height - 1, corner, -1)
            if corner >= 0 and row + 1 < height:
                _touch(first, start, end, value, parent, pairs, k, k - height + 1, corner, -1)
    return pairs


@kernel
def _touch(first, start, end, value, parent, pairs, row, other, reach, column):  # type: ignore[no-untyped-def]
    last, stop = first[other], first[other + 1]
    for i in range(first[row], first[row + 1]):
        while last < stop and end[last] + reach <= start[i]:
            last += 1
        j = last
        while j < stop and start[j] < end[i] + reach:
            if value[j] == value[i]:
                _unite(parent, i, j)
                if column >= 0:
                    pairs[i, column] += max(0, min(end[i], end[j]) - max(start[i], start[j]))
                if column == 0:
                    pairs[i, 2] += max(0, min(end[i], end[j] + 1) - max(start[i], start[j] + 1))
                    pairs[i, 2] += max(0, min(end[i], end[j] - 1) - max(start[i], start[j] - 1))
            j += 1


@kernel
def _root(parent, i):  # type: ignore[no-untyped-def]
    while parent[i] != i:
        parent[i] = parent[parent[i]]
        i = parent[i]
    return i


@kernel
def _unite(parent, i, j):  # type: ignore[no-untyped-def]
    first, second = _root(parent, i), _root(parent, j)
    parent[max(first, second)] = min(first, second)


@kernel
def join_tagged(parent, tag, num_tags):  # type: ignore[no-untyped-def]
    """Joins the first ``len(tag)`` runs where their tags, 0 to ``num_tags`` - 1, are equal."""
    leader = np.full(num_tags, -1, np.int64)
    for i in range(len(tag)):
        if leader[tag[i]] < 0:
            leader[tag[i]] = i
        else:
            _unite(parent, i, leader[tag[i]])


@kernel
def number(parent):  # type: ignore[no-untyped-def]
    """The piece of every run, (N,) int32 from 0 in the order of their first runs."""
    piece, count = np.empty(len(parent), np.int32), 0
    for i in range(len(parent)):
        if parent[i] == i:
            piece[i] = count
            count += 1
        else:
            piece[i] = piece[parent[i]]  # which comes before it
    return piece


@kernel
def add_up(first, start, end, value, piece, pairs, carried, count, top, height, width):  # type: ignore[no-untyped-def]
    """(count, COLUMNS) of the pieces of a block, without its ``carried`` rows; ``top`` rows lie before the others."""
    table = empty_table(count)
    for k in range(carried, len(first) - 1):
        index = top + k - carried
        p, r = index // height, index % height
        for i in range(first[k], first[k + 1]):
            line = table[piece[i]]
            low, high = np.int64(start[i]), np.int64(end[i])
            n = high - low
            sum_c = n * (low + high - 1) // 2
            line[VALUE] = value[i]
            line[FIRST] = min(line[FIRST], index * width + low)
            line[SIZE] += n
            line[RUNS] += 1
            for a in range(3):
                line[ABOVE + a] += pairs[i, a]
            _widen(line, p, r, low, p + 1, r + 1, high)
            line[SUM] += n * p
            line[SUM + 1] += n * r
            line[SUM + 2] += sum_c
            _add(line, 0, n * p * p, 0)
            _add(line, 1, n * r * r, 0)
            _add(line, 2, ((high - 1) * high * (2 * high - 1) - (low - 1) * low * (2 * low - 1)) // 6, 0)
            _add(line, 3, n * p * r, 0)
            _add(line, 4, sum_c * p, 0)
            _add(line, 5, sum_c * r, 0)
    return table


@kernel
def merge(table, other, piece):  # type: ignore[no-untyped-def]
    """Adds each line of ``other`` to line ``piece`` of ``table``."""
    for i in range(len(piece)):
        line, more = table[piece[i]], other[i]
        line[VALUE] = more[VALUE]
        line[FIRST] = min(line[FIRST], more[FIRST])
        for a in range(SIZE, LOW):
            line[a] += more[a]
        _widen(line, more[LOW], more[LOW + 1], more[LOW + 2], more[HIGH], more[HIGH + 1], more[HIGH + 2])
        for a in range(3):
            line[SUM + a] += more[SUM + a]
        for a in range(6):
            _add(line, a, more[LOWER + a], more[UPPER + a])


@kernel
def empty_table(count):  # type: ignore[no-untyped-def]
    """(count, COLUMNS) of pieces without a pixel."""
    table = np.zeros((count, COLUMNS), np.int64)
    table[:, FIRST] = table[:, LOW] = table[:, LOW + 1] = table[:, LOW + 2] = ENDLESS
    return table


@kernel
def _widen(line, p, r, c, p_end, r_end, c_end):  # type: ignore[no-untyped-def]
    line[LOW], line[LOW + 1], line[LOW + 2] = min(line[LOW], p), min(line[LOW + 1], r), min(line[LOW + 2], c)
    line[HIGH], line[HIGH + 1] = max(line[HIGH], p_end), max(line[HIGH + 1], r_end)
    line[HIGH + 2] = max(line[HIGH + 2], c_end)


@kernel
def _add(line, a, lower, upper):  # type: ignore[no-untyped-def]
    low = line[LOWER + a] + (lower & 0xFFFFFFFF)
    line[LOWER + a] = low & 0xFFFFFFFF
    line[UPPER + a] += upper + (lower >> 32) + (low >> 32)


@kernel
def fill_rows(first, start, end, piece, number_of, carried, out):  # type: ignore[no-untyped-def]
    """Paints ``number_of`` every piece into ``out`` (R, W), the rows after the ``carried`` ones; the rest becomes 0."""
    out[:] = 0
    for k in range(carried, len(first) - 1):
        for i in range(first[k], first[k + 1]):
            for c in range(start[i], end[i]):
                out[k - carried, c] = number_of[piece[i]]
