"""A forest one can see: every leaf as a thin frame over its image, coloured by level."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from patchforest.report import palette
from patchforest.report.display import Window, display_image, shrunk_size
from patchforest.values import Array, Forest, Region

_SMALLEST = 480  # pictures with both sides below this are enlarged, so that 2-pixel leaves can be told apart


def draw_forest(
    image: Array,
    forest: Forest,
    *,
    max_side: int = 1600,
    opacity: float = 0.85,
    dim: float = 0.85,
    window: Window | None = None,
) -> Array:
    """(h, w, 3) uint8 RGB: the image, shrunk (or, when tiny, enlarged) for the screen, under the frames of all leaves.

    Roots are blue, the finest leaves yellow. Frames are one display pixel wide whatever the size of the image; frames
    of leaves only a few display pixels wide are drawn fainter, so that the image stays visible between them.

    Parameters
    ----------
    image : (H, W) or (H, W, C) of the forest's own shape, any dtype.
    forest : 2-D forest.
    max_side : longest side of the picture in pixels.
    opacity : of the frames of large leaves, 0 to 1.
    dim : brightness of the image below the frames, 0 to 1.
    window : see ``display_image``.

    Raises
    ------
    ValueError : a 3-D forest, or a forest of another shape than the image.
    """
    if forest.ndim != 2:
        raise ValueError(f"only 2-D forests can be drawn; this one has {forest.ndim} axes: draw a slice of it")
    if image.shape[:2] != forest.shape:
        raise ValueError(f"the forest was cut for {forest.shape}, the image is {image.shape[:2]}")
    whole = Region((0, 0), forest.shape)
    return draw_windows(image, [(whole, forest)], max_side=max_side, opacity=opacity, dim=dim, window=window)


def draw_windows(
    image: Array,
    windows: Sequence[tuple[Region, Forest | None]],
    *,
    frame: tuple[int, ...] | None = None,
    max_side: int = 1600,
    opacity: float = 0.85,
    dim: float = 0.85,
    window: Window | None = None,
) -> Array:
    """As ``draw_forest``, for an image seen in parts, each with a forest of its own (``Prediction.windows``).

    Where windows overlap, the first one's frames are shown. A window without a forest shows the image alone.

    Parameters
    ----------
    frame : (H, W) in whose pixels windows and forests are given, where ``image`` is a smaller picture of it.
    """
    picture = display_image(image, max_side=max_side, window=window)
    size = shrunk_size(image.shape, max_side)
    enlarge = _SMALLEST // max(size)
    if enlarge > 1:
        size = (size[0] * enlarge, size[1] * enlarge)
        picture = cv2.resize(picture, size[::-1], interpolation=cv2.INTER_NEAREST)
    scale = np.array(size) / np.array(image.shape[:2] if frame is None else frame)
    out = np.rint(picture * np.float32(dim)).astype(np.uint8)
    free = np.ones(size, bool)
    for region, forest in windows:
        corner, end = (np.floor(np.array(p) * scale + 1e-6).astype(int) for p in (region.origin, _end(region)))
        box = tuple(slice(int(a), max(int(b), int(a) + 1)) for a, b in zip(corner, end))
        if forest is not None:
            _draw_leaves(out, free & _inside(size, box), region.origin, forest, scale, opacity)
        free[box] = False
    return out


def _draw_leaves(out: Array, free: Array, shift: tuple[int, ...], forest: Forest, scale: Array, opacity: float) -> None:
    """Blends the frames of all leaves into ``out`` (h, w, 3) where ``free`` (h, w); coarse levels first."""
    colours = palette.level_colours(forest.depth)
    for level in np.unique(forest.level):
        leaves = forest.level == level
        side = forest.size[leaves][0] * scale.min()
        strength = opacity * float(np.clip(side / 10, 0.3, 1.0))
        lines = free & _frames(forest.origin[leaves] + np.array(shift), forest.size[leaves], scale, out.shape[:2])
        colour = colours[level].astype(np.float32)
        out[lines] = np.rint(out[lines] * (1 - strength) + colour * strength).astype(np.uint8)


def _frames(origin: Array, leaf_size: Array, scale: Array, size: tuple[int, ...]) -> Array:
    """(h, w) bool: the top and left sides of boxes, given in level-0 pixels, on the display grid."""
    begin = np.floor(origin * scale + 1e-6).astype(int)
    end = np.floor((origin + leaf_size[:, None]) * scale + 1e-6).astype(int)
    end = np.minimum(end, np.array(size))
    lines = np.zeros(size, bool)
    for (top, left), (bottom, right) in zip(begin.tolist(), end.tolist()):
        lines[top : top + 1, left:right] = True
        lines[top:bottom, left : left + 1] = True
    return lines


def _end(region: Region) -> tuple[int, ...]:
    return tuple(o + s for o, s in zip(region.origin, region.shape))


def _inside(size: tuple[int, int], box: tuple[slice, ...]) -> Array:
    mask = np.zeros(size, bool)
    mask[box] = True
    return mask
