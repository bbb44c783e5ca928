"""PNG and JPEG files as image sources.

The file's own structure is checked first (every PNG checksum, the JPEG markers up to the end mark, sizes that the bytes
can hold), so that a damaged file is an error at open; only then Pillow or OpenCV decodes, by format, never by guess.
"""

from __future__ import annotations

import io
import re
import struct
import warnings
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import cv2
import numpy as np
from PIL import Image, JpegImagePlugin, PngImagePlugin

from patchforest.errors import InputError
from patchforest.io.array import (
    composite_on_white,
    image_values,
    native,
    orient,
    oriented_size,
    window_of,
)
from patchforest.values import Array

PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
JPEG_MAGIC = b"\xff\xd8\xff"
MAX_PIXELS = 20_000_000_000
_DEFLATE_RATIO = 1040  # deflate cannot expand a byte to more than 1032
_OPENCV_PIXELS = 1 << 30
_GREY, _RGB, _PALETTE, _GREY_ALPHA, _RGBA = 0, 2, 3, 4, 6
_SAMPLES = {_GREY: 1, _RGB: 3, _PALETTE: 1, _GREY_ALPHA: 2, _RGBA: 4}
_DEPTHS = {_GREY: (1, 2, 4, 8, 16), _RGB: (8, 16), _PALETTE: (1, 2, 4, 8), _GREY_ALPHA: (8, 16), _RGBA: (8, 16)}
_AGAIN = "copy or export the file again"
_MARKER = re.compile(rb"\xff+[^\x00\xd0-\xd7\xff]", re.DOTALL)


@dataclass(frozen=True)
class Header:
    """What a PNG or JPEG says of itself: stored height and width, bits a sample, PNG colour type, orientation code."""

    format: str
    height: int
    width: int
    depth: int
    colour: int
    orientation: int
    transparent: bool = False
    row_bytes: int | None = None  # of a PNG that is not interlaced: bytes of a filtered row


class PictureSource:
    """A PNG or JPEG as an ``ImageSource`` of one level, upright by its EXIF orientation.

    Palettes become RGB, grey stays one channel, 1-bit becomes 0/255, 2- and 4-bit grey is scaled to 0..255 as PNG says,
    16-bit stays uint16. Transparency is composited on white, with one warning. The pixels are decoded at the first
    ``read`` and kept. Errors: InputError for anything the file does wrong, and for CMYK.
    """

    mpp: float | None = None

    def __init__(self, path: Path) -> None:
        self._path = path
        data = path.read_bytes()
        self.header = png_header(data, path) if data.startswith(PNG_MAGIC) else jpeg_header(data, path)
        self.format = self.header.format
        self._pixels: Array | None = None

    @property
    def shape(self) -> tuple[int, int, int]:
        """(H, W, C), upright."""
        head = self.header
        height, width = oriented_size((head.height, head.width), head.orientation)
        return height, width, 1 if head.colour in (_GREY, _GREY_ALPHA) else 3

    @property
    def levels(self) -> tuple[tuple[int, int], ...]:
        """((H, W),): one level."""
        return (self.shape[:2],)

    @property
    def tile(self) -> tuple[int, int]:
        """(H, W): the file is decoded as a whole."""
        return self.levels[0]

    def read(
        self,
        level: int = 0,
        row: int = 0,
        column: int = 0,
        height: int | None = None,
        width: int | None = None,
    ) -> Array:
        """(height, width, C) uint8 or uint16; ValueError for a window that is not within the image."""
        row, column, height, width = window_of(self.levels, level, row, column, height, width)
        if self._pixels is None:
            if self.header.transparent:
                warnings.warn(f"{self._path}: has transparency, which is composited on white", stacklevel=2)
            self._pixels = self._upright(_shown(self._decoded(), self.header))
        part = self._pixels[row : row + height, column : column + width]
        return image_values(part, self._path, row, column)

    def stored(self) -> Array:
        """(H, W, C) upright: the values in the file, palette indices and unscaled 1-, 2- and 4-bit numbers included."""
        pixels, scale = self._decoded(), 1
        if isinstance(pixels, Image.Image):
            if self.header.colour == _GREY and self.header.depth in (2, 4):
                scale = 255 // ((1 << self.header.depth) - 1)
            pixels = np.asarray(pixels)
        values = pixels.astype(np.uint8) if pixels.dtype == bool else pixels // scale if scale > 1 else pixels
        return native(self._upright(values if values.ndim == 3 else values[:, :, None]))

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_pixels": None}

    def _upright(self, pixels: Array) -> Array:
        pixels = orient(pixels, self.header.orientation)
        if pixels.shape[:2] != self.shape[:2]:
            raise InputError(self._path, f"decodes to {pixels.shape[:2]} pixels, not {self.shape[:2]}", _AGAIN)
        return pixels

    def _decoded(self) -> Image.Image | Array:
        """The decoder's result: a Pillow image, or an array (H, W, C) for 16-bit colour."""
        head, data = self.header, self._path.read_bytes()
        try:
            if head.format == "PNG" and head.depth == 16 and head.colour != _GREY:
                return _decode_deep_png(data, head, self._path)
            plugin = PngImagePlugin.PngImageFile if head.format == "PNG" else JpegImagePlugin.JpegImageFile
            picture = plugin(
                io.BytesIO(data)
            )  # not Image.open, whose size limit is a global switch: ours is MAX_PIXELS
            picture.load()
        except (InputError, MemoryError):
            raise
        except (
            Exception
        ) as fault:  # decoders of foreign bytes raise OSError, SyntaxError, ValueError, struct.error, ...
            raise InputError(self._path, f"cannot be decoded as {head.format} ({str(fault)[:120]})", _AGAIN) from fault
        return picture


def png_header(data: bytes, path: Path) -> Header:
    """The header of a PNG whose chunks are all there with right checksums; InputError otherwise."""
    position, packed = len(PNG_MAGIC), 0
    chunks: dict[bytes, bytes] = {}
    while True:
        if position + 12 > len(data):
            raise InputError(path, f"is a truncated PNG ({len(data)} bytes, no end chunk)", _AGAIN)
        length, name = struct.unpack_from(">I4s", data, position)
        end = position + 12 + length
        if end > len(data):
            shown = name.decode("ascii", "replace")
            raise InputError(path, f"is a truncated PNG (chunk {shown} ends at byte {end} of {len(data)})", _AGAIN)
        body = memoryview(data)[position + 8 : end - 4]
        if zlib.crc32(body, zlib.crc32(name)) != int.from_bytes(data[end - 4 : end], "big"):
            raise InputError(path, f"is a damaged PNG (wrong checksum at byte {position})", _AGAIN)
        if name == b"IDAT":
            packed += length
        elif name in (b"IHDR", b"tRNS", b"eXIf"):
            chunks.setdefault(name, bytes(body))
        position = end
        if name == b"IEND":
            break
    if len(chunks.get(b"IHDR", b"")) != 13:
        raise InputError(path, "is a damaged PNG (no header chunk)", _AGAIN)
    width, height, depth, colour, _, _, interlaced = struct.unpack(">IIBBBBB", chunks[b"IHDR"])
    if depth not in _DEPTHS.get(colour, ()):
        raise InputError(path, f"is a damaged PNG ({depth} bits in colour type {colour})", _AGAIN)
    bits = width * depth * _SAMPLES[colour]
    _require_plausible(path, "PNG", height, width, height * bits // 8, packed * _DEFLATE_RATIO)
    keyed = b"tRNS" in chunks
    if keyed and depth == 16:
        raise InputError(path, "is a 16-bit PNG with a transparent colour", "save it without transparency")
    orientation = _orientation(chunks.get(b"eXIf"), path)
    transparent = keyed or colour in (_GREY_ALPHA, _RGBA)
    row_bytes = None if interlaced else 1 + (bits + 7) // 8
    return Header("PNG", height, width, depth, colour, orientation, transparent, row_bytes)


def jpeg_header(data: bytes, path: Path) -> Header:
    """The header of a JPEG whose markers lead to its end mark; InputError otherwise, and for CMYK and lossless JPEG."""
    position, frame, exif = 2, None, None
    while True:
        position = data.find(b"\xff", position)
        while position >= 0 and data[position + 1 : position + 2] == b"\xff":
            position += 1
        if position < 0 or position + 2 > len(data):
            raise InputError(path, f"is a truncated JPEG ({len(data)} bytes, no end mark)", _AGAIN)
        marker = data[position + 1]
        if marker == 0xD9:
            break
        if marker in (0x00, 0x01) or 0xD0 <= marker <= 0xD8:
            position += 2
            continue
        length = int.from_bytes(data[position + 2 : position + 4], "big")
        body = data[position + 4 : position + 2 + length]
        if length < 2 or position + 2 + length > len(data):
            raise InputError(path, f"is a truncated JPEG (a segment ends past byte {len(data)})", _AGAIN)
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC) and frame is None:
            frame = (marker, body)
        elif marker == 0xE1 and body.startswith(b"Exif\0\0") and exif is None:
            exif = body
        position += 2 + length
        if marker == 0xDA:
            found = _MARKER.search(data, position)
            if found is None:
                raise InputError(path, f"is a truncated JPEG ({len(data)} bytes, no end mark)", _AGAIN)
            position = found.end() - 2
    if frame is None or len(frame[1]) < 6:
        raise InputError(path, "is a damaged JPEG (no frame header)", _AGAIN)
    depth, height, width, samples = struct.unpack_from(">BHHB", frame[1])
    if samples == 4:
        raise InputError(path, "is a JPEG in CMYK colours", "convert it to RGB with its colour profile")
    if depth != 8 or samples not in (1, 3) or frame[0] not in (0xC0, 0xC1, 0xC2, 0xC9, 0xCA):
        what = f"is a JPEG with {samples} channels of {depth} bits, process {frame[0] - 0xC0}, which is not supported"
        raise InputError(path, what, "convert it to PNG")
    blocks = -(-height // 8) * -(-width // 8)  # Huffman codes take at least one bit a block
    huffman = frame[0] <= 0xC2
    _require_plausible(path, "JPEG", height, width, blocks if huffman else 0, len(data) * 8)
    return Header("JPEG", height, width, depth, _GREY if samples == 1 else _RGB, _orientation(exif, path))


def _require_plausible(path: Path, name: str, height: int, width: int, needed: int, possible: int) -> None:
    """InputError for an empty or absurd size, or one that the file's bytes cannot fill."""
    if height < 1 or width < 1:
        raise InputError(path, f"is a {name} of {height} x {width} pixels", _AGAIN)
    if needed > possible:
        what = f"is a damaged {name}: its header says {height} x {width} pixels, more than its bytes can hold"
        raise InputError(path, what, _AGAIN)
    if height * width > MAX_PIXELS:
        what = f"has {height} x {width} pixels, more than the {MAX_PIXELS // 10**9} billion that are read at once"
        raise InputError(path, what, "convert it to a tiled TIFF")


def _orientation(exif: bytes | None, path: Path) -> int:
    """EXIF orientation 1 to 8; 1 where there is none."""
    if exif is None:
        return 1
    try:
        tags = Image.Exif()
        tags.load(exif if exif.startswith(b"Exif\0\0") else b"Exif\0\0" + exif)
        code = tags.get(0x0112, 1)
    except Exception:  # a damaged EXIF block raises many types; the pixels are still good
        warnings.warn(f"{path}: its EXIF block cannot be read, so the image is taken as upright", stacklevel=2)
        return 1
    return code if isinstance(code, int) and 1 <= code <= 8 else 1


def _shown(pixels: Image.Image | Array, head: Header) -> Array:
    """(H, W, 1 or 3) as seen on white, before orientation."""
    if isinstance(pixels, Image.Image):
        if head.transparent:
            pixels = pixels.convert("LA" if head.colour in (_GREY, _GREY_ALPHA) else "RGBA")
        elif head.colour == _PALETTE:
            pixels = pixels.convert("RGB")
        pixels = np.asarray(pixels)
    if pixels.ndim == 2:
        pixels = pixels[:, :, None]
    return composite_on_white(pixels[:, :, :-1], pixels[:, :, -1]) if head.transparent else pixels


def _decode_deep_png(data: bytes, head: Header, path: Path) -> Array:
    """(H, W, 2, 3 or 4) uint16 of a 16-bit PNG in colour or with alpha, which Pillow would cut down to 8 bits."""
    if head.height * head.width > _OPENCV_PIXELS:
        raise InputError(path, f"is a 16-bit PNG of {head.height} x {head.width} pixels", "convert it to a tiled TIFF")
    if head.row_bytes is not None:
        _require_full_stream(data, head.row_bytes * head.height, path)
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None or pixels.dtype != np.uint16 or pixels.ndim != 3:
        _refuse(path)
    if head.colour == _GREY_ALPHA:
        return pixels[:, :, [0, -1]]
    order = [2, 1, 0] if head.colour == _RGB else [2, 1, 0, 3]
    return pixels[:, :, order]


def _require_full_stream(data: bytes, size: int, path: Path) -> None:
    """InputError unless the PNG's deflate stream holds ``size`` bytes: OpenCV fills what is missing with zeros."""
    stream, total, position = zlib.decompressobj(), 0, len(PNG_MAGIC)
    while position < len(data):
        length, name = struct.unpack_from(">I4s", data, position)
        if name == b"IDAT":
            total += len(stream.decompress(data[position + 8 : position + 8 + length]))
        position += 12 + length
        if name == b"IEND":
            break
    if total < size:
        _refuse(path)


def _refuse(path: Path) -> NoReturn:
    raise InputError(path, "is a damaged PNG (its pixel data is incomplete)", _AGAIN)
