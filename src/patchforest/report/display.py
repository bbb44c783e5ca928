"""Pixels for the eye: any image as 8-bit RGB of a size that fits a page. Nothing here feeds a model or a score."""

from __future__ import annotations

import cv2
import numpy as np

from patchforest.values import Array

Window = tuple[float, float]


def display_image(image: Array, *, max_side: int | None = None, window: Window | None = None) -> Array:
    """(h, w, 3) uint8 RGB picture of an image of any dtype and number of channels, for looking at only.

    One channel becomes grey, two become red and green, of more than three the first three are shown. 8-bit pixels keep
    their values. Other dtypes pass through ``window`` (low, high), by default the 0.5th and 99.5th percentile of this
    very image, which is fit for the eye but not for a model. Values that are not finite show as black.

    Parameters
    ----------
    image : (H, W) or (H, W, C).
    max_side : shrink by area average until no side is longer; None keeps the size.
    """
    if image.ndim not in (2, 3) or 0 in image.shape:
        raise ValueError(f"image must be (H, W) or (H, W, C) and not empty; got {image.shape}")
    pixels = image[:, :, None] if image.ndim == 2 else image[:, :, :3]
    pixels = shrink(_to_uint8(pixels, window), max_side)
    if pixels.shape[2] == 1:
        return np.repeat(pixels, 3, axis=2)
    if pixels.shape[2] == 2:
        return np.concatenate([pixels, np.zeros_like(pixels[:, :, :1])], axis=2)
    return np.ascontiguousarray(pixels)


def shrink(pixels: Array, max_side: int | None) -> Array:
    """The same picture (H, W, C), area-averaged so that no side is longer than ``max_side``; never enlarged."""
    size = shrunk_size(pixels.shape, max_side)
    if size == pixels.shape[:2]:
        return pixels
    out = cv2.resize(np.ascontiguousarray(pixels), size[::-1], interpolation=cv2.INTER_AREA)
    return out.reshape(*size, pixels.shape[2])


def shrink_labels(labels: Array, max_side: int | None) -> Array:
    """The same class numbers (H, W), sampled at the nearest pixel so that no side is longer than ``max_side``."""
    size = shrunk_size(labels.shape, max_side)
    rows, columns = (((np.arange(n) + 0.5) * full / n).astype(int) for n, full in zip(size, labels.shape))
    return labels[np.ix_(rows, columns)]


def shrunk_size(shape: tuple[int, ...], max_side: int | None) -> tuple[int, int]:
    """(height, width) after fitting the first two axes into ``max_side``."""
    height, width = shape[:2]
    scale = 1.0 if max_side is None else min(1.0, max_side / max(height, width))
    return max(1, round(height * scale)), max(1, round(width * scale))


def _to_uint8(pixels: Array, window: Window | None) -> Array:
    if pixels.dtype == np.uint8 and window is None:
        return pixels
    values = pixels.astype(np.float32)
    finite = np.isfinite(values)
    if window is None:
        sample = values[:: max(1, len(values) // 1024)]
        sample = sample[np.isfinite(sample)]
        low, high = np.percentile(sample, [0.5, 99.5]) if sample.size else (0.0, 1.0)
    else:
        low, high = window
    span = float(high - low) or 1.0
    return np.rint(np.clip(np.where(finite, (values - low) / span, 0.0), 0.0, 1.0) * 255).astype(np.uint8)
