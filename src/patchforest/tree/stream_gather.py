"""Patches of images larger than memory: the same as ``gather`` gives, from any ``ImageSource``, read in blocks."""

from __future__ import annotations

import warnings
from math import lcm

import numpy as np

from patchforest.tree.edges import Box
from patchforest.tree.gather import as_sequence, check_patch, fill_from_sums, fill_patches, summable
from patchforest.tree.reduced import ReducedImage
from patchforest.tree.stream import COLUMNS, ROWS, Progress, block_side, held
from patchforest.tree.threads import ordered
from patchforest.values import Array, Forest, ImageSource, PatchSequence

_CHUNK = 64  # leaves filled from sums at a time
_MOST_SIDE = 2048  # of a block, where tiles of the file do not fit the leaves
_COARSE_TILE = 256  # of coarser levels: sources tell the tile of level 0 only


def stream_gather(
    source: ImageSource,
    forest: Forest,
    patch: int = 8,
    *,
    threads: int = 1,
    exact: bool = True,
    reduced: ReducedImage | None = None,
    progress: Progress | None = None,
) -> PatchSequence:
    """The sequence that ``gather(source.read(), forest, patch)`` gives, bit for bit, without ever holding the image.

    Parameters
    ----------
    reduced : as ``stream_forest`` filled it: only tiles that hold small leaves are then read, else every tile once.
    exact : False takes coarse leaves from the coarser levels of the file where it has them, which are much faster to
        read and are what the scanner's software made of the pixels: not their area average.
    threads, progress : see ``stream_forest``.

    Raises
    ------
    ValueError : a forest of another size than the image or of three axes, a patch that does not divide by powers of
        two, a reduced image that is not complete.
    """
    if forest.shape != tuple(source.shape[:2]):
        raise ValueError(f"the forest is cut for an image of {forest.shape}; got one of {tuple(source.shape[:2])}")
    check_patch(forest, patch)
    if reduced is not None and not reduced.complete:
        raise ValueError(
            "the reduced image is not complete; pass it to stream_forest first, with a policy that reads the image, "
            "and wait for its end"
        )
    if reduced is not None and (reduced.shape, reduced.sums.shape[2]) != (forest.shape, source.shape[2]):
        had = (*reduced.shape, reduced.sums.shape[2])
        raise ValueError(f"the reduced image is of one of {had}; got one of {tuple(source.shape)}")
    patches = np.empty((len(forest), source.shape[2], patch, patch), np.float32)
    left = np.arange(len(forest))
    if not exact:
        for level, factor in _usable_levels(source):
            inside = (forest.origin[left] // factor < source.levels[level]).all(axis=1)  # levels may end early
            coarse = (forest.size[left] >= factor * patch) & inside
            _Level(source, level, factor, forest, patch, patches).fill(left[coarse], None, threads, None)
            left = left[~coarse]
        if len(left) == len(forest) and len(forest):
            what = "exact=False has no effect: the image has no coarser level that is a power of two smaller"
            warnings.warn(what, UserWarning, stacklevel=2)
    _Level(held(source), 0, 1, forest, patch, patches).fill(left, reduced, threads, progress)
    if progress is not None:
        progress(1.0)
    return as_sequence(patches, forest)


def _usable_levels(source: ImageSource) -> list[tuple[int, int]]:
    """(level, factor) of the stored levels that are a power of two smaller, coarsest first."""
    full, out = source.shape[:2], []
    for level, size in enumerate(source.levels[1:], 1):
        factor = 1 << max(round(float(np.log2(full[0] / size[0]))), 0)
        if factor > 1 and all(s in (f // factor, -(-f // factor)) for s, f in zip(size, full)):
            out.append((level, factor))
    return out[::-1]


class _Level:
    """Fills patches from one stored level, ``factor`` times smaller than the image."""

    def __init__(
        self, source: ImageSource, level: int, factor: int, forest: Forest, patch: int, patches: Array
    ) -> None:
        self.source, self.level, self.patch, self.patches = source, level, patch, patches
        self.shape = source.levels[level]
        self.place, self.size = forest.origin // factor, forest.size // factor

    def fill(self, leaves: Array, reduced: ReducedImage | None, threads: int, progress: Progress | None) -> None:
        """Fill these leaves: the large ones from sums over blocks, the others from the blocks that hold them."""
        if not len(leaves):
            return
        sums = ReducedImage(self.shape) if reduced is None else reduced
        large = self.size[leaves] >= sums.factor * self.patch
        if reduced is None and not large.any():
            reduced = sums  # nothing to add up
        self._from_blocks(leaves[~large], sums if reduced is None else None, threads, progress)
        self._from_sums(leaves[large], sums, threads)

    def _from_blocks(self, leaves: Array, sums: ReducedImage | None, threads: int, progress: Progress | None) -> None:
        """Read blocks, all of them where sums are wanted, and fill the leaves that lie in each."""
        longest = int(self.size[leaves].max()) if len(leaves) else 1
        unit = lcm(longest, 1 if sums is None else sums.factor)
        wanted = (ROWS, COLUMNS) if sums is not None else (unit, unit)
        tile = self.source.tile if self.level == 0 else (_COARSE_TILE, _COARSE_TILE)
        height, width = (block_side(t, unit, w, max(_MOST_SIDE, 4 * unit)) for t, w in zip(tile, wanted))
        across = -(-self.shape[1] // width)
        number = self.place[leaves, 0] // height * across + self.place[leaves, 1] // width
        order = np.argsort(number, kind="stable")
        number, leaves = number[order], leaves[order]
        blocks = np.unique(number) if sums is None else np.arange(-(-self.shape[0] // height) * across)
        starts, ends = np.searchsorted(number, blocks), np.searchsorted(number, blocks, side="right")

        def one(k: int) -> None:
            row, column = int(blocks[k]) // across * height, int(blocks[k]) % across * width
            box = (row, min(row + height, self.shape[0]), column, min(column + width, self.shape[1]))
            self._block(box, leaves[starts[k] : ends[k]], sums)

        for done, _ in enumerate(ordered(one, range(len(blocks)), threads), 1):
            if progress is not None:
                progress(done / len(blocks))

    def _block(self, box: Box, leaves: Array, sums: ReducedImage | None) -> None:
        pixels = self.source.read(self.level, box[0], box[2], box[1] - box[0], box[3] - box[2])
        if sums is not None:
            sums.add(pixels, box, self.shape)
        if len(leaves):
            place = self.place[leaves] - np.array([box[0], box[2]])
            fill_patches(summable(pixels), place, self.size[leaves], leaves, self.patches)

    def _from_sums(self, leaves: Array, sums: ReducedImage, threads: int) -> None:
        f = sums.factor

        def some(at: int) -> None:
            part = leaves[at : at + _CHUNK]
            fill_from_sums(sums.sums, self.place[part] // f, self.size[part] // f, 1.0 / (f * f), part, self.patches)

        for _ in ordered(some, range(0, len(leaves), _CHUNK), threads):
            pass
