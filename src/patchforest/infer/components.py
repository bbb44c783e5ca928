"""Connected components of masks larger than memory: what there is and how large, and then a number for every pixel.

A mask comes as consecutive bands: (h, W) rows of an image from the top, or (d, H, W) planes of a volume. Of what came
before, only the runs of its last row (plane) are kept, and one line for every component that is still open there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from patchforest.infer import runs
from patchforest.infer.moments import central_moments
from patchforest.values import Array

CONNECTIVITIES = {2: (4, 8), 3: (6, 18, 26)}
MAX_SIDE = 1 << 20
NUM_CLASSES = 65536
PER_COMPONENT = ("value", "size", "first", "low", "high", "centroid", "covariance", "faces", "diagonals")
_MAX_PIECES = (1 << 32) - 1
_REACH = {4: (0, -1, -1), 8: (1, -1, -1), 6: (0, 0, -1), 18: (1, 1, 0), 26: (1, 1, 1)}  # above, behind, corner


@dataclass(frozen=True, eq=False)
class Pieces:
    """What ``label_components`` needs: how the mask was cut, and what became of every piece that began in some band."""

    heights: tuple[int, ...]
    kept: Array
    number: Array


@dataclass(frozen=True, eq=False)
class Components:
    """The N connected components of a mask, in the order of their first pixels: line k has number k + 1.

    Attributes
    ----------
    shape : (H, W) or (D, H, W); n axes.
    connectivity : how many neighbours a pixel has: 4, 8, 6, 18 or 26.
    value : (N,) int64 class numbers.
    size : (N,) int64 pixels (voxels).
    first : (N,) int64 place of the first pixel in scan order, as ``numpy.ravel_multi_index`` counts.
    low, high : (N, n) int64 corners of the bounding box, half open.
    centroid : (N, n) float64 mean of pixel coordinates.
    covariance : (N, n, n) float64 of pixel coordinates, taken as points: 0 for a single pixel.
    faces : (N, n) int64 pixel edges (voxel faces) across each axis that lie between the component and anything else.
    diagonals : (N,) int64 diagonal steps out of an image's component, of four from each pixel; 0 for a volume.
    dropped : components smaller than wanted, which are in none of the above, by class number.
    """

    shape: tuple[int, ...]
    connectivity: int
    value: Array
    size: Array
    first: Array
    low: Array
    high: Array
    centroid: Array
    covariance: Array
    faces: Array
    diagonals: Array
    dropped: dict[int, int]
    pieces: Pieces

    def __len__(self) -> int:
        return len(self.value)

    @property
    def touches_border(self) -> Array:
        """(N,) bool: whether a component reaches the edge of the mask, and so may go on outside."""
        return ((self.low == 0) | (self.high == np.array(self.shape))).any(axis=1)


def components_of(
    bands: Iterable[Array],
    *,
    connectivity: int | None = None,
    classes: Collection[int] | None = None,
    min_size: int = 1,
) -> Components:
    """Every connected component of a mask, measured; pixels of different classes are never in one component.

    Memory: a band with its runs, about 300 bytes for each component, 8 for each dropped one. Neither numbers
    nor measures depend on how the mask is cut into bands: sums are whole numbers, turned to float64 once.

    Parameters
    ----------
    bands : from the top, (h, W) of an image or (d, H, W) of a volume, whole numbers 0 to 65535 or bool; 0 is
        background. No side over 2^20.
    connectivity : 4 or 8 for an image, 6, 18 or 26 for a volume. None: 4 or 6, by which things that touch at a corner
        are two, as in ``infer.polygons`` and ``scipy.ndimage.label`` (``skimage.measure.label`` takes 8 or 26).
    classes : only these; None: all but 0.
    min_size : smaller ones, in pixels, are counted in ``dropped`` and left out.

    Raises
    ------
    ValueError : another connectivity, bands that do not fit together, values that are no class numbers, no band at all.
    """
    if min_size < 1:
        raise ValueError(f"min_size must be at least 1 pixel; got {min_size}")
    sweep, census = _Sweep(connectivity, _kept(classes)), _Census(min_size)
    for band in bands:
        block = sweep.push(band)
        runs.join_tagged(block.parent, sweep.tag, census.num_open)
        piece = runs.number(block.parent)
        old, last = piece[: len(sweep.tag)], piece[block.first[-1 - sweep.line_rows] :]
        tag = census.push(block.add_up(piece, sweep), old, sweep.tag, last)
        sweep.carry(block, tag[last])
    if not sweep.heights:
        raise ValueError("there is no band: give at least one row or plane")
    number, fields = census.finish(len(sweep.shape))
    pieces = Pieces(tuple(sweep.heights), sweep.kept, number)
    return Components(sweep.shape, sweep.connectivity, **fields, dropped=census.dropped, pieces=pieces)


def label_components(bands: Iterable[Array], found: Components) -> Iterator[Array]:
    """The same bands again as uint32: the number of every pixel's component, 0 for background and dropped ones.

    Raises
    ------
    ValueError : these are not the bands that ``found`` was made from, or they are cut in other places.
    """
    sweep, number = _Sweep(found.connectivity, found.pieces.kept), found.pieces.number
    other = "give the same bands, cut in the same places, that the components were found in"
    begun = 0
    for index, band in enumerate(bands):
        if found.pieces.heights[index : index + 1] != (len(band),):
            raise ValueError(f"band {index} has {len(band)} rows or planes, not as before; {other}")
        block = sweep.push(band)
        piece = runs.number(block.parent)
        old = piece[: len(sweep.tag)]
        num_old, count = int(old.max(initial=-1)) + 1, int(piece.max(initial=-1)) + 1
        end = begun + count - num_old
        if end > len(number):
            raise ValueError(f"band {index} has pieces that were not there before; {other}")
        of_piece = np.empty(count, np.uint32)
        of_piece[old], of_piece[num_old:] = sweep.tag, number[begun:end]
        begun = end
        labels: Array = np.empty(np.shape(band), np.uint32)
        rows = labels.reshape(-1, labels.shape[-1])
        runs.fill_rows(block.first, block.start, block.end, piece, of_piece, block.num_old_rows, rows)
        sweep.carry(block, of_piece[piece[block.first[-1 - sweep.line_rows] :]])
        yield labels
    if tuple(sweep.heights) != found.pieces.heights or begun != len(number):
        raise ValueError(f"{len(sweep.heights)} bands with {begun} pieces were given; {other}")


@dataclass(frozen=True, eq=False)
class _Block:
    """The runs of a band behind those of the row (plane) before it; see ``runs``."""

    first: Array
    start: Array
    end: Array
    value: Array
    parent: Array
    pairs: Array
    num_old_rows: int
    top: int

    def add_up(self, piece: Array, sweep: _Sweep) -> Array:
        """(count, runs.COLUMNS) of the pieces of this band alone."""
        count = int(piece.max(initial=-1)) + 1
        place = (self.num_old_rows, count, self.top, sweep.plane_rows, sweep.shape[-1])
        return runs.add_up(self.first, self.start, self.end, self.value, piece, self.pairs, *place)


class _Sweep:
    """Joins each band to the runs of the row (plane) before it, whose ``tag`` says what they belong to."""

    def __init__(self, connectivity: int | None, kept: Array) -> None:
        self.kept, self.heights = kept, list[int]()
        self.shape: tuple[int, ...] = ()  # of the bands so far
        self.connectivity = 0
        self.line_rows, self.plane_rows = 1, runs.ENDLESS  # that are carried on; in a plane
        self.tag = np.empty(0, np.int64)
        self._asked = connectivity
        self._runs: tuple[Array, ...] = (np.zeros(1, np.int64), *(np.empty(0, np.int32) for _ in range(3)))

    def push(self, band: Array) -> _Block:
        """The band's runs, those that touch joined; ValueError for a band that does not fit the ones before."""
        band = _class_numbers(band)
        self._fit(band)
        rows = np.ascontiguousarray(band).reshape(-1, band.shape[-1])
        first, *new = runs.runs_of(rows, self.kept)
        old_first, *old = self._runs
        first = np.concatenate([old_first, first[1:] + old_first[-1]])
        start, end, value = (np.concatenate(pair) for pair in zip(old, new, strict=True))
        parent = np.arange(len(start))
        num_old_rows = len(old_first) - 1
        touching = (num_old_rows, self.plane_rows, *_REACH[self.connectivity])
        pairs = runs.join(first, start, end, value, parent, *touching)
        top = self.shape[0] * (1 if band.ndim == 2 else band.shape[1])
        self.shape = (self.shape[0] + len(band), *band.shape[1:])
        self.heights.append(len(band))
        return _Block(first, start, end, value, parent, pairs, num_old_rows, top)

    def carry(self, block: _Block, tag: Array) -> None:
        """Keep the block's last row (plane); ``tag`` has one entry for each of its runs."""
        first = block.first[-1 - self.line_rows :]
        self._runs = (first - first[0], *(part[first[0] :] for part in (block.start, block.end, block.value)))
        self.tag = tag

    def _fit(self, band: Array) -> None:
        """Takes shape and connectivity from the first band; the others must go with it."""
        if not self.shape:
            allowed = CONNECTIVITIES[band.ndim]
            self.connectivity = allowed[0] if self._asked is None else self._asked
            if self.connectivity not in allowed:
                kind = "an image" if band.ndim == 2 else "a volume"
                raise ValueError(f"connectivity of {kind} is one of {allowed}; got {self._asked}")
            self.shape = (0, *band.shape[1:])
            if band.ndim == 3:
                self.line_rows = self.plane_rows = band.shape[1]
        if band.shape[1:] != self.shape[1:]:
            raise ValueError(f"every band must have rows or planes of {self.shape[1:]}; got {band.shape[1:]}")
        if max(self.shape[0] + len(band), *band.shape[1:]) > MAX_SIDE:
            raise ValueError(
                f"no side may be over {MAX_SIDE:,} pixels; got {self.shape[0] + len(band), *band.shape[1:]}"
            )


class _Census:
    """Lines of the components that are open, and measures of those that have ended."""

    def __init__(self, min_size: int) -> None:
        self._min_size = min_size
        self._open = np.empty((0, runs.COLUMNS), np.int64)
        self._begun = np.empty(0, np.int64)  # of every open component: a piece that stands for all of it
        self._part_of, self._count = np.empty(1024, np.uint32), 0  # piece → another of the same component, or itself
        self._ended: dict[str, list[Array]] = {}
        self._dropped: Counter[int] = Counter()

    @property
    def num_open(self) -> int:
        return len(self._open)

    @property
    def dropped(self) -> dict[int, int]:
        return dict(sorted(self._dropped.items()))

    def push(self, table: Array, old: Array, tag: Array, last: Array) -> Array:
        """Adds the pieces of a band to what is open; returns, for every piece, its place among what stays open.

        ``old`` and ``tag``: pieces of the runs carried into the band, and which open component each belonged to.
        ``last``: pieces of the runs that are carried on.
        """
        piece_of_open = np.empty(len(self._open), np.int64)
        piece_of_open[tag] = old
        runs.merge(table, self._open, piece_of_open)
        num_old = int(old.max(initial=-1)) + 1
        begun = np.empty(len(table), np.int64)
        begun[piece_of_open] = self._begun  # of several, any will do
        begun[num_old:] = self._begin(len(table) - num_old)
        self._part_of[self._begun] = begun[piece_of_open]
        stays = np.zeros(len(table), bool)
        stays[last] = True
        self._end(table[~stays], begun[~stays])
        self._open, self._begun = table[stays], begun[stays]
        return np.cumsum(stays) - 1

    def _begin(self, count: int) -> Array:
        """Places for so many new pieces."""
        end = self._count + count
        if end > _MAX_PIECES:
            raise ValueError(f"the mask has more than {_MAX_PIECES:,} pieces: it is noise, or no mask")
        if end > len(self._part_of):
            more = np.empty(max(end, 2 * len(self._part_of)) - len(self._part_of), np.uint32)
            self._part_of = np.concatenate([self._part_of, more])
        places = np.arange(self._count, end)
        self._part_of[places] = places
        self._count = end
        return places

    def _end(self, table: Array, begun: Array) -> None:
        small = table[:, runs.SIZE] < self._min_size
        values, counts = np.unique(table[small, runs.VALUE], return_counts=True)
        self._dropped.update(dict(zip(values.tolist(), counts.tolist(), strict=True)))
        for name, values in {"begun": begun[~small], **_fields(table[~small])}.items():
            self._ended.setdefault(name, []).append(values)

    def finish(self, ndim: int) -> tuple[Array, dict[str, Array]]:
        """Number of every piece, and the fields of ``Components``, of ``ndim`` axes, in the order of first pixels."""
        self._end(self._open, self._begun)
        order = np.argsort(np.concatenate(self._ended["first"]))
        fields = {name: np.concatenate(self._ended.pop(name))[order] for name in list(self._ended)}
        root = self._part_of[: self._count]
        while not np.array_equal(root, root[root]):
            root = root[root]
        number = np.zeros(self._count, np.uint32)
        number[fields.pop("begun")] = np.arange(1, len(order) + 1)
        if ndim == 2:
            for name in ("low", "high", "centroid", "faces"):
                fields[name] = fields[name][:, 1:]
            fields["covariance"] = fields["covariance"][:, 1:, 1:]
        return number[root], fields


def _fields(table: Array) -> dict[str, Array]:
    """Fields of ``Components``, of three axes, from a table of ``runs``."""
    low, high = table[:, runs.LOW : runs.HIGH], table[:, runs.HIGH : runs.SUM]
    sums, lower, upper = np.split(table[:, runs.SUM :], [3, 9], axis=1)
    centroid, covariance = central_moments(table[:, runs.SIZE], sums, lower, upper, high - low)
    size, above, behind, across = table[:, [runs.SIZE, runs.ABOVE, runs.BEHIND, runs.RUNS]].T
    return {
        "value": table[:, runs.VALUE].copy(),
        "size": size,
        "first": table[:, runs.FIRST].copy(),
        "low": low.copy(),
        "high": high.copy(),
        "centroid": centroid,
        "covariance": covariance,
        "faces": 2 * np.stack([size - behind, size - above, across], axis=1),
        "diagonals": 4 * size - 2 * table[:, runs.DIAGONAL],
    }


def _kept(classes: Collection[int] | None) -> Array:
    """(65536,) bool: which class numbers count."""
    kept = np.full(NUM_CLASSES, classes is None)
    for number in classes or ():
        if not 0 < number < NUM_CLASSES:
            raise ValueError(f"a class is a number from 1 to {NUM_CLASSES - 1}; got {number}")
        kept[number] = True
    return kept


def _class_numbers(band: Array) -> Array:
    """The band as uint8 or uint16; ValueError unless it is a band of class numbers."""
    band = np.asarray(band)
    if band.ndim not in (2, 3) or band.size == 0:
        raise ValueError(f"a band is (h, W) or (d, H, W) with pixels in it; got shape {band.shape}")
    if band.dtype == bool:
        return band.view(np.uint8)
    if band.dtype.kind not in "ui":
        raise ValueError(f"a mask holds whole class numbers; got dtype {band.dtype}")
    if band.dtype.newbyteorder("=") in (np.uint8, np.uint16):
        return band.astype(band.dtype.newbyteorder("="), copy=False)
    if band.min() < 0 or band.max() >= NUM_CLASSES:
        raise ValueError(f"class numbers lie between 0 and 65535; got {band.min()} to {band.max()}")
    return band.astype(np.uint16)
