"""Forests of images larger than memory: the same as in memory, from any ``ImageSource``, read once in blocks.

An image is read in strips of the tiles in which it is stored, on several threads; while edges are sought in one strip
the next is decoded. What stays in memory grows with the cells and the leaves, not with the pixels. ``stream_gather``
(``stream_gather.py``) then fills the leaves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from math import lcm
from typing import TypeVar

import numpy as np

from patchforest.tree.canny import EdgeTile
from patchforest.tree.cells import AllCells, Cells, UsefulCells
from patchforest.tree.cut import build_by_policy, cut_forest
from patchforest.tree.detail import BY_TILES
from patchforest.tree.edges import (
    TILE_COLUMNS,
    TILE_ROWS,
    Box,
    CellSink,
    EdgeRule,
    computed_gradient,
    count_dtype,
    edge_rule,
    find_edges,
    grey_planes,
    inner,
    plane_shape,
    sampled_rule,
    tiles_of,
)
from patchforest.tree.forest import default_root, grow, layout_of, scaled_budget
from patchforest.tree.reduced import ReducedImage
from patchforest.tree.window import ByteWindow, Window
from patchforest.values import Array, Forest, ForestPolicy, ImageSource

Progress = Callable[[float], None]
ROWS, COLUMNS = 512, 512  # of a block, about: what a thread decodes at a time, and finds in its cache a moment later
_MOST_BYTES = 1 << 28  # of a strip, where tiles or strips of the file are so tall
_HELD_BYTES = 1 << 26  # of all planes, up to which they are kept while the thresholds of edges are not known yet

Result = TypeVar("Result")


def stream_forest(
    source: ImageSource,
    policy: ForestPolicy,
    *,
    window: Window | None = None,
    rng: np.random.Generator | None = None,
    threads: int = 1,
    reduced: ReducedImage | None = None,
    progress: Progress | None = None,
) -> Forest:
    """The forest that ``cut_forest(source.read(), policy, ...)`` gives, without ever holding the image.

    Parameters
    ----------
    window, rng : see ``detail_map``. Without a window, floats must lie in [0, 1].
    threads : blocks decoded and searched at a time.
    reduced : is filled on the way, so that ``stream_gather`` need not read again what coarse leaves show.
    progress : called with the share done, 0 to 1. What it raises ends the work: so it is cancelled.

    Raises
    ------
    ValueError : a criterion that is not found by tiles (``edges``, ``canny`` and ``gradient`` are; ``uniform`` and
        ``random`` need no pixels), pixels of unknown range, a policy that does not fit (``build_forest``).

    Notes
    -----
    Where the image is larger than 2^28 pixels, ``edges`` reads 400 blocks of it beforehand, for its thresholds.
    """
    shape = (int(source.shape[0]), int(source.shape[1]))
    if policy.uniform is not None or policy.criterion in ("uniform", "random"):
        nothing = np.broadcast_to(np.uint8(0), shape)  # of the right shape, and no larger than one pixel
        return cut_forest(nothing, policy, rng=rng)
    if policy.criterion not in BY_TILES:
        raise ValueError(f"criterion {policy.criterion!r} cannot be streamed; use {', '.join(BY_TILES)}")
    if policy.threshold is not None and np.isnan(policy.threshold):
        raise ValueError("threshold must be a number; got NaN")
    rule = edge_rule(policy.criterion, shape, policy.cell, rng)
    cells = _cells(policy, shape, rule)
    if reduced is not None:
        reduced.begin(shape)
    strips = _Strips(held(source), shape, rule, cells, ByteWindow(window), reduced)
    with Workers(threads) as workers:
        strips.run(workers, progress, threads)
    strips.to_bytes.warn()
    if reduced is not None:
        reduced.complete = True
    return _grown(cells, policy, shape)


def _cells(policy: ForestPolicy, shape: tuple[int, int], rule: EdgeRule) -> AllCells | UsefulCells:
    """What takes the detail: only what the forest can use, where the number of splits is all that bounds it."""
    dtype = count_dtype(rule)
    root = policy.root or default_root(shape, policy.cell)
    layout = layout_of(shape, root, policy.cell)
    if policy.max_depth is not None or not layout.depth:
        return AllCells((-(-shape[0] // rule.cell), -(-shape[1] // rule.cell)), dtype)
    budget = None if policy.budget is None else scaled_budget(replace(policy, root=root), shape)
    return UsefulCells(layout, dtype, budget=budget, threshold=policy.threshold)


def _grown(cells: AllCells | UsefulCells, policy: ForestPolicy, shape: tuple[int, int]) -> Forest:
    if isinstance(cells, AllCells):
        return build_by_policy(cells.detail, policy, shape)
    scores, layout = cells.scores()
    budget = None if policy.budget is None else scaled_budget(replace(policy, root=layout.root), shape)
    return grow(scores, layout, limit=layout.depth, budget=budget, threshold=policy.threshold)


class _Held:
    """A source whose pixels are in memory."""

    def __init__(self, source: ImageSource) -> None:
        self._pixels = source.read()
        self.shape, self.levels, self.mpp = source.shape, source.levels[:1], source.mpp
        self.tile = (1, self.shape[1])

    def read(
        self, level: int = 0, row: int = 0, column: int = 0, height: int | None = None, width: int | None = None
    ) -> Array:
        """A view of a window."""
        rows = slice(row, None if height is None else row + height)
        return self._pixels[rows, column : None if width is None else column + width]


def held(source: ImageSource) -> ImageSource:
    """The source, in memory where it is decoded as a whole anyway."""
    return _Held(source) if source.tile[0] >= source.shape[0] and source.tile[1] >= source.shape[1] else source


def block_side(stored: int, unit: int, wanted: int, most: int) -> int:
    """A multiple of ``unit`` of about ``wanted``; of ``stored`` too, so that no tile is cut, where that is not long."""
    both = lcm(stored, unit)
    side = both if both <= most else unit
    return side * max(wanted // side, 1)


class Workers:
    """A few threads and what is given to them; leaving the block in the middle drops what has not begun."""

    def __init__(self, threads: int) -> None:
        if threads < 1:
            raise ValueError(f"threads must be at least 1; got {threads}")
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="patchforest")

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def begin(self, work: Callable[..., Result], items: Iterator | Sequence) -> list[Future[Result]]:
        """Start the work on every item."""
        return [self._pool.submit(work, item) for item in items]


class _Band:
    """Some rows of the planes, from ``first`` on."""

    def __init__(self, first: int, planes: list[Array]) -> None:
        self.first, self.planes = first, planes

    @property
    def end(self) -> int:
        return self.first + len(self.planes[0])

    def part(self, box: Box) -> list[Array]:
        """The planes in a box."""
        held = (self.first, self.end, 0, self.planes[0].shape[1])
        return [inner(plane, held, box) for plane in self.planes]


class _Strips:
    """Detail of an image, strip by strip: decode to a band of planes, then find what is in it.

    Edges of a strip's last rows need pixels of the next one, so every band takes those rows over from the one before.
    """

    def __init__(
        self,
        source: ImageSource,
        shape: tuple[int, int],
        rule: EdgeRule,
        cells: Cells,
        to_bytes: ByteWindow,
        reduced: ReducedImage | None,
    ) -> None:
        self.source, self.shape, self.rule, self.to_bytes, self.reduced = source, shape, rule, to_bytes, reduced
        self.cells = cells
        self.plane, self.reach = plane_shape(shape, rule), rule.kernel // 2 + 2
        unit = lcm(rule.cell, rule.factor, 1 if reduced is None else reduced.factor)
        most = max(2 * ROWS, _MOST_BYTES // (shape[1] * int(np.prod(source.shape[2:]))))
        self.height = block_side(source.tile[0], unit, ROWS, most)
        self.width = block_side(source.tile[1], unit, COLUMNS, 8 * COLUMNS)
        channels = source.shape[2]
        self.num_planes = 1 if channels <= 3 else channels
        if rule.high is None and self.num_planes * self.plane[0] * self.plane[1] <= _HELD_BYTES:
            self.height = -(-shape[0] // unit) * unit

    def run(self, workers: Workers, progress: Progress | None, threads: int) -> None:
        """Give ``cells`` the detail of the whole image."""
        sink, done = CellSink(self.cells, self.rule), 0
        if self.rule.high is None and self.height < self.shape[0]:
            self._set_thresholds(self._read_planes, threads)
        band, decoding = self._begin(workers, None, 0, 0)
        while True:
            for block in decoding:
                block.result()
            last, at = band.end == self.plane[0], band.end
            ready = at if last else max((at - self.reach) // self._cell * self._cell, done)
            current = band
            if self.rule.high is None:
                self._set_thresholds(band.part, threads)
            if not last:
                band, decoding = self._begin(workers, current, at, ready)
            self._search(workers, current, done, ready, sink)
            done = ready
            if progress is not None:
                progress(min(at * self.rule.factor / self.shape[0], 1.0))
            if last:
                sink.close()
                return

    def _set_thresholds(self, planes: Callable[[Box], list[Array]], threads: int) -> None:
        gradient = computed_gradient(planes, self.plane, self.rule.kernel)
        self.rule = sampled_rule(gradient, self.shape, self.rule, threads)

    def _read_planes(self, box: Box) -> list[Array]:
        """The planes in a box, from the source."""
        f = self.rule.factor
        row, column = box[0] * f, box[2] * f
        height, width = min(box[1] * f, self.shape[0]) - row, min(box[3] * f, self.shape[1]) - column
        return grey_planes(self.to_bytes(self.source.read(0, row, column, height, width)), self.rule.half)

    @property
    def _cell(self) -> int:
        return self.rule.cell // self.rule.factor

    def _begin(self, workers: Workers, before: _Band | None, at: int, ready: int) -> tuple[_Band, list[Future[None]]]:
        """Decode the strip whose first row is ``at`` into a new band, which begins a little before ``ready``."""
        first = max(ready - self.reach, 0)
        end = min(at + self.height // self.rule.factor, self.plane[0])
        band = _Band(first, [np.empty((end - first, self.plane[1]), np.uint8) for _ in range(self.num_planes)])
        if before is not None:
            for old, new in zip(before.planes, band.planes):
                new[: at - first] = old[first - before.first :]
        top, bottom = at * self.rule.factor, min(end * self.rule.factor, self.shape[0])
        boxes = [
            (top, bottom, left, min(left + self.width, self.shape[1])) for left in range(0, self.shape[1], self.width)
        ]
        return band, workers.begin(lambda box: self._decode(box, band), boxes)

    def _decode(self, box: Box, band: _Band) -> None:
        """Read a block of the image into its place in a band, and its sums into the reduced image."""
        pixels = self.source.read(0, box[0], box[2], box[1] - box[0], box[3] - box[2])
        if self.reduced is not None:
            self.reduced.add(pixels, box, self.shape)
        f = self.rule.factor
        row, column = box[0] // f - band.first, box[2] // f
        for plane, part in zip(band.planes, grey_planes(self.to_bytes(pixels), self.rule.half)):
            plane[row : row + part.shape[0], column : column + part.shape[1]] = part

    def _search(self, workers: Workers, band: _Band, done: int, ready: int, sink: CellSink) -> None:
        """Find edges in the rows from ``done`` to ``ready`` and add them up."""
        gradient = computed_gradient(band.part, self.plane, self.rule.kernel)
        tiles = tiles_of((ready - done, self.plane[1]), (TILE_ROWS, TILE_COLUMNS // 4), self._cell)
        boxes = [(done + a, done + b, c, d) for a, b, c, d in tiles]
        found = workers.begin(lambda box: find_edges(gradient, self.plane, box, self.rule), boxes)
        row: list[tuple[Box, EdgeTile]] = []
        for box, edges in zip(boxes, found):
            row.append((box, edges.result()))
            if box[3] == self.plane[1]:
                sink.push(row)
                row = []
