"""PNG and JPEG: every kind gives the stated values or the stated error."""

from __future__ import annotations

import copy
import io
import struct
import warnings
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, ImageFile

from patchforest.errors import InputError
from patchforest.io import picture as module
from patchforest.io.picture import PictureSource


def chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def png(width: int, height: int, depth: int, colour: int, rows: bytes, extra: bytes = b"", interlace: int = 0) -> bytes:
    """A PNG file from already filtered rows."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlace)
    body = chunk(b"IHDR", header) + extra + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return module.PNG_MAGIC + body


def opened(path: Path, data: bytes) -> PictureSource:
    path.write_bytes(data)
    return PictureSource(path)


def encoded(picture: Image.Image, **settings: object) -> bytes:
    out = io.BytesIO()
    picture.save(out, **settings)  # type: ignore[arg-type]
    return out.getvalue()


def test_rgb_and_grey_8_bit(tmp_path: Path, rng: np.random.Generator) -> None:
    for shape in ((13, 7), (13, 7, 3)):
        pixels = rng.integers(0, 256, shape, dtype=np.uint8)
        source = opened(tmp_path / "a.png", encoded(Image.fromarray(pixels), format="PNG"))
        assert source.shape == pixels.reshape(13, 7, -1).shape
        assert source.mpp is None
        np.testing.assert_array_equal(source.read(), pixels.reshape(13, 7, -1))
        np.testing.assert_array_equal(source.read(0, 3, 2, 5, 4), pixels.reshape(13, 7, -1)[3:8, 2:6])


def test_16_bit_ramp_keeps_every_level(tmp_path: Path) -> None:
    ramp = np.linspace(0, 65535, 4096).astype(np.uint16).reshape(64, 64)
    source = opened(tmp_path / "a.png", cv2.imencode(".png", ramp)[1].tobytes())
    assert source.read().dtype == np.uint16
    assert len(np.unique(source.read())) == len(np.unique(ramp)) >= 256
    np.testing.assert_array_equal(source.read()[..., 0], ramp)
    np.testing.assert_array_equal(source.stored()[..., 0], ramp)


def test_16_bit_rgb_and_rgba_keep_order_and_values(tmp_path: Path, rng: np.random.Generator) -> None:
    pixels = rng.integers(0, 65536, (9, 11, 4), dtype=np.uint16)
    data = cv2.imencode(".png", np.ascontiguousarray(pixels[..., [2, 1, 0]]))[1].tobytes()
    source = opened(tmp_path / "rgb.png", data)
    assert source.shape == (9, 11, 3)
    np.testing.assert_array_equal(source.read(), pixels[..., :3])
    pixels[..., 3] = 65535
    pixels[0, 0, 3] = 0
    data = cv2.imencode(".png", np.ascontiguousarray(pixels[..., [2, 1, 0, 3]]))[1].tobytes()
    with pytest.warns(UserWarning, match="rgba.png: has transparency"):
        read = opened(tmp_path / "rgba.png", data).read()
    assert read[0, 0].tolist() == [65535] * 3
    np.testing.assert_array_equal(read[1:], pixels[1:, :, :3])


def test_16_bit_grey_with_alpha(tmp_path: Path) -> None:
    rows = b"\0" + struct.pack(">4H", 1000, 65535, 2000, 0)
    source = opened(tmp_path / "a.png", png(2, 1, 16, 4, rows))
    with pytest.warns(UserWarning, match="transparency"):
        assert source.read().tolist() == [[[1000], [65535]]]
    assert source.stored().tolist() == [[[1000, 65535], [2000, 0]]]


def test_16_bit_with_missing_rows_is_an_error_not_zeros(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = b"".join(b"\0" + struct.pack(">6H", *[9] * 6) for _ in range(3))
    source = opened(tmp_path / "a.png", png(2, 4, 16, 2, rows))
    with pytest.raises(InputError, match="incomplete"):
        source.read()
    monkeypatch.setattr(module.cv2, "imdecode", lambda *_: np.zeros((4, 2, 3), np.uint16))  # as some OpenCV versions do
    with pytest.raises(InputError, match="incomplete"):
        source.read()


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_alpha_is_composited_on_white_with_one_warning(tmp_path: Path, mode: str) -> None:
    colour = (200, 0, 100)[: len(mode) - 1]
    picture = Image.new(mode, (4, 2), (*colour, 255))
    picture.putpixel((1, 0), (*colour, 0))
    picture.putpixel((2, 0), (*colour, 51))
    source = opened(tmp_path / "a.png", encoded(picture, format="PNG"))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        pixels = source.read()
        source.read(row=1)
    assert len(caught) == 1
    assert source.shape[2] == len(mode) - 1
    assert pixels[0, 0].tolist() == list(colour)
    assert pixels[0, 1].tolist() == [255] * len(colour)
    assert pixels[0, 2].tolist() == [round(0.2 * c + 0.8 * 255) for c in colour]


def test_palette_is_rgb_as_image_and_indices_as_label(tmp_path: Path) -> None:
    picture = Image.new("P", (3, 1))
    picture.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    picture.putdata([0, 1, 2])
    source = opened(tmp_path / "a.png", encoded(picture, format="PNG"))
    assert source.read().tolist() == [[[10, 20, 30], [40, 50, 60], [70, 80, 90]]]
    assert source.stored().tolist() == [[[0], [1], [2]]]
    source = opened(tmp_path / "b.png", encoded(picture, format="PNG", transparency=b"\xff\x00\xff"))
    assert source.stored().tolist() == [[[0], [1], [2]]]
    with pytest.warns(UserWarning, match="transparency"):
        assert source.read().tolist() == [[[10, 20, 30], [255, 255, 255], [70, 80, 90]]]


@pytest.mark.parametrize(("depth", "packed"), [(1, 0b01100000), (2, 0b00011011), (4, 0b00001111)])
def test_few_bit_grey_is_scaled_as_image_and_raw_as_label(tmp_path: Path, depth: int, packed: int) -> None:
    width = {1: 3, 2: 4, 4: 2}[depth]
    source = opened(tmp_path / "a.png", png(width, 1, depth, 0, bytes([0, packed])))
    raw = [(packed >> (8 - depth * (k + 1))) & ((1 << depth) - 1) for k in range(width)]
    assert source.stored()[0, :, 0].tolist() == raw
    assert source.read()[0, :, 0].tolist() == [value * 255 // ((1 << depth) - 1) for value in raw]
    assert source.read().dtype == source.stored().dtype == np.uint8


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
@pytest.mark.parametrize("code", range(1, 9))
def test_exif_orientation_is_applied_to_images_and_labels(tmp_path: Path, kind: str, code: int) -> None:
    pixels = np.zeros((32, 16), np.uint8)
    pixels[:8, :8] = 255  # top left as stored
    exif = Image.Exif()
    exif[0x0112] = code
    source = opened(tmp_path / "a", encoded(Image.fromarray(pixels), format=kind, exif=exif))
    corner = {1: (0, 0), 2: (0, 1), 3: (1, 1), 4: (1, 0), 5: (0, 0), 6: (0, 1), 7: (1, 1), 8: (1, 0)}[code]
    shape = (16, 32) if code > 4 else (32, 16)
    assert source.shape == (*shape, 1)
    for seen in (source.read(), source.stored()):
        assert seen.shape == (*shape, 1)
        assert seen[corner[0] * (shape[0] - 1), corner[1] * (shape[1] - 1), 0] > 250
        assert (seen > 128).sum() == 64


def test_a_broken_exif_block_is_a_warning(tmp_path: Path) -> None:
    data = encoded(Image.new("L", (8, 8), 7), format="JPEG")
    body = b"Exif\0\0garbage!"
    data = data[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + data[2:]
    with pytest.warns(UserWarning, match="taken as upright"):
        assert opened(tmp_path / "a.jpg", data).shape == (8, 8, 1)


def test_jpeg_colours_and_cmyk(tmp_path: Path) -> None:
    red = opened(tmp_path / "a.jpg", encoded(Image.new("RGB", (20, 10), (255, 0, 0)), format="JPEG", quality=95)).read()
    assert red.shape == (10, 20, 3)
    assert red[..., 0].min() > 250
    assert red[..., 1:].max() < 5
    progressive = encoded(Image.new("RGB", (20, 10), (0, 255, 0)), format="JPEG", progressive=True)
    assert opened(tmp_path / "p.jpg", progressive + b"trailing bytes").read()[..., 1].min() > 250
    with pytest.raises(InputError, match="CMYK colours; convert it to RGB"):
        opened(tmp_path / "c.jpg", encoded(Image.new("CMYK", (20, 10)), format="JPEG"))


def test_truncation_at_every_length_is_an_error(tmp_path: Path, rng: np.random.Generator) -> None:
    pixels = rng.integers(0, 256, (24, 24, 3), dtype=np.uint8)
    for kind in ("PNG", "JPEG"):
        data = encoded(Image.fromarray(pixels), format=kind)
        for length in range(8, len(data), max(1, len(data) // 60)):
            with pytest.raises(InputError, match=r"truncated|damaged"):
                opened(tmp_path / "a", data[:length])
        with pytest.raises(InputError, match=r"truncated"):
            opened(tmp_path / "a", data[:-1])


def test_truncation_is_an_error_even_where_another_library_told_pillow_to_bear_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    for kind in ("PNG", "JPEG"):
        data = encoded(Image.new("RGB", (64, 64), (1, 2, 3)), format=kind)
        with pytest.raises(InputError, match="truncated"):
            opened(tmp_path / "a", data[:-30])


def test_every_flipped_bit_of_a_png_is_noticed(tmp_path: Path, rng: np.random.Generator) -> None:
    data = encoded(Image.fromarray(rng.integers(0, 256, (16, 16), dtype=np.uint8)), format="PNG")
    for place in rng.integers(8 * 8, 8 * len(data), 200):
        flipped = bytearray(data)
        flipped[place // 8] ^= 1 << (place % 8)
        with pytest.raises(InputError):
            opened(tmp_path / "a.png", bytes(flipped)).read()


def test_headers_that_lie_about_the_size(tmp_path: Path) -> None:
    stream = zlib.compress(b"\0" * 4_000_000, 9)
    for width, height in ((65535, 65535), (20_000, 20_000), (2**31 - 1, 2**31 - 1), (2**31 - 1, 1)):
        header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
        data = module.PNG_MAGIC + chunk(b"IHDR", header) + chunk(b"IDAT", stream) + chunk(b"IEND", b"")
        with pytest.raises(InputError, match=r"more than its bytes can hold"):
            opened(tmp_path / "a.png", data)
    data = bytearray(encoded(Image.new("L", (64, 64), 9), format="JPEG"))
    frame = data.index(b"\xff\xc0")
    data[frame + 5 : frame + 9] = struct.pack(">HH", 65535, 65535)
    with pytest.raises(InputError, match="more than its bytes can hold"):
        opened(tmp_path / "a.jpg", bytes(data))
    with pytest.raises(InputError, match="is a PNG of 5 x 0 pixels"):
        opened(tmp_path / "a.png", png(0, 5, 8, 2, b"\0" * 5))
    with pytest.raises(InputError, match="3 bits in colour type 2"):
        opened(tmp_path / "a.png", png(4, 4, 3, 2, b"\0" * 52))


def test_a_large_flat_png_is_read_without_touching_pillows_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)  # stands for the 89 Mpx default, which 64K x 64K exceeds
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        source = opened(tmp_path / "a.png", encoded(Image.new("L", (300, 200), 5), format="PNG"))
        assert source.read().shape == (200, 300, 1)
        source = opened(tmp_path / "a.jpg", encoded(Image.new("L", (300, 200), 5), format="JPEG"))
        assert source.read().shape == (200, 300, 1)
    assert Image.MAX_IMAGE_PIXELS == 1000


def test_a_64k_header_with_plausible_bytes_opens(tmp_path: Path) -> None:
    """65,536 x 65,536 one-bit pixels are 512 MiB; the header is taken, nothing is allocated until ``read``."""
    packed = zlib.compressobj(9)
    line = b"\0" * (1 + 65536 // 8) * 1024
    stream = b"".join(packed.compress(line) for _ in range(64)) + packed.flush()
    header = struct.pack(">IIBBBBB", 65536, 65536, 1, 0, 0, 0, 0)
    data = module.PNG_MAGIC + chunk(b"IHDR", header) + chunk(b"IDAT", stream) + chunk(b"IEND", b"")
    assert opened(tmp_path / "a.png", data).shape == (65536, 65536, 1)


def test_more_pixels_than_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_PIXELS", 63)
    with pytest.raises(InputError, match=r"has 8 x 8 pixels, more than .*; convert it to a tiled TIFF"):
        opened(tmp_path / "a.png", encoded(Image.new("L", (8, 8)), format="PNG"))


def test_a_copy_for_a_worker_drops_the_pixels(tmp_path: Path) -> None:
    pixels = np.arange(64 * 64).reshape(64, 64) % 251 > 9
    source = opened(tmp_path / "a.png", encoded(Image.fromarray(pixels), format="PNG"))
    first = source.read()
    other = copy.copy(source)  # by __getstate__, as worker processes get it
    assert other._pixels is None
    assert source._pixels is not None
    np.testing.assert_array_equal(other.read(), first)
