"""Slides through OpenSlide: pixels as our own reader gives them, handles per process, damage as one line."""

from __future__ import annotations

import copy
import io
import os
import pickle
import subprocess
import sys
import textwrap
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image, features

from patchforest.errors import InputError
from patchforest.io import slide as module
from patchforest.io.label import read_label
from patchforest.io.open import open_image
from patchforest.io.slide import SlideSource, dicom_slide
from patchforest.io.tiff import TiffSource
from patchforest.values import ImageSource
from tests.io.slides import jpeg_tiles, write_tiled

needs_openslide = pytest.mark.skipif(not module.has_openslide(), reason="OpenSlide is not installed (extra wsi)")
needs_jpeg_2000 = pytest.mark.skipif(not features.check("jpg_2000"), reason="this Pillow writes no JPEG 2000")
PIXELS = np.kron(np.random.default_rng(8).integers(0, 255, (40, 55, 3)), np.ones((8, 8, 1))).astype(np.uint8)


def pyramid(path: Path, tile: int = 128) -> Path:
    """A JPEG slide of 320 x 440 pixels at 0.5 micron, with two smaller levels."""
    levels = [PIXELS, PIXELS[::2, ::2], PIXELS[::4, ::4]]
    write_tiled(path, [(part.shape[:2], jpeg_tiles(part, tile)) for part in levels], tile)
    return path


def damage(path: Path, tile: int) -> None:
    """Overwrites a tile of level 0."""
    with tifffile.TiffFile(path) as tif:
        start, count = tif.pages[0].dataoffsets[tile], tif.pages[0].databytecounts[tile]
    data = bytearray(path.read_bytes())
    data[start + 2 : start + count] = b"\x55" * (count - 2)
    path.write_bytes(data)


@needs_openslide
def test_both_readers_give_the_same_pixels(tmp_path: Path) -> None:
    path = pyramid(tmp_path / "a.tif")
    slide, own = SlideSource(path), TiffSource(path)
    assert isinstance(slide, ImageSource)
    assert (
        (slide.shape, slide.levels, slide.tile)
        == (own.shape, own.levels, own.tile)
        == (
            (320, 440, 3),
            ((320, 440), (160, 220), (80, 110)),
            (128, 128),
        )
    )
    assert slide.mpp == pytest.approx(0.5)
    assert own.mpp == pytest.approx(0.5)
    for level, (height, width) in enumerate(slide.levels):
        np.testing.assert_array_equal(slide.read(level), own.read(level))
        window = (level, height // 3, width // 4 + 1, height // 2, width // 3)
        np.testing.assert_array_equal(slide.read(*window), own.read(*window))
    with pytest.raises(ValueError, match="levels 0 to 2"):
        slide.read(3)
    assert slide.stored().shape == slide.shape


@needs_openslide
def test_large_windows_are_drawn_in_bands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = pyramid(tmp_path / "a.tif", tile=64)
    whole = SlideSource(path).read()
    monkeypatch.setattr(module, "_BAND", 64 * 440 * 2)
    np.testing.assert_array_equal(SlideSource(path).read(), whole)
    np.testing.assert_array_equal(SlideSource(path).read(0, 7, 3, 300, 400), whole[7:307, 3:403])


@needs_openslide
def test_a_real_slide_reads_alike(shared_data: Path) -> None:
    path = shared_data / "wsi" / "CMU-1-Small-Region.svs"
    slide, own = SlideSource(path), TiffSource(path)
    assert (slide.shape, slide.levels, slide.mpp, slide.tile) == (own.shape, own.levels, own.mpp, own.tile)
    assert slide.vendor == "aperio"
    np.testing.assert_array_equal(slide.read(), own.read())
    np.testing.assert_array_equal(slide.read(0, 1111, 777, 500, 333), own.read(0, 1111, 777, 500, 333))


ODD = ("boxes.tiff", "small.svs", "yb10kx5k.zstd.tiff", "rgba_geotiff.tiff", "test_orient1.tif")


@needs_openslide
@pytest.mark.filterwarnings("ignore:.*has transparency")
@pytest.mark.parametrize("name", ODD)
def test_odd_slides_read_alike(shared_data: Path, name: str) -> None:
    path = shared_data / "wsi" / "odd" / name
    slide, own = SlideSource(path), TiffSource(path)
    assert slide.levels == own.levels
    for level, (height, width) in enumerate(own.levels):
        size = (min(height, 700), min(width, 700))
        difference = abs(slide.read(level, 0, 0, *size).astype(int) - own.read(level, 0, 0, *size))
        assert difference.max() <= (name == "rgba_geotiff.tiff")  # alpha is rounded once more


@needs_openslide
def test_dicom_slides_by_file_and_by_folder(shared_data: Path, tmp_path: Path) -> None:
    odd = shared_data / "wsi" / "odd"
    expected = open_image(odd / "small.svs").read()
    for name in ("boxes_0.dcm", "boxes_1.dcm"):
        source = open_image(odd / name)
        assert (source.shape, source.mpp) == ((16, 16, 3), 0.499)
        np.testing.assert_array_equal(source.read(), expected)
        (tmp_path / name).write_bytes((odd / name).read_bytes())
    np.testing.assert_array_equal(open_image(tmp_path).read(), expected)
    other = (tmp_path / "boxes_1.dcm").read_bytes()
    place = other.find(b"\x20\x00\x0e\x00UI")
    (tmp_path / "b.dcm").write_bytes(other[: place + 20] + b"7" + other[place + 21 :])
    with pytest.raises(InputError, match=r"more than one series .b.dcm and boxes_0.dcm"):
        open_image(tmp_path)
    (tmp_path / "notes.txt").write_text("a folder of this and that")
    assert dicom_slide(tmp_path) is None
    with pytest.raises(InputError, match="is a folder, not an image"):
        open_image(tmp_path)


@needs_openslide
def test_transparency_is_white(tmp_path: Path) -> None:
    tiles = list(jpeg_tiles(PIXELS, 128))
    tiles[5] = b""  # not recorded; our own reader refuses such a file, and the door does not pass it on
    write_tiled(tmp_path / "a.tif", [(PIXELS.shape[:2], tiles)], 128)
    read = SlideSource(tmp_path / "a.tif").read()
    assert (read[128:256, 128:256] == 255).all()
    assert (read[:128] != 255).any()
    with pytest.raises(InputError, match="lacks 1 of 12 tiles"):
        open_image(tmp_path / "a.tif")


def test_white_under_alpha_by_hand() -> None:
    rgba = np.array([[[200, 0, 100, 255], [200, 0, 100, 0], [200, 0, 100, 51]]], np.uint8)
    assert module._on_white(rgba)[0].tolist() == [[200, 0, 100], [255] * 3, [244, 204, 224]]


@pytest.mark.parametrize(
    ("x", "y", "expected"),
    [
        ("0.25", "0.25", 0.25),
        ("0.2500", "0.2510", np.sqrt(0.25 * 0.251)),
        ("0.25", "0.26", None),
        ("352.7", "352.7", None),
        ("0", "0", None),
        ("nan", "nan", None),
        ("", "0.25", None),
        (None, "0.25", None),
    ],
)
def test_microns_per_pixel(x: str | None, y: str, expected: float | None) -> None:
    properties = {"openslide.mpp-y": y} | ({} if x is None else {"openslide.mpp-x": x})
    assert module._microns(properties) == (pytest.approx(expected) if expected else None)


def test_tiles_come_from_the_slide_or_are_rows() -> None:
    names = ("openslide.level[0].tile-height", "openslide.level[0].tile-width")
    assert module._tile(dict(zip(names, ("240", "512"), strict=True)), (1000, 300)) == (240, 300)
    assert module._tile(dict(zip(names, ("0", "-3"), strict=True)), (1000, 300)) == (1, 1)
    assert module._tile({}, (1000, 300)) == (256, 300)


@needs_openslide
def test_damage_is_named_and_the_rest_still_reads(tmp_path: Path) -> None:
    path = pyramid(tmp_path / "a.tif")
    good = SlideSource(path).read()
    damage(path, 5)
    source = SlideSource(path)
    for _ in range(2):
        with pytest.raises(InputError, match=r"a.tif: cannot be decoded in level 0 at row 130, column 140, 50 x 60"):
            source.read(0, 130, 140, 50, 60)
        np.testing.assert_array_equal(source.read(0, 0, 0, 128, 440), good[:128])


@needs_openslide
def test_damage_under_one_thread_does_not_fail_another(tmp_path: Path) -> None:
    path = pyramid(tmp_path / "a.tif", tile=32)
    good = SlideSource(path).read()
    damage(path, 0)
    source, places = SlideSource(path), [(r, c) for r in range(0, 320, 32) for c in range(0, 416, 32)] * 3

    def read(place: tuple[int, int]) -> bool | str:
        try:
            return bool(
                (source.read(0, *place, 32, 24) == good[place[0] : place[0] + 32, place[1] : place[1] + 24]).all()
            )
        except InputError:
            return "refused"

    with ThreadPoolExecutor(4) as pool:
        outcomes = dict.fromkeys(places)
        for place, outcome in zip(places, pool.map(read, places), strict=True):
            assert outcome == ("refused" if place == (0, 0) else True)
            outcomes[place] = outcome
    assert len(outcomes) == 130


@needs_openslide
def test_a_handle_that_another_thread_failed_is_not_ours_to_suffer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = pyramid(tmp_path / "a.tif")
    good = SlideSource(path).read()
    damage(path, 0)
    source = SlideSource(path)
    spoilt = source._current()
    with pytest.raises(InputError):
        source.read(0, 0, 0, 10, 10)
    assert source._handle is None
    monkeypatch.setattr(source, "_current", lambda: spoilt)
    np.testing.assert_array_equal(source.read(0, 200, 0, 100, 440), good[200:300])


def _child_sum(source: SlideSource) -> int:
    return int(source.read(0, 100, 100, 50, 50).sum())


@needs_openslide
@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.filterwarnings("ignore:.*fork")
def test_sources_go_to_workers_without_their_handle(tmp_path: Path, method: str) -> None:
    source = SlideSource(pyramid(tmp_path / "a.tif"))
    expected = _child_sum(source)
    assert source.__getstate__()["_handle"] is None
    with get_context(method).Pool(1) as pool:
        assert pool.apply(_child_sum, (source,)) == expected
    if method == "fork":  # inherited rather than pickled, as in a loader's workers
        results = []
        context = get_context("fork")
        parent, child = context.Pipe(duplex=False)
        process = context.Process(target=lambda: child.send((_child_sum(source), len(source._inherited))))
        process.start()
        results.append(parent.recv())
        process.join(10)
        assert results == [(expected, 1)]
        assert not source._inherited


@needs_openslide
def test_handles_do_not_pile_up(tmp_path: Path) -> None:
    path = pyramid(tmp_path / "a.tif")
    source = SlideSource(path)
    again = pickle.loads(pickle.dumps(source))
    assert isinstance(again._lock, type(threading.Lock()))
    np.testing.assert_array_equal(copy.deepcopy(source).read(1), again.read(1))
    SlideSource(path).read(0, 0, 0, 9, 9)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(30):
        SlideSource(path).read(0, 0, 0, 9, 9)
    assert len(os.listdir("/proc/self/fd")) == before


def jpeg_2000_slide(path: Path, description: str) -> np.ndarray:
    """An Aperio-like slide whose one tile is JPEG 2000 in RGB; returns its pixels."""
    out = io.BytesIO()
    Image.fromarray(PIXELS[:256, :256]).save(out, "JPEG2000", no_jp2=True, irreversible=False, mct=0)
    write_tiled(path, [((256, 256), [out.getvalue()])], 256, compression=33005, photometric=2, description=description)
    return PIXELS[:256, :256]


APERIO = "Aperio Image Library v10.0\r\n256x256 |AppMag = 40|MPP = 0.2500"


@needs_openslide
@needs_jpeg_2000
def test_a_compression_of_slides_goes_to_openslide(tmp_path: Path) -> None:
    pixels = jpeg_2000_slide(tmp_path / "a.svs", APERIO)
    source = open_image(tmp_path / "a.svs")
    assert isinstance(source, SlideSource)
    assert source.mpp == 0.25
    np.testing.assert_array_equal(source.read(), pixels)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "JPEG2000", no_jp2=True)
    page = ((256, 256), [out.getvalue()])
    write_tiled(tmp_path / "b.tif", [page, page], 256, compression=33005, photometric=2)
    with pytest.raises(InputError, match="compressed as APERIO_JP2000_RGB, which is not supported; convert"):
        open_image(tmp_path / "b.tif", page=1)
    with pytest.raises(InputError, match="is a slide, whose compression changes class numbers"):
        read_label(tmp_path / "a.svs")


@needs_jpeg_2000
def test_without_openslide_the_error_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    jpeg_2000_slide(tmp_path / "a.svs", APERIO)
    (tmp_path / "a.dcm").write_bytes(bytes(128) + b"DICM" + b"1.2.840.10008.5.1.4.1.1.77.1.6")
    monkeypatch.setitem(sys.modules, "openslide", None)
    with pytest.raises(InputError, match=r"compressed as APERIO_JP2000_RGB.*pip install 'patchforest\[wsi\]'"):
        open_image(tmp_path / "a.svs")
    with pytest.raises(InputError, match=r"is a DICOM file; to read slides.*patchforest\[wsi\]"):
        open_image(tmp_path / "a.dcm")
    with pytest.raises(InputError, match="OpenSlide is not installed"):
        SlideSource(tmp_path / "a.svs")


def test_a_mirax_slide_is_its_folder(tmp_path: Path) -> None:
    Image.new("RGB", (20, 10)).save(tmp_path / "a.mrxs", format="JPEG")
    with pytest.raises(InputError, match="MIRAX slide without its folder; copy the folder a beside it"):
        open_image(tmp_path / "a.mrxs")
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "Slidedat.ini").write_text("[GENERAL]\n")
    with pytest.raises(InputError, match=r"as a slide|no slide|not installed"):
        open_image(tmp_path / "a.mrxs")


@pytest.mark.parametrize(
    "head", [b"SQLite format 3\0" + bytes(90), b"ZISRAWFILE" + bytes(600), b"[Virtual Microscope Specimen]\nx=1\n"]
)
def test_files_that_begin_like_slides(tmp_path: Path, head: bytes) -> None:
    (tmp_path / "a").write_bytes(head)
    with pytest.raises(InputError, match=r"SQLite|CZI|VMS"):
        open_image(tmp_path / "a")


_MUTANTS = textwrap.dedent(
    """
    import sys, warnings
    from pathlib import Path
    import numpy as np
    from patchforest.errors import InputError
    from patchforest.io.slide import SlideSource

    warnings.simplefilter("ignore")
    folder, counts = Path(sys.argv[1]), {"read": 0, "refused": 0}
    for original in sorted(folder.glob("whole*")):
        data, rng = original.read_bytes(), np.random.default_rng(len(original.name))
        for number in range(int(sys.argv[2])):
            out, near = bytearray(data), min(512, len(data))
            if number % 3 == 0:
                out = out[: rng.integers(0, len(data))]
            for _ in range(int(rng.integers(1, 5)) if number % 3 else 0):
                places = [rng.integers(0, len(data)), rng.integers(0, near), len(data) - 1 - rng.integers(0, near)]
                place = int(places[rng.integers(0, 3)])
                if number % 3 == 1:
                    out[place] ^= 1 << int(rng.integers(0, 8))
                else:
                    out[place : place + 4] = rng.bytes(4)
            path = folder / ("mutant" + original.suffix)
            path.write_bytes(out)
            try:
                source = SlideSource(path)
                size = [min(side, 300) for side in source.shape[:2]]
                assert source.read(0, 0, 0, *size).shape == (*size, 3)
                counts["read"] += 1
            except InputError as fault:
                assert str(fault).startswith(str(path)) and len(str(fault).splitlines()) == 1
                counts["refused"] += 1
    print(counts["read"], counts["refused"])
    """
)


@needs_openslide
def test_mutants_end_in_whole_pixels_or_one_line(tmp_path: Path) -> None:
    """In a child, so that a death by signal or a hang would be seen."""
    pyramid(tmp_path / "whole.tif")
    jpeg_2000_slide(tmp_path / "whole2.svs", APERIO)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        done = subprocess.run(
            [sys.executable, "-c", _MUTANTS, str(tmp_path), "150"],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert done.returncode == 0, done.stderr  # OpenSlide itself may warn there
    read, refused = map(int, done.stdout.split())
    assert read + refused == 300
    assert refused > 80
