"""Edge counts of every cell from tiles of an image: grey, blur, gradient, Canny; the same numbers for any tiling.

Nothing of the image's size is held but the counts. A tile looks at a few more pixels than it answers for, which makes
its gradient that of the whole image, and ``seams`` joins what hysteresis left open at its borders.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import cv2
import numpy as np

from patchforest.tree.canny import EdgeTile, Workspace, edge_tile, gradient_tile
from patchforest.tree.cells import AllCells, Cells
from patchforest.tree.kernel import kernel
from patchforest.tree.seams import Seams
from patchforest.tree.threads import ordered
from patchforest.values import Array

PAPER_KERNELS = {512: 3, 1024: 3, 4096: 5, 8192: 7, 16384: 9, 32768: 11, 65536: 13}
"""Blur kernel by image side of the APF paper (section 1 of its recipe); sides between take the nearest lower entry."""

EDGE_SHARE = 0.85
"""Self-set edges: the gradient quantile, among pixels that have any gradient, that becomes the high threshold."""

SAMPLE_PIXELS, SAMPLE_SIDE = 1 << 24, 20
"""The quantile is of all of an image of so many pixels, else of a lattice of at most so many blocks a side."""
SAMPLE_TILE, SAMPLE_MARGIN = 128, 8
"""A block lies in a square of so many pixels, aligned as tiles of files are, with so many around it for the blur."""

TILE_PIXELS, TILE_ROWS, TILE_COLUMNS = 1 << 19, 128, 8192
"""Size of a tile, its fewest rows and most columns: long, for memory is read in rows, and small enough for a cache."""

_SIZES = 2048  # |dx| + |dy| of 8-bit pixels is below this
_FLAT = 4  # a gradient below it says nothing of what is an edge here

Box = tuple[int, int, int, int]  # first row, row behind the last, first column, column behind the last
Planes = Callable[[Box], list[Array]]
Gradient = Callable[[Box], tuple[Array, Array, Box]]  # int16 arrays over a box that may be larger, and that box


@dataclass(frozen=True)
class EdgeRule:
    """How edges are found.

    Attributes
    ----------
    kernel : side of the Gaussian blur, 1 for none.
    low, high : thresholds of the gradient's L1 norm; ``high`` None: the image's own ``share`` quantile, low 0.4 of it.
    half : look at the means of 2 x 2 pixels.
    cell : side of a cell in level-0 pixels.
    length : cells hold the summed length of the gradient in place of the number of edge pixels.
    """

    kernel: int
    low: float
    high: float | None
    share: float
    half: bool
    cell: int
    length: bool = False

    @property
    def factor(self) -> int:
        """Level-0 pixels a side of a pixel of the plane that is looked at."""
        return 2 if self.half else 1


def edge_rule(criterion: str, shape: tuple[int, ...], cell: int, rng: np.random.Generator | None = None) -> EdgeRule:
    """The rule of a criterion for an image (H, W); with ``rng`` its settings are drawn as SHF does."""
    if criterion == "gradient":
        kernel = int(rng.choice((3, 5, 7, 9, 11, 13))) if rng is not None else 3
        return EdgeRule(kernel, 0.0, 0.0, EDGE_SHARE, False, cell, length=True)
    if criterion == "edges":
        kernel, share = 5, EDGE_SHARE
        if rng is not None:
            kernel, share = int(rng.choice((3, 5, 7))), float(rng.uniform(0.75, 0.95))
        return EdgeRule(kernel, 0.0, None, share, cell % 2 == 0 and cell >= 4, cell)
    side = max(shape[:2])
    kernel = PAPER_KERNELS[max((z for z in PAPER_KERNELS if z <= side), default=512)]
    low, high = 100.0, 200.0
    if rng is not None:  # SHF: k in {3..13}, threshold in [100, 200], afresh per sample and epoch
        kernel, low = int(rng.choice((3, 5, 7, 9, 11, 13))), float(rng.uniform(50, 100))
        high = 2 * low
    return EdgeRule(kernel, low, high, EDGE_SHARE, False, cell)


def edge_counts(
    read: Callable[[Box], Array],
    shape: tuple[int, int],
    rule: EdgeRule,
    *,
    tile: tuple[int, int] | None = None,
    threads: int = 1,
) -> Array:
    """Edge pixels of every cell, (ceil(H/cell), ceil(W/cell)); see ``count_dtype``.

    Parameters
    ----------
    read : uint8 pixels (h, w, C) of a box of the image; called from several threads.
    tile : rows and columns of the tiles in pixels of the plane, rounded up to whole cells; the result does not depend
        on it.
    """
    plane = plane_shape(shape, rule)
    gradient = computed_gradient(lambda box: _planes_of(read, shape, rule, box), plane, rule.kernel)
    boxes = list(tiles_of(plane, tile or _tile_for(plane), rule.cell // rule.factor))
    if threads < 1:
        raise ValueError(f"threads must be at least 1; got {threads}")
    threads = min(threads, len(boxes))
    if len(boxes) == 1 and (rule.high is not None or is_small(shape)):
        found = gradient(boxes[0])
        if rule.high is None:
            rule = _with_thresholds(rule, _sizes_in(lambda _: found, boxes[0]))
        return find_edges(lambda _: found, plane, boxes[0], rule).counts.astype(count_dtype(rule))
    if rule.high is None and is_small(shape):
        gradient, rule = _with_own_thresholds(gradient, plane, rule, boxes, threads)
    elif rule.high is None:
        rule = sampled_rule(gradient, shape, rule, threads)
    cells = AllCells((-(-shape[0] // rule.cell), -(-shape[1] // rule.cell)), count_dtype(rule))
    sink = CellSink(cells, rule)
    tiles = ordered(lambda box: find_edges(gradient, plane, box, rule), boxes, threads)
    row: list[tuple[Box, EdgeTile]] = []
    for box, edges in zip(boxes, tiles):
        row.append((box, edges))
        if box[3] == plane[1]:
            sink.push(row)
            row = []
    sink.close()
    return cells.detail


class CellSink:
    """Gives ``cells`` what is found in tiles that arrive row by row."""

    def __init__(self, cells: Cells, rule: EdgeRule) -> None:
        self._cells, self._cell = cells, rule.cell // rule.factor
        self._seams = Seams(cells.add)

    def push(self, row: list[tuple[Box, EdgeTile]]) -> None:
        """All tiles with one range of rows, left to right."""
        columns = []
        for box, edges in row:
            columns.append(box[2] // self._cell)
            self._cells.put(box[0] // self._cell, columns[-1], edges.counts)
        (top, bottom, _, _), _ = row[0]
        open_ones = self._seams.push([edges for _, edges in row], row=top // self._cell, columns=columns)
        self._cells.settle(-(-bottom // self._cell), open_ones, self._seams.pending)

    def close(self) -> None:
        """After the last row: count what has proved real."""
        self._seams.settle()


def count_dtype(rule: EdgeRule) -> np.dtype:
    """Of the detail of a cell: the smallest unsigned integer for its pixels, or float32 for lengths."""
    return np.dtype(np.float32) if rule.length else np.min_scalar_type((rule.cell // rule.factor) ** 2)


def plane_shape(shape: tuple[int, int], rule: EdgeRule) -> tuple[int, int]:
    """Rows and columns of the plane on which edges are found."""
    return -(-shape[0] // rule.factor), -(-shape[1] // rule.factor)


def tiles_of(plane: tuple[int, int], tile: tuple[int, int], cell: int) -> Iterator[Box]:
    """Boxes of ``tile`` (rows, columns), rounded up to whole cells, that cover a plane row by row."""
    rows, columns = (max(-(-side // cell), 1) * cell for side in tile)
    for row in range(0, plane[0], rows):
        for column in range(0, plane[1], columns):
            yield row, min(row + rows, plane[0]), column, min(column + columns, plane[1])


def _tile_for(plane: tuple[int, int]) -> tuple[int, int]:
    columns = min(plane[1], TILE_COLUMNS)
    return max(TILE_ROWS, TILE_PIXELS // columns), columns


def find_edges(gradient: Gradient, plane: tuple[int, int], box: Box, rule: EdgeRule) -> EdgeTile:
    """The edges of one tile of a plane; thresholds must be known."""
    assert rule.high is not None
    wide = widened(box, 1, plane)
    dx, dy, held = gradient(wide)
    size, place = (box[1] - box[0], box[3] - box[2]), (box[0] - held[0], box[2] - held[2])
    if rule.length:
        return gradient_tile(dx, dy, place, size, rule.cell)
    return edge_tile(
        dx,
        dy,
        place,
        size,
        halo=(box[0] - wide[0], wide[1] - box[1], box[2] - wide[2], wide[3] - box[3]),
        low=rule.low,
        high=rule.high,
        cell=rule.cell // rule.factor,
        work=Workspace(*size, _buffer),
    )


def computed_gradient(planes: Planes, plane: tuple[int, int], kernel: int) -> Gradient:
    """Sobel's dx and dy (int16) of the blurred plane in any box, as if the whole plane had been blurred.

    Above one plane, a pixel has the gradient of the plane where |dx| + |dy| is largest there, of the first on ties.
    The arrays are the thread's own and overwritten by its next call.
    """

    def at(box: Box) -> tuple[Array, Array, Box]:
        near = widened(box, 1, plane)
        far = widened(near, kernel // 2, plane)
        best: tuple[Array, Array] | None = None
        for values in planes(far):
            if not values.flags.c_contiguous:  # rows of a wide plane get in each other's way in the cache
                near_values = _buffer("plane", values.shape, np.uint8)
                near_values[:] = values
                values = near_values
            smooth = values
            if kernel > 1:
                smooth = cv2.GaussianBlur(values, (kernel, kernel), 0, dst=_buffer("blur", values.shape, np.uint8))
            smooth = inner(smooth, far, near)
            kind = "first" if best is None else "other"
            dx, dy = (_buffer(f"{kind} {axis}", smooth.shape, np.int16) for axis in "xy")
            cv2.spatialGradient(smooth, dx, dy, borderType=cv2.BORDER_REPLICATE)
            if best is None:
                best = (dx, dy)
            else:
                _keep_stronger(*best, dx, dy)
        assert best is not None
        return *best, near

    return at


def grey_planes(pixels: Array, half: bool) -> list[Array]:
    """What edges are sought in: luma of RGB, a channel itself, the larger of two, every channel of more than three."""
    channels = pixels.shape[2]
    if channels == 3:
        planes = [cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)]
    elif channels <= 2:
        planes = [np.ascontiguousarray(pixels[..., 0]) if channels == 1 else pixels.max(axis=2)]
    else:
        planes = [np.ascontiguousarray(pixels[..., c]) for c in range(channels)]
    return [halved(p) for p in planes] if half else planes


def halved(plane: Array) -> Array:
    """Means of 2 × 2 pixels, uint8, halves rounded up; an odd last row or column is paired with itself."""
    odd = [s % 2 for s in plane.shape]
    if any(odd):
        plane = cv2.copyMakeBorder(plane, 0, odd[0], 0, odd[1], cv2.BORDER_REPLICATE)
    return cv2.resize(plane, (plane.shape[1] // 2, plane.shape[0] // 2), interpolation=cv2.INTER_AREA)


def is_small(shape: tuple[int, int]) -> bool:
    """Whether thresholds are those of all of an image's gradients."""
    return shape[0] * shape[1] <= SAMPLE_PIXELS


def sample_blocks(shape: tuple[int, int]) -> list[Box]:
    """The boxes of an image, in level-0 pixels, whose gradients set the thresholds."""
    if is_small(shape):
        return [(0, shape[0], 0, shape[1])]
    lines = []
    for length in shape:
        tiles = length // SAMPLE_TILE
        count = min(SAMPLE_SIDE, tiles)
        starts = [i * (tiles - 1) // max(count - 1, 1) * SAMPLE_TILE for i in range(count)]
        lines.append([(t + SAMPLE_MARGIN, t + SAMPLE_TILE - SAMPLE_MARGIN) for t in starts] or [(0, length)])
    return [(*rows, *columns) for rows in lines[0] for columns in lines[1]]


def sampled_rule(gradient: Gradient, shape: tuple[int, int], rule: EdgeRule, threads: int = 1) -> EdgeRule:
    """The rule with its thresholds from the gradients in ``sample_blocks``."""
    f = rule.factor
    boxes = [(a // f, -(-b // f), c // f, -(-d // f)) for a, b, c, d in sample_blocks(shape)]
    sizes = np.zeros(_SIZES, np.int64)
    for part in ordered(lambda box: _sizes_in(gradient, box), boxes, threads):
        sizes += part
    return _with_thresholds(rule, sizes)


def widened(box: Box, by: int, plane: tuple[int, int]) -> Box:
    """The box and so many pixels around it, as far as the plane goes."""
    return max(box[0] - by, 0), min(box[1] + by, plane[0]), max(box[2] - by, 0), min(box[3] + by, plane[1])


def inner(values: Array, outer: Box, box: Box) -> Array:
    """The part of an array over ``outer`` that lies in ``box``."""
    return values[box[0] - outer[0] : box[1] - outer[0], box[2] - outer[2] : box[3] - outer[2]]


def _planes_of(read: Callable[[Box], Array], shape: tuple[int, int], rule: EdgeRule, box: Box) -> list[Array]:
    f = rule.factor
    pixels = read((box[0] * f, min(box[1] * f, shape[0]), box[2] * f, min(box[3] * f, shape[1])))
    return grey_planes(pixels, rule.half)


def _with_own_thresholds(
    gradient: Gradient, plane: tuple[int, int], rule: EdgeRule, boxes: list[Box], threads: int
) -> tuple[Gradient, EdgeRule]:
    """The rule with the thresholds of the whole plane, and its gradient, which is kept since it is small."""
    kept = np.empty((2, *plane), np.int16)

    def keep(box: Box) -> Array:
        dx, dy, held = gradient(box)
        kept[0, box[0] : box[1], box[2] : box[3]] = inner(dx, held, box)
        kept[1, box[0] : box[1], box[2] : box[3]] = inner(dy, held, box)
        return _sizes_in(gradient=lambda _: (dx, dy, held), box=box)

    sizes = np.zeros(_SIZES, np.int64)
    for part in ordered(keep, boxes, threads):
        sizes += part
    return lambda _: (kept[0], kept[1], (0, plane[0], 0, plane[1])), _with_thresholds(rule, sizes)


def _sizes_in(gradient: Gradient, box: Box) -> Array:
    """Histogram of |dx| + |dy| in a box."""
    dx, dy, held = gradient(box)
    return _sizes(inner(dx, held, box), inner(dy, held, box))


def _with_thresholds(rule: EdgeRule, sizes: Array) -> EdgeRule:
    """High is half a step below the quantile: Canny asks for more than it, so that pixels at the quantile are edges."""
    sizes = sizes.copy()
    sizes[:_FLAT] = 0
    total, high = sizes.sum(), 8.0
    if total:
        high = max(float(np.searchsorted(np.cumsum(sizes), rule.share * total)) - 0.5, 8.0)
    return replace(rule, low=0.4 * high, high=high)


_local = threading.local()


def _buffer(name: str, shape: tuple[int, ...], dtype: type) -> Array:
    """An array of this thread, not initialised: fresh ones of this size would be mapped and cleared every time."""
    held = _local.__dict__.setdefault("buffers", {})
    size = int(np.prod(shape))
    if name not in held or held[name].size < size:
        held[name] = np.empty(size, dtype)
    return held[name][:size].reshape(shape)


@kernel
def _sizes(dx, dy):  # type: ignore[no-untyped-def]
    """Histogram of |dx| + |dy|; four of them in turn, for the increments of flat ground would wait for each other."""
    sizes = np.zeros((4, _SIZES), np.int64)
    for i in range(dx.shape[0]):
        for j in range(dx.shape[1]):
            sizes[j & 3, abs(np.int32(dx[i, j])) + abs(np.int32(dy[i, j]))] += 1
    return sizes.sum(axis=0)


@kernel
def _keep_stronger(dx, dy, other_dx, other_dy):  # type: ignore[no-untyped-def]
    """Replace the gradient where the other one is larger."""
    for i in range(dx.shape[0]):
        for j in range(dx.shape[1]):
            x, y = np.int32(other_dx[i, j]), np.int32(other_dy[i, j])
            if abs(x) + abs(y) > abs(np.int32(dx[i, j])) + abs(np.int32(dy[i, j])):
                dx[i, j], dy[i, j] = x, y
