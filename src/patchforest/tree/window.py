"""The one named window through which pixel values of any dtype reach the detail map and the models.

A window (low, high) is given in the image's own values: low maps to 0, high to 1 (or 255), values beyond are clipped.
8-bit data passes unchanged. Nothing is ever rescaled by its own minimum and maximum, which would make the forest
depend on the exposure of a single image.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np

from patchforest.values import Array

Window = tuple[float, float]


def default_window(image: Array) -> Window:
    """The window that keeps every value: the range of an integer dtype, or (0, 1) for floats that lie in it.

    Raises
    ------
    ValueError : signed integers, and floats outside [0, 1] or not finite, whose range nobody can know.

    Warns
    -----
    UserWarning : unsigned integers of 16 bits or more that use under a fifteenth of their range, such as 12-bit data.
    """
    if image.dtype == np.bool_:
        return (0.0, 1.0)
    if image.dtype.kind == "u":
        full = float(np.iinfo(image.dtype).max)
        if image.dtype.itemsize > 1 and image.size:
            warn_if_dark(f"{image.dtype} pixels", float(image.max()), full, stacklevel=4)
        return (0.0, full)
    low, high = (float(image.min()), float(image.max())) if image.size else (0.0, 0.0)
    if not (np.isfinite(low) and np.isfinite(high)):
        raise ValueError("image holds NaN or infinite values; replace them before cutting a forest")
    if image.dtype.kind == "f" and low >= 0.0 and high <= 1.0:  # False for NaN
        return (0.0, 1.0)
    raise ValueError(
        f"{image.dtype} pixels from {low:g} to {high:g} have no known range; pass window=(low, high) in the image's "
        "own values, e.g. (0.5th, 99.5th percentile) of the training images, or (-200, 300) for soft tissue in HU"
    )


def _checked(image: Array, window: Window | None) -> Window:
    low, high = window if window is not None else default_window(image)
    if not (np.isfinite(low) and np.isfinite(high) and low < high):
        raise ValueError(f"window must be two finite numbers, low < high; got ({low}, {high})")
    if image.dtype.kind == "f" and not np.isfinite(image).all():
        raise ValueError("image holds NaN or infinite values; replace them before cutting a forest")
    return float(low), float(high)


def unit_range(image: Array, window: Window | None = None) -> Array:
    """float32 in [0, 1], same shape: (image − low) / (high − low), clipped."""
    low, high = _checked(image, window)
    out = image.astype(np.float32)
    if low:
        out -= np.float32(low)
    out *= np.float32(1.0 / (high - low))
    return np.clip(out, 0.0, 1.0, out=out)


def to_uint8(image: Array, window: Window | None = None) -> Array:
    """uint8 of the same shape for the 8-bit edge detectors; 8-bit data in its full window is returned as it is."""
    if image.dtype == np.uint8 and (window is None or tuple(window) == (0, 255)):
        return image
    return np.rint(unit_range(image, window) * 255.0).astype(np.uint8)


@dataclass
class ByteWindow:
    """Turns blocks of one image into uint8 by ``to_uint8``, one after another, from several threads.

    With ``window`` None a block must lie in a range that ``default_window`` knows: an unsigned type's, or [0, 1].
    """

    window: Window | None = None
    _most: float = 0.0
    _full: float = 0.0

    def __call__(self, pixels: Array) -> Array:
        if self.window is not None or pixels.dtype.kind != "u" or pixels.dtype.itemsize == 1:
            return to_uint8(pixels, self.window)
        self._full = float(np.iinfo(pixels.dtype).max)
        self._most = max(self._most, float(pixels.max()))
        return to_uint8(pixels, (0.0, self._full))

    def warn(self) -> None:
        """At the end: a warning where the image used so little of its type that a window was forgotten."""
        if self._full:
            warn_if_dark(f"pixels of {self._full:.0f} at most", self._most, self._full, stacklevel=3)


def warn_if_dark(what: str, most: float, full: float, *, stacklevel: int = 2) -> None:
    """UserWarning where unsigned pixels reach only ``most``, under a fifteenth of their range, such as 12-bit data."""
    if 0 < most < full / 15:
        warnings.warn(
            f"{what} reach only {most:.0f} of {full:.0f}, so they look nearly black; pass "
            "window=(low, high), e.g. (0, 4095) for 12-bit data",
            UserWarning,
            stacklevel=stacklevel + 1,
        )
