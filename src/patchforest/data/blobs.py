"""Textured ellipses with thin tentacles on a flat field, and its opposite: noise everywhere.

``blobs`` is made so that adaptive patches pay: most of the picture is flat, and what is to be found is large and
smooth inside with outlines and arms of a few pixels. ``noise`` fills the field with strong texture instead, so that
edges are everywhere, an adaptive forest degenerates to the uniform grid, and nothing is to be gained: the honest
worst case.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from patchforest.values import Array, as_shape

BLOBS_CLASSES = ("background", "blob")

_FLAT = np.array([226.0, 205.0, 216.0])
_BODY = np.array([150.0, 88.0, 142.0])


def make_blobs(
    shape: Sequence[int],
    *,
    seed: int,
    count: int | None = None,
    tentacles: int = 5,
    thickness: float = 2.5,
    texture: float = 10.0,
    noise: float = 0.0,
) -> tuple[Array, Array]:
    """A picture and its truth: RGB uint8 (H, W, 3), label uint8 (H, W) of ``BLOBS_CLASSES``. Same arguments, same bits.

    Parameters
    ----------
    count : number of blobs; None: one for every 256² pixels, at least one.
    tentacles : most arms of a blob; each is a wavy line that thins towards its end.
    thickness : width of an arm at its root in pixels.
    texture : standard deviation of the texture inside blobs, in grey levels.
    noise : standard deviation of the texture of the field, in grey levels; 0 is the flat field, 60 the worst case.
    """
    size = as_shape(shape)
    if len(size) != 2:
        raise ValueError(f"a picture is 2-D: shape must be (H, W); got {size}")
    if min(tentacles, thickness, texture, noise) < 0 or (count is not None and count < 0):
        raise ValueError("count, tentacles, thickness, texture and noise must not be negative")
    rng = np.random.default_rng(seed)
    number = max(1, round(size[0] * size[1] / 256**2)) if count is None else count
    label = np.zeros(size, np.uint8)
    tone = np.zeros((*size, 3), np.float32)
    tone[:] = _FLAT
    for _ in range(number):
        drawn = np.zeros(size, np.uint8)
        _draw_blob(drawn, min(256, *size), tentacles, thickness, rng)
        tone[drawn > 0] = _BODY + rng.normal(0, 12, 3)
        label |= drawn
    soft: Array = cv2.GaussianBlur(tone, (0, 0), 0.8)
    inside = cv2.GaussianBlur(rng.standard_normal(size, dtype=np.float32), (0, 0), 2.0) * 7.0
    soft += (inside * label * np.float32(texture))[..., None]
    soft += rng.standard_normal(size, dtype=np.float32)[..., None] * np.float32(1.5)
    if noise > 0:
        field = cv2.GaussianBlur(rng.standard_normal(size, dtype=np.float32), (0, 0), 1.0) * 3.5
        soft += (field * np.float32(noise))[..., None]
    return np.clip(np.rint(soft), 0, 255).astype(np.uint8), label


def _draw_blob(out: Array, room: int, tentacles: int, thickness: float, rng: np.random.Generator) -> None:
    """Set the pixels of one ellipse and its arms to 1; ``room`` is the side of the square it is sized for."""
    height, width = out.shape
    centre = np.array([rng.uniform(0, width), rng.uniform(0, height)])
    axes = rng.uniform(0.08, 0.22, 2) * room
    turn = rng.uniform(0, 180)
    points = (float(centre[0]), float(centre[1])), (float(2 * axes[0]), float(2 * axes[1])), float(turn)
    cv2.ellipse(out, points, 1, -1)
    for _ in range(int(rng.integers(0, tentacles + 1))):
        heading = rng.uniform(0, 2 * np.pi) + np.cumsum(rng.normal(0, 0.22, 24))
        step = rng.uniform(0.25, 0.6) * room / 24
        path = (
            centre + np.cumsum(step * np.stack([np.cos(heading), np.sin(heading)], 1), 0) + _rim(heading[0], axes.min())
        )
        path = np.vstack([centre, path])
        for k in range(len(path) - 1):
            wide = max(1, round(thickness * (1 - 0.7 * k / 24)))
            ends = np.rint(path[k : k + 2] * 8).astype(int)
            cv2.line(out, tuple(map(int, ends[0])), tuple(map(int, ends[1])), 1, wide, cv2.LINE_8, 3)


def _rim(heading: float, radius: float) -> Array:
    """Offset (x, y) from the centre of a blob to where an arm leaves it."""
    return 0.8 * radius * np.array([np.cos(heading), np.sin(heading)])
