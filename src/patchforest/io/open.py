"""The door for images: what a file or folder is by its content, never by its name, and the reader that fits.

What our own readers can check and read they read; OpenSlide has the scanners' formats, and TIFF slides in compressions
that only it knows.
"""

from __future__ import annotations

import codecs
import os
import stat
from pathlib import Path

from patchforest.errors import InputError
from patchforest.io.array import ArraySource, open_npy
from patchforest.io.pages import TIFF_MAGIC, VendorFormat
from patchforest.io.picture import JPEG_MAGIC, PNG_MAGIC, PictureSource
from patchforest.io.slide import INSTALL, SlideSource, dicom_slide, has_openslide
from patchforest.io.tiff import TiffSource
from patchforest.io.volume_kind import holds_series, volume_kind
from patchforest.io.zarr import Missing, ZarrSource, is_zarr
from patchforest.values import ImageSource

Source = ArraySource | PictureSource | SlideSource | TiffSource | ZarrSource

_NPY_MAGIC = b"\x93NUMPY"
_READABLE = "give a PNG, JPEG, TIFF, NPY or slide file, or a Zarr folder"
_VOLUME = "`predict` takes it, `train` with volume.window or volume.axes; in Python use open_volume"
_HEAD = 512
# First bytes of slides that are neither TIFF nor DICOM -> what they are.
_SLIDES = (
    (b"SQLite format 3\0", "is an SQLite database, as Sakura slides are"),
    (b"ZISRAWFILE", "is a Zeiss slide (CZI)"),
    (b"[Virtual Microscope Specimen]", "is a Hamamatsu slide (VMS)"),
    (b"[Uncompressed Virtual Microscope Specimen]", "is a Hamamatsu slide (VMU)"),
)
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


def open_image(path: str | Path, *, page: int | None = None, missing: Missing = "error") -> ImageSource:
    """The image in a PNG, JPEG, TIFF, NPY, Zarr or slide: its shape now, its pixels when ``read``, in its own dtype.

    Upright by its orientation tag, RGB or grey (or as many channels as there are), transparency composited on white
    with a warning. ``source.read()`` is (H, W, C); any window and, for pyramids, any level can be read alone.

    Parameters
    ----------
    path : a file, or the folder of a Zarr array, an OME-Zarr image or a DICOM slide; its suffix does not matter.
    page : which page of a TIFF, from 0; None is the first, and a stack of equal pages is then refused.
    missing : what a chunk that a Zarr folder lacks means: "error", or "fill" for its fill value (see ``ZarrSource``).

    Raises
    ------
    InputError
        The file is missing, empty, truncated, damaged, no image, or of a kind that is not supported; the text is one
        line with the remedy. Damage inside the pixels may show only in ``read``.
    """
    return open_source(Path(path), page=page, missing=missing)


def open_source(path: Path, *, page: int | None = None, missing: Missing = "error") -> Source:
    """As ``open_image``, with the reader's own type, whose ``stored()`` gives values as the file holds them."""
    if _is_folder(path):
        return _open_folder(path, page, missing)
    head = head_of(path)
    if page is not None and (page < 0 or (page > 0 and not head.startswith(TIFF_MAGIC))):
        raise InputError(path, f"has no page {page}", "leave page out: only TIFF files have several")
    try:
        if head.startswith(JPEG_MAGIC) and (path.with_suffix("") / "Slidedat.ini").is_file():
            return SlideSource(path)  # MIRAX: the file is a picture, the slide is in the folder of its name
        if head.startswith((PNG_MAGIC, JPEG_MAGIC)):
            if path.suffix.lower() == ".mrxs":
                raise InputError(path, "is a MIRAX slide without its folder", f"copy the folder {path.stem} beside it")
            return PictureSource(path)
        if head.startswith(TIFF_MAGIC):
            return _open_tiff(path, page)
        if head.startswith(_NPY_MAGIC):
            return open_npy(path)
        kind = volume_kind(head)
        if kind is not None:
            raise InputError(path, f"is a {kind} volume, not an image", _VOLUME)
        what = _slide_of(head)
        if what is not None:
            return _open_slide(path, InputError(path, what, "convert it to TIFF or PNG"))
    except OSError as fault:
        raise InputError(
            path, f"cannot be read ({fault.strerror or fault})", "check the disk or copy it again"
        ) from fault
    raise refusal(path, head)


def _open_folder(path: Path, page: int | None, missing: Missing) -> Source:
    """The Zarr image or DICOM slide in a folder; InputError where there is neither."""
    if page is not None and page != 0:
        raise InputError(path, f"has no page {page}", "leave page out: only TIFF files have several")
    try:
        if is_zarr(path):
            return ZarrSource(path, missing=missing)
        if holds_series(path):
            raise InputError(path, "is the folder of a DICOM volume, not an image", _VOLUME)
        slide = dicom_slide(path)
    except OSError as fault:
        raise InputError(
            path, f"cannot be read ({fault.strerror or fault})", "check the folder's permissions"
        ) from fault
    if slide is None:
        raise InputError(path, "is a folder, not an image file", _READABLE)
    return slide


def _open_tiff(path: Path, page: int | None) -> TiffSource | SlideSource:
    """Our own reader's source, or OpenSlide's for a scanner's format and for slides in a compression of their own."""
    try:
        return TiffSource(path, page)
    except VendorFormat as refusal:
        if page:  # OpenSlide would give the slide, not this page
            raise
        return _open_slide(path, refusal)


def _open_slide(path: Path, refusal: InputError) -> SlideSource:
    """The slide that OpenSlide sees in a file; where it sees none, the ``refusal`` of our own readers."""
    if not has_openslide():
        raise InputError(path, refusal.what, f"{INSTALL}; or {refusal.hint}") from refusal
    certain = getattr(refusal, "certain", False)
    try:
        slide = SlideSource(path)
    except InputError as fault:
        raise (fault if certain else refusal) from fault
    if certain and slide.vendor == "generic-tiff":  # its tiles side by side, which are not the image
        raise InputError(path, f"{refusal.what} of a kind that OpenSlide does not know", refusal.hint) from refusal
    return slide


def _slide_of(head: bytes) -> str | None:
    """What a file that may be a slide is, by its first bytes; None for any other file."""
    if head[128:132] == b"DICM":
        return "is a DICOM file"
    return next((what for magic, what in _SLIDES if head.startswith(magic)), None)


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except (OSError, ValueError):  # the door for files says why
        return False


def head_of(path: Path) -> bytes:
    """The first bytes of a regular file with something in it; InputError otherwise."""
    try:
        mode = os.stat(path).st_mode
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


def refusal(path: Path, head: bytes) -> InputError:
    """What a file that no reader takes seems to be."""
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith((b"<!doctype html", b"<html", b"<head")):
        return InputError(path, "is an HTML page, not an image", "download the file itself: a login may be needed")
    for magic, what, hint in _KNOWN:
        if head.startswith(magic):
            return InputError(path, what, hint)
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
