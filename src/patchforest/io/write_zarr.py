"""OME-Zarr 0.4 folders (Zarr version 2): one file a tile, in zlib, which every Zarr program reads.

Version 2 because its chunks are plain zlib streams, so that writing needs no library, and because more programs read
0.4 than 0.5. Every chunk is stored, also where it is all background: a chunk that is not there is one that was lost.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from patchforest.io.atomic import write_json
from patchforest.io.atomic_folder import atomic_folder
from patchforest.io.tiles import DEFLATE_LEVEL, Pyramid, TilePacker
from patchforest.values import Array

_VERSION = "0.4"
_MARK = "patchforest"


def write_ome_zarr(path: Path, pyramid: Pyramid, rows: Iterable[tuple[int, Array]]) -> None:
    """The folder ``path`` holds the pyramid as an OME-Zarr image; a mask carries ``image-label`` with its names.

    Axes are y, x or c, y, x. Scale is in micrometer, with the translation that puts the first pixel of a level at the
    centre of the pixels it stands for. ``rows`` as in ``write_tiff``. A folder that this function wrote is replaced;
    any other that is not empty is refused.
    """
    with (
        atomic_folder(path, overwrite=_is_ours(path)) as folder,
        TilePacker(pyramid.tile, apart=True) as packer,
    ):
        done = [0] * len(pyramid.levels)
        for level, part in rows:
            place = folder / str(level) / "/".join(["0"] * (pyramid.channels > 1) + [str(done[level])])
            place.mkdir(parents=True)
            for column, data in enumerate(packer.pack(part)):
                (place / str(column)).write_bytes(data)
            done[level] += 1
        for level in range(len(pyramid.levels)):
            write_json(folder / str(level) / ".zarray", _array_header(pyramid, level))
        write_json(folder / ".zattrs", _attributes(path, pyramid))
        write_json(folder / ".zgroup", {"zarr_format": 2})


def _is_ours(path: Path) -> bool:
    """Whether a folder is an OME-Zarr image that was written here."""
    try:
        return _MARK in json.loads((path / ".zattrs").read_bytes())
    except (OSError, ValueError, TypeError):  # none, no JSON, a number
        return False


def _array_header(pyramid: Pyramid, level: int) -> dict[str, Any]:
    several, side = pyramid.channels > 1, pyramid.tile
    return {
        "zarr_format": 2,
        "shape": [pyramid.channels] * several + list(pyramid.levels[level]),
        "chunks": [pyramid.channels] * several + [side, side],
        "dtype": pyramid.dtype.newbyteorder("<").str,
        "compressor": {"id": "zlib", "level": DEFLATE_LEVEL},
        "fill_value": 0,
        "filters": None,
        "order": "C",
        "dimension_separator": "/",
    }


def _attributes(path: Path, pyramid: Pyramid) -> dict[str, Any]:
    """The metadata of the image: multiscales, and for a mask image-label, for RGB its colours."""
    several, unit = pyramid.channels > 1, {} if pyramid.mpp is None else {"unit": "micrometer"}
    axes = [{"name": "c", "type": "channel"}] * several + [{"name": a, "type": "space", **unit} for a in "yx"]
    datasets, step = [], pyramid.mpp or 1.0
    for level in range(len(pyramid.levels)):
        scale, shift = step * 2**level, step * (2**level - 1) / 2
        changes = [{"type": "scale", "scale": [1.0] * several + [scale, scale]}]
        if level:
            changes.append({"type": "translation", "translation": [0.0] * several + [shift, shift]})
        datasets.append({"path": str(level), "coordinateTransformations": changes})
    name, method = (
        path.name.removesuffix(".zarr").removesuffix(".ome"),
        "majority" if pyramid.kind == "mask" else "mean",
    )
    found: dict[str, Any] = {
        "multiscales": [{"version": _VERSION, "name": name, "axes": axes, "datasets": datasets, "type": method}],
        _MARK: {"kind": pyramid.kind, "names": pyramid.names},
    }
    if pyramid.kind == "mask":
        properties = [{"label-value": k, "name": text} for k, text in enumerate(pyramid.names)]
        found["image-label"] = {"version": _VERSION} | ({"properties": properties} if properties else {})
    elif pyramid.kind == "image" and pyramid.channels == 3:
        top = 2 ** (8 * pyramid.dtype.itemsize) - 1
        window = {"min": 0, "max": top, "start": 0, "end": top}
        colours = (("red", "FF0000"), ("green", "00FF00"), ("blue", "0000FF"))
        channels = [{"label": text, "color": code, "active": True, "window": window} for text, code in colours]
        found["omero"] = {"version": _VERSION, "channels": channels, "rdefs": {"model": "color"}}
    return found
