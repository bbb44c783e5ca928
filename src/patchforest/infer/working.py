"""An image as the network sees it: at the model's scale, in unit range, a window at a time."""

from __future__ import annotations

import math
from pathlib import Path

import cv2
import numpy as np

from patchforest.errors import InputError
from patchforest.infer.blend import Enlargement
from patchforest.io.array import ArraySource
from patchforest.io.scale import Scale, ScaledSource, at_scale, thumbnail
from patchforest.models.build import MODELS, scores_leaves
from patchforest.models.bundle import ModelSpec
from patchforest.tree.tissue import find_tissue
from patchforest.tree.window import unit_range
from patchforest.values import Array, ImageSource, Region

THUMBNAIL = 2048
_STRIP = 1 << 22  # stored pixels that are brought to the model's scale at once


class WorkingImage:
    """Windows of an image at the scale a model was trained at.

    Attributes
    ----------
    frame : (h, w) of the image at that scale; windows are given in its pixels.
    enlargement : from the frame back to the image's own size.

    Raises
    ------
    InputError : other channels than the model's; the model was trained at so many microns per pixel, and the image
        does not state its own.
    """

    def __init__(self, source: ImageSource, spec: ModelSpec, path: str | Path = "image") -> None:
        if spec.model.spatial == 3:
            raise InputError(path, "is an image, and the model reads volumes", "give it volumes, or a model of images")
        if scores_leaves(MODELS.get(spec.model.name)):
            hint = "train one of masks with forest.criterion=scorer and forest.scorer=its folder"
            raise InputError(path, "the model is a scorer, which cuts forests and makes no masks", hint)
        if source.shape[2] != spec.model.channels:
            given = f"has {source.shape[2]} channels, the model was trained on {spec.model.channels}"
            raise InputError(path, given, "convert the image, or use a model for such images")
        self.path, self._window, self._down = path, spec.intensity_window, spec.downscale
        self._view = source if spec.mpp is None else _at_models_scale(source, spec.mpp, path)
        height, width = self._view.shape[:2]
        self.frame = (-(-height // self._down), -(-width // self._down))
        own = (source.shape[0], source.shape[1])
        ours, theirs = (getattr(s, "factor", (1.0, 1.0)) for s in (self._view, source))
        factor = (ours[0] / theirs[0], ours[1] / theirs[1]) if self._view is not source else (1.0, 1.0)
        self.enlargement = Enlargement(self.frame, own, (factor[0] * self._down, factor[1] * self._down))

    @property
    def view(self) -> ImageSource:
        """The whole image at the frame's scale, in the values of its file (averages are rounded to its dtype)."""
        return self._view if self._down == 1 else ScaledSource(self._view, factor=self._down)

    def read(self, region: Region) -> Array:
        """(h, w, C) float32 in [0, 1] of a window.

        Raises
        ------
        InputError : pixels that cannot be read, or whose range nobody knows.
        """
        rows, columns = region.shape
        step = max(1, _STRIP // (columns * self._down**2))
        parts = [
            self._strip((region.origin[0] + row, region.origin[1]), (min(step, rows - row), columns))
            for row in range(0, rows, step)
        ]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _strip(self, origin: tuple[int, int], shape: tuple[int, int]) -> Array:
        top, left = (o * self._down for o in origin)
        height, width = (min(s * self._down, n - o) for s, n, o in zip(shape, self._view.shape, (top, left)))
        pixels = self._view.read(0, top, left, height, width)
        try:
            unit = unit_range(pixels, self._window)
        except ValueError as error:
            raise InputError(self.path, str(error), "give values as in the training images") from None
        return shrink(unit, self._down)

    def tissue(self) -> Tissue:
        """Where the image shows tissue, found on a thumbnail of at most 2048 pixels a side."""
        return Tissue(find_tissue(thumbnail(self._view, THUMBNAIL)), self.frame)


class Tissue:
    """A mask of the tissue, asked about windows of a frame."""

    def __init__(self, mask: Array, frame: tuple[int, int]) -> None:
        self.mask, self._frame = mask, frame

    def within(self, region: Region) -> bool:
        """Whether a window holds tissue, the pixels of the thumbnail around it included."""
        box = []
        for origin, side, length, pixels in zip(region.origin, region.shape, self._frame, self.mask.shape):
            low = math.floor(origin / length * pixels) - 1
            box.append(slice(max(low, 0), math.ceil((origin + side) / length * pixels) + 1))
        return bool(self.mask[tuple(box)].any())

    def __bool__(self) -> bool:
        return bool(self.mask.any())


def _at_models_scale(source: ImageSource, mpp: float, path: str | Path) -> ImageSource:
    """The image at a model's scale, from the file itself where ``source`` is a view of it: never enlarged from that."""
    if not isinstance(source, ScaledSource):
        return at_scale(source, Scale(mpp=mpp), path)
    known = None if source.mpp is None else source.mpp / math.sqrt(source.factor[0] * source.factor[1])
    return at_scale(source.source, Scale(mpp=mpp, input_mpp=known), path)


def hold(source: ImageSource, memory: int, path: str | Path = "image") -> ImageSource:
    """The image, in memory where its file is decoded as a whole anyway; others as they are.

    Raises InputError where that takes more than ``memory`` bytes, before anything is decoded.
    """
    if source.tile[0] < source.shape[0] or source.tile[1] < source.shape[1]:
        return source
    size = math.prod(source.shape)
    if size > memory:
        what = f"is decoded as a whole, {size / 2**20:,.0f} MiB, and {memory / 2**20:,.0f} are allowed"
        hint = (
            f"give --memory more, or make it a tiled TIFF: `vips tiffsave {Path(path).name} OUT.tif --tile --pyramid`"
        )
        raise InputError(path, what, hint)
    held = ArraySource(source.read(), path, mpp=source.mpp)
    held.magnification = getattr(source, "magnification", None)
    return held


def as_source(pixels: Array, name: str = "image") -> ImageSource:
    """An array (H, W, C) or (H, W) as an image; InputError for other shapes."""
    if pixels.ndim not in (2, 3) or min(pixels.shape) < 1:
        raise InputError(name, f"has shape {pixels.shape}, not (height, width, channels)", "give a 2-D image")
    return ArraySource(pixels, name)


def shrink(image: Array, factor: int) -> Array:
    """(ceil(h / f), ceil(w / f), C) means of f × f blocks; the far edges are repeated where a block reaches over."""
    if factor == 1:
        return image
    height, width, channels = image.shape
    rows, columns = -(-height // factor), -(-width // factor)
    over = ((0, rows * factor - height), (0, columns * factor - width), (0, 0))
    whole = np.pad(image, over, mode="edge") if any(b for _, b in over) else image
    small = cv2.resize(whole, (columns, rows), interpolation=cv2.INTER_AREA)
    return small.reshape(rows, columns, channels)
