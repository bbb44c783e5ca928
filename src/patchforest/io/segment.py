"""One tile or strip of a TIFF from its stored bytes to its pixels, whole or an error, never zeros for missing data.

tifffile reads the structure; the bytes are decoded here, because its own decoders need a further package for LZW, JPEG
and Zstandard, and because every segment's length must be checked. The codecs are zlib, OpenCV's JPEG (the same
libjpeg-turbo as Pillow's, with the same values) and Pillow's libtiff; the latter two report damage to standard error
too.
"""

from __future__ import annotations

import io
import struct
import zlib
from dataclasses import dataclass

import cv2
import numpy as np
from PIL import Image, JpegImagePlugin, TiffImagePlugin

from patchforest.values import Array

NONE, LZW, JPEG, ADOBE_DEFLATE, PACKBITS, DEFLATE, LZMA, ZSTD = 1, 5, 7, 8, 32773, 32946, 34925, 50000
YCBCR = 6
PREDICTING = frozenset({LZW, ADOBE_DEFLATE, DEFLATE, LZMA, ZSTD})  # where the predictor tag has a meaning
# How many bytes one stored byte can become at most, rounded up: a header that asks for more lies.
_EXPANSION = {
    NONE: 1,
    LZW: 2000,
    ADOBE_DEFLATE: 1040,
    DEFLATE: 1040,
    PACKBITS: 65,
    LZMA: 20_000,
    ZSTD: 40_000,
}
CODECS = frozenset(_EXPANSION) | {JPEG}
_END_OF_JPEG = b"\xff\xd9"
_OPENCV_PIXELS = 1 << 30
_IMREAD_RGB = getattr(cv2, "IMREAD_COLOR_RGB", cv2.IMREAD_COLOR)  # older OpenCV decodes to BGR only
_MAX_LIBTIFF = 170_000_000  # bytes; Pillow takes no larger picture through libtiff


class SegmentError(ValueError):
    """A tile or strip cannot be decoded; the text says why."""


@dataclass(frozen=True)
class Packing:
    """How the samples of a TIFF page lie in its tiles or strips.

    ``height`` and ``width`` of a full tile or strip in pixels, ``samples`` per pixel in one segment (1 where planes are
    stored apart), ``bits`` per sample, ``dtype`` of the decoded samples in the file's byte order, ``photometric`` and
    the page's common ``tables`` for JPEG only.
    """

    height: int
    width: int
    samples: int
    bits: int
    dtype: np.dtype
    compression: int
    predictor: int = 1
    photometric: int = 1
    tables: bytes = b""

    @property
    def row_bytes(self) -> int:
        """Bytes of one decoded row, padded to whole bytes."""
        return (self.width * self.samples * self.bits + 7) // 8

    def capacity(self, stored: int) -> int:
        """The most decoded bytes that ``stored`` bytes can hold."""
        if self.compression == JPEG:  # one bit a block of 8 x 8 pixels
            return stored * 8 * 64 * self.samples
        return stored * _EXPANSION[self.compression]


def decode_segment(packing: Packing, data: bytes, rows: int) -> Array:
    """(rows, width, samples) in native byte order: bool for 1 bit, else ``packing.dtype``.

    ``rows`` is the number of rows that must be there: the full height of a tile, fewer in the last strip. Raises
    SegmentError, or whatever the decoder raises, where they are not.
    """
    if packing.compression == JPEG:
        return _decode_jpeg(packing, data, rows)
    size = rows * packing.row_bytes
    raw = _decompress(packing, data, rows)
    if len(raw) < size:
        raise SegmentError(f"holds {len(raw)} bytes instead of {size}")
    lines = np.frombuffer(raw, np.uint8, size).reshape(rows, packing.row_bytes)
    if packing.bits < 8 or packing.bits % 8:
        values = _unpack(lines, packing)
    elif packing.predictor == 3:
        values = _undo_float_predictor(lines, packing)
    else:
        values = lines.view(packing.dtype)
    values = values.reshape(rows, packing.width, packing.samples).astype(values.dtype.newbyteorder("="), copy=False)
    if packing.predictor == 2:
        bits = values.view(f"u{values.dtype.itemsize}")
        return np.cumsum(bits, axis=1, dtype=bits.dtype).view(values.dtype)
    return values


def _decompress(packing: Packing, data: bytes, rows: int) -> bytes:
    """The decoded bytes of a segment, at least ``rows`` rows where the data is whole."""
    if packing.compression == NONE:
        return data
    if packing.compression in (ADOBE_DEFLATE, DEFLATE):
        stream = zlib.decompressobj()
        most = packing.height * packing.row_bytes
        raw = stream.decompress(data, most + 1)
        if len(raw) > most or not stream.eof:
            raise SegmentError("deflate data is incomplete or too long")
        return raw
    return _decompress_libtiff(data, packing.compression, packing.row_bytes, rows)


def _decompress_libtiff(data: bytes, compression: int, row_bytes: int, rows: int) -> bytes:
    """``rows`` x ``row_bytes`` bytes, through libtiff: the data as the one strip of an 8-bit grey TIFF in memory."""
    if row_bytes * rows > _MAX_LIBTIFF:
        raise SegmentError(
            f"is a single block of {row_bytes * rows} bytes, more than can be decoded in this compression"
        )
    pad = b"\0" * (len(data) % 2)
    tags = {256: row_bytes, 257: rows, 258: 8, 259: compression, 262: 1, 273: 8, 277: 1, 278: rows, 279: len(data)}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    head = struct.pack("<2sHI", b"II", 42, 8 + len(data) + len(pad))
    file = head + data + pad + struct.pack("<H", len(tags)) + entries + struct.pack("<I", 0)
    picture = TiffImagePlugin.TiffImageFile(io.BytesIO(file))
    if picture.size[0] * picture.size[1] > (Image.MAX_IMAGE_PIXELS or _MAX_LIBTIFF) * 2:
        raise SegmentError("is a single block larger than Pillow's MAX_IMAGE_PIXELS allows")
    picture.load()
    return picture.tobytes()


def _decode_jpeg(packing: Packing, data: bytes, rows: int) -> Array:
    """(rows, width, samples) uint8 of a JPEG stream whose tables may stand apart (TIFF Technical Note 2)."""
    end = data.rfind(_END_OF_JPEG)
    if not data.startswith(b"\xff\xd8") or end < 0:
        raise SegmentError("is no whole JPEG stream")
    tables = packing.tables[2:-2] if packing.tables.startswith(b"\xff\xd8") else b""
    # An Adobe marker tells the decoder whether three channels are RGB (0) or YCbCr (1), which is in the TIFF tag only.
    transform = 1 if packing.photometric == YCBCR or b"JFIF\0" in data[:32] else 0
    adobe = b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00" + bytes([transform])
    stream = data[:2] + (adobe if packing.samples == 3 else b"") + tables + data[2:]
    height, width, samples = _jpeg_shape(stream)
    if width != packing.width or not rows <= height <= packing.height or samples != packing.samples:
        shape = (height, width, samples)
        raise SegmentError(f"holds a JPEG of shape {shape}, not {(packing.height, packing.width, packing.samples)}")
    # OpenCV is quicker, having one copy less, but Pillow knows a stream that goes on behind its end mark or lacks one.
    if samples in (1, 3) and height * width <= _OPENCV_PIXELS and end >= len(data) - 4:
        pixels = _opencv_jpeg(stream, samples)
    else:
        picture = JpegImagePlugin.JpegImageFile(io.BytesIO(stream))
        picture.load()
        pixels = np.asarray(picture)
    return pixels.reshape(height, width, samples)[:rows]


def _opencv_jpeg(stream: bytes, samples: int) -> Array:
    """(H, W) or (H, W, 3) uint8; SegmentError where the stream cannot be decoded to its end."""
    colour = cv2.IMREAD_GRAYSCALE if samples == 1 else _IMREAD_RGB
    pixels = cv2.imdecode(np.frombuffer(stream, np.uint8), colour | cv2.IMREAD_IGNORE_ORIENTATION)
    if pixels is None:
        raise SegmentError("holds a JPEG that cannot be decoded")
    if samples == 3 and _IMREAD_RGB == cv2.IMREAD_COLOR:
        return cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB, dst=pixels)
    return pixels


def _jpeg_shape(stream: bytes) -> tuple[int, int, int]:
    """(H, W, samples) of a JPEG's frame header, which stands before its first scan."""
    place = 2
    while place + 10 <= len(stream) and stream[place] == 0xFF:
        marker = stream[place + 1]
        if marker == 0xFF:  # a fill byte
            place += 1
            continue
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width, samples = struct.unpack_from(">HHB", stream, place + 5)
            return height, width, samples
        if marker == 0xDA:
            break
        place += 2 + int.from_bytes(stream[place + 2 : place + 4], "big")
    raise SegmentError("is a JPEG without a frame header")


def _unpack(lines: Array, packing: Packing) -> Array:
    """Samples of 1 to 15 bits from packed rows: bool for 1 bit, else ``packing.dtype``."""
    count = packing.width * packing.samples
    bits = np.unpackbits(lines, axis=1, count=count * packing.bits).reshape(len(lines), count, packing.bits)
    if packing.bits == 1:
        return bits[:, :, 0].astype(bool)
    values = np.zeros((len(lines), count), packing.dtype.newbyteorder("="))
    for bit in range(packing.bits):
        values = (values << 1) | bits[:, :, bit]
    return values


def _undo_float_predictor(lines: Array, packing: Packing) -> Array:
    """Real numbers from rows of byte differences, most significant bytes first (Adobe TIFF Technical Note 3)."""
    size, count = packing.dtype.itemsize, packing.width * packing.samples
    stepped = lines.reshape(len(lines), -1, packing.samples)
    planes = np.cumsum(stepped, axis=1, dtype=np.uint8).reshape(len(lines), size, count)
    return np.ascontiguousarray(planes.swapaxes(1, 2)).view(f">f{size}").reshape(len(lines), count)
