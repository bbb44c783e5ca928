"""From an image of any size straight to what a model of leaves reads: its forest, and its patches in [0, 1]."""

from __future__ import annotations

import numpy as np

from patchforest.tree.cut import cut_forest
from patchforest.tree.detail import BY_TILES
from patchforest.tree.gather import gather
from patchforest.tree.reduced import ReducedImage
from patchforest.tree.stream import stream_forest
from patchforest.tree.stream_gather import stream_gather
from patchforest.tree.window import Window, unit_range, warn_if_dark
from patchforest.values import Array, Forest, ForestPolicy, ImageSource


def stream_leaves(
    source: ImageSource,
    policy: ForestPolicy,
    patch: int,
    *,
    window: Window | None = None,
    rng: np.random.Generator | None = None,
) -> tuple[Forest, Array]:
    """The forest of an image and its patches (L, C, patch, patch) float32 in [0, 1], without ever holding the image.

    Where the criterion cannot be found tile by tile (``tree.stream``), the image is held after all.

    Parameters
    ----------
    window : values that become 0 and 1; None: the full range of the dtype.
    rng : see ``cut_forest``.

    Raises
    ------
    ValueError : as of ``stream_forest`` and ``stream_gather``.
    """
    seen = UnitSource(source, window)
    if policy.uniform is None and policy.criterion not in (*BY_TILES, "uniform", "random"):
        image = seen.read()
        forest = cut_forest(image, policy, rng=rng)
        patches = gather(image, forest, patch).patches
    else:
        reduced = ReducedImage(source.shape)
        forest = stream_forest(seen, policy, rng=rng, reduced=reduced)
        full = reduced if reduced.complete else None  # a forest that needs no pixels has read none
        patches = stream_gather(seen, forest, patch, reduced=full).patches
    seen.warn()
    if not seen.changes:
        patches *= np.float32(1 / 255)
    return forest, patches


class UnitSource:
    """A source seen through an intensity window: bytes as they are where there is none, else float32 in [0, 1].

    Attributes
    ----------
    changes : whether the values are no longer the bytes of the file.
    """

    def __init__(self, source: ImageSource, window: Window | None) -> None:
        self._source, self._window = source, window
        self.shape, self.levels, self.mpp, self.tile = source.shape, source.levels, source.mpp, source.tile
        dtype = source.read(0, 0, 0, 1, 1).dtype
        self.changes = window is not None or dtype != np.uint8
        self._full = float(np.iinfo(dtype).max) if window is None and dtype.kind == "u" else 0.0
        self._most = 0

    def read(
        self, level: int = 0, row: int = 0, column: int = 0, height: int | None = None, width: int | None = None
    ) -> Array:
        """A window of the image, (height, width, C)."""
        pixels = self._source.read(level, row, column, height, width)
        if not self.changes:
            return pixels
        if self._full:
            self._most = max(self._most, int(pixels.max()))
        return unit_range(pixels, (0.0, self._full) if self._full else self._window)

    def warn(self) -> None:
        """Once, at the end, where the whole image used so little of its type that a window was forgotten."""
        if self._full:
            warn_if_dark(f"pixels of {self._full:.0f} at most", self._most, self._full)
