"""Masks and probabilities of volumes on disk, placed as their image is. Whole files, through ``io.atomic``."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import numpy as np
import tifffile

from patchforest.errors import InputError
from patchforest.io.atomic import atomic_path
from patchforest.io.orientation import AS_STORED, Grid, affines_agree, require_invertible, voxel_size
from patchforest.io.volume_kind import INSTALL
from patchforest.values import Array, VolumeSource

_LEVEL = 6  # of compression
_LONGEST = 32767  # axis of a NIfTI-1 file
_PLAIN = {348: 352, 540: 544}
_TYPES = {"|u1": "uint8", "<u2": "uint16", "<f4": "float"}


def write_volume_mask(path: str | Path, mask: Array, like: VolumeSource) -> None:
    """``path`` holds the class numbers of ``mask``, unchanged, on the grid of the volume it was made from.

    NIfTI and NRRD files get the axis order of the file of ``like`` and its place in space; from NIfTI to NIfTI every
    field of the header that says where it lies (affine, qform and sform codes, units) is copied bit by bit. TIFF and
    NPY files know no place: they hold the mask as it is shown.

    Parameters
    ----------
    path : ends in ``.nii``, ``.nii.gz``, ``.nrrd`` (gzip), ``.tif``/``.tiff`` (a page a plane, deflate) or ``.npy``.
    mask : (D, H, W) as ``like`` is shown, whole numbers from 0 to 65535 or bool; 8 bits where they fit, else 16.
    like : the volume, from ``open_volume``.

    Raises
    ------
    ValueError
        Another size than ``like``, not of an integer type, or values below 0 or above 65535.
    InputError
        Another suffix, a target that cannot be written, or nibabel is not installed (NIfTI).
    """
    mask = np.asarray(mask)
    if mask.ndim != 3 or mask.shape != like.shape[:3]:
        raise ValueError(f"a mask of this volume is {like.shape[:3]}; got shape {mask.shape}")
    if mask.dtype.kind not in "bui":
        raise ValueError(f"a mask holds whole class numbers; got dtype {mask.dtype}: round or argmax it first")
    low, high = int(mask.min()), int(mask.max())
    if low < 0 or high > 65535:
        raise ValueError(f"class numbers lie between 0 and 65535; got {low} to {high}")
    _write(Path(path), mask.astype(np.uint8 if high < 256 else np.uint16)[..., None], like)


def write_volume(path: str | Path, voxels: Array, like: VolumeSource) -> None:
    """``path`` holds real numbers, such as probabilities, as float32 on the grid of ``like``.

    As ``write_volume_mask``, with ``voxels`` (D, H, W) or (D, H, W, C); ValueError for another size.
    """
    voxels = np.asarray(voxels)
    if voxels.ndim == 3:
        voxels = voxels[..., None]
    if voxels.ndim != 4 or voxels.shape[:3] != like.shape[:3] or voxels.shape[3] < 1:
        raise ValueError(f"voxels of this volume are {like.shape[:3]}, and channels; got shape {voxels.shape}")
    _write(Path(path), voxels.astype(np.float32), like)


def _write(path: Path, voxels: Array, like: VolumeSource) -> None:
    """(D, H, W, C) of uint8, uint16 or float32 to the format of the suffix."""
    name = path.name.lower()
    for suffix, write in _WRITERS.items():
        if name.endswith(suffix):
            write(path, voxels, _grid_of(like))
            return
    hint = "end it in .nii.gz, .nii, .nrrd, .tif or .npy"
    raise InputError(path, f"ends in {path.suffix or 'no suffix'!r}, which names no volume format we write", hint)


def _grid_of(like: VolumeSource) -> Grid:
    """How ``like`` lies in its file; for a source that does not say, as it is shown."""
    grid = getattr(like, "grid", None)
    if isinstance(grid, Grid):
        return grid
    planes, height, width = like.shape[:3]
    shape = (width, height, planes)
    if like.affine is not None:
        affine = require_invertible(like.affine) @ np.linalg.inv(AS_STORED.index(shape))
        return Grid(shape, affine=affine, spacing=voxel_size(affine))
    return Grid(shape, spacing=None if like.spacing is None else (like.spacing[2], like.spacing[1], like.spacing[0]))


def _write_nifti(path: Path, voxels: Array, grid: Grid) -> None:
    stored = grid.layout.store(voxels)
    try:
        header = _nifti_header(stored, grid)
    except ModuleNotFoundError as fault:
        raise InputError(path, f"is a NIfTI volume, and {fault.name} is not installed", INSTALL) from fault
    order = header.endianness
    data = np.asfortranarray(stored, stored.dtype.newbyteorder(order))
    size = int(header["sizeof_hdr"])
    start = header.binaryblock + bytes(_PLAIN[size] - size)
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        if path.name.lower().endswith(".gz"):
            with gzip.GzipFile("", "wb", _LEVEL, file, mtime=0) as stream:
                _put(stream, start, data)
        else:
            _put(file, start, data)


def _nifti_header(stored: Array, grid: Grid) -> Any:
    """The header for voxels (I, J, K, C): the image's own with another type, or a new one that lies as the grid."""
    from nibabel.nifti1 import Nifti1Header
    from nibabel.nifti2 import Nifti2Header

    from patchforest.io.nifti import parsed_header

    if grid.nifti:
        header = parsed_header(grid.nifti, "header")
        for field in (
            "scl_slope",
            "scl_inter",
            "cal_min",
            "cal_max",
            "intent_code",
            "intent_p1",
            "intent_p2",
            "intent_p3",
        ):
            header[field] = 0
        header["intent_name"] = b""
        header["scl_slope"] = 1
    else:
        header = (Nifti1Header if max(stored.shape) <= _LONGEST else Nifti2Header)()
        _place(header, grid)
    channels = stored.shape[3]
    header["dim"] = [3 if channels == 1 else 4, *stored.shape, 1, 1, 1]
    header["vox_offset"] = _PLAIN[int(header["sizeof_hdr"])]
    header.set_data_dtype(stored.dtype)
    return header


def _place(header: Any, grid: Grid) -> None:
    """A new header's affine in millimetres; without one its spacing, and codes that say that it is not known."""
    if grid.affine is None:
        header["pixdim"][1:4] = grid.spacing or (1, 1, 1)
        header.set_xyzt_units("mm" if grid.spacing else 0)
        return
    header.set_xyzt_units("mm")
    header.set_sform(grid.affine, 1)
    header.set_qform(grid.affine, 1)
    if not affines_agree(header.get_sform(), header.get_qform()):  # a qform cannot hold sheared axes
        header["qform_code"] = 0


def _write_nrrd(path: Path, voxels: Array, grid: Grid) -> None:
    stored = grid.layout.store(voxels)
    data = np.asfortranarray(stored, stored.dtype.newbyteorder("<"))
    channels = data.shape[3]
    if channels == 1:
        data = data[..., 0]
    more = [] if channels == 1 else ["none"]
    lines = [
        "NRRD0004",
        f"type: {_TYPES[data.dtype.newbyteorder('<').str]}",
        f"dimension: {data.ndim}",
        f"sizes: {' '.join(str(size) for size in data.shape)}",
        f"kinds: {' '.join(['domain'] * 3 + ['list' for _ in more])}",
        "encoding: gzip",
    ]
    if data.dtype.itemsize > 1:
        lines.append("endian: little")
    if grid.affine is not None:
        lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ grid.affine
        lines.append("space: left-posterior-superior")
        lines.append(f"space directions: {' '.join([_vector(lps[:3, axis]) for axis in range(3)] + more)}")
        lines.append(f"space origin: {_vector(lps[:3, 3])}")
    elif grid.spacing is not None:
        lines.append(f"spacings: {' '.join([repr(float(step)) for step in grid.spacing] + ['nan' for _ in more])}")
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        file.write(("\n".join(lines) + "\n\n").encode("ascii"))
        with gzip.GzipFile("", "wb", _LEVEL, file, mtime=0) as stream:
            _put(stream, b"", data)


def _write_tiff(path: Path, voxels: Array, grid: Grid) -> None:
    big = voxels.nbytes > 2**31
    with atomic_path(path) as temporary, tifffile.TiffWriter(temporary, bigtiff=big) as tif:
        for plane in voxels:
            tif.write(
                plane if plane.shape[2] > 1 else plane[..., 0],
                photometric="minisblack",
                planarconfig="contig" if plane.shape[2] > 1 else None,
                compression="adobe_deflate",
                metadata=None,
            )


def _write_npy(path: Path, voxels: Array, grid: Grid) -> None:
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        np.save(file, voxels if voxels.shape[3] > 1 else voxels[..., 0], allow_pickle=False)


_WRITERS: dict[str, Callable[[Path, Array, Grid], None]] = {
    ".nii": _write_nifti,
    ".nii.gz": _write_nifti,
    ".nrrd": _write_nrrd,
    ".tif": _write_tiff,
    ".tiff": _write_tiff,
    ".npy": _write_npy,
}


def _put(stream: IO[bytes] | gzip.GzipFile, start: bytes, data: Array) -> None:
    """The bytes of a header and of voxels, first axis fastest."""
    stream.write(start)
    stream.write(data.T.reshape(-1).view(np.uint8).data)


def _vector(values: Array) -> str:
    return f"({','.join(repr(float(value)) for value in values)})"
