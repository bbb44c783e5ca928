"""Where a slide shows tissue: wherever it is not the bright, colourless glass around it."""

from __future__ import annotations

import cv2
import numpy as np

from patchforest.values import Array

_BRIGHT, _COLOURLESS = 200, 25  # glass: every channel at least so bright, and channels no further apart
_CONTRAST = 18
"""Grey levels by which tissue is darker than the brightest glass, in some channel: less is noise, or an uneven lamp."""
_LEAST = 0.002
"""Share of glass below which there is none, and everything counts as tissue."""
_GRAIN = 3


def find_tissue(thumbnail: Array) -> Array:
    """(h, w) bool, True on tissue.

    Glass is found rather than tissue, so that pale stroma, a faint counterstain, pigment and ink are kept: pixels about
    as bright as the brightest colourless ones. An image with no such pixels, such as fluorescence or a crop within the
    tissue, is tissue everywhere; an image of glass alone has none. Specks of a pixel or two are left out.

    Parameters
    ----------
    thumbnail : (h, w, 3) uint8. Other images have no glass to be told from, and count as tissue everywhere.

    HoloHisto samples from MONAI's foreground mask, dark and saturated by Otsu's thresholds; that loses whatever lies
    between two stains.
    """
    if thumbnail.ndim != 3 or thumbnail.shape[2] != 3 or thumbnail.dtype != np.uint8:
        return np.ones(thumbnail.shape[:2], bool)
    low, high = thumbnail.min(axis=2), thumbnail.max(axis=2)
    glass = (low >= _BRIGHT) & (high - low <= _COLOURLESS)
    if glass.mean() < _LEAST:
        return np.ones(thumbnail.shape[:2], bool)
    white = np.percentile(thumbnail[glass], 99, axis=0)
    tissue = (thumbnail < white - _CONTRAST).any(axis=2).astype(np.uint8)
    kernel = np.ones((_GRAIN, _GRAIN), np.uint8)
    return cv2.dilate(cv2.morphologyEx(tissue, cv2.MORPH_OPEN, kernel), kernel).astype(bool)
