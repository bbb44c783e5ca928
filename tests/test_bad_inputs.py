"""The 25 bad inputs that users bring most often (``docs`` of reliability, section 4), each through a door they use.

Whatever is wrong ends in one line, ``error: <path>: <what>; <what to do>``, with exit code 3, or 4 where the rest went
on, and never in a traceback (``run`` looks for one). What is unusual and fine ends in the stated pixels.
"""

from __future__ import annotations

import json
import shutil
import struct
import sys
import time
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from patchforest.errors import InputError
from patchforest.io.open import open_image
from patchforest.io.slide import has_openslide
from tests.cli.conftest import Ended, Run, run, tiny_model, write_picture
from tests.cli.test_bad_inputs import make_pairs
from tests.io.slides import jpeg_tiles, write_tiled
from tests.io.test_pages import entry

__all__ = ["run", "tiny_model"]  # fixtures
PIXELS = np.random.default_rng(25).integers(0, 256, (96, 130, 3), dtype=np.uint8)
needs_openslide = pytest.mark.skipif(not has_openslide(), reason="OpenSlide is not installed (extra wsi)")


def refused(ended: Ended, *words: str, code: int = 3) -> str:
    """The one line in which a command ended, once it is known to have the form and the words."""
    assert ended.code == code, ended.err
    assert len(ended.errors) == 1, ended.err
    line = ended.errors[0]
    path, what, hint = line.split(": ", 2)[1], *line.split(": ", 2)[2].rsplit("; ", 1)
    assert path, line
    assert what, line
    assert hint, line
    for word in words:
        assert word in line, line
    return line


@pytest.fixture
def predict(run: Run, tiny_model: Path, tmp_path: Path) -> Callable[..., Ended]:
    """``predict(image, ...)`` with the tiny model, into ``tmp_path / "out"``."""

    def call(*arguments: object, model: Path = tiny_model) -> Ended:
        return run("predict", model, *arguments, "--out", tmp_path / "out", "--no-overlays", "--threads", 1)

    return call


@pytest.fixture
def evaluate(run: Run, tiny_model: Path, tmp_path: Path) -> Callable[..., Ended]:
    """``evaluate(data, ...)`` with the tiny model."""

    def call(data: Path, *arguments: object) -> Ended:
        options = ["--no-report", "--threads", 1]
        return run("evaluate", tiny_model, "--data", data, "--out", tmp_path / "scores", *options, *arguments)

    return call


def pair(folder: Path, mask: Callable[[Path], object] | np.ndarray, suffix: str = ".png") -> Path:
    """A data set of one image of 40 x 56 pixels and a mask, which a function writes, or an array is."""
    write_picture(folder / "images" / "a.png")
    (folder / "masks").mkdir()
    path = folder / "masks" / f"a{suffix}"
    if isinstance(mask, np.ndarray):
        Image.fromarray(mask).save(path)
    else:
        mask(path)
    return folder


def model_with(tiny_model: Path, folder: Path, **settings: Any) -> Path:
    """The tiny model with other settings of its ``config.json``."""
    shutil.copytree(tiny_model, folder)
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **settings}))
    return folder


def read_mask(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


def jpeg_slide(path: Path) -> bytes:
    """A JPEG slide with its directory in front of its tiles, so that a copy that was cut short can still be opened."""
    write_tiled(path, [(PIXELS.shape[:2], jpeg_tiles(PIXELS, 32))], 32)
    data = bytearray(path.read_bytes())
    place = struct.unpack_from("<Q", data, entry(data, "<", True, 324) + 12)[0]
    offsets = np.frombuffer(data, "<u8", 15, place)
    tiles, end = bytes(data[16:place]), len(data)
    data[place : place + 120] = (offsets - 16 + end).astype("<u8").tobytes()
    path.write_bytes(bytes(data) + tiles)
    return path.read_bytes()


def test_01_truncated_slide(predict: Callable[..., Ended], tmp_path: Path) -> None:
    path = tmp_path / "a.svs"
    whole = jpeg_slide(path)
    assert predict(path).code == 0
    for length in (len(whole) - 1, len(whole) * 3 // 4, len(whole) * 5 // 8):
        path.write_bytes(whole[:length])
        refused(predict(path, "--overwrite"), "a.svs", "truncated", str(length), str(len(whole)))


@pytest.mark.parametrize(
    ("name", "data", "word"),
    [
        ("a.svs", b"", "0 bytes"),
        ("a.svs", b"<!DOCTYPE html><html><body>sign in", "HTML"),
        ("a.tif", b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n", "git lfs pull"),
    ],
)
def test_02_empty_or_another_kind(
    predict: Callable[..., Ended], tmp_path: Path, name: str, data: bytes, word: str
) -> None:
    (tmp_path / name).write_bytes(data)
    refused(predict(tmp_path / name), name, word)


@pytest.mark.parametrize(("kind", "words"), [("zero", ("2 of 15",)), ("damaged", ("undecodable tile",))])
def test_03_bad_tiles(predict: Callable[..., Ended], tmp_path: Path, kind: str, words: Sequence[str]) -> None:
    tiles = list(jpeg_tiles(PIXELS, 32))
    for k in (3, 7):
        tiles[k] = b"" if kind == "zero" else tiles[k][:2] + b"\x55" * (len(tiles[k]) - 2)
    write_tiled(tmp_path / "a.svs", [(PIXELS.shape[:2], tiles)], 32)
    refused(predict(tmp_path / "a.svs"), "a.svs", *words)
    assert not list((tmp_path / "out").glob("*.tif"))


@pytest.mark.xfail(reason="predict has no --allow-bad-tiles, and counts only tiles of length 0", strict=True)
def test_03_bad_tiles_allowed(predict: Callable[..., Ended], tmp_path: Path) -> None:
    tiles = list(jpeg_tiles(PIXELS, 32))
    tiles[3] = tiles[3][:2] + b"\x55" * (len(tiles[3]) - 2)
    write_tiled(tmp_path / "a.svs", [(PIXELS.shape[:2], tiles)], 32)
    assert predict(tmp_path / "a.svs", "--allow-bad-tiles", 1).code == 0
    assert json.loads((tmp_path / "out" / "predictions.json").read_text())["items"]["a"]["bad_tiles"] == 1


def test_04_an_unreadable_vendor_variant(
    predict: Callable[..., Ended], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.fromarray(PIXELS).save(tmp_path / "a.mrxs", "JPEG")
    refused(predict(tmp_path / "a.mrxs"), "MIRAX", "folder", "copy the folder a")
    monkeypatch.setitem(sys.modules, "openslide", None)
    write_tiled(
        tmp_path / "b.svs", [((32, 32), [b"\xff\x4f\xff\x51" + bytes(99)])], 32, compression=33005, photometric=2
    )
    refused(predict(tmp_path / "b.svs"), "b.svs", "JP2000", "pip install 'patchforest[wsi]'")


def test_05_no_tissue(predict: Callable[..., Ended], tmp_path: Path) -> None:
    blank = np.full((200, 300, 3), 243, np.uint8)
    write_tiled(tmp_path / "a.svs", [(blank.shape[:2], jpeg_tiles(blank, 64))], 64)
    ended = predict(tmp_path / "a.svs", "--tissue", "--format", "png")
    assert ended.code == 0, ended.err
    assert "1 without tissue" in ended.out
    mask = read_mask(tmp_path / "out" / "a.png")
    assert mask.shape == (200, 300)
    assert not mask.any()
    assert json.loads((tmp_path / "out" / "predictions.json").read_text())["items"]["a"]["status"] == "no-tissue"


def test_06_missing_or_absurd_scale(predict: Callable[..., Ended], tiny_model: Path, tmp_path: Path) -> None:
    model = model_with(tiny_model, tmp_path / "model", mpp=0.5)
    image = write_picture(tmp_path / "a.png")
    refused(predict(image, model=model), "a.png", "--input-mpp")
    for mpp in (0.02, 254.0):  # of the whole glass, of 72 dots per inch
        levels = [(PIXELS.shape[:2], list(jpeg_tiles(PIXELS, 64)))]
        write_tiled(tmp_path / "b.tif", levels, 64, mpp=mpp)
        refused(predict(tmp_path / "b.tif", model=model), "b.tif", "--input-mpp")
        refused(predict(tmp_path / "b.tif", "--mpp", 1.0), "b.tif", "--input-mpp")
    assert predict(tmp_path / "b.tif", "--input-mpp", 0.5, "--format", "png", model=model).code == 0
    assert read_mask(tmp_path / "out" / "b.png").shape == PIXELS.shape[:2]


def flat_png(path: Path, side: int, said: int | None = None) -> None:
    """A black square of bits; its header may say that it is larger."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    head = struct.pack(">IIBBBBB", said or side, said or side, 1, 0, 0, 0, 0)
    rows = zlib.compress(bytes(side * (1 + side // 8)), 1)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b""))


def test_07_a_huge_picture(predict: Callable[..., Ended], tmp_path: Path) -> None:
    flat_png(tmp_path / "a.png", 14_400)  # 207 million: above the limit of Pillow, which stays for everybody else
    before = Image.MAX_IMAGE_PIXELS
    assert open_image(tmp_path / "a.png").read(0, 14_000, 0, 9, 14_400).shape == (9, 14_400, 1)
    assert before == Image.MAX_IMAGE_PIXELS
    flat_png(tmp_path / "b.png", 800, 65_536)
    start = time.monotonic()
    refused(predict(tmp_path / "b.png"), "65536 x 65536", "more than its bytes can hold")
    assert time.monotonic() - start < 5


def test_07_a_picture_above_the_memory(predict: Callable[..., Ended], tmp_path: Path) -> None:
    Image.new("RGB", (6000, 6000)).save(tmp_path / "a.png")  # 108 MB
    refused(predict(tmp_path / "a.png", "--memory", "40MB", "--window", 64), "a.png", "tiled TIFF")


def test_08_more_than_8_bits(predict: Callable[..., Ended], run: Run, tiny_model: Path, tmp_path: Path) -> None:
    ramp = np.arange(64 * 64, dtype=np.uint16).reshape(64, 64) * 16
    Image.fromarray(ramp).save(tmp_path / "a.png")
    np.testing.assert_array_equal(open_image(tmp_path / "a.png").read()[..., 0], ramp)  # 4096 levels
    deep = np.arange(4096, dtype=np.uint16).reshape(64, 64)
    tifffile.imwrite(tmp_path / "b.tif", np.dstack([deep] * 3), photometric="rgb")
    ended = predict(tmp_path / "b.tif")  # 12 bits in 16: taken by the range that the type declares, and said
    assert ended.code == 0
    assert "warning" in ended.err
    model = model_with(tiny_model, tmp_path / "model", intensity_window=[0, 4095])
    assert "warning" not in predict(tmp_path / "b.tif", model=model).err
    assert run("forest", tmp_path / "a.png", "--budget", 8, "--out", tmp_path / "f.png").code == 0


def test_09_transparency(predict: Callable[..., Ended], tmp_path: Path) -> None:
    alpha = np.random.default_rng(1).integers(0, 256, PIXELS.shape[:2]).astype(np.uint8)
    alpha[:40] = 0
    Image.fromarray(np.dstack([PIXELS, alpha])).save(tmp_path / "a.png")
    opacity = alpha[..., None] / 255
    white = np.rint(PIXELS * opacity + 255 * (1 - opacity)).astype(np.uint8)
    Image.fromarray(white).save(tmp_path / "b.png")
    ended = predict(tmp_path / "a.png", tmp_path / "b.png")
    assert ended.code == 0
    assert "transparency, which is composited on white" in ended.err
    np.testing.assert_array_equal(read_mask(tmp_path / "out" / "a.png"), read_mask(tmp_path / "out" / "b.png"))


@pytest.mark.parametrize("kind", ["CMYK JPEG", "CMYK TIFF", "YCCK JPEG", "LAB TIFF"])
def test_10_other_colours(predict: Callable[..., Ended], tmp_path: Path, kind: str) -> None:
    path = tmp_path / ("a.jpg" if "JPEG" in kind else "a.tif")
    picture = Image.fromarray(PIXELS)
    if kind == "LAB TIFF":
        tifffile.imwrite(path, PIXELS, photometric="cielab")
    else:
        picture.convert("CMYK").save(path, **({"keep_rgb": False} if kind == "YCCK JPEG" else {}))
    refused(predict(path), path.name, "colours", "convert")


def test_11_a_palette_mask_gives_its_numbers(evaluate: Callable[..., Ended], tmp_path: Path) -> None:
    mask = np.zeros((40, 56), np.uint8)
    mask[5:30, 8:40] = 1
    picture = Image.fromarray(mask, "P")
    picture.putpalette([0, 0, 0, 200, 150, 90])
    assert evaluate(pair(tmp_path / "data", picture.save)).code == 0
    summary = json.loads((tmp_path / "scores" / "summary.json").read_text())
    assert summary["metric_per_case"][0]["metrics"]["1"]["n_ref"] == 25 * 32


@pytest.mark.parametrize("kind", ["colours", "smoothed", "JPEG"])
def test_12_masks_in_colour_or_smoothed(evaluate: Callable[..., Ended], tmp_path: Path, kind: str) -> None:
    mask = np.zeros((40, 56, 3), np.uint8)
    mask[5:30, 8:40] = (0, 128, 255)
    if kind == "colours":
        refused(evaluate(pair(tmp_path / "data", mask)), "a.png", "colour mask", "(0, 128, 255)", "one grey channel")
    elif kind == "JPEG":
        data = pair(tmp_path / "data", lambda path: Image.fromarray(mask[..., 2]).save(path), ".jpg")
        refused(evaluate(data), "a.jpg", "JPEG", "compression changes class numbers")
    else:
        smoothed = np.asarray(Image.fromarray(mask[..., 2]).resize((28, 20)).resize((56, 40), Image.Resampling.BICUBIC))
        refused(evaluate(pair(tmp_path / "data", smoothed)), "a.png", "values up to 255", "anti-aliased")


def test_13_real_numbers(predict: Callable[..., Ended], tiny_model: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    values = np.random.default_rng(0).random((40, 56, 3), np.float32)
    bad = values.copy()
    bad[3, 4, 1], bad[9] = np.nan, np.inf
    tifffile.imwrite(path, bad, photometric="rgb")
    refused(predict(path), "a.tif", "169 NaN or infinite", "(3, 4, 1)")
    tifffile.imwrite(path, (values * 2000 - 1000).astype(np.int16), photometric="rgb")  # Hounsfield units
    refused(predict(path), "a.tif", "no known range")
    model = model_with(tiny_model, tmp_path / "model", intensity_window=[-200, 300])
    assert predict(path, model=model).code == 0
    np.save(tmp_path / "b.npy", values > 0.5)
    assert predict(tmp_path / "b.npy").code == 0


@pytest.mark.xfail(reason="GDAL's nodata value is not read: such an image is refused for its range", strict=True)
def test_13_nodata_is_ignored(predict: Callable[..., Ended], tmp_path: Path) -> None:
    values = np.random.default_rng(0).random((40, 56, 3), np.float32)
    values[:9] = -9999
    extra = [(42113, "s", 0, "-9999", True)]
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="rgb", extratags=extra)
    assert predict(tmp_path / "a.tif").code == 0


def test_14_a_mask_of_0_and_255(evaluate: Callable[..., Ended], tmp_path: Path) -> None:
    mask = np.zeros((40, 56), np.uint8)
    mask[5:30, 8:40] = 255
    data = pair(tmp_path / "data", mask)
    refused(evaluate(data), "a.png", "255", "0 and 255", "label_map: {255: 1}")
    assert evaluate(data, "--label-map", "255=1").code == 0


@pytest.mark.parametrize(("value", "dtype"), [(2, np.uint8), (300, np.uint16), (-1, np.int16)])
def test_15_labels_out_of_range(evaluate: Callable[..., Ended], tmp_path: Path, value: int, dtype: Any) -> None:
    mask = np.zeros((40, 56), dtype)
    mask[5:30, 8:40] = 1
    mask[7, 9] = value
    data = pair(tmp_path / "data", lambda path: tifffile.imwrite(path, mask), ".tif")
    refused(evaluate(data), "a.tif", f"value {value}", "from 0 to 1")


def test_16_another_size(evaluate: Callable[..., Ended], tmp_path: Path) -> None:
    data = pair(tmp_path / "data", np.zeros((20, 28), np.uint8))
    refused(evaluate(data), "a.png", "20 x 28", "40 x 56")
    shutil.rmtree(data)
    refused(evaluate(pair(data, np.zeros((56, 40), np.uint8))), "56 x 40", "turned")


def test_17_pairs_are_found_by_name(evaluate: Callable[..., Ended], tmp_path: Path) -> None:
    data = make_pairs(tmp_path / "data")
    (data / "masks" / "case 2.png").rename(data / "masks" / "case 9.png")
    refused(evaluate(data), "case 2")
    (data / "masks" / "case 9.png").rename(data / "masks" / "case 2.png")
    shutil.copy(data / "images" / "case 1.png", data / "images" / "case 1.tif")
    refused(evaluate(data), "case 1")


def test_18_orientation(predict: Callable[..., Ended], evaluate: Callable[..., Ended], tmp_path: Path) -> None:
    tags = Image.Exif()
    tags[0x0112] = 6
    Image.fromarray(PIXELS).save(tmp_path / "a.jpg", exif=tags)
    assert predict(tmp_path / "a.jpg").code == 0
    assert read_mask(tmp_path / "out" / "a.png").shape == (130, 96)
    mask = np.zeros((56, 40), np.uint8)
    mask[5:9, 30:] = 1
    data = pair(tmp_path / "data", lambda path: Image.fromarray(mask).save(path, exif=tags))
    assert evaluate(data).code == 0
    shutil.rmtree(data)
    refused(evaluate(pair(data, mask)), "56 x 40", "40 x 56", "turned")


def test_19_places_that_disagree(tmp_path: Path) -> None:
    nibabel = pytest.importorskip("nibabel")
    from patchforest.io.volume import open_volume
    from patchforest.io.volume_label import check_volume_pair

    affine = np.diag([0.8, 0.8, 2.5, 1])
    other = affine.copy()
    other[0, 3] = 5
    for name, place in (("image", affine), ("label", other)):
        nibabel.save(nibabel.Nifti1Image(np.zeros((4, 5, 6), np.int16), place), tmp_path / f"{name}.nii")
    image, label = (open_volume(tmp_path / f"{name}.nii") for name in ("image", "label"))
    with pytest.raises(InputError, match=r"label\.nii.*5.* mm"):
        check_volume_pair(image, label, tmp_path / "image.nii", tmp_path / "label.nii")
    both = nibabel.Nifti1Image(np.zeros((4, 5, 6), np.int16), affine)
    both.set_sform(affine, 1)
    both.set_qform(other, 1)
    nibabel.save(both, tmp_path / "both.nii")
    with pytest.raises(InputError, match=r"both\.nii: lies at two places.*5 mm; "):
        open_volume(tmp_path / "both.nii")


def test_20_a_series_that_is_not_whole(tmp_path: Path) -> None:
    pytest.importorskip("pydicom")
    from patchforest.io.volume import open_volume
    from tests.io.volumes import save_series, save_slice

    def series(name: str) -> list[Path]:
        return save_series(tmp_path / name, np.zeros((6, 4, 5), np.int16))

    series("lost")[3].unlink()
    with pytest.raises(InputError, match=r"lost: lacks 1 slice between 105\.00 mm .* and 110\.00 mm"):
        open_volume(tmp_path / "lost")
    shutil.copy(series("twice")[2], tmp_path / "twice" / "copy.dcm")
    with pytest.raises(InputError, match=r"two slices at 105\.00 mm"):
        open_volume(tmp_path / "twice")
    series("moved")
    save_slice(tmp_path / "moved" / "x.dcm", np.zeros((4, 5), np.int16), (-30.0, -40.0, 116.0))
    with pytest.raises(InputError, match=r"2\.500 mm apart, but 3\.500 mm between 112\.50 mm"):
        open_volume(tmp_path / "moved")
    series("mixed")
    save_slice(tmp_path / "mixed" / "y.dcm", np.zeros((4, 5), np.int16), (0, 0, 0), SeriesInstanceUID="9.9")
    with pytest.raises(InputError, match="holds 2 DICOM series"):
        open_volume(tmp_path / "mixed")


def test_21_any_size(predict: Callable[..., Ended], tmp_path: Path) -> None:
    sizes = [(1, 1), (1, 37), (41, 1), (7, 5), (63, 65)]
    for height, width in sizes:
        write_picture(tmp_path / "in" / f"{height} {width}.png", (height, width))
    assert predict(tmp_path / "in").code == 0
    for height, width in sizes:
        assert read_mask(tmp_path / "out" / f"{height} {width}.png").shape == (height, width)


def test_22_masks_of_background(evaluate: Callable[..., Ended], tmp_path: Path) -> None:
    import torch

    from patchforest.nn.readout.output import RasterMask
    from patchforest.train.losses import segmentation_loss

    assert evaluate(pair(tmp_path / "data", np.zeros((40, 56), np.uint8))).code == 0
    scores = json.loads((tmp_path / "scores" / "summary.json").read_text())["mean"]["1"]
    assert (scores["cases"], scores["empty"]) == (1, 1)
    assert scores["Dice_present"] is None  # over images that show the class, of which there are none
    for value in (0, -1):  # nothing there; nothing known
        logits = torch.zeros(1, 1, 8, 8, requires_grad=True)
        loss = segmentation_loss(RasterMask(logits, 1), torch.full((1, 8, 8), value))
        loss.backward()
        assert torch.isfinite(loss)
        assert logits.grad is not None
        assert torch.isfinite(logits.grad).all()


def test_23_odd_names(predict: Callable[..., Ended], tmp_path: Path) -> None:
    folder = tmp_path / "in"
    for name in (
        "a b.png",
        "ü漢.png",
        "-x.png",
        "new\nline.png",
        "one/same.png",
        "two/same.png",
        "same.tif",
        "same.png",
    ):
        write_picture(folder / name, (9, 12))
    (folder / "loop").symlink_to(folder)
    (folder / "self.png").symlink_to(folder / "self.png")
    refused(predict(folder), "self.png", "symbolic links", code=4)
    masks = {p.relative_to(tmp_path / "out").as_posix() for p in (tmp_path / "out").rglob("*.png")}
    assert len(masks) == 8
    assert {"a b.png", "ü漢.png", "-x.png", "one/same.png", "two/same.png", "same_tif.png", "same_png.png"} <= masks
    refused(predict(folder / "nothing\nhere.png"), "nothing here.png")


def test_24_changed_inputs(run: Run, tmp_path: Path) -> None:
    from tests.cli.test_prepare import prepare
    from tests.data.prepared_data import make_images

    data, out = make_images(tmp_path / "data", 2), tmp_path / "out"
    assert prepare(run, data, out).code == 0
    write_picture(data / "images" / "case001.png", (64, 64), seed=9)
    refused(run("verify", out, "--inputs", data), "case001.png", "has changed")
    item = next((out / "items").iterdir())
    item.write_bytes(item.read_bytes()[:-3])
    refused(run("verify", out), item.name)


def _config(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], object]:
    def make(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        change(config)
        (folder / "config.json").write_text(json.dumps(config))

    return make


def _cut(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


WRONG_MODELS: dict[str, tuple[Callable[[Path], object], Sequence[str]]] = {
    "other width": (_config(lambda c: c["model"].update(width=64)), ("do not fit", " is (", " more")),
    "other channels": (_config(lambda c: c["model"].update(channels=1)), ("do not fit", "not (")),
    "other classes": (_config(lambda c: c.update(classes=["background", "a", "b"])), ("1 outputs", "background, a, b")),
    "other patch": (_config(lambda c: c["model"].update(patch=16)), ()),
    "truncated": (_cut, ("not a whole safetensors file",)),
    "a name of Python": (_config(lambda c: c["model"].update(name="os.system")), ("os.system",)),
    "a setting of another": (_config(lambda c: c["model"].update(_target_="os.system")), ("unknown setting",)),
}


@pytest.mark.parametrize("name", WRONG_MODELS)
def test_25_wrong_checkpoint(predict: Callable[..., Ended], tiny_model: Path, tmp_path: Path, name: str) -> None:
    model = shutil.copytree(tiny_model, tmp_path / "model")
    change, words = WRONG_MODELS[name]
    change(model)
    line = refused(predict(write_picture(tmp_path / "a.png"), model=model), str(model), *words)
    assert line.count(", not (") <= 5


def test_25_wrong_checkpoint_pickled(predict: Callable[..., Ended], tmp_path: Path) -> None:
    image, model = write_picture(tmp_path / "a.png"), tmp_path / "model.pt"
    model.write_bytes(b"PK\x03\x04" + bytes(99))
    refused(predict(image, model=model), "model.pt", "pickled checkpoints are never loaded")
