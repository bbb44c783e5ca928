"""The door for images: what a file is by its content, never by its name, and the reader that fits."""

from __future__ import annotations

import codecs
import os
import stat
from pathlib import Path

from patchforest.errors import InputError
from patchforest.io.array import ArraySource, open_npy
from patchforest.io.picture import JPEG_MAGIC, PNG_MAGIC, PictureSource
from patchforest.io.tiff import TiffSource
from patchforest.values import ImageSource

_TIFF_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_NPY_MAGIC = b"\x93NUMPY"
_READABLE = "give a PNG, JPEG, TIFF or NPY file"
_HEAD = 512
# First bytes of files that people pass by mistake -> what they are, what to do.
_KNOWN = (
    (b"version https://git-lfs", "is a git-LFS pointer, not the image", "run `git lfs pull`"),
    (b"PK\x03\x04", "is a zip or npz archive", "unpack it first"),
    (b"\x1f\x8b", "is gzip-compressed", "unpack it first"),
    (b"%PDF", "is a PDF document", _READABLE),
    (b"GIF8", "is a GIF", "convert it to PNG"),
    (b"BM", "is a BMP", "convert it to PNG"),
    (b"RIFF", "is a WebP or another RIFF file", "convert it to PNG"),
    (b"\x00\x00\x00\x0cjP  ", "is a JPEG 2000", "convert it to TIFF"),
    (b"\xff\x4f\xff\x51", "is a JPEG 2000", "convert it to TIFF"),
    (b"\x89HDF", "is an HDF5 file", "save the array as TIFF or NPY"),
    (b"CDF", "is a NetCDF file", "save the field as TIFF or NPY"),
)


def open_image(path: str | Path, *, page: int | None = None) -> ImageSource:
    """The image in a PNG, JPEG, TIFF or NPY file: its shape now, its pixels when ``read``, in the file's own dtype.

    Upright by its orientation tag, RGB or grey (or as many channels as there are), transparency composited on white
    with a warning. ``source.read()`` is (H, W, C); any window and, for pyramidal TIFF, any level can be read alone.

    Parameters
    ----------
    path : a file; its suffix does not matter.
    page : which page of a TIFF, from 0; None is the first, and a stack of equal pages is then refused.

    Raises
    ------
    InputError
        The file is missing, empty, truncated, damaged, no image, or of a kind that is not supported; the text is one
        line with the remedy. Damage inside the pixels may show only in ``read``.
    """
    return open_source(Path(path), page=page)


def open_source(path: Path, *, page: int | None = None) -> ArraySource | PictureSource | TiffSource:
    """As ``open_image``, with the reader's own type, whose ``stored()`` gives values as the file holds them."""
    head = _head_of(path)
    if page is not None and (page < 0 or (page > 0 and not head.startswith(_TIFF_MAGIC))):
        raise InputError(path, f"has no page {page}", "leave page out: only TIFF files have several")
    try:
        if head.startswith((PNG_MAGIC, JPEG_MAGIC)):
            return PictureSource(path)
        if head.startswith(_TIFF_MAGIC):
            return TiffSource(path, page)
        if head.startswith(_NPY_MAGIC):
            return open_npy(path)
    except OSError as fault:
        raise InputError(
            path, f"cannot be read ({fault.strerror or fault})", "check the disk or copy it again"
        ) from fault
    raise _refusal(path, head)


def _head_of(path: Path) -> bytes:
    """The first bytes of a regular file with something in it; InputError otherwise."""
    try:
        mode = os.stat(path).st_mode
        if stat.S_ISDIR(mode):
            raise InputError(path, "is a folder, not an image file", _READABLE)
        if not stat.S_ISREG(mode):
            raise InputError(path, "is a pipe or device, not an image file", _READABLE)
        with open(path, "rb") as file:
            head = file.read(_HEAD)
    except FileNotFoundError as fault:
        raise InputError(path, "does not exist", "check the path") from fault
    except InputError:
        raise
    except (OSError, ValueError) as fault:  # no permission, a loop of links, a name too long or with a zero byte
        reason = (fault.strerror if isinstance(fault, OSError) else None) or str(fault)
        raise InputError(path, f"cannot be opened ({reason})", "check the path and its permissions") from fault
    if not head:
        raise InputError(path, "is empty (0 bytes)", "copy or export the file again")
    return head


def _refusal(path: Path, head: bytes) -> InputError:
    """What a file that no reader takes seems to be."""
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith((b"<!doctype html", b"<html", b"<head")):
        return InputError(path, "is an HTML page, not an image", "download the file itself: a login may be needed")
    for magic, what, hint in _KNOWN:
        if head.startswith(magic):
            return InputError(path, what, hint)
    if head[128:132] == b"DICM":
        return InputError(path, "is a DICOM file", "convert it to TIFF or PNG")
    if _is_text(head):
        return InputError(path, "is a text file, not an image", _READABLE)
    return InputError(path, f"is no image this program reads (it starts with {head[:4].hex(' ')})", _READABLE)


def _is_text(head: bytes) -> bool:
    """Whether the bytes are UTF-8 text without control characters."""
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(head)  # a letter may be cut at the end
    except UnicodeDecodeError:
        return False
    return all(letter.isprintable() or letter in "\t\r\n\f" for letter in text)
