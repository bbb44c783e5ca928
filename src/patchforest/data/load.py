"""One case from disk into memory: decoded, checked against its mask, and made smaller where that is wanted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from patchforest.data.layout import Case
from patchforest.errors import InputError
from patchforest.io.label import check_pair, read_label
from patchforest.io.open import open_image
from patchforest.tree.window import default_window
from patchforest.values import Array

LabelMap = Mapping[int | str, int]


@dataclass(frozen=True, eq=False)
class Picture:
    """An image and its mask in memory.

    Attributes
    ----------
    image : (H, W, C) in the file's own dtype.
    label : (H, W) uint8 or uint16 class numbers.
    mpp : microns per pixel of the image before it was made smaller, or None.
    """

    image: Array
    label: Array
    mpp: float | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """(H, W)."""
        return self.label.shape[0], self.label.shape[1]

    def read(self, row: int, column: int, height: int, width: int) -> tuple[Array, Array]:
        """Image (h, w, C) and class numbers (h, w) of a window, without copying."""
        box = slice(row, row + height), slice(column, column + width)
        return self.image[box], self.label[box]

    @property
    def nbytes(self) -> int:
        """Bytes of the two arrays."""
        return int(self.image.nbytes + self.label.nbytes)


def load_case(
    case: Case,
    *,
    label_map: LabelMap | None = None,
    num_classes: int | None = None,
    downscale: int = 1,
    intensity_window: tuple[float, float] | None = None,
) -> Picture:
    """Image and mask of a case, each made ``downscale`` times smaller (see ``shrink_image``, ``shrink_label``).

    Raises InputError for unreadable files, sizes that differ, unknown label values (``io.read_label``), a case without
    mask, and pixels whose range nobody knows when no ``intensity_window`` is given.
    """
    if case.label is None:
        raise InputError(case.image, "has no mask", "add one of the same stem or leave the image out")
    source = open_image(case.image)
    image = source.read()
    label = read_label(case.label, label_map=label_map, num_classes=num_classes)
    check_pair(image.shape, label.shape, case.image, case.label)
    if intensity_window is None:
        require_known_range(image, case)
    return Picture(shrink_image(image, downscale), shrink_label(label, downscale), source.mpp)


def require_known_range(image: Array, case: Case) -> None:
    """InputError for pixels whose range nobody knows without an intensity window."""
    if image.dtype != np.uint8:
        try:
            default_window(image)
        except ValueError as fault:
            raise InputError(case.image, str(fault), "set intensity_window in the configuration") from fault


def check_case(
    case: Case,
    *,
    label_map: LabelMap | None = None,
    num_classes: int | None = None,
    channels: int | None = None,
) -> None:
    """Raise what ``load_case`` would of a missing or bad mask or sizes that differ; the image is only opened.

    InputError as well for an image with other than ``channels`` channels.
    """
    if case.label is None:
        raise InputError(case.image, "has no mask", "add one of the same stem or leave the image out")
    label = read_label(case.label, label_map=label_map, num_classes=num_classes)
    shape = open_image(case.image).shape
    check_pair(shape, label.shape, case.image, case.label)
    require_channels(shape[2], channels, case)


def require_channels(found: int, channels: int | None, case: Case) -> None:
    """InputError for an image with other than ``channels`` channels; None admits any."""
    if channels is not None and found != channels:
        hint = "convert the images, so that all have as many"
        raise InputError(case.image, f"has {found} channels where the first training image has {channels}", hint)


def shrink_image(image: Array, factor: int) -> Array:
    """Area averages of ``factor``² pixels: (ceil(H/factor), ceil(W/factor), C), same dtype; the edge is repeated."""
    if factor < 1:
        raise ValueError(f"downscale must be at least 1; got {factor}")
    if factor == 1:
        return image
    blocks = _blocks(image, factor)
    total = np.zeros((blocks.shape[0], blocks.shape[2], *blocks.shape[4:]), np.float64)
    for i in range(factor):  # a sum of factor² views: no array larger than the result
        for j in range(factor):
            total += blocks[:, i, :, j]
    total /= factor * factor
    if image.dtype.kind in "ui":
        np.rint(total, out=total)
    elif image.dtype.kind == "b":
        total = total >= 0.5
    return total.astype(image.dtype)


def shrink_label(label: Array, factor: int) -> Array:
    """The class of most of the ``factor``² pixels, the smaller number where two are equal: (ceil(H/factor), ...)."""
    if factor < 1:
        raise ValueError(f"downscale must be at least 1; got {factor}")
    if factor == 1:
        return label
    blocks = _blocks(label, factor)
    best = np.zeros((blocks.shape[0], blocks.shape[2]), np.int32)
    out = np.zeros(best.shape, label.dtype)
    for value in np.flatnonzero(np.bincount(label.ravel())):
        count = np.zeros_like(best)
        for i in range(factor):
            for j in range(factor):
                count += blocks[:, i, :, j] == value
        out[count > best] = value
        np.maximum(best, count, out=best)
    return out


def _blocks(raster: Array, factor: int) -> Array:
    """(rows, factor, columns, factor, ...) view of a raster whose edge was repeated up to a multiple of factor."""
    height, width = raster.shape[:2]
    extra = [(0, -height % factor), (0, -width % factor), *[(0, 0)] * (raster.ndim - 2)]
    padded = np.pad(raster, extra, mode="edge") if any(after for _, after in extra) else raster
    rows, columns = padded.shape[0] // factor, padded.shape[1] // factor
    return padded.reshape(rows, factor, columns, factor, *raster.shape[2:])
