"""Single tiles: every codec against an independent encoder, and incomplete data as an error."""

from __future__ import annotations

import io
import zlib

import numpy as np
import pytest
from PIL import Image, TiffImagePlugin

from patchforest.io import segment
from patchforest.io.segment import Packing, SegmentError, decode_segment


def strip_of(pixels: np.ndarray, compression: str, predictor: int = 1) -> tuple[bytes, int, int]:
    """The only strip of a TIFF that Pillow's libtiff wrote: (bytes, compression code, predictor)."""
    out, picture = io.BytesIO(), Image.fromarray(pixels)
    info = {317: predictor, 278: pixels.shape[0]} if predictor > 1 else {278: pixels.shape[0]}
    picture.save(out, format="TIFF", compression=compression, tiffinfo=info)
    back = TiffImagePlugin.TiffImageFile(io.BytesIO(out.getvalue()))
    start, count = back.tag_v2[273][0], back.tag_v2[279][0]
    assert len(back.tag_v2[273]) == 1
    return out.getvalue()[start : start + count], back.tag_v2[259], back.tag_v2.get(317, 1)


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_adobe_deflate", "packbits", "zstd", "lzma"])
@pytest.mark.parametrize("shape", [(20, 33), (20, 33, 3)])
def test_codecs(rng: np.random.Generator, compression: str, shape: tuple[int, ...]) -> None:
    pixels = (rng.integers(0, 256, shape) // 50 * 50).astype(np.uint8)
    data, code, _ = strip_of(pixels, compression)
    packing = Packing(20, 33, pixels.reshape(20, 33, -1).shape[2], 8, np.dtype("u1"), code)
    np.testing.assert_array_equal(decode_segment(packing, data, 20), pixels.reshape(20, 33, -1))
    assert packing.capacity(len(data)) >= pixels.nbytes


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_adobe_deflate", "zstd"])
@pytest.mark.parametrize(("dtype", "predictor"), [("u1", 2), ("u2", 2), ("f4", 3)])
def test_predictors(rng: np.random.Generator, compression: str, dtype: str, predictor: int) -> None:
    pixels = (rng.normal(size=(9, 31)).cumsum(1) * 30 + 100).astype(dtype)
    data, code, stored = strip_of(pixels, compression, predictor)
    assert stored == predictor
    packing = Packing(9, 31, 1, pixels.itemsize * 8, np.dtype("<" + dtype), code, predictor)
    out = decode_segment(packing, data, 9)
    assert out.dtype == pixels.dtype
    np.testing.assert_array_equal(out[..., 0], pixels)


def test_predictor_with_three_samples(rng: np.random.Generator) -> None:
    pixels = rng.integers(0, 256, (9, 31, 3), dtype=np.uint8)
    data, code, _ = strip_of(pixels, "tiff_lzw", 2)
    np.testing.assert_array_equal(decode_segment(Packing(9, 31, 3, 8, np.dtype("u1"), code, 2), data, 9), pixels)


@pytest.mark.parametrize("bits", [1, 2, 4, 10, 12, 14])
def test_packed_bits(rng: np.random.Generator, bits: int) -> None:
    values = rng.integers(0, 1 << bits, (5, 13))
    rows = []
    for row in values:
        text = "".join(f"{value:0{bits}b}" for value in row)
        text += "0" * (-len(text) % 8)
        rows.append(int(text, 2).to_bytes(len(text) // 8, "big"))
    packing = Packing(5, 13, 1, bits, np.dtype("u1" if bits < 9 else ">u2"), segment.NONE)
    out = decode_segment(packing, b"".join(rows), 5)
    assert out.dtype == (bool if bits == 1 else np.uint8 if bits < 9 else np.uint16)
    np.testing.assert_array_equal(out[..., 0], values)


def test_big_endian_becomes_native() -> None:
    out = decode_segment(Packing(1, 2, 1, 16, np.dtype(">u2"), segment.NONE), b"\x01\x00\x00\x02", 1)
    assert out.ravel().tolist() == [256, 2]
    assert out.dtype == np.uint16


def test_the_last_strip_may_be_short_or_full() -> None:
    packing = Packing(8, 4, 1, 8, np.dtype("u1"), segment.ADOBE_DEFLATE)
    for rows in (3, 8):
        data = zlib.compress(bytes(range(4 * rows)))
        assert decode_segment(packing, data, 3).ravel().tolist() == list(range(12))


def test_incomplete_damaged_or_overlong_data_is_an_error() -> None:
    deflate = Packing(8, 4, 1, 8, np.dtype("u1"), segment.ADOBE_DEFLATE)
    whole = zlib.compress(bytes(range(32)))
    for data in (whole[:-1], zlib.compress(bytes(31)), zlib.compress(bytes(100_000)), whole[:-1] + b"\0"):
        with pytest.raises((SegmentError, zlib.error)):
            decode_segment(deflate, data, 8)
    with pytest.raises(SegmentError, match="31 bytes instead of 32"):
        decode_segment(Packing(8, 4, 1, 8, np.dtype("u1"), segment.NONE), bytes(31), 8)
    pixels = np.arange(1600, dtype=np.uint8).reshape(40, 40)
    for compression in ("tiff_lzw", "packbits", "zstd", "lzma"):
        data, code, _ = strip_of(pixels, compression)
        with pytest.raises(OSError, match="decoder error"):
            decode_segment(Packing(40, 40, 1, 8, np.dtype("u1"), code), data[: len(data) // 2], 40)


def encoded(picture: Image.Image, **settings: object) -> bytes:
    out = io.BytesIO()
    picture.save(out, format="JPEG", **settings)  # type: ignore[arg-type]
    return out.getvalue()


@pytest.mark.parametrize("settings", [{"subsampling": 0}, {"subsampling": 2}, {"progressive": True}, {"quality": 30}])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_jpeg_values_are_those_of_pillow(rng: np.random.Generator, settings: dict, mode: str) -> None:
    """Two builds of libjpeg-turbo with its defaults: integer transform, smooth chroma."""
    shape = (6, 5, 3) if mode == "RGB" else (6, 5)
    picture = Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8)).resize((53, 61), Image.Resampling.BICUBIC)
    data = encoded(picture, **settings)
    expected = np.asarray(Image.open(io.BytesIO(data))).reshape(61, 53, -1)
    packing = Packing(61, 53, len(mode), 8, np.dtype("u1"), segment.JPEG, photometric=segment.YCBCR)
    np.testing.assert_array_equal(decode_segment(packing, data, 61), expected)
    np.testing.assert_array_equal(decode_segment(packing, data, 40), expected[:40])
    np.testing.assert_array_equal(decode_segment(packing, data + bytes(40), 61), expected)  # as Pillow takes it


def test_jpeg_in_rgb_stays_rgb_with_an_older_opencv(monkeypatch: pytest.MonkeyPatch) -> None:
    data = encoded(Image.new("RGB", (16, 16), (200, 30, 90)), quality=100)
    packing = Packing(16, 16, 3, 8, np.dtype("u1"), segment.JPEG, photometric=segment.YCBCR)
    expected = decode_segment(packing, data, 16)
    monkeypatch.setattr(segment, "_IMREAD_RGB", segment.cv2.IMREAD_COLOR)
    np.testing.assert_array_equal(decode_segment(packing, data, 16), expected)
    assert abs(expected.astype(int) - [200, 30, 90]).max() < 4


@pytest.mark.parametrize("cut", [3, 10, 300])
def test_a_jpeg_without_its_end_is_an_error(
    rng: np.random.Generator, cut: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = encoded(Image.fromarray(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)))
    packing = Packing(64, 64, 3, 8, np.dtype("u1"), segment.JPEG, photometric=segment.YCBCR)
    thumbnail = b"\xff\xe1\x00\x06\xff\xd8\xff\xd9"  # an end mark, but not of the picture
    for _ in range(2):
        with pytest.raises((SegmentError, OSError)):
            decode_segment(packing, data[:2] + thumbnail + data[2:-cut], 64)
        # some versions of OpenCV fill up what is missing
        monkeypatch.setattr(segment.cv2, "imdecode", lambda *_: np.zeros((64, 64, 3), np.uint8))


@pytest.mark.parametrize(
    "stream", [b"\xff\xd8\xff\xda\x00\x04\x00\x00\xff\xd9", b"\xff\xd8\xff\xd9", b"\xff\xd8ab\xff\xd9"]
)
def test_a_jpeg_without_a_frame_is_an_error(stream: bytes) -> None:
    with pytest.raises(SegmentError, match="without a frame header"):
        decode_segment(Packing(16, 16, 3, 8, np.dtype("u1"), segment.JPEG), stream, 16)


def test_jpeg_must_be_whole_and_of_the_tiles_size() -> None:
    out = io.BytesIO()
    Image.new("RGB", (16, 16), (0, 0, 255)).save(out, format="JPEG", quality=100)
    data = out.getvalue()
    packing = Packing(16, 16, 3, 8, np.dtype("u1"), segment.JPEG, photometric=segment.YCBCR)
    assert abs(decode_segment(packing, data, 16).astype(int) - [0, 0, 255]).max() < 3
    with pytest.raises(SegmentError, match="no whole JPEG"):
        decode_segment(packing, data[:-2], 16)
    with pytest.raises(SegmentError, match=r"shape \(16, 16, 3\), not \(32, 16, 3\)"):
        decode_segment(Packing(32, 16, 3, 8, np.dtype("u1"), segment.JPEG), data, 32)
    with pytest.raises(SegmentError, match="not"):
        decode_segment(Packing(16, 16, 1, 8, np.dtype("u1"), segment.JPEG), data, 16)
