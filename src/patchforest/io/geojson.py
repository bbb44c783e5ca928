"""Polygons as GeoJSON for QuPath and back: ``write_geojson`` streams them to disk, ``read_geojson`` makes them labels.

The form is what QuPath 0.4 and later write (qupath#1099, #1103): coordinates (x, y) in level-0 pixels from the upper
left corner, ``classification`` with name and colour, ``measurements`` as an object, ``.geojson`` or ``.geojson.gz``.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import uuid
import warnings
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from patchforest.errors import InputError
from patchforest.io.annotation import Annotations
from patchforest.io.atomic import atomic_path
from patchforest.io.features import features_in, polygons_in
from patchforest.values import Array

SUFFIXES = (".geojson", ".json", ".geojson.gz", ".json.gz")
FOREGROUND = "foreground"
_DIGITS = 4  # of coordinates that are no whole numbers
_MAX_LISTED = 5


class Shape(Protocol):
    """What is written of one component: the fields of ``infer.polygons.Polygon``."""

    @property
    def value(self) -> int: ...
    @property
    def exterior(self) -> Array: ...
    @property
    def holes(self) -> tuple[Array, ...]: ...
    @property
    def area(self) -> int: ...
    @property
    def probability(self) -> float | None: ...


def write_geojson(
    path: str | Path,
    polygons: Iterable[Shape],
    *,
    names: Sequence[str],
    colours: Array,
    scale: tuple[float, float] = (1.0, 1.0),
    mpp: float | None = None,
    shape: tuple[int, int] | None = None,
    detections: bool = False,
) -> int:
    """``path`` holds one feature a polygon, in their order, one a line; returns how many.

    Equal polygons give equal files: a feature's ``id`` is a UUID made from its class, exterior and scale. Each has the
    measurements "Area px" (of level 0), "Area um^2" where ``mpp`` is known, "Probability" where the polygon has one.
    Memory does not grow with their number.

    Parameters
    ----------
    path : ends in ``.geojson`` or ``.json``, with ``.gz`` behind it for gzip.
    polygons : e.g. from ``infer.polygons.polygons_of``; corners (row, column) in pixels of the mask.
    names, colours : name, and (K, 3) uint8 RGB of every class by number, background first.
    scale : level-0 pixels a mask pixel has along (row, column). Coordinates that are no whole numbers then are rounded
        to 4 digits.
    mpp : microns per level-0 pixel, or None.
    shape : (H, W) of the image at level 0: no coordinate lies beyond it, though the last mask pixels may.
    detections : write "detection" objects, which QuPath shows faster and does not let edit, instead of "annotation".

    Raises
    ------
    ValueError
        A class without name or colour, or a scale or ``mpp`` that is no positive number.
    InputError
        Another suffix, or a target that cannot be written.
    """
    path = Path(path)
    if not path.name.lower().endswith(SUFFIXES):
        raise InputError(path, "names no GeoJSON file", "end it in .geojson or .geojson.gz")
    if not all(np.isfinite(s) and s > 0 for s in (*scale, 1.0 if mpp is None else mpp)):
        raise ValueError(f"scale and mpp must be positive numbers; got {scale}, {mpp}")
    if len(colours) < len(names):
        raise ValueError(f"every class has a colour; got {len(colours)} for {len(names)} names")
    heads = [_head(name, colour, detections) for name, colour in zip(names, np.asarray(colours).tolist())]
    count = 0
    with atomic_path(path) as temporary, ExitStack() as stack:
        file: Any = stack.enter_context(open(temporary, "wb"))
        if path.name.lower().endswith(".gz"):
            file = stack.enter_context(gzip.GzipFile("", "wb", compresslevel=6, fileobj=file, mtime=0))
        file.write(b'{"type":"FeatureCollection","features":[')
        for polygon in polygons:
            if not 0 <= polygon.value < len(heads):
                raise ValueError(f"class {polygon.value} has no name; there are {len(heads)}: {_listed(names)}")
            feature = _feature(polygon, heads[polygon.value], scale, mpp, shape)
            file.write((",\n" if count else "\n").encode() + feature.encode("utf-8", "backslashreplace"))
            count += 1
        file.write(b"\n]}\n")
    return count


def _head(name: str, colour: list[int], detections: bool) -> str:
    """The properties of every feature of a class, up to the measurements."""
    properties = {
        "objectType": "detection" if detections else "annotation",
        "classification": {"name": name, "color": colour},
    }
    return _dumped(properties)[:-1] + ',"measurements":'


def _feature(
    polygon: Shape, head: str, scale: tuple[float, float], mpp: float | None, shape: tuple[int, int] | None
) -> str:
    """One line of JSON."""
    area = polygon.area * scale[0] * scale[1]
    measured = {"Area px": int(area) if area == int(area) else area}
    if mpp is not None:
        measured["Area um^2"] = area * mpp * mpp
    if polygon.probability is not None:
        measured["Probability"] = round(float(polygon.probability), 6)
    rings = ",".join([_ring(corners, scale, shape) for corners in (polygon.exterior, *polygon.holes)])
    what = f"{head}{scale}".encode("utf-8", "backslashreplace") + np.ascontiguousarray(polygon.exterior).tobytes()
    name = uuid.UUID(bytes=hashlib.blake2b(what, digest_size=16).digest(), version=5)
    return (
        f'{{"type":"Feature","id":"{name}","geometry":{{"type":"Polygon","coordinates":[{rings}]}},'
        f'"properties":{head}{_dumped(measured)}}}}}'
    )


def _ring(corners: Array, scale: tuple[float, float], shape: tuple[int, int] | None) -> str:
    """[[x,y],...] in level-0 pixels, the first point again at the end; whole numbers as such."""
    points, form = corners[:, ::-1], "[%d,%d]"
    if scale != (1.0, 1.0):
        points = np.round(points * (scale[1], scale[0]), _DIGITS)
        if shape is not None:
            points = np.minimum(points, (shape[1], shape[0]))
        if (points != np.rint(points)).any():
            form = "[%r,%r]"
    flat = points.ravel().tolist()
    return f"[{','.join([form] * (len(points) + 1))}]" % (*flat, *flat[:2])


def _dumped(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def read_geojson(
    path: str | Path, *, names: Sequence[str] | None = None, shape: tuple[int, int] | None = None
) -> Annotations:
    """The polygons of a GeoJSON file as labels that can be read window by window, in the file's drawing order.

    A feature's class is the name in ``properties.classification`` (QuPath's parts of a name joined by ": "), else
    ``properties.name`` where that is one of ``names``. Features without a class are foreground where there are exactly
    two classes, or no class in the whole file. Geometries other than polygons are left out, with one warning.

    Parameters
    ----------
    path : a FeatureCollection, a list of features or a single one, also gzipped; its suffix does not matter.
    names : class names by number, background first. None takes those of the file, numbered by appearance from 1 on.
    shape : (H, W) of the image at level 0; polygons outside are then noticed.

    Raises
    ------
    InputError
        The file cannot be read, is damaged or no GeoJSON, has rings of less than three points, coordinates that no
        image has, class names other than ``names``, features without a class, or nothing within ``shape``.
    """
    path = Path(path)
    classes: list[str | None] = []
    parts: list[tuple[int, list[Array]]] = []
    other: Counter[str] = Counter()
    for number, feature in enumerate(features_in(path), 1):
        polygons = polygons_in(feature, path, number)
        if isinstance(polygons, str):
            other[polygons] += 1
            continue
        parts += [(len(classes), rings) for rings in polygons]
        classes.append(_class_of(feature, names))
    if other:
        listed = ", ".join(f"{count} {kind}" for kind, count in other.most_common(_MAX_LISTED))
        warnings.warn(f"{path}: left out {other.total()} features that are no polygons ({listed})", stacklevel=2)
    found = list(dict.fromkeys(name for name in classes if name is not None))
    known = tuple(names) if names is not None else ("background", *(found or [FOREGROUND]))
    numbers = _numbers(classes, known, path)
    annotations = Annotations([(numbers[k], rings) for k, rings in parts], names=known, found=found, shape=shape)
    if shape is not None and len(annotations):
        _require_inside(annotations, shape, path)
    return annotations


def _class_of(feature: dict[str, Any], names: Sequence[str] | None) -> str | None:
    """The class name of a feature; None where it has none."""
    properties = feature.get("properties")
    properties = properties if isinstance(properties, dict) else {}
    given = properties.get("classification")
    if isinstance(given, dict):
        many = given.get("names")
        given = given.get("name") or (": ".join(map(str, many)) if isinstance(many, list) else None)
    if isinstance(given, str) and given.strip():
        return given.strip()
    alias = properties.get("name")
    return alias if isinstance(alias, str) and alias in (names or ()) else None


def _numbers(classes: list[str | None], names: tuple[str, ...], path: Path) -> list[int]:
    """The class number of every feature; InputError for names unknown or missing."""
    if len(names) > 65536:
        raise InputError(path, f"has {len(names) - 1} classes", "at most 65535 can be numbered: give names")
    number = {name: k for k, name in enumerate(names)}
    unknown = list(dict.fromkeys(name for name in classes if name is not None and name not in number))
    if unknown:
        hint = f"known are {_listed(names)}: rename them, or add them to the class names"
        raise InputError(path, f"has the class {_listed(unknown)}", hint)
    bare = classes.count(None)
    if bare and len(names) != 2:
        what = f"has {bare} of {len(classes)} polygons without a class"
        raise InputError(path, what, f"set their class to one of {_listed(names)}")
    return [1 if name is None else number[name] for name in classes]


def _require_inside(annotations: Annotations, shape: tuple[int, int], path: Path) -> None:
    """InputError where all polygons lie outside the image, a warning where some do."""
    outside, size = annotations.outside(), f"{shape[0]} x {shape[1]} pixels"
    if outside == len(annotations):
        top, left, _, _ = annotations.bounds or (0, 0, 0, 0)
        what = f"has no polygon within its image of {size}; they begin at row {top:g}, column {left:g}"
        raise InputError(path, what, "give the annotations of this image, in level-0 pixels")
    if outside:
        warnings.warn(f"{path}: {outside} polygons lie outside the image of {size}", stacklevel=3)


def _listed(names: Sequence[str]) -> str:
    """Up to five names as words."""
    return ", ".join(map(repr, names[:_MAX_LISTED])) + (", ..." if len(names) > _MAX_LISTED else "")
