"""What kind of medical volume a file is, by its first bytes; needs no library that reads one."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

INSTALL = "to read and write volumes, run: pip install 'patchforest[volumes]'"
GZIP_MAGIC = b"\x1f\x8b"
NPY_MAGIC = b"\x93NUMPY"
_NIFTI_MAGIC = {344: (b"n+1\0", b"ni1\0"), 4: (b"n+2\0", b"ni2\0")}
_SLIDE_CLASS = b"1.2.840.10008.5.1.4.1.1.77.1.6"  # DICOM: VL Whole Slide Microscopy Image Storage
_HEAD = 1 << 12
_LOOKED_AT = 64


def volume_kind(head: bytes) -> str | None:
    """ "NIfTI", "NRRD", "DICOM" (an image, no slide) or None, from the first 512 bytes or more of a file."""
    start = inflated_head(head) if head.startswith(GZIP_MAGIC) else head
    if any(start[place : place + 4] in magics for place, magics in _NIFTI_MAGIC.items()):
        return "NIfTI"
    if head.startswith(b"NRRD000"):
        return "NRRD"
    if is_dicom(head) and _SLIDE_CLASS not in head:
        return "DICOM"
    return None


def is_dicom(head: bytes) -> bool:
    """Whether a file is DICOM: image, slide or other object."""
    return head[128:132] == b"DICM"


def dicom_files(folder: Path) -> Iterator[Path]:
    """The files of a folder that may be slices, in order of name: hidden ones and a DICOMDIR left out."""
    for path in sorted(folder.iterdir()):
        if not path.name.startswith(".") and path.name != "DICOMDIR" and path.is_file():
            yield path


def holds_series(folder: Path) -> bool:
    """Whether the first DICOM file of a folder is an image and no slide; it is looked for among the first 64 files.

    OSError where the folder or a file cannot be read.
    """
    for path in islice(dicom_files(folder), _LOOKED_AT):
        head = head_bytes(path)
        if is_dicom(head):
            return volume_kind(head) is not None
    return False


def head_bytes(path: Path, size: int = _HEAD) -> bytes:
    """The first bytes of a file."""
    with open(path, "rb") as file:
        return file.read(size)


def inflated_head(head: bytes, size: int = 1024) -> bytes:
    """Up to ``size`` bytes from the beginning of a gzip stream; b"" where it is none."""
    try:
        return zlib.decompressobj(zlib.MAX_WBITS | 16).decompress(head, size)
    except zlib.error:
        return b""
