"""Layers of a view: an image, class masks and probabilities as pyramids of JPEG and PNG tiles."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from PIL import Image

from patchforest.errors import InputError
from patchforest.io.pyramid import halve_mask, halve_mean
from patchforest.report import palette
from patchforest.report.tiles import TilePyramid, half, halved, read_bands, write_tiles
from patchforest.tree.stream import Workers
from patchforest.tree.window import ByteWindow, Window
from patchforest.values import Array, ImageSource

_QUALITY = 85
_ROUNDED = 1.001  # what float probabilities may reach by rounding
_COLOURS = 256  # of a palette; class numbers above 255 share those of 1 to 255


@dataclass(frozen=True, eq=False)
class Layer:
    """Something to see over the image.

    Attributes
    ----------
    name : to show; a word such as "prediction".
    source : one channel of class numbers; or of probabilities, uint8 to 255, uint16 to 65535 or float to 1. Of
        several channels of probabilities the first is the background's, and what it leaves to the others is shown.
    kind : what the pixels of ``source`` are.
    names : of the classes by number, background first; where there is none, the number is shown.
    """

    name: str
    source: ImageSource
    kind: Literal["mask", "probability"] = "mask"
    names: Sequence[str] = ()


@dataclass(frozen=True)
class Tiled:
    """A pyramid on disk: its files' suffix, and the class numbers that it holds, in order."""

    pyramid: TilePyramid
    suffix: str
    classes: tuple[int, ...] = ()


def tile_image(
    folder: Path, source: ImageSource, *, window: Window | None, max_side: int | None, workers: Workers
) -> Tiled:
    """JPEG tiles of an image: grey where it has one channel, else its first three (two: red and green)."""
    level, halvings = start_of(source, max_side)
    to_bytes = ByteWindow(window)
    bands: Iterable[Array] = (_shown(to_bytes(band)) for band in read_bands(source, workers, level=level))
    shape = source.levels[level]
    for _ in range(halvings):
        bands, shape = halved(bands, halve_mean), half(shape)
    pyramid = write_tiles(folder, bands, shape=shape, encode=_jpeg, halve=halve_mean, suffix=".jpg", workers=workers)
    to_bytes.warn()
    return Tiled(pyramid, ".jpg")


def tile_layer(folder: Path, layer: Layer, *, max_side: int | None, workers: Workers) -> Tiled:
    """PNG tiles of a layer, whose colours are those of ``palette`` and whose background is transparent.

    Raises
    ------
    InputError : the pixels are not what the layer's kind says.
    """
    source = layer.source
    level, halvings = start_of(source, max_side) if layer.kind == "probability" else (0, _halvings(source, max_side))
    shape, seen = source.levels[level], np.zeros(65536, bool)
    bands: Iterable[Array] = read_bands(source, workers, level=level)
    if layer.kind == "mask":
        bands, halve, colours = (_classes(band, seen, layer) for band in bands), halve_mask, _class_palette()
    else:
        bands, halve, colours = (_shares(band, layer) for band in bands), halve_mean, _share_palette()
    for _ in range(halvings):
        bands, shape = halved(bands, halve), half(shape)

    def encode(part: Array) -> bytes:
        return _png(_colour_number(part), colours)

    pyramid = write_tiles(folder, bands, shape=shape, encode=encode, halve=halve, suffix=".png", workers=workers)
    return Tiled(pyramid, ".png", tuple(np.flatnonzero(seen).tolist()))


def start_of(source: ImageSource, max_side: int | None) -> tuple[int, int]:
    """(stored level, halvings from there) that give an image of at most ``max_side`` pixels a side, 1/2^n of it.

    A stored level is used where it is a whole number of halvings small, to the pixel.
    """
    wanted = _halvings(source, max_side)
    height, width = source.levels[0]
    for done in range(wanted, 0, -1):
        for level, size in enumerate(source.levels[1:], 1):
            if all(abs(n - full / (1 << done)) < 1 for n, full in zip(size, (height, width))):
                return level, wanted - done
    return 0, wanted


def colour_of(number: int) -> tuple[int, int, int]:
    """RGB of a class number in the tiles and the legend."""
    red, green, blue = palette.class_colours(_COLOURS)[_colour_number(np.array([number]))[0]].tolist()
    return red, green, blue


def _halvings(source: ImageSource, max_side: int | None) -> int:
    longest, count = max(source.shape[:2]), 0
    while max_side is not None and -(-longest >> count) > max_side:
        count += 1
    return count


def _shown(pixels: Array) -> Array:
    """(h, w, 1) or (h, w, 3) of (h, w, C) uint8."""
    if pixels.shape[2] == 2:
        return np.concatenate([pixels, np.zeros_like(pixels[:, :, :1])], axis=2)
    return pixels[:, :, :3]


def _classes(band: Array, seen: Array, layer: Layer) -> Array:
    """(h, w, 1) class numbers; ``seen`` is marked where they occur."""
    if band.shape[2] != 1 or band.dtype.kind != "u" or band.dtype.itemsize > 2:
        what = f"holds {band.shape[2]} channels of {band.dtype}, and is no mask"
        raise InputError(layer.name, what, "give class numbers in one channel, in 8 or 16 bits")
    seen |= np.bincount(band.ravel(), minlength=65536) > 0
    return band


def _shares(band: Array, layer: Layer) -> Array:
    """(h, w, 1) uint8 to 255 of probabilities."""
    first = band[:, :, :1]
    if band.dtype.kind == "f" and 0 <= first.min() <= first.max() <= _ROUNDED:
        first = np.rint(np.minimum(first, 1) * 255)
    elif band.dtype == np.uint16:
        first = (first + np.uint32(128)) // np.uint32(257)
    elif band.dtype != np.uint8:
        what = f"holds {band.dtype} from {first.min():g} to {first.max():g}, which are no probabilities"
        raise InputError(layer.name, what, "give floats from 0 to 1, or unsigned integers over their whole range")
    shares = first.astype(np.uint8)
    return shares if band.shape[2] == 1 else np.uint8(255) - shares


def _colour_number(numbers: Array) -> Array:
    """uint8 place in the palette of class numbers."""
    if numbers.dtype == np.uint8:
        return numbers
    return np.where(numbers < _COLOURS, numbers, (numbers - 1) % (_COLOURS - 1) + 1).astype(np.uint8)


def _class_palette() -> Array:
    """(256, 4) uint8 RGBA: the colours of the classes, class 0 transparent."""
    opaque = np.full((_COLOURS, 1), 255, np.uint8)
    opaque[0] = 0
    return np.concatenate([palette.class_colours(_COLOURS), opaque], axis=1)


def _share_palette() -> Array:
    """(256, 4) uint8 RGBA: from clear violet to full yellow."""
    values = np.arange(256, dtype=np.uint8)[:, None]
    colours = cv2.applyColorMap(values, cv2.COLORMAP_PLASMA)[:, 0, ::-1]
    return np.concatenate([colours, values], axis=1)


def _jpeg(pixels: Array) -> bytes:
    return cv2.imencode(".jpg", np.ascontiguousarray(pixels[:, :, ::-1]), [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])[
        1
    ].tobytes()


def _png(numbers: Array, colours: Array) -> bytes:
    """A palette PNG of (h, w, 1) uint8, with as many colours of (256, 4) RGBA as it needs."""
    used = colours[: int(numbers.max()) + 1]
    picture = Image.fromarray(np.ascontiguousarray(numbers[:, :, 0]))
    picture.putpalette(used[:, :3].tobytes())
    file = io.BytesIO()
    picture.save(file, "PNG", transparency=used[:, 3].tobytes())
    return file.getvalue()
