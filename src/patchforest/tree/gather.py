"""Gather: every leaf as one patch of the same size, area-averaged, with no loop over leaves.

Area-average the image by two, again and again: a leaf of side p·2^k is one p × p block of the k-th average. The
inverse is ``paint``.
"""

from __future__ import annotations

import numpy as np

from patchforest.values import Array, Forest, PatchSequence


def gather(image: Array, forest: Forest, patch: int = 8) -> PatchSequence:
    """The patch sequence of an image: (L, C, patch, patch) float32 on the image's own scale, in Z-order.

    Parameters
    ----------
    image : (H, W), (H, W, C), or the same with a leading plane axis for a 3-D forest. Leaves that reach over the far
        edges see the image continued by its last row and column.
    patch : side of a patch. Leaves larger than it are averaged down, smaller ones repeat their pixels; leaf sides
        must be patch times or by a power of two.

    Raises
    ------
    ValueError : an image of another size than the forest, or a patch that does not divide by powers of two.
    """
    n = forest.ndim
    if image.shape[:n] != forest.shape or image.ndim not in (n, n + 1):
        raise ValueError(f"the forest is cut for an image of {forest.shape} (and channels); got {image.shape}")
    values = image if image.ndim == n + 1 else image[..., None]
    check_patch(forest, patch)
    channels = values.shape[-1]
    patches = np.empty((len(forest), channels) + (patch,) * n, np.float32)
    sizes = set(np.unique(forest.size).tolist())
    pyramid, factor = _with_edge(values, n), 1
    while sizes:
        for size in sorted(sizes):
            if max(size // patch, 1) != factor:
                continue
            chosen = forest.size == size
            patches[chosen] = _blocks(pyramid, forest.origin[chosen], size, patch, n)
            sizes.discard(size)
        if sizes:
            pyramid, factor = _average(pyramid, n), factor * 2
    return PatchSequence(
        patches=patches,
        coord=(forest.origin + forest.size[:, None] / 2).astype(np.float32),
        size=forest.size.copy(),
        valid=np.ones(len(forest), bool),
    )


def check_patch(forest: Forest, patch: int) -> None:
    """ValueError unless every leaf side is patch times or divided by a power of two."""
    big, small = max(patch, forest.cell), min(patch, forest.cell)
    ratio = big // small if small > 0 else 0
    if patch < 1 or ratio * small != big or ratio & (ratio - 1):
        raise ValueError(f"patch must be the forest's cell ({forest.cell}) times or by a power of two; got {patch}")


def _with_edge(values: Array, n: int) -> Array:
    """The array with its last row, column (and plane) repeated once: entry ``shape`` stands for all beyond the edge."""
    return np.pad(values, [(0, 1)] * n + [(0, 0)], mode="edge")


def _average(edged: Array, n: int) -> Array:
    """Mean of 2^n blocks of an edged array, again edged: the edge entry averages itself with itself."""
    for axis in range(n):
        length = edged.shape[axis] - 1  # without the edge entry
        half = (length + 1) // 2
        take = np.minimum(np.arange(2 * half + 2), length)
        # pairs of rows, the edge where a pair is incomplete, and last a pair of edges
        edged = (np.take(edged, take[::2], axis).astype(np.float32) + np.take(edged, take[1::2], axis)) * np.float32(
            0.5
        )
    return edged


def _blocks(edged: Array, origin: Array, size: int, patch: int, n: int) -> Array:
    """(N, C, patch, ...) blocks of leaves of one size from the pyramid level where they span a patch."""
    step = max(size // patch, 1)
    repeat = max(patch // size, 1)
    index = []
    for axis in range(n):
        at = origin[:, axis, None] // step + np.arange(patch) // repeat
        at = np.minimum(at, edged.shape[axis] - 1)
        index.append(at.reshape((len(origin),) + (1,) * axis + (patch,) + (1,) * (n - 1 - axis)))
    return np.moveaxis(edged[tuple(index)], -1, 1)
