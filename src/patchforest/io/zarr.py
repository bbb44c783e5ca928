"""Zarr arrays and OME-Zarr images (folders, versions 2 and 3) as image sources (install extra ``wsi``).

Headers are read and checked here, before Zarr sees them; Zarr decodes. A chunk that is not there is an error.
"""

from __future__ import annotations

import math
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import numpy as np

from patchforest.errors import InputError
from patchforest.io.array import image_values, native, window_of
from patchforest.io.chunks import ChunkedArray, array_header, read_json
from patchforest.values import Array

HEADERS = ("zarr.json", ".zarray", ".zgroup", ".zattrs")
_AGAIN = "copy or export the folder again"
_ORDER = "tczyx"
_MICRONS = {"nanometer": 1e-3, "micrometer": 1.0, "millimeter": 1e3}
_MAX_LEVELS = 64
_MAX_CHANNELS = 65536

Missing = Literal["error", "fill"]


class ZarrSource:
    """A Zarr array, or an OME-Zarr image with its pyramid, as an ``ImageSource`` of (H, W, C).

    Axes come from the OME metadata or from a version 3 array's dimension names, among t, c, z, y and x, of which t and
    z must have size 1; without names an array is (H, W) or (H, W, C). ``mpp`` comes from the OME scale where y and x
    are in nano-, micro- or millimetres and differ by at most 1 %, else it is None.

    Parameters
    ----------
    path : folder of the array or image.
    missing : what a chunk that is not stored means. Zarr does not store chunks that hold nothing but the fill value,
        unless told to, and a chunk that was lost looks just the same. ``"error"``: lost; ``"fill"``: the fill value.

    Raises
    ------
    InputError
        At open: no image, an unknown codec, pickled objects, more than one time or plane, Zarr is not installed. At
        ``read``: a chunk is missing or damaged (named with its place), NaN.
    """

    format = "Zarr"

    def __init__(self, path: Path, *, missing: Missing = "error") -> None:
        if missing not in ("error", "fill"):
            raise ValueError(f"missing must be 'error' or 'fill'; got {missing!r}")
        self._path, self._fill = path, missing == "fill"
        self._arrays: dict[int, Any] = {}
        _library(path)
        try:
            image = _image_of(path)
            if image is None:
                self._headers = [array_header(path)]
                self._axes, self._mpp = _plain_axes(self._headers[0], path), None
            else:
                folder, multiscale = image
                self._headers = [array_header(folder / name) for name in _dataset_names(multiscale, folder)]
                self._axes = _named_axes(multiscale, self._headers[0], folder)
                self._mpp = _microns_per_pixel(multiscale, self._axes)
        except OSError as fault:
            reason = fault.strerror or str(fault)
            raise InputError(path, f"cannot be read as Zarr ({reason})", "check the folder and its disk") from fault
        self._require_pyramid()

    @property
    def shape(self) -> tuple[int, int, int]:
        """(H, W, C)."""
        return *self.levels[0], self._size(0, "c")

    @property
    def levels(self) -> tuple[tuple[int, int], ...]:
        """(H, W) of every level, level 0 first."""
        return tuple((self._size(k, "y"), self._size(k, "x")) for k in range(len(self._headers)))

    @property
    def mpp(self) -> float | None:
        """Microns per level-0 pixel, or None."""
        return self._mpp

    @property
    def tile(self) -> tuple[int, int]:
        """(rows, columns) of a chunk of level 0 (inside its shard), at most (H, W)."""
        chunk = dict(zip(self._axes, self._headers[0].chunk, strict=True))
        return min(chunk["y"], self._size(0, "y")), min(chunk["x"], self._size(0, "x"))

    def read(
        self,
        level: int = 0,
        row: int = 0,
        column: int = 0,
        height: int | None = None,
        width: int | None = None,
    ) -> Array:
        """(height, width, C) in the array's dtype; only the chunks under the window are read."""
        window = window_of(self.levels, level, row, column, height, width)
        return image_values(self._window(level, window), self._path, window[0], window[1], fresh=True)

    def stored(self) -> Array:
        """(H, W, C), level 0: every value as it is stored."""
        return native(self._window(0, (0, 0, *self.levels[0])))

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_arrays": {}}

    def _size(self, level: int, axis: str) -> int:
        return self._headers[level].shape[self._axes.index(axis)] if axis in self._axes else 1

    def _require_pyramid(self) -> None:
        """InputError unless every level is one image with the channels and dtype of level 0, and they only shrink."""
        base = self._headers[0]
        if len(base.shape) == len(self._axes) and self._size(0, "c") > _MAX_CHANNELS:
            raise InputError(base.folder, f"has {self._size(0, 'c')} channels, of shape {base.shape}", _AGAIN)
        for k, header in enumerate(self._headers):
            if len(header.shape) != len(self._axes):
                what = f"has axes {', '.join(self._axes)} but an array of shape {header.shape}"
                raise InputError(header.folder, what, _AGAIN)
            for axis, name in (("t", "times"), ("z", "planes")):
                if self._size(k, axis) != 1:
                    what = f"has {self._size(k, axis)} {name}, not one image"
                    raise InputError(header.folder, what, f"save each of the {name} as an image of its own")
            larger = k > 0 and any(a > b for a, b in zip(self.levels[k], self.levels[k - 1], strict=True))
            if larger or header.dtype != base.dtype or self._size(k, "c") != self._size(0, "c"):
                what = f"is level {k} with shape {header.shape}, {header.dtype}, of an image {base.shape}, {base.dtype}"
                raise InputError(header.folder, what, _AGAIN)

    def _window(self, level: int, window: tuple[int, int, int, int]) -> Array:
        """(height, width, C) of a window within the level, values as stored."""
        header = self._headers[level]
        row, column, height, width = window
        span = {"y": (row, row + height), "x": (column, column + width), "c": (0, self._size(level, "c"))}
        box = [span.get(axis, (0, 1)) for axis in self._axes]
        self._require_chunks(header, box)
        pixels = self._decoded(level, box)
        kept = [axis for axis in self._axes if axis in "yxc"]
        pixels = pixels.reshape([span[axis][1] - span[axis][0] for axis in kept])
        if "c" not in kept:
            return pixels.transpose([kept.index(axis) for axis in "yx"])[:, :, None]
        return pixels.transpose([kept.index(axis) for axis in "yxc"])

    def _require_chunks(self, header: ChunkedArray, box: list[tuple[int, int]]) -> None:
        """InputError where a chunk under ``box`` is not stored, unless that means the fill value."""
        try:
            lost = [found for found in header.absent(*zip(*box, strict=True)) if not (self._fill and header.fill)]
        except OSError as fault:
            what = f"has a chunk that cannot be read ({fault.strerror or fault})"
            raise InputError(header.folder, what, "check the folder and its disk") from fault
        if lost:
            place, key = lost[0]
            more = f" and {len(lost) - 1} more" if len(lost) > 1 else ""
            what = f"lacks chunk {key} ({self._place(header, place)}){more}"
            hint = "copy the folder again; where absent chunks are empty by intent: open_image(path, missing='fill')"
            raise InputError(header.folder, what, hint if header.fill else _AGAIN)

    def _place(self, header: ChunkedArray, place: tuple[int, ...]) -> str:
        inside = dict(zip(self._axes, header.box(place), strict=True))
        return f"rows {inside['y'][0]} to {inside['y'][1] - 1}, columns {inside['x'][0]} to {inside['x'][1] - 1}"

    def _decoded(self, level: int, box: list[tuple[int, int]]) -> Array:
        """The numbers in a box of the level's array; InputError that names the first chunk that cannot be decoded."""
        header = self._headers[level]
        try:
            return self._numbers(level, box)
        except Exception as fault:  # Zarr and its codecs raise RuntimeError, ValueError, OSError, zlib.error, ...
            if isinstance(fault, MemoryError) and not _fits(header, box):
                raise
            what, reason = "cannot be decoded", fault
            for place in header.places(*zip(*box, strict=True)):
                try:
                    self._numbers(level, list(header.box(place)))
                except Exception as one:  # as above
                    what, reason = f"has a chunk that cannot be decoded ({self._place(header, place)})", one
                    break
            text = f"{what}: {str(reason)[:120] or type(reason).__name__}"
            raise InputError(header.folder, text, _AGAIN) from reason

    def _numbers(self, level: int, box: list[tuple[int, int]]) -> Array:
        header = self._headers[level]
        if level not in self._arrays:
            zarr = _library(self._path)
            self._arrays[level] = zarr.open_array(str(header.folder), mode="r", zarr_format=header.version)
        found = np.asarray(self._arrays[level][tuple(slice(*span) for span in box)])
        if found.shape != tuple(b - a for a, b in box) or found.dtype != header.dtype:
            raise ValueError(f"it gives {found.shape} of {found.dtype}")
        return found


def is_zarr(folder: Path) -> bool:
    """Whether a folder holds a Zarr header."""
    return any((folder / name).is_file() for name in HEADERS)


def _library(path: Path) -> Any:
    """The module ``zarr``, imported when first needed."""
    try:
        import zarr
    except ImportError as fault:
        hint = "to read it, run: pip install 'patchforest[wsi]'"
        raise InputError(path, "is a Zarr folder, and Zarr is not installed", hint) from fault
    if int(zarr.__version__.split(".")[0]) < 3:
        hint = "run: pip install 'patchforest[wsi]'"
        raise InputError(path, f"needs Zarr 3 or newer, and {zarr.__version__} is installed", hint)
    return zarr


def _image_of(path: Path) -> tuple[Path, dict[str, Any]] | None:
    """(folder, multiscale metadata) of the OME-Zarr image at ``path``, or None where it is a plain array."""
    if (path / ".zarray").is_file():
        return None
    if (path / "zarr.json").is_file():
        doc = read_json(path / "zarr.json")
        if doc.get("node_type") == "array":
            return None
        attributes = doc.get("attributes")
    else:
        attributes = read_json(path / ".zattrs") if (path / ".zattrs").is_file() else {}
    attributes = attributes if isinstance(attributes, dict) else {}
    ome = attributes.get("ome", attributes)
    ome = ome if isinstance(ome, dict) else {}
    multiscales = ome.get("multiscales")
    if isinstance(multiscales, list) and multiscales and isinstance(multiscales[0], dict):
        return path, multiscales[0]
    inside = sorted(child.name for child in path.iterdir() if child.is_dir() and is_zarr(child))
    if "bioformats2raw.layout" in ome and [name for name in inside if name != "OME"] == ["0"]:
        return _image_of(path / "0")
    shown = f"give one of its members: {', '.join(inside[:5])}" if inside else _AGAIN
    raise InputError(path, "is a Zarr group without one multiscale image", shown)


def _dataset_names(multiscale: dict[str, Any], folder: Path) -> list[str]:
    """The folders of the levels, level 0 first, all below the image's own."""
    datasets = multiscale.get("datasets")
    names: list[str] = []
    for part in datasets if isinstance(datasets, list) else ():
        name = part.get("path") if isinstance(part, dict) else None
        parts = PurePosixPath(name).parts if isinstance(name, str) else ()
        if not parts or ".." in parts or parts[0] == "/" or "\0" in str(name):
            raise InputError(folder, f"lists a level at {str(name)[:40]!r}", _AGAIN)
        names.append(str(name))
    if not 1 <= len(names) <= _MAX_LEVELS:
        raise InputError(folder, f"lists {len(names)} levels", _AGAIN)
    return names


def _named_axes(multiscale: dict[str, Any], header: ChunkedArray, folder: Path) -> tuple[str, ...]:
    """Names of an OME image's axes, each of t, c, z, y, x at most once; before version 0.3 they are all five."""
    axes = multiscale.get("axes") or list(_ORDER)
    names = tuple(axis.get("name") if isinstance(axis, dict) else axis for axis in axes)
    return _checked(names, header, folder)


def _plain_axes(header: ChunkedArray, path: Path) -> tuple[str, ...]:
    """Axes of an array without OME metadata."""
    names, shape = header.names, header.shape
    if names is not None and set(names) <= set(_ORDER):
        return _checked(names, header, path)
    if len(shape) > 3:
        raise InputError(path, f"has shape {shape} and no names for its axes", "give an image of shape (H, W, C)")
    if len(shape) == 3 and shape[0] <= 4 < 16 < shape[2]:
        hint = "save it as (H, W, C), or name its dimensions c, y, x"
        raise InputError(path, f"has shape {shape}, channels first", hint)
    return ("y", "x", "c")[: len(shape)]


def _checked(names: tuple[Any, ...], header: ChunkedArray, path: Path) -> tuple[str, ...]:
    known = all(isinstance(name, str) and name in _ORDER and len(name) == 1 for name in names)
    if not known or len(set(names)) < len(names) or not {"y", "x"} <= set(names) or len(names) != len(header.shape):
        what = f"has axes {', '.join(map(str, names))[:60]} for an array of shape {header.shape}"
        raise InputError(path, what, "give an image whose axes are among t, c, z, y, x")
    return names


def _microns_per_pixel(multiscale: dict[str, Any], names: tuple[str, ...]) -> float | None:
    """Microns per pixel of level 0 from its scale and the scale of the whole, None where they do not say."""
    try:
        units = {axis["name"]: axis["unit"] for axis in multiscale["axes"] if axis["name"] in ("y", "x")}
        steps = {axis: _MICRONS[units[axis]] for axis in "yx"}
        lists = [multiscale["datasets"][0]["coordinateTransformations"], multiscale.get("coordinateTransformations")]
        for change in [change for part in lists if part for change in part]:
            if change["type"] == "scale":
                for axis in "yx":
                    steps[axis] *= float(change["scale"][names.index(axis)])
    except (KeyError, TypeError, ValueError, IndexError):
        return None
    y, x = steps["y"], steps["x"]
    if not (math.isfinite(y * x) and min(y, x) > 0 and max(y, x) <= 1.01 * min(y, x)):
        return None
    return x if x == y else math.sqrt(x * y)


def _fits(header: ChunkedArray, box: list[tuple[int, int]]) -> bool:
    """Whether the memory for a box is there, so that a failure to allocate was a damaged chunk's lie."""
    size = math.prod(b - a for a, b in box) + 2 * math.prod(header.chunk)
    try:
        np.empty(size, header.dtype)
    except MemoryError:
        return False
    return True
