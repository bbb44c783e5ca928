"""Views of images at a level, microns per pixel or magnification: exact averages, whatever the window."""

from __future__ import annotations

import numpy as np
import pytest

from patchforest.errors import InputError
from patchforest.io.array import ArraySource
from patchforest.io.scale import AS_STORED, Scale, ScaledSource, at_scale, thumbnail
from patchforest.values import Array, ImageSource


class Pyramid:
    """An image with stored levels, by averaging blocks of a whole factor (far edge repeated)."""

    format = "test"

    def __init__(self, pixels: Array, factors: tuple[int, ...], mpp: float | None = None) -> None:
        self._levels = [pixels, *(block_mean(pixels, f) for f in factors)]
        self.mpp, self.tile, self.magnification = mpp, (16, 16), None
        self.shape = pixels.shape
        self.levels = tuple(level.shape[:2] for level in self._levels)

    def read(
        self, level: int = 0, row: int = 0, column: int = 0, height: int | None = None, width: int | None = None
    ) -> Array:
        part = self._levels[level]
        height = part.shape[0] - row if height is None else height
        width = part.shape[1] - column if width is None else width
        return part[row : row + height, column : column + width].copy()


def block_mean(pixels: Array, f: int) -> Array:
    h, w = pixels.shape[:2]
    padded = np.pad(pixels, ((0, -h % f), (0, -w % f), (0, 0)), mode="edge")
    blocks = padded.reshape(padded.shape[0] // f, f, padded.shape[1] // f, f, -1).astype(np.float64)
    return np.rint(blocks.mean((1, 3))).astype(pixels.dtype)


def slow_view(pixels: Array, ratio: tuple[float, float], shape: tuple[int, int]) -> Array:
    """Area averages by overlap of intervals, one pixel after the other, in float64."""
    out = np.zeros((*shape, pixels.shape[2]))
    for axis_shape, r, length in zip(shape, ratio, pixels.shape[:2]):
        assert axis_shape >= (length / r) - 1
    weights = []
    for count, r, length in zip(shape, ratio, pixels.shape[:2]):
        table = np.zeros((count, length))
        for i in range(count):
            for j in range(int(i * r), int(np.ceil((i + 1) * r)) + 1):
                share = max(0.0, min((i + 1) * r, j + 1) - max(i * r, j)) / r
                table[i, min(j, length - 1)] += share
        weights.append(table)
    for c in range(pixels.shape[2]):
        out[:, :, c] = weights[0] @ pixels[:, :, c].astype(np.float64) @ weights[1].T
    return out


@pytest.mark.parametrize("seed", range(12))
def test_area_averages_of_the_coarsest_level_that_fits(seed: int) -> None:
    rng = np.random.default_rng(seed)
    h, w = rng.integers(9, 90, 2)
    dtype = [np.uint8, np.uint16, np.float32][seed % 3]
    pixels = (rng.random((h, w, 1 + seed % 3)) * (255 if dtype == np.uint8 else 4000)).astype(dtype)
    source = Pyramid(pixels, (2, 4))
    factor = float(rng.uniform(1.05, 7))
    view = ScaledSource(source, factor=factor)
    base = max(k for k, level in enumerate(source.levels) if np.sqrt(h / level[0] * w / level[1]) <= factor)
    if view.shape[:2] in source.levels[1:]:
        pytest.skip("within 1 % of a stored level")
    rows, columns = source.levels[base]
    expected = slow_view(source.read(base), (factor * rows / h, factor * columns / w), view.shape[:2])
    got = view.read().astype(np.float64)
    assert np.abs(got - expected).max() <= (0.502 if dtype != np.float32 else 1e-2)
    assert view.shape[:2] == (int(np.ceil(h / factor - 1e-6)), int(np.ceil(w / factor - 1e-6)))


@pytest.mark.parametrize("factor", [0.4, 1.0, 1.7, 2.0, 3.3, 9.0])
def test_pixels_do_not_depend_on_the_window(factor: float, rng: np.random.Generator) -> None:
    source = Pyramid(rng.integers(0, 256, (83, 61, 3)).astype(np.uint8), (2,))
    with pytest.warns(UserWarning, match="nothing finer") if factor < 0.99 else _quiet():
        view = ScaledSource(source, factor=factor)
    whole = view.read()
    for _ in range(20):
        top, left = rng.integers(view.shape[0]), rng.integers(view.shape[1])
        height, width = rng.integers(1, view.shape[0] - top + 1), rng.integers(1, view.shape[1] - left + 1)
        part = view.read(0, int(top), int(left), int(height), int(width))
        assert np.array_equal(part, whole[top : top + height, left : left + width])


def _quiet() -> object:
    import contextlib

    return contextlib.nullcontext()


def test_a_close_level_is_taken_as_stored(rng: np.random.Generator) -> None:
    source = Pyramid(rng.integers(0, 256, (100, 100, 1)).astype(np.uint8), (2, 4), mpp=0.2501)
    view = at_scale(source, Scale(mpp=0.5))
    assert view.shape == (50, 50, 1)
    assert np.array_equal(view.read(), source.read(1))
    assert view.mpp == pytest.approx(0.5002)
    assert view.levels == ((50, 50), (25, 25))
    assert np.array_equal(view.read(1), source.read(2))


@pytest.mark.parametrize("factor", [1.0, 1.3, 2.0, 2.6, 4.0, 5.5])
def test_an_object_stays_at_its_place(factor: float) -> None:
    """A square's centre of mass in the view, scaled back, is where it was, at every factor."""
    pixels = np.zeros((120, 180, 1), np.uint8)
    pixels[37:59, 101:133] = 250
    view = ScaledSource(Pyramid(pixels, (2, 4)), factor=factor)
    weight = view.read()[:, :, 0].astype(float)
    rows, columns = np.indices(weight.shape) + 0.5
    centre = ((rows * weight).sum() / weight.sum(), (columns * weight).sum() / weight.sum())
    assert centre[0] * view.factor[0] == pytest.approx(48, abs=0.12)
    assert centre[1] * view.factor[1] == pytest.approx(117, abs=0.12)


def test_linear_between_pixels_where_enlarged() -> None:
    source = ArraySource(np.array([[0, 100]], np.uint8))
    with pytest.warns(UserWarning, match="enlarged 4 times"):
        view = ScaledSource(source, factor=0.25)
    assert view.read()[0, :, 0].tolist() == [0, 0, 12, 38, 62, 88, 100, 100]


def test_what_is_asked() -> None:
    source = Pyramid(np.zeros((64, 64, 1), np.uint8), (2,), mpp=0.5)
    assert at_scale(source, AS_STORED) is source
    assert at_scale(source, Scale(level=1)).shape == (32, 32, 1)
    assert at_scale(source, Scale(level=1)).mpp == 1.0
    assert at_scale(source, Scale(magnification=10)).shape == (32, 32, 1)
    assert at_scale(source, Scale(mpp=2.0, input_mpp=1.0)).shape == (32, 32, 1)
    assert at_scale(source, Scale(input_mpp=0.25)).mpp == 0.25
    assert isinstance(at_scale(source, Scale(mpp=1)), ImageSource)


def test_magnification_by_the_objective_where_there_is_no_mpp() -> None:
    source = Pyramid(np.zeros((64, 64, 1), np.uint8), ())
    source.magnification = 20.0
    assert at_scale(source, Scale(magnification=5)).shape == (16, 16, 1)
    with pytest.raises(InputError, match="--input-mpp"):
        at_scale(source, Scale(mpp=1.0), "a.svs")


def test_errors() -> None:
    source = Pyramid(np.zeros((8, 8, 1), np.uint8), (2,))
    with pytest.raises(InputError, match=r"a\.tif: does not state its microns.*--input-mpp"):
        at_scale(source, Scale(mpp=1.0), "a.tif")
    with pytest.raises(InputError, match="levels 0 to 1, not 2"):
        at_scale(source, Scale(level=2))
    with pytest.raises(ValueError, match="one of level, mpp and magnification"):
        Scale(level=1, mpp=1.0)
    with pytest.raises(ValueError, match="mpp must lie"):
        Scale(mpp=0.0)
    with pytest.raises(ValueError, match="counts from 0"):
        Scale(level=-1)


@pytest.mark.parametrize("levels", [(), (2, 4, 8)])
def test_thumbnail(levels: tuple[int, ...], rng: np.random.Generator) -> None:
    source = Pyramid(rng.integers(0, 256, (300, 400, 3)).astype(np.uint8), levels)
    small = thumbnail(source, 100)
    assert max(small.shape[:2]) == 100
    assert np.abs(small.astype(float) - source.read().reshape(75, 4, 100, 4, 3).mean((1, 3))).max() <= 1.0
    assert np.array_equal(thumbnail(source, 400), source.read())
