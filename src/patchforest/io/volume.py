"""The door for volumes: what a file or folder is by its content, never by its name, and the reader that fits."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

import numpy as np

from patchforest.errors import InputError
from patchforest.io.dicom import open_dicom
from patchforest.io.nifti import open_nifti
from patchforest.io.nrrd import open_nrrd
from patchforest.io.open import head_of, refusal
from patchforest.io.pages import TIFF_MAGIC
from patchforest.io.picture import JPEG_MAGIC, PNG_MAGIC
from patchforest.io.volume_array import ArrayVolume, StoredVolume, as_stored
from patchforest.io.volume_kind import NPY_MAGIC, head_bytes, holds_series, is_dicom, volume_kind
from patchforest.io.volume_tiff import TiffVolume, is_stack
from patchforest.values import Array, VolumeSource

Volume = StoredVolume | TiffVolume

_READABLE = "give a NIfTI, NRRD or multi-page TIFF file, a DICOM series, or a NPY array (D, H, W)"
_READERS = {"NIfTI": open_nifti, "NRRD": open_nrrd, "DICOM": open_dicom}
_MAX_COLOURS = 4


def open_volume(path: str | Path) -> VolumeSource:
    """The volume in a NIfTI, NRRD, TIFF or NPY file or a DICOM series: its shape now, its voxels when ``read``.

    Files that know their place in the patient are shown with plane, row and column nearest to superior, posterior and
    left, whatever their stored order; the others as stored. Values are as the header scales them (Hounsfield units).
    A fourth axis becomes the channels.

    Parameters
    ----------
    path : a file, or the folder of a DICOM series (or one file of it); its suffix does not matter. ``.nhdr`` headers
        need their data file in the same folder.

    Raises
    ------
    InputError
        The file is missing, empty, truncated, damaged, no volume, or of a kind that is not supported; the text is one
        line with the remedy. Damage inside the voxels may show only in ``read``.
    """
    return open_volume_source(Path(path))


def open_volume_source(path: Path) -> Volume:
    """As ``open_volume``, with the reader's own type, whose ``stored()`` gives values as the file holds them."""
    try:
        if os.path.isdir(path):
            if not holds_series(path):
                raise InputError(path, "is a folder without a DICOM series", _READABLE)
            return open_dicom(path)
        head = head_of(path)
        kind = volume_kind(head)
        if kind is not None:
            return _READERS[kind](path)
        if head.startswith(TIFF_MAGIC):
            return TiffVolume(path)
        if head.startswith(NPY_MAGIC):
            return _open_npy(path)
    except OSError as fault:
        what = f"cannot be read ({fault.strerror or fault})"
        raise InputError(path, what, "check the disk or copy it again") from fault
    if head.startswith((PNG_MAGIC, JPEG_MAGIC)) or is_dicom(head):
        name = "a picture" if not is_dicom(head) else "a DICOM slide"
        raise InputError(path, f"is {name}, not a volume", "open it as an image, with open_image")
    raise refusal(path, head)


def is_volume(path: str | Path) -> bool:
    """Whether ``path`` is a volume by its first bytes, for ``open_volume`` rather than ``open_image``; never raises.

    NIfTI, NRRD, DICOM files and folders that are no slide, TIFF files of several equal pages, NPY arrays with four
    axes, and with three where the last is longer than 4, so that it holds no colours.
    """
    path = Path(path)
    try:
        if path.is_dir():
            return holds_series(path)
        if not path.is_file():
            return False
        head = head_bytes(path)
        if volume_kind(head) is not None:
            return True
        if head.startswith(TIFF_MAGIC):
            return is_stack(path)
        if head.startswith(NPY_MAGIC):
            shape = _load_npy(path).shape
            return len(shape) == 4 or (len(shape) == 3 and shape[2] > _MAX_COLOURS)
    except (OSError, ValueError):  # also InputError: the reader says why
        return False
    return False


def _open_npy(path: Path) -> ArrayVolume:
    """The array in a ``.npy`` file, mapped, read only as far as asked for."""
    return ArrayVolume(_load_npy(path), path, load=partial(_load_stored, path))


def _load_stored(path: Path) -> Array:
    return as_stored(_load_npy(path), path)


def _load_npy(path: Path) -> Array:
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as fault:  # a parser of foreign bytes: ValueError, SyntaxError, EOFError, OverflowError, ...
        reason = f"cannot be read as a NumPy array ({str(fault)[:120] or type(fault).__name__})"
        raise InputError(path, reason, "copy the file again, or save the array anew with numpy.save") from fault
