"""Where a stained slide shows tissue: darker and more coloured than the bright glass around it."""

from __future__ import annotations

import cv2
import numpy as np

from patchforest.values import Array

_CONTRAST = 12
"""Grey levels by which the mean of the dark part must lie below that of the bright one: less is noise on glass."""
_GRAIN = 3


def find_tissue(thumbnail: Array) -> Array:
    """(h, w) bool, True on tissue.

    A pixel is tissue where red, green or blue is darker than that channel's Otsu threshold and its saturation is above
    the saturation's; specks of a pixel or two are left out. A channel whose two parts are hardly apart says nothing, so
    an empty slide has no tissue.

    Parameters
    ----------
    thumbnail : (h, w, 3) uint8. Other images have no glass to be told from, and count as tissue everywhere.

    Source: the foreground mask of MONAI, which HoloHisto samples from; the minimal contrast and the specks are ours.
    """
    if thumbnail.ndim != 3 or thumbnail.shape[2] != 3 or thumbnail.dtype != np.uint8:
        return np.ones(thumbnail.shape[:2], bool)
    dark = np.zeros(thumbnail.shape[:2], bool)
    for channel in np.moveaxis(thumbnail, 2, 0):
        threshold = _otsu(channel)
        if threshold is not None:
            dark |= channel <= threshold
    threshold = _otsu(cv2.cvtColor(thumbnail, cv2.COLOR_RGB2HSV)[:, :, 1])
    if threshold is None:
        return dark & False
    tissue = dark & (cv2.cvtColor(thumbnail, cv2.COLOR_RGB2HSV)[:, :, 1] > threshold)
    kernel = np.ones((_GRAIN, _GRAIN), np.uint8)
    opened = cv2.morphologyEx(tissue.astype(np.uint8), cv2.MORPH_OPEN, kernel)
    return cv2.dilate(opened, kernel).astype(bool)


def _otsu(channel: Array) -> float | None:
    """Otsu's threshold of (h, w) uint8, or None where the two parts are hardly apart."""
    threshold, _ = cv2.threshold(np.ascontiguousarray(channel), 0, 255, cv2.THRESH_BINARY | cv2.THRESH_OTSU)
    low = channel <= threshold
    if low.all() or not low.any():
        return None
    return float(threshold) if channel[~low].mean() - channel[low].mean() >= _CONTRAST else None
