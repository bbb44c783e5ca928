"""Volumes on their working grid: made isotropic-ish by whole factors an axis, cut into octrees there, enlarged back.

Sections are often ten times thicker than the pixels in them are wide, and leaves are cubes of voxels. So rows and
columns (or planes) are averaged over whole blocks until voxels are about as thick as wide, the network works there,
and what it says is enlarged to the stored voxels: no detail finer than a block can be answered (``train.volumes``
prints that ceiling).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

import cv2
import numpy as np

from patchforest.tree.cut import cut_forest
from patchforest.tree.forest import default_root
from patchforest.tree.window import Window, unit_range
from patchforest.values import Array, Forest, ForestPolicy, VolumeSource

Factors = tuple[int, int, int]

_SLAB = 1 << 24  # voxels read at a time


def nearest_factors(spacing: Sequence[float], wanted: Sequence[float]) -> Factors:
    """Blocks (planes, rows, columns) that bring voxels of ``spacing`` nearest to ``wanted``, as ratios go; at least 1.

    Both in one unit along (plane, row, column). Volumes coarser than wanted stay as they are.

    Raises ValueError for lengths that are not positive.
    """
    if not all(math.isfinite(v) and v > 0 for v in (*spacing, *wanted)):
        raise ValueError(f"spacings must be positive; got {tuple(spacing)} and {tuple(wanted)}")
    ratios = [w / s for s, w in zip(spacing, wanted, strict=True)]
    low = [max(math.floor(r), 1) for r in ratios]
    return tuple(f + (r * r > f * (f + 1)) for f, r in zip(low, ratios))  # type: ignore[return-value]


def working_shape(shape: Sequence[int], factors: Factors) -> tuple[int, ...]:
    """(d, h, w): blocks of ``factors`` voxels that cover a volume (D, H, W)."""
    return tuple(-(-s // f) for s, f in zip(shape, factors))


def read_working(source: VolumeSource, factors: Factors, window: Window | None = None) -> Array:
    """(d, h, w, C) float32 in [0, 1]: a volume on its working grid, read a few planes at a time.

    Values pass ``window`` (``tree.window.unit_range``) first and are averaged over blocks then.

    Raises ValueError for values without a known range when there is no ``window``.
    """
    depth, height, width, channels = source.shape
    check_factors(factors)
    step = factors[0] * max(1, _SLAB // (factors[0] * height * width * channels))
    out = np.empty((*working_shape((depth, height, width), factors), channels), np.float32)
    for plane in range(0, depth, step):
        slab = source.read((plane, 0, 0), (min(step, depth - plane), height, width))
        part = block_means(unit_range(slab, window), factors)
        out[plane // factors[0] :][: len(part)] = part
    return out


def block_means(volume: Array, factors: Factors) -> Array:
    """(d, h, w, ...) means over blocks of a float volume (D, H, W, ...), in its dtype; the far ends are repeated."""
    blocks = _blocks(volume, check_factors(factors))
    return volume if factors == (1, 1, 1) else blocks.mean(axis=(1, 3, 5), dtype=np.float64).astype(volume.dtype)


def block_majority(label: Array, factors: Factors) -> Array:
    """(d, h, w): the class of most of a block's voxels, the smaller number where two are equal."""
    if check_factors(factors) == (1, 1, 1):
        return label
    blocks = _blocks(label, factors)
    best = np.zeros(blocks.shape[::2], np.int32)
    out = np.zeros(best.shape, label.dtype)
    for value in np.flatnonzero(np.bincount(label.ravel())):
        count = (blocks == value).sum(axis=(1, 3, 5), dtype=np.int32)
        out[count > best] = value
        np.maximum(best, count, out=best)
    return out


def enlarged_planes(values: Array, factors: Factors, shape: Sequence[int]) -> Iterator[Array]:
    """The planes (K, H, W) float32 of values (K, d, h, w) on the working grid, spread linearly between block centres.

    One plane at a time, so that memory does not grow with the number of planes. ``shape`` is the (D, H, W) of all.
    """
    depth, height, width = shape
    size = (values.shape[3] * factors[2], values.shape[2] * factors[1])
    for plane in range(depth):
        place = min(max((plane + 0.5) / factors[0] - 0.5, 0.0), values.shape[1] - 1.0)
        low = min(int(place), max(values.shape[1] - 2, 0))
        mixed = values[:, low]
        if place > low:
            mixed = mixed + np.float32(place - low) * (values[:, low + 1] - mixed)
        if factors[1:] != (1, 1):
            mixed = np.stack([cv2.resize(m, size, interpolation=cv2.INTER_LINEAR) for m in mixed])
        yield mixed[:, :height, :width]


def cut_volume(
    volume: Array, policy: ForestPolicy, window: Sequence[int], *, rng: np.random.Generator | None = None
) -> Forest:
    """The octree forest of a volume (d, h, w, C) in [0, 1]: ``policy.budget`` leaves for one ``window``.

    Other shapes get leaves in proportion to their voxels, at least one a root. ``policy.window`` is not used.

    Parameters
    ----------
    window : shape of the sub-volumes that the budget is meant for.
    rng : see ``tree.cut.cut_forest``.
    """
    if policy.budget is not None:
        shape = volume.shape[:3]
        root = policy.root or default_root(shape, policy.cell)
        roots = math.prod(-(-s // root) for s in shape)
        leaves = round(policy.budget * math.prod(shape) / math.prod(window))
        policy = replace(policy, budget=max(leaves, roots), window=None)
    return cut_forest(volume, policy, rng=rng, spatial=3)


def check_factors(factors: Factors) -> Factors:
    """The same, or ValueError unless they are three whole numbers of at least 1."""
    if len(factors) != 3 or min(factors) < 1:
        raise ValueError(f"downscale must be three factors (planes, rows, columns) of at least 1; got {factors}")
    return factors


def _blocks(volume: Array, factors: Factors) -> Array:
    """(d, factor, h, factor, w, factor, ...) view of a volume whose ends were repeated up to whole blocks."""
    short = [(0, -s % f) for s, f in zip(volume.shape, factors)] + [(0, 0)] * (volume.ndim - 3)
    whole = np.pad(volume, short, mode="edge") if any(b for _, b in short) else volume
    split = [v for s, f in zip(whole.shape, factors) for v in (s // f, f)]
    return whole.reshape(*split, *volume.shape[3:])
