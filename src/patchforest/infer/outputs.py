"""What is written for a predicted image: mask, probabilities, polygons and overlay, each whole or not at all."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import cv2
import numpy as np

from patchforest.infer.inputs import OVERLAYS, PROBABILITIES
from patchforest.infer.polygons import polygons_of
from patchforest.infer.predict import class_dtype
from patchforest.io.geojson import write_geojson
from patchforest.io.pyramid import write_pyramid
from patchforest.io.scale import thumbnail
from patchforest.io.write import write_image
from patchforest.values import Array, ImageSource

FORMATS = ("auto", ".png", ".tif", ".ome.tif", ".ome.zarr", ".nii.gz", ".nrrd")
LARGEST_PNG = 16384
"""Sides up to which ``auto`` writes PNG; larger masks, and those of images with levels or a scale, become pyramids."""
LARGEST_OVERLAY = 4096

Draw = Callable[[Array, Array], Array]


class Result(Protocol):
    """A predicted mask that is read in bands."""

    @property
    def shape(self) -> tuple[int, int]:
        """(H, W)."""
        ...

    def masks(self) -> Iterator[Array]:
        """(n, W) uint8 bands from the top."""
        ...

    def probabilities(self) -> Iterator[Array]:
        """(n, W, K) uint8 bands."""
        ...


@dataclass(frozen=True, eq=False)
class Outputs:
    """What to write beside the mask, and in which format.

    Attributes
    ----------
    format : of the mask, one of ``FORMATS``.
    probabilities : write them too, 8 bits a pixel and class, as ``probabilities/<id>.tif``.
    polygons : ``.geojson`` or ``.geojson.gz`` to write the outlines of the mask for QuPath, in level-0 pixels of the
        file; None for none.
    colours : (classes, 3) uint8 RGB of the outlines; needed for them.
    draw : makes the overlay ``overlays/<id>.png`` (h, w, 3) of an image and its mask, at most 4096 pixels a side; None
        for none.
    """

    format: str = "auto"
    probabilities: bool = False
    polygons: str | None = None
    colours: Array | None = None
    draw: Draw | None = None

    def __post_init__(self) -> None:
        if self.format not in FORMATS:
            raise ValueError(f"format must be one of {', '.join(FORMATS)}; got {self.format!r}")
        if self.polygons not in (None, ".geojson", ".geojson.gz"):
            raise ValueError(f"polygons must be .geojson or .geojson.gz; got {self.polygons!r}")
        if self.polygons is not None and self.colours is None:
            raise ValueError("polygons need a colour for every class")

    @property
    def needs_probabilities(self) -> bool:
        """Whether the probabilities have to be kept: polygons carry their mean."""
        return self.probabilities or self.polygons is not None

    @property
    def beside(self) -> tuple[str, ...]:
        """Kinds of the files that are wanted beside the mask."""
        wanted = {"probabilities": self.probabilities, "polygons": self.polygons is not None, "overlay": self.draw}
        return tuple(kind for kind, there in wanted.items() if there)

    def paths(self, out: Path, name: str, shape: tuple[int, int], *, flat: bool) -> dict[str, Path]:
        """File by kind of an image of an id; the mask first.

        ``flat``: the image has one level and no physical scale, so that a PNG loses nothing.
        """
        suffix = self.format
        if suffix == "auto":
            suffix = ".png" if max(shape) <= LARGEST_PNG and flat else ".tif"
        found = {"mask": out / f"{name}{suffix}"}
        if self.probabilities:
            found["probabilities"] = out / PROBABILITIES / f"{name}.tif"
        if self.polygons is not None:
            found["polygons"] = out / f"{name}{self.polygons}"
        if self.draw is not None:
            found["overlay"] = out / OVERLAYS / f"{name}.png"
        return found

    def write(
        self,
        paths: dict[str, Path],
        result: Result,
        image: ImageSource,
        classes: Sequence[str],
        progress: Callable[[float], None] | None = None,
    ) -> None:
        """Write the files of ``paths`` for a result on an image at the mask's scale; ``classes`` by number.

        ``progress`` is told the share of the rows that are written, of one file after the other.
        """
        shape, mpp = result.shape, image.mpp
        masks, dtype = _told(result.masks(), shape[0], progress), class_dtype(len(classes))
        write_pyramid(paths["mask"], masks, shape=shape, dtype=dtype, mpp=mpp, names=classes)
        if "probabilities" in paths:
            names = classes[1:] if len(classes) == 2 else classes
            shares = _told(result.probabilities(), shape[0], progress)
            kind: Literal["probability"] = "probability"
            write_pyramid(paths["probabilities"], shares, shape=shape, dtype=np.uint8, mpp=mpp, kind=kind, names=names)
        if "polygons" in paths:
            bands = _told(result.masks(), shape[0], progress)
            polygons = polygons_of(bands, width=shape[1], probabilities=_of_its_class(result))
            factor = getattr(image, "factor", (1.0, 1.0))
            fine = None if mpp is None else mpp / math.sqrt(factor[0] * factor[1])
            assert self.colours is not None
            height, width = getattr(image, "source", image).shape[:2]
            write_geojson(
                paths["polygons"],
                polygons,
                names=classes,
                colours=self.colours,
                scale=factor,
                mpp=fine,
                shape=(height, width),
            )
        if "overlay" in paths:
            assert self.draw is not None
            picture = thumbnail(image, LARGEST_OVERLAY)
            write_image(paths["overlay"], self.draw(picture, _small(result, picture.shape[:2])))


def _told(bands: Iterator[Array], rows: int, progress: Callable[[float], None] | None) -> Iterator[Array]:
    """The same bands, their share of all rows told as they pass."""
    done = 0
    for band in bands:
        yield band
        done += len(band)
        if progress is not None:
            progress(done / rows)


def _of_its_class(result: Result) -> Iterator[Array]:
    """(n, W) uint8 bands: the probability of every pixel's own class."""
    for mask, shares in zip(result.masks(), result.probabilities()):
        if shares.shape[2] == 1:
            yield np.where(mask > 0, shares[:, :, 0], 255 - shares[:, :, 0])
        else:
            yield np.take_along_axis(shares, mask[:, :, None].astype(np.intp), 2)[:, :, 0]


def _small(result: Result, shape: tuple[int, ...]) -> Array:
    """The mask at the size of a thumbnail, by the pixel at the middle of each of its pixels."""
    height, width = result.shape
    if (height, width) == tuple(shape):
        return np.concatenate(list(result.masks()))
    rows = ((np.arange(shape[0]) + 0.5) * height / shape[0]).astype(np.int64)
    out, top = np.empty(shape, np.uint16), 0
    for band in result.masks():
        inside = np.flatnonzero((rows >= top) & (rows < top + len(band)))
        for row in inside:
            line = band[rows[row] - top][None]
            out[row] = cv2.resize(line, (shape[1], 1), interpolation=cv2.INTER_NEAREST_EXACT)
        top += len(band)
    return out
