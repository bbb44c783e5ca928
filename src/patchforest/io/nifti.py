"""NIfTI-1 and -2 volumes in one file, plain or gzip (install extra ``volumes``)."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from patchforest.errors import InputError
from patchforest.io.orientation import Grid, affine_gap, affines_agree, placed_grid
from patchforest.io.volume_array import StoredVolume
from patchforest.io.volume_kind import GZIP_MAGIC, INSTALL, head_bytes, inflated_head
from patchforest.io.voxel_bytes import AGAIN, inflated_voxels, mapped_voxels, require_bytes, require_capacity
from patchforest.values import Array

_HEAD = 1 << 16
_PLAIN = {348: 352, 540: 544}  # size of a header -> where the voxels begin at the earliest
_MILLIMETRES = {0: 1.0, 1: 1000.0, 2: 1.0, 3: 0.001}  # by code; unknown is millimetres, as everybody reads it
_ONE_PLACE = "keep the right one: in Python image.set_qform(None, 0) (or set_sform), then nibabel.save(image, path)"


def open_nifti(path: Path) -> StoredVolume:
    """The volume in a NIfTI file; a fourth (or fifth) axis becomes the channels.

    It lies where its sform says, or where that has no code its qform; without either it is shown as stored, the
    slowest axis as the plane. Uncompressed files are mapped and read in parts. gzip is read to its end, at the first
    ``read``, because only there its CRC can be checked.

    Raises
    ------
    InputError
        nibabel is not installed; the file is truncated or damaged, half of a pair, in colours or complex; qform and
        sform disagree.
    """
    head = head_bytes(path, _HEAD)
    packed = head.startswith(GZIP_MAGIC)
    head = inflated_head(head) if packed else head[:1024]
    try:
        header = parsed_header(head, path)
        sizes, dtype, offset = _layout(header, path)
        slope, inter = header.get_slope_inter()
        grid = _grid(header, head, sizes[:3], path)
    except InputError:
        raise
    except ModuleNotFoundError as fault:
        raise InputError(path, f"is a NIfTI volume, and {fault.name} is not installed", INSTALL) from fault
    except Exception as fault:  # nibabel on foreign bytes raises HeaderDataError, KeyError, OverflowError, ...
        what = f"has a damaged NIfTI header ({str(fault)[:120] or type(fault).__name__})"
        raise InputError(path, what, AGAIN) from fault
    needed = math.prod(sizes) * dtype.itemsize
    if packed:
        require_capacity(path, needed, "gzip")
        load = partial(inflated_voxels, path, sizes, dtype, skip=offset)
    else:
        require_bytes(path, needed, path.stat().st_size - offset)
        load = partial(mapped_voxels, path, sizes, dtype, offset)
    return StoredVolume(
        path,
        load,
        grid=grid,
        dtype=dtype,
        channels=sizes[3],
        slope=1.0 if slope is None else slope,
        inter=0.0 if inter is None else inter,
        format="NIfTI",
    )


def parsed_header(head: bytes, path: str | Path) -> Any:
    """nibabel's header object of the first bytes of a NIfTI file; InputError where they are none."""
    from nibabel.nifti1 import Nifti1Header
    from nibabel.nifti2 import Nifti2Header

    order = "<" if int.from_bytes(head[:4], "little") in _PLAIN else ">"
    size = int.from_bytes(head[:4], "little" if order == "<" else "big")
    if size not in _PLAIN or len(head) < size:
        raise InputError(path, f"has a damaged or truncated NIfTI header ({len(head)} bytes of {size})", AGAIN)
    kind = Nifti1Header if size == 348 else Nifti2Header
    header = kind(head[:size], order, check=False)
    if bytes(header["magic"])[:2] == b"ni":
        hint = "save it as one .nii file, in Python: nibabel.save(nibabel.load(path), 'volume.nii')"
        raise InputError(path, "is half of a NIfTI volume in two files (.hdr and .img)", hint)
    if header["pixdim"][0] == 0:  # many writers leave the handedness of the qform out: it is then right
        header["pixdim"][0] = 1
    return header


def _layout(header: Any, path: Path) -> tuple[tuple[int, int, int, int], np.dtype[Any], int]:
    """((I, J, K, C), dtype, where the voxels begin); InputError where a header has no such thing."""
    axes = int(header["dim"][0])
    sizes = [int(size) for size in header["dim"][1 : 1 + axes]]
    if not 1 <= axes <= 7 or min(sizes) < 1:
        raise InputError(path, f"has a damaged NIfTI header (sizes {sizes} for {axes} axes)", AGAIN)
    sizes += [1] * (3 - axes)
    more = [size for size in sizes[3:] if size > 1]
    if len(more) > 1:
        raise InputError(path, f"has {axes} axes ({sizes})", "save each time point as a file of its own")
    dtype = header.get_data_dtype()
    if dtype.kind not in "uif" or dtype.itemsize > 8:
        name = "RGB colours" if dtype.names else str(dtype)
        raise InputError(path, f"holds {name}, which is no volume", "save it as integers or real numbers")
    start, first = float(header["vox_offset"]), _PLAIN[int(header["sizeof_hdr"])]
    if not math.isfinite(start) or not start.is_integer() or (start != 0 and start < first - 4):
        raise InputError(path, f"has a damaged NIfTI header (voxels at byte {start:g})", AGAIN)
    return (sizes[0], sizes[1], sizes[2], more[0] if more else 1), dtype, int(start) or first


def _grid(header: Any, head: bytes, shape: tuple[int, int, int], path: Path) -> Grid:
    """Where the header places the volume; InputError where its two places differ or one is impossible."""
    unit = _MILLIMETRES.get(int(header["xyzt_units"]) & 7)
    if unit is None:
        raise InputError(path, f"has a damaged NIfTI header (units {int(header['xyzt_units'])})", AGAIN)
    binary = head[: int(header["sizeof_hdr"])]
    places = {
        name: in_millimetres(get(), unit)
        for name, get in (("sform", header.get_sform), ("qform", header.get_qform))
        if int(header[f"{name}_code"]) > 0
    }
    if not places:
        zooms = [float(zoom) * unit for zoom in header["pixdim"][1:4]]
        known = all(math.isfinite(zoom) and zoom > 0 for zoom in zooms)
        return Grid(shape, spacing=(zooms[0], zooms[1], zooms[2]) if known else None, nifti=binary)
    name, affine = next(iter(places.items()))
    try:
        grid = placed_grid(shape, affine, nifti=binary)
    except ValueError as fault:
        raise InputError(path, f"has an impossible {name}: {fault}", f"correct it, or {_ONE_PLACE}") from fault
    if len(places) == 2 and not affines_agree(affine, places["qform"]):
        gap = affine_gap(affine, places["qform"], shape)
        what = f"lies at two places: its sform and its qform differ by up to {gap:.4g} mm"
        raise InputError(path, what, _ONE_PLACE)
    return grid


def in_millimetres(affine: Array, unit: float) -> Array:
    """An affine in millimetres, from one in a unit of so many."""
    out = np.array(affine, np.float64)
    out[:3] *= unit
    return out
