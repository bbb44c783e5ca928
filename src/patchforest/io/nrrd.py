"""NRRD volumes, attached (.nrrd) or detached (.nhdr), raw, gzip or bzip2 (install extra ``volumes``)."""

from __future__ import annotations

import math
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from patchforest.errors import InputError
from patchforest.io.orientation import Grid, placed_grid
from patchforest.io.volume_array import StoredVolume
from patchforest.io.volume_kind import INSTALL
from patchforest.io.voxel_bytes import AGAIN, inflated_voxels, mapped_voxels, require_bytes, require_capacity
from patchforest.values import Array

_MAX_HEADER = 1 << 20
_SAVE = "save it as raw or gzip NRRD, or as NIfTI"
_TYPES = {
    "i1": ("signed char", "int8", "int8_t"),
    "u1": ("uchar", "unsigned char", "uint8", "uint8_t"),
    "i2": ("short", "short int", "signed short", "signed short int", "int16", "int16_t"),
    "u2": ("ushort", "unsigned short", "unsigned short int", "uint16", "uint16_t"),
    "i4": ("int", "signed int", "int32", "int32_t"),
    "u4": ("uint", "unsigned int", "uint32", "uint32_t"),
    "i8": ("longlong", "long long", "long long int", "signed long long", "signed long long int", "int64", "int64_t"),
    "u8": ("ulonglong", "unsigned long long", "unsigned long long int", "uint64", "uint64_t"),
    "f4": ("float",),
    "f8": ("double",),
}
_TYPE_OF = {word: code for code, words in _TYPES.items() for word in words}
_ENDIAN = {"little": "<", "big": ">"}
_CODECS = {"gzip": "gzip", "gz": "gzip", "bzip2": "bzip2", "bz2": "bzip2"}
# Space -> what turns its coordinates into right, anterior, superior.
_SPACES = {
    "right-anterior-superior": (1.0, 1.0, 1.0),
    "left-anterior-superior": (-1.0, 1.0, 1.0),
    "left-posterior-superior": (-1.0, -1.0, 1.0),
}
_SPACES |= {"".join(word[0] for word in name.split("-")): signs for name, signs in _SPACES.items()}
_MILLIMETRES = {"m": 1000.0, "cm": 10.0, "mm": 1.0, "um": 1e-3, "µm": 1e-3, "μm": 1e-3, "micron": 1e-3, "nm": 1e-6}
_MILLIMETRES |= {
    "millimeter": 1.0,
    "millimeters": 1.0,
    "microns": 1e-3,
    "micrometer": 1e-3,
    "micrometers": 1e-3,
    "": 1.0,
}


def open_nrrd(path: Path) -> StoredVolume:
    """The volume in a NRRD file; an axis without direction becomes the channels.

    Where its ``space`` is anatomical it is shown towards superior, posterior, left; otherwise as stored, the slowest
    axis as the plane. Raw voxels are mapped and read in parts, compressed ones as a whole and to the end.

    Raises
    ------
    InputError
        pynrrd is not installed; the file is truncated or damaged, of other axes, types or encodings; its data file
        lies outside its folder, or is a list of files.
    """
    header, end = _header(path)
    try:
        sizes = [int(size) for size in header["sizes"]]
        dtype = _dtype(header, path)
        channel, grid = _grid(header, sizes, path)
        skips = [int(header.get(name, header.get(name.replace(" ", ""), 0))) for name in ("line skip", "byte skip")]
        encoding = str(header["encoding"]).lower()
    except InputError:
        raise
    except (
        Exception
    ) as fault:  # the values of a foreign header may be of any type and length: KeyError, ValueError, ...
        raise _damaged(path, fault) from fault
    named = header.get("data file", header.get("datafile"))
    data = path if named is None else _beside(path, str(named))
    offset = end if named is None else 0
    try:
        offset = _after_lines(data, offset, skips[0])
        load = _loader(path, data, encoding, tuple(sizes), dtype, offset, skips[1])
    except OSError as fault:
        raise InputError(data, f"cannot be read ({fault.strerror or fault})", f"it belongs to {path}") from fault
    channels = 1 if channel is None else sizes[channel]
    return StoredVolume(
        path,
        partial(_with_channels_last, load, channel),
        grid=grid,
        dtype=dtype,
        channels=channels,
        format="NRRD",
    )


def _header(path: Path) -> tuple[dict[str, Any], int]:
    """The fields of a NRRD header and where it ends in the file."""
    with open(path, "rb") as file:
        head = file.read(_MAX_HEADER)
    ends = [(place, len(mark)) for mark in (b"\n\n", b"\r\n\r\n") if (place := head.find(mark)) >= 0]
    if not ends and len(head) == _MAX_HEADER:
        raise InputError(path, "has a NRRD header without an end", AGAIN)
    place, length = min(ends, default=(len(head), 0))
    lines = head[:place].decode("utf-8", "replace").splitlines()
    try:
        import nrrd

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on numbers that do not fit: they are checked here
            header = dict(nrrd.read_header(lines))
        if header["dimension"] != len(header["sizes"]):
            raise ValueError(f"{len(header['sizes'])} sizes for {header['dimension']} axes")
    except ModuleNotFoundError as fault:
        raise InputError(path, f"is a NRRD volume, and {fault.name} is not installed", INSTALL) from fault
    except Exception as fault:  # pynrrd on foreign text raises NRRDError, ValueError, IndexError, StopIteration, ...
        raise _damaged(path, fault) from fault
    return header, place + length


def _damaged(path: Path, fault: Exception) -> InputError:
    detail = f"lacks {fault}" if isinstance(fault, KeyError) else str(fault)[:120] or type(fault).__name__
    return InputError(path, f"has a damaged NRRD header ({detail})", AGAIN)


def _dtype(header: dict[str, Any], path: Path) -> np.dtype[Any]:
    code = _TYPE_OF.get(header["type"])
    if code is None:
        raise InputError(path, f"holds values of type {header['type']!r}", "save it as integers or real numbers")
    return np.dtype((_ENDIAN[header["endian"]] if code[1] != "1" else "|") + code)


def _grid(header: dict[str, Any], sizes: list[int], path: Path) -> tuple[int | None, Grid]:
    """(the axis of channels or None, how the others lie)."""
    if min(sizes) < 1 or len(sizes) not in (3, 4):
        raise InputError(path, f"has {len(sizes)} axes of {sizes}", "save a volume with three axes, and channels")
    directions = header.get("space directions")
    rows = None if directions is None else [_row(row) for row in directions]
    channel = _channel(header, len(sizes), rows, path)
    spatial = [axis for axis in range(len(sizes)) if axis != channel]
    shape = (sizes[spatial[0]], sizes[spatial[1]], sizes[spatial[2]])
    units = header.get("space units", []) if rows is not None else header.get("units", [])
    known = {_unit(str(unit), path) for axis, unit in enumerate(units) if rows is not None or axis in spatial}
    if len(known) > 1:
        raise InputError(path, f"measures in several units ({list(units)})", "save it in millimetres")
    factor = known.pop() if known else 1.0
    if rows is None:
        spacings = [float(value) * factor for value in header.get("spacings", [])]
        steps = [spacings[axis] for axis in spatial] if len(spacings) == len(sizes) else []
        usable = bool(steps) and all(math.isfinite(step) and step > 0 for step in steps)
        return channel, Grid(shape, spacing=(steps[0], steps[1], steps[2]) if usable else None)
    signs = _SPACES.get(str(header.get("space", "")).lower())
    affine = np.eye(4)
    affine[:3, :3] = np.stack([rows[axis] for axis in spatial], axis=1) * factor
    affine[:3, 3] = np.asarray(header.get("space origin", (0, 0, 0)), np.float64) * factor
    if signs is not None:
        affine = np.diag([*signs, 1.0]) @ affine
    try:
        grid = placed_grid(shape, affine)
    except ValueError as fault:
        raise InputError(path, f"has impossible space directions: {fault}", "correct its header") from fault
    if signs is None or "space origin" not in header:
        return channel, Grid(shape, spacing=grid.spacing)
    return channel, grid


def _row(row: Any) -> Array:
    """A direction as three numbers, NaN for an axis that has none."""
    return np.full(3, np.nan) if row is None else np.asarray(row, np.float64).reshape(3)


def _channel(header: dict[str, Any], axes: int, rows: list[Array] | None, path: Path) -> int | None:
    """The one axis that is not of space, None where all three are."""
    kinds = [str(kind).lower() for kind in header.get("kinds", [])]
    if rows is not None:
        others = [axis for axis, row in enumerate(rows) if np.isnan(row).all()]
    elif axes == 4 and len(kinds) == 4:
        others = [axis for axis, kind in enumerate(kinds) if kind not in ("domain", "space")]
    else:
        others = []
    if len(others) != axes - 3 or (rows is not None and len(rows) != axes):
        what = f"has {axes} axes of which {axes - len(others)} are of space (kinds {kinds})"
        raise InputError(path, what, "give three axes a direction and the axis of channels none")
    return others[0] if others else None


def _unit(name: str, path: Path) -> float:
    factor = _MILLIMETRES.get(name.strip().lower())
    if factor is None:
        raise InputError(path, f"measures in {name!r}", "save it in millimetres")
    return factor


def _beside(path: Path, name: str) -> Path:
    """The data file of a detached header, which must lie in the header's folder or below it."""
    if name.split()[:1] == ["LIST"] or "%" in name:
        raise InputError(path, f"names several data files ({name})", _SAVE)
    folder = path.parent.resolve()
    data = (folder / name).resolve()
    if not data.is_relative_to(folder) or not name.strip():
        raise InputError(path, f"names a data file outside its folder ({name})", "put the data beside the header")
    if not data.is_file():
        raise InputError(path, f"lacks its data file {name}", "copy it beside the header")
    return data


def _after_lines(path: Path, offset: int, lines: int) -> int:
    """The offset after so many lines."""
    if not lines:
        return offset
    with open(path, "rb") as file:
        file.seek(offset)
        for _ in range(min(max(lines, 0), _MAX_HEADER)):
            if not file.readline(_MAX_HEADER):
                break
        return file.tell()


def _loader(
    path: Path, data: Path, encoding: str, sizes: tuple[int, ...], dtype: np.dtype[Any], offset: int, skip: int
) -> partial[Array]:
    """What loads the voxels as stored; InputError where the data file cannot hold them."""
    needed, held = math.prod(sizes) * dtype.itemsize, data.stat().st_size
    if encoding == "raw" and skip >= -1:
        start = held - needed if skip == -1 else offset + skip  # -1: they are at the end of the file
        require_bytes(data, needed, held - start if offset <= start else held - offset)
        return partial(mapped_voxels, data, sizes, dtype, start)
    codec = _CODECS.get(encoding)
    if codec is None or skip < 0:
        raise InputError(path, f"is encoded as {encoding} (byte skip {skip}), which is not supported", _SAVE)
    require_capacity(data, needed, codec)
    return partial(inflated_voxels, data, sizes, dtype, codec=codec, offset=offset, skip=skip)


def _with_channels_last(load: partial[Array], channel: int | None) -> Array:
    voxels = load()
    return voxels[..., None] if channel is None else np.moveaxis(voxels, channel, -1)
