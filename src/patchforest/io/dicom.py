"""DICOM series, one slice a file, as volumes (install extra ``volumes``): sorted by place, and checked to be whole."""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from patchforest.errors import InputError
from patchforest.io.orientation import placed_grid
from patchforest.io.volume_array import StoredVolume, scaled_dtype
from patchforest.io.volume_kind import INSTALL, dicom_files, head_bytes, is_dicom
from patchforest.io.voxel_bytes import AGAIN
from patchforest.values import Array

_CONVERT = "convert the series to NIfTI, for example with dcm2niix"
_DEFLATED = "1.2.840.10008.1.2.1.99"
_SLICE_SUFFIXES = ("", ".dcm", ".dicom", ".ima")
_PLACE = ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing")
_TAGS = (
    *_PLACE,
    "SeriesInstanceUID", "SeriesDescription", "Rows", "Columns", "BitsAllocated", "BitsStored", "PixelRepresentation",
    "SamplesPerPixel", "PhotometricInterpretation", "NumberOfFrames", "SliceThickness", "SpacingBetweenSlices",
    "RescaleSlope", "RescaleIntercept",
)  # fmt: skip
_TOLERANCE = 0.01  # of the distance between slices
_ROUNDING = 0.011  # mm, of places that are written with two decimals
_DIRECTIONS = 1e-3
_MAX_LISTED = 3
_MAX_SLICE = 1 << 30  # bytes


@dataclass(frozen=True)
class Slice:
    """What a DICOM file says of its slice; places and directions as DICOM has them: left, posterior, superior.

    ``row_step`` and ``column_step`` lead, in millimetres, to the next row and the next column.
    """

    path: Path
    series: str
    name: str
    rows: int
    columns: int
    dtype: str
    bits: int
    place: tuple[float, float, float]
    row_step: tuple[float, float, float]
    column_step: tuple[float, float, float]
    thickness: float
    slope: float
    inter: float

    @property
    def normal(self) -> Array:
        """(3,) the unit vector across the slice."""
        across = np.cross(self.column_step, self.row_step)
        return across / np.linalg.norm(across)

    @property
    def height(self) -> float:
        """Millimetres along the normal."""
        return float(np.dot(self.place, self.normal))


def open_dicom(path: Path) -> StoredVolume:
    """The volume of a DICOM series: all of a folder, or, given one of its files, that file's series in its folder.

    Slices are ordered along their normal by where they lie, never by number or name, and rescaled each as its header
    says (Hounsfield units in CT). They are read at the first ``read``, as a whole.

    Raises
    ------
    InputError
        pydicom or the codec of a compression is not installed; files are damaged, of several series, in colours, of
        several frames or without a place; slices differ in size or direction, are missing, doubled or unequally apart.
    """
    folder = path if path.is_dir() else path.parent
    slices = _slices(folder, path)
    slices.sort(key=lambda one: one.height)
    affine = _affine(slices, path)
    first = slices[0]
    types = {scaled_dtype(np.dtype(one.dtype), one.slope, one.inter, one.bits) for one in slices}
    dtype = np.result_type(*({kind for kind in types if kind.kind == "f"} or types))
    shape = (first.columns, first.rows, len(slices))
    try:
        grid = placed_grid(shape, affine)
    except ValueError as fault:
        raise InputError(path, f"has slices in an impossible place: {fault}", _CONVERT) from fault
    return StoredVolume(path, partial(_voxels, slices, dtype), grid=grid, dtype=dtype, format="DICOM")


def _slices(folder: Path, path: Path) -> list[Slice]:
    """The slices of one series in a folder, at least one."""
    wanted = None if path == folder else _text(_read(path, _TAGS), "SeriesInstanceUID", path)
    found: list[Slice] = []
    others: dict[str, list[str]] = {}
    for file in dicom_files(folder):
        if not is_dicom(head_bytes(file, 132)):
            if file.suffix.lower() in _SLICE_SUFFIXES:
                raise InputError(file, "lies in a DICOM series and is no DICOM file", "copy it again or remove it")
            continue
        header = _read(file, _TAGS)
        series = _text(header, "SeriesInstanceUID", file)
        others.setdefault(series, []).append(f"{file.name} {_text(header, 'SeriesDescription', file)[:40]}".strip())
        if series == (wanted or next(iter(others))):
            found.append(_slice(header, file))
    if wanted is None and len(others) > 1:
        listed = ", ".join(f"{len(names)} like {names[0]}" for names in list(others.values())[:_MAX_LISTED])
        what = f"holds {len(others)} DICOM series ({listed}{', ...' if len(others) > _MAX_LISTED else ''})"
        raise InputError(path, what, "give one file of the series that is meant")
    if not found:
        raise InputError(path, "holds no DICOM slice", "give the folder of a series, or one of its files")
    return found


def _read(path: Path, tags: Sequence[str] | None) -> Any:
    """pydicom's data set of a file: only the ``tags``, or all of it with the pixels."""
    try:
        import pydicom

        with open(path, "rb") as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on values against the standard: those that matter are checked here
            if tags is not None:
                return pydicom.dcmread(file, stop_before_pixels=True, specific_tags=list(tags))
            return pydicom.dcmread(io.BytesIO(file.read()))
    except ModuleNotFoundError as fault:
        raise InputError(path, f"is a DICOM volume, and {fault.name} is not installed", INSTALL) from fault
    except Exception as fault:  # pydicom on foreign bytes raises EOFError, struct.error, MemoryError, KeyError, ...
        what = f"cannot be read as DICOM ({str(fault)[:120] or type(fault).__name__})"
        raise InputError(path, what, AGAIN) from fault


def _text(header: Any, tag: str, path: Path) -> str:
    """An element as text, "" where it is absent."""
    try:
        return str(header.get(tag, ""))
    except Exception as fault:  # pydicom decodes an element when it is asked for: NotImplementedError, ValueError, ...
        raise InputError(path, f"has a damaged DICOM header ({tag}: {str(fault)[:120]})", AGAIN) from fault


def _slice(header: Any, path: Path) -> Slice:
    """What the header of a slice says, checked; InputError where it is no slice of a volume, or cannot be decoded."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            one = _parsed(header, path)
            _require_decodable(header, one)
    except InputError:
        raise
    except (
        Exception
    ) as fault:  # elements of foreign files may be of any type and number: AttributeError, TypeError, ...
        what = f"has a damaged DICOM header ({str(fault)[:120] or type(fault).__name__})"
        raise InputError(path, what, AGAIN) from fault
    return one


def _parsed(header: Any, path: Path) -> Slice:
    if int(header.get("NumberOfFrames", None) or 1) > 1:
        raise InputError(path, "is a DICOM file of several frames", _CONVERT)
    absent = [tag for tag in _PLACE if not header.get(tag)]
    if absent:
        raise InputError(path, f"is no slice of a volume: it has no {', '.join(absent)}", _CONVERT)
    samples, kind = int(header.SamplesPerPixel), str(header.PhotometricInterpretation)
    if samples != 1 or not kind.startswith("MONOCHROME"):
        raise InputError(path, f"is a DICOM file in {kind}", "give a series in grey")
    allocated, bits = int(header.BitsAllocated), int(header.BitsStored)
    rows, columns = int(header.Rows), int(header.Columns)
    place, directions, spacing = ([float(value) for value in header.get(tag)] for tag in _PLACE)
    thickness = float(header.get("SpacingBetweenSlices", None) or header.get("SliceThickness", None) or 0)
    slope, inter = header.get("RescaleSlope", None), header.get("RescaleIntercept", None)
    slope, inter = 1.0 if slope is None else float(slope), 0.0 if inter is None else float(inter)
    lengths = (len(place), len(directions), len(spacing))
    every = [*place, *directions, *spacing, thickness, slope, inter]
    fits = allocated in (8, 16, 32) and 1 <= bits <= allocated and min(rows, columns) > 0 and slope != 0
    across, down = np.array(directions[:3]), np.array(directions[3:])
    if not fits or lengths != (3, 6, 2) or not np.isfinite(every).all() or min(spacing) <= 0:
        what = f"has an impossible DICOM header ({rows} x {columns}, {bits} of {allocated} bits, spacing {spacing})"
        raise InputError(path, what, AGAIN)
    if abs(np.linalg.norm(across) - 1) > 0.01 or abs(np.linalg.norm(down) - 1) > 0.01 or abs(across @ down) > 0.01:
        raise InputError(path, f"has impossible directions {directions}", AGAIN)
    return Slice(
        path=path,
        series=str(header.get("SeriesInstanceUID", "")),
        name=path.name,
        rows=rows,
        columns=columns,
        dtype=f"{'i' if int(header.PixelRepresentation) else 'u'}{allocated // 8}",
        bits=bits,
        place=(place[0], place[1], place[2]),
        row_step=_vector(down * spacing[0]),
        column_step=_vector(across * spacing[1]),
        thickness=thickness,
        slope=slope,
        inter=inter,
    )


def _require_decodable(header: Any, one: Slice) -> None:
    """InputError for a compression without codec, and for plain pixels that the file cannot hold."""
    from pydicom.pixels import get_decoder

    syntax = getattr(header.file_meta, "TransferSyntaxUID", None)
    if syntax is None or str(syntax) == _DEFLATED:
        raise InputError(one.path, f"is a DICOM file of transfer syntax {getattr(syntax, 'name', syntax)}", _CONVERT)
    needed = one.rows * one.columns * np.dtype(one.dtype).itemsize
    if needed > _MAX_SLICE:
        raise InputError(one.path, f"says it is a slice of {one.rows} x {one.columns} pixels", AGAIN)
    if not syntax.is_compressed:
        size = one.path.stat().st_size
        if size < needed:
            raise InputError(one.path, f"is truncated: {one.rows} x {one.columns} pixels in {size} bytes", AGAIN)
        return
    try:
        usable = get_decoder(syntax).is_available
    except NotImplementedError:
        usable = False
    if not usable:
        hint = f"pip install pylibjpeg[all], or {_CONVERT}"
        raise InputError(one.path, f"is compressed as {syntax.name}, for which no codec is installed", hint)


def _affine(slices: list[Slice], path: Path) -> Array:
    """(4, 4) stored index (column, row, slice) to millimetres RAS; InputError where the slices are no regular stack."""
    first = slices[0]
    for one in slices[1:]:
        if (one.rows, one.columns, one.dtype) != (first.rows, first.columns, first.dtype):
            what = f"has slices of {_size(first)} and {_size(one)}: at {first.height:.2f} and {one.height:.2f} mm"
            raise InputError(path, what, _mixed(first, one))
        steps = np.subtract(one.row_step, first.row_step), np.subtract(one.column_step, first.column_step)
        if np.abs(steps).max() > _DIRECTIONS * np.abs([first.row_step, first.column_step]).max():
            what = f"has slices of other directions or spacings: at {first.height:.2f} and {one.height:.2f} mm"
            raise InputError(path, what, _mixed(first, one))
    if len(slices) == 1:
        if first.thickness <= 0:
            raise InputError(path, "is one slice without a thickness", "give the folder with the whole series")
        step = first.normal * first.thickness
    else:
        step = _step(slices, path)
    affine = np.eye(4)
    affine[:3, :3] = np.stack([first.column_step, first.row_step, step], axis=1)
    affine[:3, 3] = first.place
    return np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine


def _step(slices: list[Slice], path: Path) -> Array:
    """(3,) millimetres from slice to slice; InputError naming the places where it is not one and the same."""
    heights = np.array([one.height for one in slices])
    gaps = np.diff(heights)
    usual = float(np.median(gaps))
    same = gaps <= _TOLERANCE * max(usual, 0.1)
    if same.any():
        k = int(same.argmax())
        names = f"{slices[k].name} and {slices[k + 1].name}"
        what = f"has two slices at {heights[k]:.2f} mm ({names}), the first of {int(same.sum())} such pairs"
        raise InputError(path, what, "remove the copies, or give each time point or echo a folder of its own")
    odd = np.flatnonzero(np.abs(gaps - usual) > max(_TOLERANCE * usual, min(_ROUNDING, 0.1 * usual)))
    if len(odd):
        k = int(odd[0])
        between = f"between {heights[k]:.2f} mm ({slices[k].name}) and {heights[k + 1]:.2f} mm ({slices[k + 1].name})"
        lacking = gaps[k] / usual - 1
        if lacking > 0.5 and abs(lacking - round(lacking)) < 0.1:
            what = f"lacks {round(lacking)} slice{'s' if round(lacking) > 1 else ''} {between}"
            raise InputError(path, what, "copy the whole series again")
        what = f"has slices {usual:.3f} mm apart, but {gaps[k]:.3f} mm {between}"
        raise InputError(path, what, "resample it to equal distances in another program, or copy it again")
    places = np.array([one.place for one in slices])
    step = (places[-1] - places[0]) / (len(slices) - 1)
    away = np.abs(places - (places[0] + np.arange(len(slices))[:, None] * step)).max(axis=1)
    if away.max() > max(_TOLERANCE * usual * math.sqrt(len(slices)), 0.05):
        k = int(away.argmax())
        what = (
            f"has a slice beside the line of the others at {heights[k]:.2f} mm ({slices[k].name}), by {away[k]:.2f} mm"
        )
        raise InputError(path, what, _CONVERT)
    return step


def _voxels(slices: list[Slice], dtype: np.dtype[Any]) -> Array:
    """(columns, rows, slices, 1) rescaled pixels."""
    first = slices[0]
    out = np.empty((len(slices), first.rows, first.columns), dtype)
    for k, one in enumerate(slices):
        data = _read(one.path, None)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                pixels = data.pixel_array
        except Exception as fault:  # decoders of foreign bytes raise ValueError, AttributeError, RuntimeError, ...
            what = f"has pixels that cannot be decoded ({str(fault)[:120] or type(fault).__name__})"
            raise InputError(one.path, what, AGAIN) from fault
        if pixels.shape != out.shape[1:] or pixels.dtype.kind != one.dtype[0]:
            raise InputError(one.path, f"holds pixels {pixels.shape} of {pixels.dtype}, not as its header says", AGAIN)
        if dtype.kind == "f":
            out[k] = pixels.astype(np.float64) * one.slope + one.inter
        else:
            out[k] = pixels.astype(np.int64) + int(one.inter)
    return out[..., None].transpose(2, 1, 0, 3)


def _vector(values: Array) -> tuple[float, float, float]:
    first, second, third = values.tolist()
    return first, second, third


def _size(one: Slice) -> str:
    return f"{one.rows} x {one.columns} {one.dtype}"


def _mixed(first: Slice, one: Slice) -> str:
    return f"give each stack a folder of its own ({first.name} and {one.name} differ)"
