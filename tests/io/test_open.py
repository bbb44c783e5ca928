"""The door: content decides, every bad file is one line, and no damage ends in another exception."""

from __future__ import annotations

import gzip
import os
import warnings
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from patchforest.errors import InputError
from patchforest.io.open import open_image
from patchforest.values import ImageSource

PIXELS = np.random.default_rng(3).integers(0, 256, (40, 56, 3), dtype=np.uint8)


def write_all(folder: Path) -> dict[str, Path]:
    """One picture in every format and several layouts, by name."""
    paths = {name: folder / name for name in ("a.png", "grey.png", "p.png", "a.jpg", "progressive.jpg", "a.npy")}
    Image.fromarray(PIXELS).save(paths["a.png"])
    Image.fromarray(PIXELS[..., 0]).save(paths["grey.png"])
    Image.fromarray(PIXELS).quantize(17).save(paths["p.png"])
    Image.fromarray(PIXELS).save(paths["a.jpg"])
    Image.fromarray(PIXELS).save(paths["progressive.jpg"], progressive=True)
    np.save(paths["a.npy"], PIXELS)
    layouts = {
        "raw.tif": {"photometric": "rgb"},
        "deflate.tif": {"photometric": "rgb", "compression": "zlib", "predictor": True, "tile": (16, 16)},
        "big.tif": {"photometric": "rgb", "bigtiff": True, "byteorder": ">", "rowsperstrip": 9},
    }
    for name, settings in layouts.items():
        paths[name] = folder / name
        tifffile.imwrite(paths[name], PIXELS, metadata=None, **settings)
    paths["jpeg.tif"] = folder / "jpeg.tif"
    Image.fromarray(PIXELS).save(paths["jpeg.tif"], compression="jpeg")
    return paths


def test_content_decides_not_the_suffix(tmp_path: Path) -> None:
    for name, path in write_all(tmp_path).items():
        other = tmp_path / (name + ".txt")
        path.rename(other)
        source = open_image(str(other))
        assert isinstance(source, ImageSource)
        assert source.shape == (40, 56, 1 if name == "grey.png" else 3)
        assert source.levels == ((40, 56),)
        difference = abs(source.read().astype(int) - PIXELS[..., : source.shape[2]]).max()
        assert difference == 0 or name in ("p.png", "a.jpg", "progressive.jpg", "jpeg.tif")


BAD = {
    "empty.png": (b"", r"is empty \(0 bytes\)"),
    "notes.png": ("Größe: 3\nhello\n".encode(), "is a text file, not an image"),
    "page.tif": (b"\n<!DOCTYPE html><html><body>Login</body></html>", "is an HTML page, not an image"),
    "pointer.svs": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n",
        "git-LFS pointer.*git lfs pull",
    ),
    "a.npz": (b"PK\x03\x04" + bytes(30), "zip or npz archive; unpack"),
    "a.nii.gz": (b"\x1f\x8b" + bytes(30), "is gzip-compressed; unpack"),
    "a.pdf": (b"%PDF-1.7\n", "is a PDF"),
    "a.gif": (b"GIF89a" + bytes(30), "is a GIF; convert it to PNG"),
    "a.bmp": (b"BM" + bytes(30), "is a BMP"),
    "a.webp": (b"RIFF\0\0\0\0WEBP", "is a WebP"),
    "a.jp2": (b"\0\0\0\x0cjP  \r\n\x87\n", "is a JPEG 2000"),
    "a.h5": (b"\x89HDF\r\n\x1a\n", "is an HDF5"),
    "a.nc": (b"CDF\x01", "is a NetCDF"),
    "a.dcm": (bytes(128) + b"DICM", "is a DICOM"),
    "noise.png": (bytes(range(128, 256)) * 8, "is no image this program reads .it starts with 80 81 82 83"),
    "head.png": (b"\x89PNG\r\n\x1a\n", "truncated PNG"),
    "head.jpg": (b"\xff\xd8\xff", "truncated JPEG"),
    "head.tif": (b"II*\0", "cannot be read as TIFF"),
    "head.btf": (b"MM\0+\0\x08\0\0", "cannot be read as TIFF"),
    "head.npy": (b"\x93NUMPY\x01\0", "cannot be read as a NumPy array"),
    "odd.npy": (b"\x93NUMPY\x09\0" + bytes(40), "cannot be read as a NumPy array"),
    "long.txt": ("é".encode() * 300, "is a text file"),
}


@pytest.mark.parametrize("name", BAD)
def test_every_bad_file_has_its_own_line(tmp_path: Path, name: str) -> None:
    data, message = BAD[name]
    (tmp_path / name).write_bytes(data)
    with pytest.raises(InputError, match=message) as caught:
        open_image(tmp_path / name)
    line = str(caught.value)
    assert line.startswith(f"{tmp_path / name}: ")
    assert "\n" not in line
    assert "; " in line


def test_volumes_say_that_they_are_volumes(tmp_path: Path) -> None:
    nifti, dicom = bytes(344) + b"n+1\0" + bytes(200), bytes(128) + b"DICM" + bytes(200)
    files = {"a.nii": nifti, "a.nii.gz": gzip.compress(nifti), "a.nrrd": b"NRRD0004\ntype: uchar\n", "a.dcm": dicom}
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
        what = r"is a (NIfTI|NRRD|DICOM) volume, not an image; `predict` takes it.*open_volume"
        with pytest.raises(InputError, match=what):
            open_image(tmp_path / name)
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "1").write_bytes(dicom)
    with pytest.raises(InputError, match="s: is the folder of a DICOM volume, not an image; `predict` takes it"):
        open_image(tmp_path / "s")


def test_every_reader_says_how_its_image_is_stored(tmp_path: Path) -> None:
    expected = {"deflate.tif": (16, 16), "big.tif": (9, 56)}
    for name, path in write_all(tmp_path).items():
        tile = open_image(path).tile
        assert tile == expected.get(name, (40, 56)), name
    np.save(tmp_path / "tall.npy", np.zeros((700, 5), np.uint8))
    assert open_image(tmp_path / "tall.npy").tile == (256, 5)


def test_paths_that_are_no_files(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    os.mkfifo(tmp_path / "pipe.png")
    cases = {
        tmp_path: "is a folder, not an image file",
        tmp_path / "absent.png": "does not exist; check the path",
        tmp_path / "loop": "cannot be opened .Too many levels of symbolic links",
        tmp_path / "pipe.png": "is a pipe or device",
        tmp_path / ("n" * 300): "cannot be opened .File name too long",
        tmp_path / "a\0b": "cannot be opened .*null",
    }
    for path, message in cases.items():
        with pytest.raises(InputError, match=message):
            open_image(path)


@pytest.mark.parametrize(
    "name", ["with space.png", "größe_图.png", "new\nline.png", "-x.png", "%s{0}.png", "semi;colon.png"]
)
def test_odd_names_work_and_their_errors_stay_one_line(tmp_path: Path, name: str) -> None:
    Image.fromarray(PIXELS).save(tmp_path / name, format="PNG")
    np.testing.assert_array_equal(open_image(tmp_path / name).read(), PIXELS)
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(InputError, match="is empty") as caught:
        open_image(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_links_to_files_work(tmp_path: Path) -> None:
    Image.fromarray(PIXELS).save(tmp_path / "a.png")
    (tmp_path / "link.png").symlink_to("a.png")
    assert open_image(tmp_path / "link.png").shape == (40, 56, 3)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"x")
    (tmp_path / "a.png").chmod(0)
    with pytest.raises(InputError, match="Permission denied"):
        open_image(tmp_path / "a.png")


def test_a_page_of_a_file_without_pages(tmp_path: Path) -> None:
    paths = write_all(tmp_path)
    assert open_image(paths["a.png"], page=0).shape == (40, 56, 3)
    with pytest.raises(InputError, match="has no page 1; leave page out"):
        open_image(paths["a.png"], page=1)
    with pytest.raises(InputError, match="has no page -1"):
        open_image(paths["raw.tif"], page=-1)


@pytest.mark.parametrize("shape", [(1, 1), (1, 70), (70, 1), (3, 5)])
def test_small_images(tmp_path: Path, shape: tuple[int, int]) -> None:
    pixels = PIXELS.reshape(-1, 3)[: shape[0] * shape[1]].reshape(*shape, 3)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    Image.fromarray(pixels).save(tmp_path / "a.jpg")
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="rgb", tile=(16, 16))
    for suffix in ("png", "jpg", "tif"):
        assert open_image(tmp_path / f"a.{suffix}").read().shape == (*shape, 3)
    np.testing.assert_array_equal(open_image(tmp_path / "a.tif").read(), pixels)


def mutated(data: bytes, rng: np.random.Generator) -> bytes:
    """The bytes cut short, with bits flipped (half of them near the ends), or with a stretch overwritten."""
    kind, out = rng.integers(0, 3), bytearray(data)
    if kind == 0:
        return data[: rng.integers(0, len(data))]
    near = min(512, len(data))
    for _ in range(rng.integers(1, 5)):
        places = [rng.integers(0, len(data)), rng.integers(0, near), len(data) - 1 - rng.integers(0, near)]
        place = int(places[rng.integers(0, 3)])
        if kind == 1:
            out[place] ^= 1 << int(rng.integers(0, 8))
        else:
            out[place : place + 4] = rng.bytes(4)
    return bytes(out)


@pytest.mark.parametrize("seed", range(5))
def test_mutants_end_in_whole_pixels_or_input_error(tmp_path: Path, seed: int) -> None:
    """500 damaged files in all; ``seed`` names the fifth that failed."""
    rng, counts = np.random.default_rng(seed), {"read": 0, "refused": 0}
    path = tmp_path / "mutant"
    for _, original in sorted(write_all(tmp_path).items()):
        data = original.read_bytes()
        for _ in range(10):
            mutant = mutated(data, rng)
            path.write_bytes(mutant)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                try:
                    source = open_image(path)
                    assert source.read().shape == source.shape
                    counts["read"] += 1
                    assert len(mutant) == len(data), "a truncated file was read"
                except InputError as fault:
                    counts["refused"] += str(fault).startswith(str(path))
    assert sum(counts.values()) == 100
    assert counts["refused"] > 30
    assert counts["read"] > 0


ODD = {
    "boxes.tiff": ((250, 300, 3), 4),
    "small.svs": ((16, 16, 3), 1),
    "yb10kx5k.zstd.tiff": ((5000, 10000, 3), 5),
    "grey10kx5k.tif": ((5000, 10000, 1), 1),
    "rgb_geotiff.tiff": ((256, 256, 3), 1),
    "rgba_geotiff.tiff": ((600, 600, 3), 2),
    "test_orient0.tif": ((180, 120, 1), 3),
    "test_orient1.tif": ((180, 120, 1), 3),
    "test_orient3.tif": ((180, 120, 1), 3),
    "test_orient6.tif": ((120, 180, 1), 3),
    "test_L_16.png": ((64, 64, 1), 1),
    "test_RGBA_8.png": ((64, 64, 3), 1),
}


@pytest.mark.parametrize("name", ODD)
@pytest.mark.filterwarnings("ignore:.*has transparency")
def test_odd_files_give_the_right_pixels(shared_data: Path, name: str) -> None:
    path, (shape, levels) = shared_data / "wsi" / "odd" / name, ODD[name]
    source = open_image(path)
    assert source.shape == shape
    assert len(source.levels) == levels
    pixels = source.read(0, 0, 0, min(shape[0], 600), min(shape[1], 600))
    if name == "rgb_geotiff.tiff":  # Pillow reduces it to 8 bits
        assert pixels.dtype == np.uint16
        np.testing.assert_array_equal(pixels, tifffile.imread(path))
        return
    with Image.open(path) as picture:
        reference = picture.crop((0, 0, 600, 600)) if max(shape) > 600 else picture
        expected = np.asarray(reference)
    expected = expected.reshape(*expected.shape[:2], -1)
    if expected.shape[2] == 4:
        opacity = expected[..., 3:] / 255
        expected = np.rint(expected[..., :3] * opacity + 255 * (1 - opacity))
    np.testing.assert_array_equal(pixels, expected)
    for level in range(1, levels):
        assert source.read(level).shape == (*source.levels[level], shape[2])


@pytest.mark.parametrize(
    ("name", "message"),
    [("broken.svs", "text file"), ("unopenable.tiff", "compressed as 52479, which is not supported; .*convert it")],
)
def test_odd_files_give_the_right_error(shared_data: Path, name: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        open_image(shared_data / "wsi" / "odd" / name)


def test_orientations_of_the_odd_files_agree(shared_data: Path) -> None:
    odd = shared_data / "wsi" / "odd"
    upright = open_image(odd / "test_orient1.tif").read()
    np.testing.assert_array_equal(open_image(odd / "test_orient0.tif").read(), upright)
    np.testing.assert_array_equal(open_image(odd / "test_orient3.tif").read(), upright[::-1, ::-1])
    np.testing.assert_array_equal(open_image(odd / "test_orient6.tif").read(), np.rot90(upright, -1))


def test_a_real_slide(shared_data: Path) -> None:
    source = open_image(shared_data / "wsi" / "CMU-1-Small-Region.svs")
    assert (source.shape, source.mpp) == ((2967, 2220, 3), 0.499)
    with Image.open(shared_data / "wsi" / "CMU-1-Small-Region.svs") as picture:
        expected = np.asarray(picture)[1000:1500, 700:1333]
    np.testing.assert_array_equal(source.read(0, 1000, 700, 500, 633), expected)
