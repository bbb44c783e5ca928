"""Masks one can see: class colours over the image, and where a prediction is right, too much, or missing."""

from __future__ import annotations

import cv2
import numpy as np

from patchforest.report import palette
from patchforest.report.display import Window, display_image, shrink_labels
from patchforest.values import Array

_LARGEST = 4096  # longest side that is painted at full resolution; larger pictures are shrunk first
# kinds of pixel: background found as such, right, wrong class, too much, missed, ignored
_ERROR_COLOURS = np.array(
    [
        palette.BACKGROUND,
        palette.TRUE_POSITIVE,
        palette.CONFUSED,
        palette.FALSE_POSITIVE,
        palette.FALSE_NEGATIVE,
        palette.IGNORED,
    ],
    np.uint8,
)
_ERROR_OPACITY = np.array([0.0, 0.4, 0.9, 0.9, 0.9, 0.5], np.float32)


def draw_overlay(
    image: Array,
    mask: Array,
    *,
    colours: Array | None = None,
    alpha: float = 0.4,
    outline: int | None = None,
    window: Window | None = None,
) -> Array:
    """(H, W, 3) uint8 RGB: the image under see-through class colours with solid outlines, so no mask looks black.

    Class 0 is the background and leaves the image as it is; negative class numbers (ignored pixels) turn grey. Images
    with a side over 4096 px come back at 4096.

    Parameters
    ----------
    image : (H, W) or (H, W, C), any dtype (see ``display_image`` for what is shown).
    mask : (H, W) whole class numbers.
    colours : (classes, 3) uint8 RGB, by default ``class_colours``.
    alpha : opacity of the fill, 0 to 1.
    outline : thickness of the outline in pixels; default about a 900th of the longer side; 0 for none.

    Raises
    ------
    ValueError : image and mask differ in size, or a class has no colour.
    """
    picture, labels = _same_size(image, mask, window=window)
    classes = int(labels.max(initial=0)) + 1
    colours = palette.class_colours(classes) if colours is None else colours
    if len(colours) < classes:
        raise ValueError(f"mask holds class {classes - 1}, but there are only {len(colours)} colours")
    table = np.concatenate([colours, np.array([palette.IGNORED], np.uint8)])
    index = np.where(labels < 0, len(colours), labels)
    paint = table[index]
    thick = max(1, round(max(labels.shape) / 900)) if outline is None else outline
    return _blend(picture, paint, _opacity(index, alpha=alpha, outline=thick))


def draw_errors(image: Array, prediction: Array, truth: Array, *, window: Window | None = None) -> Array:
    """(H, W, 3) uint8 RGB: right, too much, missed and wrong-class pixels (``palette.ERROR_LEGEND``) over a dim image.

    Only foreground is coloured; pixels whose truth is negative (ignored) turn grey. Sizes as in ``draw_overlay``.

    Raises
    ------
    ValueError : image, prediction and truth differ in size.
    """
    picture, truth = _same_size(image, truth, window=window)
    _, prediction = _same_size(image, prediction, window=window)
    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
    dimmed = np.repeat(cv2.convertScaleAbs(grey, alpha=0.55, beta=20)[:, :, None], 3, axis=2)
    found, there, same = prediction > 0, truth > 0, prediction == truth
    kind = np.select([truth < 0, found & there & same, found & there, found, there], [5, 1, 2, 3, 4], 0)
    return _blend(dimmed, _ERROR_COLOURS[kind], _ERROR_OPACITY[kind])


def _same_size(image: Array, labels: Array, *, window: Window | None) -> tuple[Array, Array]:
    if labels.ndim != 2 or image.shape[:2] != labels.shape:
        raise ValueError(f"image {image.shape[:2]} and mask {labels.shape} must have the same (height, width)")
    if labels.dtype.kind not in "iub":
        raise ValueError(f"mask must hold whole class numbers; got {labels.dtype}")
    signed = shrink_labels(labels, _LARGEST).astype(np.int32)
    return display_image(image, max_side=_LARGEST, window=window), signed


def _opacity(index: Array, *, alpha: float, outline: int) -> Array:
    """(H, W) float32: ``alpha`` inside coloured classes, 1 on the inner rim of each region, 0 on the background."""
    opacity = np.where(index > 0, np.float32(alpha), np.float32(0))
    if outline > 0:
        classes = index.astype(np.uint16)
        square = np.ones((2 * outline + 1,) * 2, np.uint8)
        rim = cv2.erode(classes, square) != classes
        rim |= cv2.dilate(classes, square) != classes
        opacity[rim & (index > 0)] = 1.0
    return opacity


def _blend(picture: Array, paint: Array, opacity: Array) -> Array:
    """Picture and paint (H, W, 3) uint8 mixed by opacity (H, W); only painted pixels are computed."""
    out = picture.copy()
    touched = opacity > 0
    share = opacity[touched, None]
    out[touched] = np.rint(picture[touched] * (1 - share) + paint[touched] * share).astype(np.uint8)
    return out
