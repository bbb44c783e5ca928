"""From files to a view: the work behind ``patchforest view``."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from patchforest.errors import InputError
from patchforest.io.array import ArraySource, window_of
from patchforest.io.label import checked_map, class_numbers, read_label
from patchforest.io.open import open_image
from patchforest.report.view_layers import Layer
from patchforest.report.viewer import Tell, View, require_extent, write_view
from patchforest.tree.stream import stream_forest
from patchforest.tree.window import Window
from patchforest.values import Array, ForestPolicy, ImageSource

if TYPE_CHECKING:
    from patchforest.io.annotation import Annotations

_WHOLE = 1 << 28  # pixels up to which a mask is read as a whole, with every check that this allows
_POLYGONS = (".geojson", ".json", ".geojson.gz", ".json.gz")

LabelMap = Mapping[int | str, int]


@dataclass(frozen=True)
class LayerFiles:
    """What to lay over an image: masks or polygons (GeoJSON) of prediction and truth, a raster of probabilities.

    Attributes
    ----------
    classes : names by class number, background first.
    label_map : of masks: value in the file to class number.
    """

    prediction: Path | None = None
    truth: Path | None = None
    probability: Path | None = None
    classes: Sequence[str] = ()
    label_map: LabelMap | None = None


def view_image(
    image: ImageSource,
    out: Path,
    *,
    title: str,
    files: LayerFiles,
    policy: ForestPolicy | None = None,
    window: Window | None = None,
    max_side: int | None = None,
    threads: int = 1,
    tell: Tell | None = None,
) -> View:
    """Opens the layers, cuts the forest by a policy (None: without one), and writes the view; see ``write_view``.

    The forest is cut from the image in parts, so that memory does not grow with its size.

    Raises
    ------
    InputError : a layer cannot be read, or does not fit the image.
    ValueError : the policy does not fit the image.
    """
    layers = open_layers(files, image)
    forest = None
    if policy is not None:
        if tell is not None:
            tell("forest")
        forest = stream_forest(image, policy, window=window, threads=threads)
    return write_view(
        out,
        image,
        title=title,
        forest=forest,
        layers=layers,
        window=window,
        max_side=max_side,
        threads=threads,
        tell=tell,
    )


def open_layers(files: LayerFiles, image: ImageSource) -> list[Layer]:
    """The layers of the files that are given; prediction first. InputError where one cannot be read or does not fit.

    Without names of classes, those of the GeoJSON files are numbered by appearance, the same in both.
    """
    shape = (int(image.shape[0]), int(image.shape[1]))
    given = [(n, p) for n, p in (("prediction", files.prediction), ("truth", files.truth)) if p is not None]
    down, across = getattr(image, "factor", (1.0, 1.0))  # polygons are in level-0 pixels of the file
    full = (round(shape[0] * down), round(shape[1] * across))
    drawn = {name: _read_polygons(path, files.classes, full) for name, path in given if _holds_polygons(path)}
    names = tuple(files.classes) or tuple(dict.fromkeys(n for part in drawn.values() for n in part.names))
    layers = []
    for name, path in given:
        source = (
            _Drawn(drawn[name], shape, names, math.sqrt(down * across))
            if name in drawn
            else open_mask(path, files.label_map)
        )
        require_extent(str(path), source.shape, shape)
        layers.append(Layer(name, source, names=names))
    if files.probability is not None:
        shares = open_image(files.probability)
        require_extent(str(files.probability), shares.shape, shape)
        layers.append(Layer("probability", shares, kind="probability"))
    return layers


def open_mask(path: Path, label_map: LabelMap | None = None) -> ImageSource:
    """The class numbers of a mask file as an image of one channel, by the rules of ``io.label.read_label``.

    Masks of more than 2^28 pixels are read in parts: without a map their values are taken as they are.
    """
    source = open_image(path)
    if source.shape[0] * source.shape[1] <= _WHOLE:
        return ArraySource(read_label(path, label_map=label_map), path)
    if source.shape[2] != 1 or source.read(0, 0, 0, 1, 1).dtype not in (np.uint8, np.uint16):
        raise InputError(path, "is no mask", "give class numbers in one grey channel, in 8 or 16 bits")
    return source if label_map is None else _Mapped(source, path, label_map)


class _Mapped:
    """A mask whose values are replaced by class numbers as they are read."""

    def __init__(self, source: ImageSource, path: Path, label_map: LabelMap) -> None:
        self.shape, self.levels, self.mpp, self.tile = source.shape, source.levels, source.mpp, source.tile
        self._source, self._path, self._map = source, path, checked_map(label_map)

    def read(
        self, level: int = 0, row: int = 0, column: int = 0, height: int | None = None, width: int | None = None
    ) -> Array:
        """(height, width, 1) class numbers."""
        return class_numbers(self._source.read(level, row, column, height, width), self._path, self._map, None)


class _Drawn:
    """Polygons as a mask of the image's size, drawn where it is read; their classes numbered by ``names``."""

    mpp: float | None = None

    def __init__(
        self, annotations: Annotations, shape: tuple[int, int], names: Sequence[str], factor: float = 1.0
    ) -> None:
        self.shape, self.levels, self._factor = (*shape, 1), (shape,), factor
        self.tile = annotations.tile
        self._annotations = annotations
        self._numbers = np.array([names.index(name) for name in annotations.names], annotations.dtype)

    def read(
        self, level: int = 0, row: int = 0, column: int = 0, height: int | None = None, width: int | None = None
    ) -> Array:
        """(height, width, 1) class numbers."""
        window = window_of(self.levels, level, row, column, height, width)
        return self._numbers[self._annotations.read(*window, self._factor)][:, :, None]


def _holds_polygons(path: Path) -> bool:
    return path.name.lower().endswith(_POLYGONS)


def _read_polygons(path: Path, classes: Sequence[str], shape: tuple[int, int]) -> Annotations:
    from patchforest.io.geojson import read_geojson

    return read_geojson(path, names=tuple(classes) or None, shape=shape)
