"""Layers as JPEG and PNG tiles: exact classes, near pixels, windows, stored levels, refusals."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from patchforest.errors import InputError
from patchforest.io.array import ArraySource
from patchforest.io.pyramid import halve_mask, halve_mean
from patchforest.report import palette
from patchforest.report.view_layers import Layer, Tiled, colour_of, start_of, tile_image, tile_layer
from patchforest.tree.stream import Workers
from patchforest.tree.window import to_uint8
from patchforest.values import Array


def smooth(shape: tuple[int, ...], rng: np.random.Generator) -> Array:
    """A picture that JPEG keeps well."""
    coarse = rng.integers(0, 256, (*(max(2, n // 40) for n in shape[:2]), shape[2])).astype(np.float32)
    out = cv2.resize(coarse, shape[1::-1], interpolation=cv2.INTER_CUBIC).reshape(shape)
    return np.clip(out, 0, 255).astype(np.uint8)


def joined(folder: Path, level: int, suffix: str, shape: tuple[int, int], mode: str | None) -> Array:
    """All tiles of a level side by side."""
    rows = []
    for r in range(-(-shape[0] // 512)):
        parts = [
            np.asarray(opened.convert(mode) if mode else opened)
            for c in range(-(-shape[1] // 512))
            for opened in [Image.open(folder / str(level) / f"{c}_{r}{suffix}")]
        ]
        rows.append(np.concatenate(parts, axis=1))
    return np.concatenate(rows)


@pytest.mark.parametrize("shape", [(1, 700), (513, 1), (511, 513), (700, 1100)])
@pytest.mark.parametrize("channels", [1, 2, 3, 5])
def test_an_image_is_shown_within_jpeg_error(
    tmp_path: Path, rng: np.random.Generator, shape: tuple[int, int], channels: int
) -> None:
    pixels = smooth((*shape, channels), rng)
    with Workers(2) as workers:
        done = tile_image(tmp_path / "i", ArraySource(pixels), window=None, max_side=None, workers=workers)
    expected = pixels[:, :, :3]
    if channels == 2:
        expected = np.concatenate([pixels, np.zeros((*shape, 1), np.uint8)], axis=2)
    for level in range(done.pyramid.levels - 1, -1, -1):
        found = joined(tmp_path / "i", level, ".jpg", expected.shape[:2], None)
        assert found.ndim == (2 if channels == 1 else 3)
        off = np.abs(found.reshape(expected.shape).astype(int) - expected)
        assert off.mean() < 3
        assert np.percentile(off, 99) < 25
        expected = halve_mean(expected)


@pytest.mark.parametrize("shape", [(1, 1), (1, 700), (511, 513), (700, 1100)])
@pytest.mark.parametrize("most", [1, 3, 255, 60000])
def test_a_mask_is_shown_exactly(tmp_path: Path, rng: np.random.Generator, shape: tuple[int, int], most: int) -> None:
    mask = (rng.integers(0, most + 1, shape) * (rng.random(shape) < 0.7)).astype(np.uint16 if most > 255 else np.uint8)
    with Workers(2) as workers:
        done = tile_layer(tmp_path / "m", Layer("truth", ArraySource(mask)), max_side=None, workers=workers)
    assert done.classes == tuple(np.unique(mask).tolist())
    expected = mask[:, :, None]
    for level in range(done.pyramid.levels - 1, -1, -1):
        colours = joined(tmp_path / "m", level, ".png", expected.shape[:2], "RGBA")
        number = expected[:, :, 0].astype(int)
        number = np.where(number > 255, (number - 1) % 255 + 1, number)
        np.testing.assert_array_equal(colours[:, :, 3], np.where(number > 0, 255, 0))
        shown = palette.class_colours(256)[number]
        np.testing.assert_array_equal(colours[number > 0, :3], shown[number > 0])
        expected = halve_mask(expected)
    for number in (1, 7, 255, 256, 60000):
        assert colour_of(number) == tuple(palette.class_colours(256)[(number - 1) % 255 + 1].tolist())


def test_a_tile_of_few_classes_is_small(tmp_path: Path) -> None:
    mask = np.zeros((512, 512), np.uint8)
    mask[:, 100:300] = 1
    with Workers(1) as workers:
        done = tile_layer(tmp_path / "m", Layer("truth", ArraySource(mask)), max_side=None, workers=workers)
    assert done.pyramid.bytes < 500


def test_16_bit_pixels_pass_through_the_named_window(tmp_path: Path, rng: np.random.Generator) -> None:
    pixels = smooth((300, 200, 1), rng).astype(np.uint16) * 16
    source, window = ArraySource(pixels), (200.0, 3000.0)
    with Workers(1) as workers:
        tile_image(tmp_path / "a", source, window=window, max_side=None, workers=workers)
        found = joined(tmp_path / "a", 0, ".jpg", (300, 200), "L")
        assert np.abs(found.astype(int) - to_uint8(pixels[:, :, 0], window)).mean() < 2
        with pytest.warns(UserWarning, match="look nearly black"):
            tile_image(tmp_path / "b", source, window=None, max_side=None, workers=workers)
        floats = ArraySource(pixels.astype(np.float32))
        with pytest.raises(ValueError, match="window"):
            tile_image(tmp_path / "c", floats, window=None, max_side=None, workers=workers)


class Stored:
    """A pyramid in memory that remembers which level was read."""

    mpp, tile = None, (256, 256)

    def __init__(self, levels: list[Array]) -> None:
        self._levels = [ArraySource(level) for level in levels]
        self.shape = levels[0].shape
        self.levels = tuple(level.shape[:2] for level in levels)
        self.read_from = set[int]()

    def read(self, level: int = 0, *window: int) -> Array:
        self.read_from.add(level)
        return self._levels[level].read(0, *window)


def test_a_coarser_start_uses_a_stored_level(tmp_path: Path, rng: np.random.Generator) -> None:
    full = cv2.resize(smooth((100, 75, 3), rng), (1203, 1601))
    quarter = np.ascontiguousarray(full[::4, ::4][:400, :300])  # rounded down, as scanners do
    odd = np.ascontiguousarray(full[::2, ::3])  # half as high, but not half as wide
    source = Stored([full, odd, quarter])
    assert start_of(source, None) == (0, 0)
    assert start_of(source, 1601) == (0, 0)
    assert start_of(source, 1600) == (0, 1)
    assert start_of(source, 500) == (2, 0)
    assert start_of(source, 150) == (2, 2)
    with Workers(1) as workers:
        done = tile_image(tmp_path / "i", source, window=None, max_side=150, workers=workers)
    assert done.pyramid.shape == (100, 75)
    assert source.read_from == {2}
    found = joined(tmp_path / "i", 0, ".jpg", (100, 75), None)
    assert np.abs(found.astype(int) - halve_mean(halve_mean(quarter))).mean() < 3


def test_a_mask_is_halved_by_majority_until_it_fits(tmp_path: Path, rng: np.random.Generator) -> None:
    mask = rng.integers(0, 3, (901, 700), dtype=np.uint8)
    with Workers(1) as workers:
        done = tile_layer(tmp_path / "m", Layer("truth", ArraySource(mask)), max_side=300, workers=workers)
    assert done.pyramid.shape == (226, 175)
    expected = halve_mask(halve_mask(mask[:, :, None]))[:, :, 0]
    np.testing.assert_array_equal(joined(tmp_path / "m", 0, ".png", (226, 175), None), expected)


def shares(folder: Path, pixels: Array) -> Array:
    """The opacity of a probability layer, one tile."""
    with Workers(1) as workers:
        layer = Layer("probability", ArraySource(pixels), kind="probability")
        done: Tiled = tile_layer(folder, layer, max_side=None, workers=workers)
    assert done.classes == ()
    return joined(folder, 0, ".png", pixels.shape[:2], "RGBA")[:, :, 3]


def test_probabilities_of_every_type(tmp_path: Path, rng: np.random.Generator) -> None:
    share = rng.random((40, 50)).astype(np.float32)
    expected = np.rint(share * 255).astype(int)
    np.testing.assert_array_equal(shares(tmp_path / "a", share), expected)
    np.testing.assert_array_equal(shares(tmp_path / "b", expected.astype(np.uint8)), expected)
    wide = np.rint(share * 65535).astype(np.uint16)
    np.testing.assert_array_equal(shares(tmp_path / "c", wide), np.rint(wide / 257).astype(int))
    several = np.stack([1 - share, share / 2, share / 2], axis=2)
    assert np.abs(shares(tmp_path / "d", several).astype(int) - expected).max() <= 1


@pytest.mark.parametrize(
    ("kind", "pixels", "says"),
    [
        ("mask", np.zeros((4, 4, 3), np.uint8), "3 channels"),
        ("mask", np.zeros((4, 4), np.float32), "float32"),
        ("probability", np.full((4, 4), 7, np.float32), "no probabilities"),
        ("probability", np.full((4, 4), -0.2), "no probabilities"),
        ("probability", np.zeros((4, 4), np.int32), "int32"),
    ],
)
def test_pixels_that_are_not_what_the_layer_says(tmp_path: Path, kind: str, pixels: Array, says: str) -> None:
    layer = Layer("truth", ArraySource(pixels), kind=kind)  # type: ignore[arg-type]
    with Workers(1) as workers, pytest.raises(InputError, match=says):
        tile_layer(tmp_path / "m", layer, max_side=None, workers=workers)
