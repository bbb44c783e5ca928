"""Canny's edges of one tile, from its gradient to edge counts a cell, and the chains that its borders leave open.

Non-maximum suppression, the two thresholds and the L1 norm are those of ``cv2.Canny``, bit for bit. Hysteresis is
finished inside the tile; a weak chain that reaches a seam without having met a strong pixel may still meet one in the
next tile, so it is handed on with a label along the seam and with its edge pixels a cell (``seams.py`` joins them).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from patchforest.tree.kernel import kernel
from patchforest.values import Array

STRONG = -1
"""In the lines of an ``EdgeTile``: an edge pixel. 0 is none, above 0 the label of an open chain."""

_TG22 = 13573  # tan(22.5 degrees) in units of 2^-15, as OpenCV has it
_LEFT = 8  # columns before the first pixel in the state buffer, so that words of eight pixels are aligned
_STEPS, _DENSE = 4, 64  # where more than one pixel in so many is a seed, all take so many steps at a time first
_NONE, _WEAK, _SEED, _EDGE, _OPEN = 0, 1, 2, 3, 4  # what a pixel is; a seed is strong and not yet followed
_NO_RECORDS = np.empty((0, 4), np.int32)


@dataclass(frozen=True, eq=False)
class EdgeTile:
    """What a tile says about its edges.

    Attributes
    ----------
    counts : (rows, columns) uint32, edge pixels of each cell that are certain; float32 lengths of ``gradient_tile``.
    top, bottom, left, right : (w,) and (h,) int32 along the tile's borders: 0, ``STRONG`` or a chain's label.
    chains : number of open chains; their labels are 1 to that.
    records : (R, 4) int32, label, row and column of a cell of this tile, and pixels of that open chain in the cell.
    """

    counts: Array
    top: Array
    bottom: Array
    left: Array
    right: Array
    chains: int
    records: Array


class Workspace:
    """Buffers for a tile of ``height`` x ``width`` pixels; ``empty`` (name, shape, dtype) may give old memory again.

    They are as wide as the tile: with those of a wider one a tall tile would clear, and touch, far more memory.
    """

    def __init__(self, height: int, width: int, empty: Callable[..., Array] | None = None) -> None:
        new = empty or (lambda _, shape, dtype: np.empty(shape, dtype))
        columns = (width + _LEFT + 8) // 8 * 8
        self.magnitude = new("magnitude", (height + 2, width + 2), np.int16)
        self.state = new("state", (height + 2, columns), np.uint8)
        self.words = self.state.view(np.uint64)
        self.stack = new("stack", (height * width,), np.int32)
        self.line = new("line", (columns,), np.uint8)


def edge_tile(
    dx: Array,
    dy: Array,
    place: tuple[int, int],
    size: tuple[int, int],
    *,
    halo: tuple[int, int, int, int],
    low: float,
    high: float,
    cell: int,
    work: Workspace,
) -> EdgeTile:
    """Edges of a tile of ``size`` whose gradient begins at ``place`` of ``dx`` and ``dy`` (int16, C-contiguous).

    Parameters
    ----------
    halo : 1 where the tile has a neighbour, 0 at the image's border: top, bottom, left, right. The gradient of one
        pixel beyond the tile must be there on the sides with 1; beyond the image it counts as zero.
    low, high : thresholds on |dx| + |dy|; pixels above them are weak and strong.
    cell : side of a cell in these pixels; the tile starts at a cell's corner.
    """
    height, width = size
    _magnitude(dx, dy, place, size, halo, work.magnitude)
    seeds = _suppress(dx, dy, place, size, work.magnitude, int(np.floor(low)), int(np.floor(high)), work.state)
    for _ in range(_STEPS if seeds * _DENSE > height * width else 0):
        _step(work.state, height, width, work.line)
    _follow(work.state, work.words, height, width, work.stack)
    lines = np.zeros(2 * (height + width), np.int32)
    top, bottom, sides = lines[:width], lines[width : 2 * width], lines[2 * width :]
    left, right = sides[:height], sides[height:]
    grid = (-(-height // cell), -(-width // cell))
    chains, records = 0, _NO_RECORDS
    if any(halo):
        chains, records = _open_chains(work.state, size, cell, grid, halo, (top, bottom, left, right), work.stack)
    counts = np.zeros(grid, np.uint32)
    _count(work.state, height, width, cell, work.line if cell < 256 else np.empty(width, np.uint32), counts)
    return EdgeTile(counts, top, bottom, left, right, int(chains), records)


def gradient_tile(dx: Array, dy: Array, place: tuple[int, int], size: tuple[int, int], cell: int) -> EdgeTile:
    """The summed length of the gradient in every cell of a tile, float32, in place of counts; no chain is open."""
    none = np.zeros(0, np.int32)
    lines = np.zeros(size[1], np.int32)
    lengths = np.empty((-(-size[0] // cell), -(-size[1] // cell)), np.float32)
    _lengths(dx, dy, place, size, cell, lengths)
    return EdgeTile(lengths, lines, lines, none, none, 0, _NO_RECORDS)


@kernel
def _lengths(dx, dy, place, size, cell, out):  # type: ignore[no-untyped-def]
    for i in range(out.shape[0]):
        for j in range(out.shape[1]):
            total = 0.0
            for y in range(place[0] + i * cell, place[0] + min((i + 1) * cell, size[0])):
                for x in range(place[1] + j * cell, place[1] + min((j + 1) * cell, size[1])):
                    a, b = np.float64(dx[y, x]), np.float64(dy[y, x])
                    total += np.sqrt(a * a + b * b)
            out[i, j] = total


@kernel
def _magnitude(dx, dy, place, size, halo, out):  # type: ignore[no-untyped-def]
    """|dx| + |dy| of a tile and one pixel around it; 0 where there is no halo."""
    height, width = size
    first, last = place[1] - halo[2], place[1] + width + halo[3]
    out[0, : width + 2] = 0
    out[height + 1, : width + 2] = 0
    for i in range(-halo[0], height + halo[1]):
        line, a, b = out[1 + i], dx[place[0] + i, first:last], dy[place[0] + i, first:last]
        line[0] = 0
        line[width + 1] = 0
        line = line[1 - halo[2] :]
        for j in range(len(a)):
            line[j] = np.int16(abs(np.int32(a[j])) + abs(np.int32(b[j])))


@kernel
def _suppress(dx, dy, place, size, magnitude, low, high, state):  # type: ignore[no-untyped-def]
    """Non-maximum suppression and the two thresholds, without a branch a pixel; returns the number of seeds."""
    height, width = size
    seeds = 0
    lowest, highest = np.int16(min(low, 32767)), np.int16(min(high, 32767))
    state[0] = 0
    state[height + 1] = 0
    for i in range(height):
        a, b = dx[place[0] + i, place[1] :], dy[place[0] + i, place[1] :]
        up, here, down = magnitude[i], magnitude[i + 1], magnitude[i + 2]
        line = state[i + 1]
        line[:_LEFT] = 0
        line[_LEFT + width :] = 0
        line = line[_LEFT:]
        for j in range(width):
            m = here[j + 1]
            x, y = np.int32(a[j]), np.int32(b[j])
            rise, run = np.int32(abs(y) << 15), np.int32(abs(x) * _TG22)
            flat, steep = rise < run, rise > np.int32(run + (abs(x) << 16))
            along_row = (m > here[j]) & (m >= here[j + 2])
            along_column = (m > up[j + 1]) & (m >= down[j + 1])
            falling, rising = (m > up[j]) & (m > down[j + 2]), (m > up[j + 2]) & (m > down[j])
            other = (x ^ y) < 0
            diagonal = (other & rising) | (~other & falling)
            peak = ((flat & along_row) | (~flat & ((steep & along_column) | (~steep & diagonal)))) & (m > lowest)
            line[j] = np.uint8(peak) + np.uint8(peak & (m > highest))
        for j in range(width):
            seeds += line[j] >> 1
    return seeds


@kernel
def _step(state, height, width, line):  # type: ignore[no-untyped-def]
    """Seeds become edges, and the weak pixels beside them seeds: many at a time, where following each would be slow."""
    first, one = _LEFT - 1, np.uint8(1)
    for y in range(1, height + 1):
        up, here, down = state[y - 1][first:], state[y][first:], state[y + 1][first:]
        for x in range(width):
            line[x] = up[x] | up[x + 1] | up[x + 2] | here[x] | here[x + 2] | down[x] | down[x + 1] | down[x + 2]
        for x in range(
            width
        ):  # in bits: weak is 1, seed 2, edge 3; the compiler makes vectors of this, not of comparisons
            v = here[x + 1]
            low, high = v & one, v >> 1
            here[x + 1] = np.uint8(v + (low & ~high & (line[x] >> 1) & one) + (high & ~low & one))


@kernel
def _spread(flat, first, into, stack, stride):  # type: ignore[no-untyped-def]
    """Turn the weak pixels connected to ``first`` (already turned) into ``into``; returns how many, listed in stack."""
    stack[0] = first
    taken, listed = 0, 1
    while taken < listed:
        place = np.int64(stack[taken])
        taken += 1
        for row in range(place - stride, place + stride + 1, stride):
            for near in range(row - 1, row + 2):
                if flat[near] == _WEAK:
                    flat[near] = into
                    stack[listed] = near
                    listed += 1
    return listed


@kernel
def _follow(state, words, height, width, stack):  # type: ignore[no-untyped-def]
    """Hysteresis inside the tile: seeds and the weak pixels connected to them become edges."""
    stride, flat = state.shape[1], state.reshape(-1)
    seeds = np.uint64(0x0202020202020202)
    for y in range(1, height + 1):
        row = words[y]
        for k in range(_LEFT // 8, (_LEFT + width + 7) // 8):
            if row[k] & seeds:
                for place in range(y * stride + 8 * k, y * stride + 8 * k + 8):
                    if flat[place] == _SEED:
                        flat[place] = _EDGE
                        _spread(flat, place, _EDGE, stack, stride)


@kernel
def _open_chains(state, size, cell, grid, halo, borders, stack):  # type: ignore[no-untyped-def]
    """Label the weak chains that touch a seam; fill the border lines; returns (number, records (R, 4))."""
    (height, width), (top, bottom, left, right) = size, borders
    stride, flat, chains, used = state.shape[1], state.reshape(-1), 0, 0
    records = np.empty((256, 4), np.int32)
    share = np.zeros(grid, np.int32)
    for side in range(4):
        if not halo[side]:
            continue
        for k in range(width if side < 2 else height):
            y = 1 if side == 0 else height if side == 1 else k + 1
            x = _LEFT if side == 2 else _LEFT + width - 1 if side == 3 else _LEFT + k
            if state[y, x] != _WEAK:
                continue
            chains += 1
            state[y, x] = _OPEN
            length = _spread(flat, y * stride + x, _OPEN, stack, stride)
            for at in range(length):
                row, column = stack[at] // stride - 1, stack[at] % stride - _LEFT
                share[row // cell, column // cell] += 1
                if row == 0:
                    top[column] = chains
                if row == height - 1:
                    bottom[column] = chains
                if column == 0:
                    left[row] = chains
                if column == width - 1:
                    right[row] = chains
            for at in range(length):
                row, column = (stack[at] // stride - 1) // cell, (stack[at] % stride - _LEFT) // cell
                if share[row, column]:
                    if used == len(records):
                        longer = np.empty((2 * used, 4), np.int32)
                        longer[:used] = records
                        records = longer
                    records[used, 0], records[used, 1] = chains, row
                    records[used, 2], records[used, 3] = column, share[row, column]
                    used += 1
                    share[row, column] = 0
    for k in range(width):
        if state[1, _LEFT + k] == _EDGE:
            top[k] = STRONG
        if state[height, _LEFT + k] == _EDGE:
            bottom[k] = STRONG
    for k in range(height):
        if state[k + 1, _LEFT] == _EDGE:
            left[k] = STRONG
        if state[k + 1, _LEFT + width - 1] == _EDGE:
            right[k] = STRONG
    return chains, records[:used]


@kernel
def _count(state, height, width, cell, line, counts):  # type: ignore[no-untyped-def]
    """Edge pixels of every cell; ``line`` is of a type that holds a column of a cell."""
    line, one = line[:width], line.dtype.type(1)
    for i in range(counts.shape[0]):
        line[:] = 0
        for y in range(i * cell + 1, min((i + 1) * cell, height) + 1):
            row = state[y, _LEFT:]
            for x in range(width):
                line[x] += (row[x] >> 1) & one  # the second bit is set in edges only, since no seed is left
        for j in range(counts.shape[1]):
            total = np.uint32(0)
            for x in range(j * cell, min((j + 1) * cell, width)):
                total += line[x]
            counts[i, j] = total
