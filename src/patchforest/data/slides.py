"""Labelled slides, read a window at a time at any scale: no cropping beforehand, nothing held but places to look at.

Labels come from a mask file, at the image's size or at a scale that both files state, or from the polygons of a GeoJSON
file of QuPath.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from patchforest.data.layout import Case
from patchforest.data.load import shrink_image, shrink_label
from patchforest.errors import InputError
from patchforest.io.annotation import Annotations
from patchforest.io.geojson import SUFFIXES as POLYGONS
from patchforest.io.geojson import read_geojson
from patchforest.io.label import check_pair, checked_map, class_numbers, open_label
from patchforest.io.open import open_image
from patchforest.io.scale import AS_STORED, Scale, at_scale, thumbnail
from patchforest.tree.tissue import find_tissue
from patchforest.values import Array, ImageSource

COARSE = 4096
"""Longest side, in samples, of the grid on which pixels of every class are looked for."""
_BAND = 512
_SAME = 5e-4
"""By how much two stated scales, and a ratio and a whole number, may differ and still be the same."""


class SlidePicture:
    """An image and its labels at a scale, read in windows: what ``Picture`` is to images in memory.

    Attributes
    ----------
    view : the image at the scale, before ``downscale``.
    shape : (H, W) after it.
    nbytes : 0; nothing is held.

    Parameters
    ----------
    names : class names by number, for polygons.
    others : see ``data.load.load_case``.

    Raises
    ------
    InputError
        As ``load_case``; a mask of another size whose scale is not stated; polygons of unknown classes.
    """

    nbytes = 0

    def __init__(
        self,
        case: Case,
        *,
        names: Sequence[str] | None = None,
        label_map: Mapping[int | str, int] | None = None,
        num_classes: int | None = None,
        downscale: int = 1,
        scale: Scale = AS_STORED,
    ) -> None:
        if case.label is None:
            raise InputError(case.image, "has no mask", "add one of the same stem or leave the image out")
        source = open_image(case.image)
        self.view = at_scale(source, scale, case.image)
        self._downscale = downscale
        height, width = self.view.shape[:2]
        self.shape = (-(-height // downscale), -(-width // downscale))
        factor = getattr(self.view, "factor", (1.0, 1.0))
        known = source.mpp if scale.input_mpp is None else scale.input_mpp
        self.label = LabelView(
            case.label,
            image=source.shape[:2],
            image_path=case.image,
            image_mpp=known,
            view=(height, width),
            factor=(factor[0] * downscale, factor[1] * downscale),
            downscale=downscale,
            shape=self.shape,
            names=names,
            label_map=label_map,
            num_classes=num_classes,
        )

    def read(self, row: int, column: int, height: int, width: int) -> tuple[Array, Array]:
        """Image (h, w, C) in the file's own dtype and class numbers (h, w) of a window."""
        d, full = self._downscale, self.view.shape
        top, left = row * d, column * d
        pixels = self.view.read(0, top, left, min(height * d, full[0] - top), min(width * d, full[1] - left))
        return shrink_image(pixels, d), self.label.read(row, column, height, width)

    def tissue(self) -> Array:
        """(h, w) bool thumbnail of the tissue; True everywhere on images that are no stained slides."""
        return find_tissue(thumbnail(self.view))


class LabelView:
    """Class numbers of a mask file or of polygons at the scale of an image, a window at a time.

    Where a label pixel of the view covers a whole number of stored ones it is the class of most of them; else the class
    at its centre.
    """

    def __init__(
        self,
        path: Path,
        *,
        image: tuple[int, ...],
        image_path: Path,
        image_mpp: float | None,
        view: tuple[int, int],
        factor: tuple[float, float],
        downscale: int,
        shape: tuple[int, int],
        names: Sequence[str] | None,
        label_map: Mapping[int | str, int] | None,
        num_classes: int | None,
    ) -> None:
        self._path, self._map, self._classes = path, checked_map(label_map), num_classes
        self.shape = shape
        self._polygons: Annotations | None = None
        self._source: ImageSource | None = None
        if is_polygons(path):
            polygons = read_geojson(path, names=names, shape=(int(image[0]), int(image[1])))
            self._polygons, self._factor = polygons.stretched(factor[0] / factor[1]), factor
            return
        self._source = open_label(path)
        stored = self._source.shape[:2]
        if stored == tuple(image[:2]):
            self._factor = factor
        elif stored == view:
            self._factor = (float(downscale), float(downscale))
        else:
            ratio = _stated_ratio(self._source, image_mpp, stored, image)
            if ratio is None:
                check_pair(tuple(image), stored, image_path, path)
            assert ratio is not None
            self._factor = (factor[0] / ratio, factor[1] / ratio)
        whole = [round(f) for f in self._factor]
        self._block = whole[0] if whole[0] == whole[1] and all(
            abs(f - w) < 1e-6 * w for f, w in zip(self._factor, whole) if w
        ) and whole[0] > 0 else 0  # fmt: skip

    def read(self, row: int, column: int, height: int, width: int) -> Array:
        """(height, width) class numbers, uint8 or uint16."""
        if self._polygons is not None:
            return self._read_polygons(row, column, height, width)
        assert self._source is not None
        full = self._source.shape
        if self._block:
            b = self._block
            top, left = min(row * b, full[0] - 1), min(column * b, full[1] - 1)
            part = self._source.read(0, top, left, min(height * b, full[0] - top), min(width * b, full[1] - left))
            label = shrink_label(self._numbers(part[:, :, 0]), b)
            over = ((0, height - label.shape[0]), (0, width - label.shape[1]))
            return np.pad(label, over, mode="edge") if over != ((0, 0), (0, 0)) else label
        rows = _centres(row, height, self._factor[0], full[0])
        columns = _centres(column, width, self._factor[1], full[1])
        top, left = int(rows[0]), int(columns[0])
        part = self._source.read(0, top, left, int(rows[-1]) - top + 1, int(columns[-1]) - left + 1)
        return self._numbers(part[:, :, 0][np.ix_(rows - top, columns - left)])

    def coarse(self, side: int = COARSE) -> Array:
        """(h, w) class numbers of the whole image at the centres of a grid of at most ``side`` a side."""
        step = max(1, math.ceil(max(self.shape) / side))
        out = np.zeros(tuple(-(-s // step) for s in self.shape), np.uint16)
        rows = np.minimum(np.arange(out.shape[0]) * step + step // 2, self.shape[0] - 1)
        columns = np.minimum(np.arange(out.shape[1]) * step + step // 2, self.shape[1] - 1)
        band = max(1, 512 // step)
        for first in range(0, len(rows), band):
            chosen = rows[first : first + band]
            top = int(chosen[0])
            part = self.read(top, 0, int(chosen[-1]) - top + 1, self.shape[1])
            out[first : first + len(chosen)] = part[np.ix_(chosen - top, columns)]
        return out

    def check(self) -> None:
        """Read every label once; InputError for what ``read`` would raise somewhere."""
        for row in range(0, self.shape[0], _BAND):
            self.read(row, 0, min(_BAND, self.shape[0] - row), self.shape[1])

    def _numbers(self, values: Array) -> Array:
        return class_numbers(values, self._path, self._map, self._classes)

    def _read_polygons(self, row: int, column: int, height: int, width: int) -> Array:
        assert self._polygons is not None
        return self._polygons.read(row, column, height, width, self._factor[0])


def is_polygons(path: Path) -> bool:
    """Whether a label file is one of polygons, by its name."""
    return path.name.lower().endswith(POLYGONS)


def _stated_ratio(
    label: ImageSource, image_mpp: float | None, stored: tuple[int, ...], image: tuple[int, ...]
) -> float | None:
    """Image pixels a label pixel, where both files state their scale and it explains their sizes; else None."""
    if label.mpp is None or image_mpp is None:
        return None
    stated = label.mpp / image_mpp
    if abs(stated - round(stated)) < _SAME * stated and round(stated) > 0:
        stated = float(round(stated))
    fits = all(abs(n - s * stated) <= max(stated, 1.0) + _SAME * n for n, s in zip(image, stored))
    return stated if fits and abs(stated - 1) > _SAME else None


def _centres(start: int, count: int, factor: float, length: int) -> Array:
    """Stored entries at the centres of new ones."""
    place = np.floor((np.arange(start, start + count) + 0.5) * factor)
    return np.clip(place, 0, length - 1).astype(np.int64)
