"""GeoJSON text to features and rings, one feature at a time, whatever the text is: whole, damaged or hostile."""

from __future__ import annotations

import gzip
import json
import os
import re
import stat
import zlib
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

import numpy as np

from patchforest.errors import InputError
from patchforest.values import Array

MAX_BYTES = 1 << 30
"""Longest text that is read; it is held in memory whole."""
MAX_EXPANSION = 200
"""Of gzip data beyond 64 MiB; coordinates hardly reach 20."""
MAX_COORDINATE = 2.0**31
"""In pixels; no image is larger."""

_AGAIN = "export the annotations again as GeoJSON"
_CHUNK = 1 << 20
_GZIP = b"\x1f\x8b"
_SPACE = re.compile(r"[ \t\r\n]*")


def features_in(path: Path) -> Iterator[dict[str, Any]]:
    """Every feature of a FeatureCollection, a list of features, or a single feature or geometry; gzip or not.

    Only one feature at a time is held as Python objects.

    Raises
    ------
    InputError
        The file cannot be read, is damaged, no UTF-8 or no strict JSON, nested too deeply, or no collection of objects.
    """
    text = _text_of(path)
    try:
        for feature in _objects(text, path):
            if not isinstance(feature, dict):
                raise InputError(path, f"holds a {type(feature).__name__} where a feature should be", _AGAIN)
            yield feature
    except json.JSONDecodeError as fault:
        place = f"line {fault.lineno} column {fault.colno}"
        if fault.pos >= len(text.rstrip()):
            raise InputError(path, f"ends too early, at {place}", "copy or export the file again") from fault
        raise InputError(path, f"is no valid JSON ({fault.msg} at {place})", _AGAIN) from fault
    except RecursionError as fault:
        raise InputError(path, "is nested too deeply for annotations", _AGAIN) from fault
    except InputError:
        raise
    except ValueError as fault:  # a whole number of thousands of digits
        raise InputError(path, f"cannot be read as JSON ({fault})", _AGAIN) from fault


def polygons_in(feature: dict[str, Any], path: Path, number: int) -> list[list[Array]] | str:
    """The polygons of a feature, each its rings (n, 2) float64 (x, y), not closed; or the type of another geometry.

    ``number`` is the feature's place in the file, for messages. Raises InputError for polygons that are none.
    """
    if "geometry" not in feature and not {"coordinates", "geometries"} & set(feature):
        raise InputError(path, f"is no GeoJSON: object {number} has no geometry", _AGAIN)
    geometry = feature.get("geometry", feature)
    if geometry is None:
        return "no geometry"
    if not isinstance(geometry, dict):
        raise InputError(path, f"has no proper geometry in feature {number}", _AGAIN)
    kind, coordinates = geometry.get("type"), geometry.get("coordinates")
    if kind not in ("Polygon", "MultiPolygon"):
        return kind[:40] if isinstance(kind, str) else "no type"
    parts = [coordinates] if kind == "Polygon" else coordinates
    if not isinstance(parts, list) or not all(isinstance(part, list) for part in parts):
        raise InputError(path, f"has a {kind} without lists of coordinates in feature {number}", _AGAIN)
    return [[_ring(ring, path, number) for ring in part] for part in parts if part]


def _ring(positions: Any, path: Path, number: int) -> Array:
    """(n, 2) float64, n >= 3, without a repeated first point."""
    try:
        points = np.array(positions)
    except (ValueError, OverflowError):  # of unequal lengths
        points = np.empty(0, object)
    if points.ndim != 2 or points.shape[1] < 2 or points.dtype.kind not in "iuf":
        raise InputError(path, f"has a ring in feature {number} that is no list of [x, y] numbers", _AGAIN)
    points = points[:, :2].astype(np.float64)
    if not (np.abs(points) <= MAX_COORDINATE).all():  # also NaN
        far = points[~(np.abs(points) <= MAX_COORDINATE)][0]
        raise InputError(path, f"has the coordinate {far:g} in feature {number}, outside every image", _AGAIN)
    if (points[0] == points[-1]).all():
        points = points[:-1]
    if len(points) < 3:
        raise InputError(path, f"has a ring of only {len(points)} points in feature {number}", _AGAIN)
    return points


def _text_of(path: Path) -> str:
    """The file's text, unpacked; InputError where there is none or too much."""
    limit = MAX_BYTES
    try:
        found = os.stat(path)
        if not stat.S_ISREG(found.st_mode):
            raise InputError(path, "is a folder, pipe or device, not a file", "give a .geojson file")
        with open(path, "rb") as file:
            packed = file.read(2) == _GZIP
            file.seek(0)
            if packed:
                limit = min(limit, max(1 << 26, MAX_EXPANSION * found.st_size))
            with gzip.GzipFile(fileobj=file) if packed else file as stream:
                data = _up_to(limit + 1, stream)
    except InputError:
        raise
    except FileNotFoundError as fault:
        raise InputError(path, "does not exist", "check the path") from fault
    except (EOFError, gzip.BadGzipFile, zlib.error) as fault:
        raise InputError(path, f"has damaged gzip data ({fault})", "copy or export the file again") from fault
    except (OSError, ValueError) as fault:  # no permission, a folder, a name with a zero byte
        reason = (fault.strerror if isinstance(fault, OSError) else None) or str(fault)
        raise InputError(path, f"cannot be read ({reason})", "check the path and its permissions") from fault
    if len(data) > limit:
        raise InputError(path, f"holds more than {limit >> 20} MiB of text", "export it in parts")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as fault:
        raise InputError(path, "is no UTF-8 text, so no GeoJSON", "export annotations as .geojson") from fault
    if not text.strip():
        raise InputError(path, "is empty", "copy or export the file again")
    return text


def _up_to(size: int, stream: BinaryIO | gzip.GzipFile) -> bytes:
    """The first ``size`` bytes or all there are; what is not there takes no memory."""
    chunks, left = [], size
    while left and (chunk := stream.read(min(left, _CHUNK))):
        chunks.append(chunk)
        left -= len(chunk)
    return b"".join(chunks)


def _objects(text: str, path: Path) -> Iterator[Any]:
    """The elements of the outermost list, or of "features" in the outermost object; else that object itself."""
    decoder = json.JSONDecoder(parse_constant=lambda name: _refuse(path, name))
    at = _skip(text, 0)
    if text[at] == "[":
        at = yield from _elements(text, at, decoder)
    elif text[at] == "{":
        at = yield from _members(text, at, decoder)
    else:
        raise InputError(path, f"is no GeoJSON (it starts with {text[at : at + 12]!r})", "give a .geojson file")
    if _skip(text, at) < len(text):
        raise json.JSONDecodeError("more text after the end", text, at)


def _members(text: str, at: int, decoder: json.JSONDecoder) -> Generator[Any, None, int]:
    """Steps through an object without holding its features; returns where it ends."""
    members, streamed, at = {}, False, _skip(text, at + 1)
    while text[at : at + 1] != "}":
        if text[at : at + 1] != '"':
            raise json.JSONDecodeError("Expecting property name enclosed in double quotes", text, at)
        key, at = decoder.raw_decode(text, at)
        at = _skip(text, _expect(text, _skip(text, at), ":"))
        if key == "features" and text[at : at + 1] == "[":
            streamed = True
            at = yield from _elements(text, at, decoder)
        else:
            members[key], at = decoder.raw_decode(text, at)
        at = _next(text, at, "}")
    if not streamed:
        yield members
    return at + 1


def _elements(text: str, at: int, decoder: json.JSONDecoder) -> Generator[Any, None, int]:
    """The values of a list one by one; returns where it ends."""
    at = _skip(text, at + 1)
    while text[at : at + 1] != "]":
        value, at = decoder.raw_decode(text, at)
        yield value
        at = _next(text, at, "]")
    return at + 1


def _next(text: str, at: int, end: str) -> int:
    """The place of the next value after a comma, or of the end mark."""
    at = _skip(text, at)
    if text[at : at + 1] == end:
        return at
    at = _skip(text, _expect(text, at, ","))
    if text[at : at + 1] == end:
        raise json.JSONDecodeError("Expecting a value after a comma", text, at)
    return at


def _expect(text: str, at: int, mark: str) -> int:
    if text[at : at + 1] != mark:
        raise json.JSONDecodeError(f"Expecting {mark!r}", text, at)
    return at + 1


def _skip(text: str, at: int) -> int:
    """The next place that is no white space."""
    found = _SPACE.match(text, at)
    return at if found is None else found.end()


def _refuse(path: Path, name: str) -> NoReturn:
    raise InputError(path, f"holds {name}, which is no number", _AGAIN)
