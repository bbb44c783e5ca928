"""Slides in windows: images and labels stay together at every scale, wherever the labels come from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile

from patchforest.data import pictures
from patchforest.data.layout import Case, find_cases
from patchforest.data.load import load_case, shrink_label
from patchforest.data.pictures import check_picture, open_picture
from patchforest.data.samples import TISSUE, WindowSamples
from patchforest.data.slides import SlidePicture
from patchforest.errors import InputError
from patchforest.infer.polygons import polygons_of
from patchforest.io.geojson import write_geojson
from patchforest.io.pyramid import write_pyramid
from patchforest.io.scale import AS_STORED, Scale
from patchforest.values import Array

NAMES, COLOURS = ("glass", "gland"), np.zeros((2, 3), np.uint8)


def slide(folder: Path, *, shape: tuple[int, int] = (600, 800), mpp: float = 0.5, seed: int = 0) -> tuple[Array, Array]:
    """Write images/s.tif and masks/s.tif: purple discs, the foreground, on pink tissue on bright glass."""
    rng = np.random.default_rng(seed)
    image = rng.integers(238, 244, (*shape, 3)).astype(np.uint8)
    rows, columns = np.indices(shape)
    tissue = (rows - shape[0] / 2) ** 2 / (shape[0] * 0.35) ** 2 + (columns - shape[1] / 3) ** 2 / (
        shape[1] / 4
    ) ** 2 < 1
    image[tissue] = (225, 170, 200)
    mask = np.zeros(shape, np.uint8)
    for _ in range(12):
        r, c = rng.uniform(0.3, 0.7) * shape[0], rng.uniform(0.15, 0.5) * shape[1]
        mask[(rows - r) ** 2 + (columns - c) ** 2 < 25**2] = 1
    image[mask == 1] = (120, 60, 140)
    (folder / "images").mkdir(parents=True, exist_ok=True)
    write_pyramid(folder / "images" / "s.tif", [image], shape=shape, dtype=np.uint8, mpp=mpp, kind="image")
    write_pyramid(folder / "masks" / "s.tif", [mask], shape=shape, dtype=np.uint8, mpp=mpp)
    return image, mask


def case(folder: Path, label: str = "masks/s.tif") -> Case:
    return Case("s", folder / "images" / "s.tif", folder / label)


@pytest.mark.parametrize("downscale", [1, 2, 3])
def test_windows_are_those_of_the_whole(tmp_path: Path, downscale: int) -> None:
    slide(tmp_path)
    whole = load_case(case(tmp_path), downscale=downscale)
    lazy = SlidePicture(case(tmp_path), downscale=downscale)
    assert lazy.shape == whole.shape
    rng = np.random.default_rng(0)
    for _ in range(10):
        row, column = (int(rng.integers(s - 50)) for s in lazy.shape)
        image, label = lazy.read(row, column, 50, 40)
        assert np.array_equal(image, whole.image[row : row + 50, column : column + 40])
        assert np.array_equal(label, whole.label[row : row + 50, column : column + 40])


def test_at_another_scale_labels_lie_on_their_pixels(tmp_path: Path) -> None:
    slide(tmp_path)
    for mpp in (0.5, 0.8, 1.0, 1.7, 2.0):
        picture = SlidePicture(case(tmp_path), scale=Scale(mpp=mpp))
        image, label = picture.read(0, 0, *picture.shape)
        assert image.shape[:2] == label.shape == picture.shape
        purple = image[:, :, 1] < 100
        assert (purple == (label == 1)).mean() > 0.985, mpp
    one = SlidePicture(case(tmp_path), scale=Scale(level=0))
    assert one.shape == (600, 800)


def test_whole_factors_take_the_majority(tmp_path: Path) -> None:
    _, mask = slide(tmp_path, shape=(601, 799))
    picture = SlidePicture(case(tmp_path), scale=Scale(mpp=1.0), downscale=2)
    assert picture.shape == (151, 200)
    full = picture.label.read(0, 0, *picture.shape)
    assert np.array_equal(full, shrink_label(mask, 4)[:151, :200])


def test_polygons_are_labels(tmp_path: Path) -> None:
    _, mask = slide(tmp_path)
    polygons = list(polygons_of([mask], width=800))
    write_geojson(tmp_path / "masks" / "s.geojson", polygons, names=NAMES, colours=COLOURS)
    drawn = SlidePicture(case(tmp_path, "masks/s.geojson"), names=NAMES)
    assert np.array_equal(drawn.read(100, 50, 200, 300)[1], mask[100:300, 50:350])
    half = SlidePicture(case(tmp_path, "masks/s.geojson"), names=NAMES, scale=Scale(mpp=1.0))
    stored = SlidePicture(case(tmp_path), scale=Scale(mpp=1.0))
    area = (0, 0, *half.shape)
    assert (half.read(*area)[1] == stored.read(*area)[1]).mean() > 0.998
    (tmp_path / "masks" / "s.tif").unlink()
    found = find_cases(tmp_path).cases
    assert [(c.id, c.label) for c in found] == [("s", tmp_path / "masks" / "s.geojson")]
    with pytest.raises(InputError, match="gland"):
        SlidePicture(found[0], names=("a", "b", "c"))


def test_a_smaller_mask_has_to_say_its_scale(tmp_path: Path) -> None:
    _, mask = slide(tmp_path)
    small = shrink_label(mask, 4)
    write_pyramid(tmp_path / "masks" / "q.tif", [small], shape=small.shape, dtype=np.uint8, mpp=2.0)  # type: ignore[arg-type]
    picture = SlidePicture(case(tmp_path, "masks/q.tif"))
    label = picture.read(0, 0, 600, 800)[1]
    assert np.array_equal(label, small.repeat(4, 0).repeat(4, 1))
    exact = SlidePicture(case(tmp_path, "masks/q.tif"), scale=Scale(mpp=2.0))
    assert np.array_equal(exact.label.read(0, 0, *exact.shape), small)
    write_pyramid(tmp_path / "masks" / "n.tif", [small], shape=small.shape, dtype=np.uint8, mpp=None)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"n\.tif: is 150 x 200 pixels .* is 600 x 800"):
        SlidePicture(case(tmp_path, "masks/n.tif"))
    write_pyramid(tmp_path / "masks" / "w.tif", [small], shape=small.shape, dtype=np.uint8, mpp=3.0)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="export the mask"):
        SlidePicture(case(tmp_path, "masks/w.tif"))


def test_large_images_are_never_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slide(tmp_path)
    monkeypatch.setattr(pictures, "LARGE", 1000)
    assert isinstance(open_picture(case(tmp_path)), SlidePicture)
    settings = {"policy": None, "window": (40, 64), "samples_per_epoch": 60, "seed": 3, "tissue": True}
    lazy = WindowSamples([case(tmp_path)], **settings)  # type: ignore[arg-type]
    drawn = [lazy[i] for i in range(60)]
    assert all(s.image.shape == (3, 40, 64) and s.label.shape == (40, 64) for s in drawn)
    assert sum((s.label == 1).any() for s in drawn) >= 30
    glass = [s for s in drawn if s.image.min() > 0.9]
    assert not glass  # every window shows tissue
    monkeypatch.setattr(pictures, "LARGE", 1 << 26)
    held = WindowSamples([case(tmp_path)], **settings)  # type: ignore[arg-type]
    assert set(held._load(0).places) == set(lazy._load(0).places) == {1, TISSUE}
    row, column = drawn[0].origin
    _, label = held._load(0).picture.read(row, column, 40, 64)
    assert np.array_equal(label, drawn[0].label)


def test_windows_at_a_scale(tmp_path: Path) -> None:
    slide(tmp_path)
    stream = WindowSamples(
        [case(tmp_path)], policy=None, window=64, samples_per_epoch=10, seed=0, scale=Scale(mpp=2.0), foreground=1.0
    )
    for i in range(10):
        sample = stream[i]
        assert sample.frame == (150, 200)
        assert (sample.label == 1).any()
        assert ((sample.image[1] < 0.4) == (sample.label == 1)).mean() > 0.97


def test_checking_reads_every_label(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, mask = slide(tmp_path)
    monkeypatch.setattr(pictures, "LARGE", 1000)
    check_picture(case(tmp_path), num_classes=2, channels=3)
    with pytest.raises(InputError, match="has 3 channels where the first training image has 1"):
        check_picture(case(tmp_path), num_classes=2, channels=1)
    mask[511, 799] = 7  # between the rows that a coarse look would see
    write_pyramid(tmp_path / "masks" / "s.tif", [mask], shape=mask.shape, dtype=np.uint8, mpp=0.5)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="holds value 7"):
        check_picture(case(tmp_path), num_classes=2)
    with pytest.raises(InputError, match="has no mask"):
        open_picture(Case("s", case(tmp_path).image, None), scale=AS_STORED)


def test_few_slides_are_open_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slide(tmp_path, shape=(80, 90))
    monkeypatch.setattr(pictures, "LARGE", 100)
    monkeypatch.setattr("patchforest.data.samples._OPEN", 3)
    cases = [Case(str(k), case(tmp_path).image, case(tmp_path).label) for k in range(10)]
    stream = WindowSamples(cases, policy=None, window=32, samples_per_epoch=60, seed=0)
    first = [stream[i] for i in range(60)]
    assert len(stream._held) == 3
    again = WindowSamples(cases, policy=None, window=32, samples_per_epoch=60, seed=0)
    assert all(np.array_equal(again[i].image, first[i].image) for i in (59, 0, 30))


def test_a_mask_of_the_views_size_is_taken_pixel_for_pixel(tmp_path: Path, rng: np.random.Generator) -> None:
    """What ``predict --mpp`` writes trains at that scale, whatever the rounding of its size."""
    shape = (1001, 903)
    pixels = rng.integers(0, 255, (*shape, 3)).astype(np.uint8)
    (tmp_path / "images").mkdir()
    write_pyramid(tmp_path / "images" / "s.tif", [pixels], shape=shape, dtype=np.uint8, mpp=0.4, kind="image")
    view = SlidePicture(Case("s", tmp_path / "images" / "s.tif", _blank(tmp_path, shape)), scale=Scale(mpp=1.0))
    stripes = (np.indices(view.shape).sum(0) % 2).astype(np.uint8)
    write_pyramid(tmp_path / "v.tif", [stripes], shape=view.shape, dtype=np.uint8, mpp=1.0)
    same = SlidePicture(Case("s", tmp_path / "images" / "s.tif", tmp_path / "v.tif"), scale=Scale(mpp=1.0))
    assert np.array_equal(same.read(0, 0, *view.shape)[1], stripes)


def _blank(folder: Path, shape: tuple[int, int]) -> Path:
    write_pyramid(folder / "blank.tif", [np.zeros(shape, np.uint8)], shape=shape, dtype=np.uint8, mpp=0.4)
    return folder / "blank.tif"


def test_a_cropped_mask_is_refused_though_its_scale_is_stated(tmp_path: Path) -> None:
    _, mask = slide(tmp_path, shape=(2000, 1600))
    cut = np.ascontiguousarray(mask[:1981, :1600])
    write_pyramid(tmp_path / "masks" / "c.tif", [cut], shape=(1981, 1600), dtype=np.uint8, mpp=0.5)
    for scale in (AS_STORED, Scale(mpp=0.5), Scale(mpp=1.0)):
        with pytest.raises(InputError, match=r"c\.tif: is 1981 x 1600"):
            open_picture(case(tmp_path, "masks/c.tif"), scale=scale)


def test_a_smaller_mask_works_without_a_scale_asked_for(tmp_path: Path) -> None:
    _, mask = slide(tmp_path)
    small = shrink_label(mask, 4)
    write_pyramid(tmp_path / "masks" / "q.tif", [small], shape=small.shape, dtype=np.uint8, mpp=2.0)  # type: ignore[arg-type]
    label = open_picture(case(tmp_path, "masks/q.tif")).read(0, 0, 600, 800)[1]
    assert np.array_equal(label, small.repeat(4, 0).repeat(4, 1))


def test_polygons_on_levels_whose_factors_differ(tmp_path: Path) -> None:
    """A level of 7.97 by 8.1: polygons lie where the image does."""
    shape = (4000, 324)
    image, level = np.zeros((*shape, 3), np.uint8), np.zeros((502, 40, 3), np.uint8)
    (tmp_path / "images").mkdir()
    with tifffile.TiffWriter(tmp_path / "images" / "s.tif", bigtiff=True) as tif:
        for k, pixels in enumerate((image, level)):
            tif.write(pixels, tile=(256, 256), photometric="rgb", subfiletype=int(k > 0), metadata=None)
    mask = np.zeros(shape, np.uint8)
    mask[3840:3880, 243:283] = 1
    write_geojson(tmp_path / "s.geojson", polygons_of([mask], width=324), names=NAMES, colours=COLOURS)
    one = Case("s", tmp_path / "images" / "s.tif", tmp_path / "s.geojson")
    picture = SlidePicture(one, scale=Scale(level=1), names=NAMES)
    rows, columns = np.nonzero(picture.read(0, 0, *picture.shape)[1])
    assert (rows.min(), rows.max() + 1) == pytest.approx((3840 * 502 / 4000, 3880 * 502 / 4000), abs=0.51)
    assert (columns.min(), columns.max() + 1) == pytest.approx((243 * 40 / 324, 283 * 40 / 324), abs=0.51)
