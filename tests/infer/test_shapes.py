"""Shapes: circles, balls, bars and boxes of known size, at any scale and angle; the table says what was measured."""

import math

import numpy as np
import pytest

from patchforest.infer.components import components_of
from patchforest.infer.shapes import diameter_of, orientations, shapes_of, table_header, table_lines
from patchforest.values import Array


def ellipse(long: float, short: float, degrees: float, side: int = 301) -> Array:
    """A filled ellipse of full axes ``long`` and ``short``, turned counter-clockwise as one sees it."""
    middle = side // 2
    up, right = -(np.arange(side)[:, None] - middle), np.arange(side)[None, :] - middle
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return ((right * c + up * s) / (long / 2)) ** 2 + ((up * c - right * s) / (short / 2)) ** 2 <= 1


def ball(radius: float, spacing: tuple[float, float, float] = (1, 1, 1)) -> Array:
    half = [math.ceil(radius / s) + 1 for s in spacing]
    grid = np.meshgrid(*(np.arange(-h, h + 1) * s for h, s in zip(half, spacing)), indexing="ij")
    return sum(g**2 for g in grid) <= radius**2


@pytest.mark.parametrize("degrees", [-75, -45, -10, 0, 20, 45, 60, 90])
def test_an_ellipse_has_its_axes_and_direction(degrees: int) -> None:
    found = components_of([ellipse(200, 80, degrees)])
    shapes = shapes_of(found)
    assert np.allclose(shapes.axes[0], [200, 80], rtol=0.005)
    assert shapes.elongation[0] == pytest.approx(2.5, rel=0.01)
    assert orientations(found)[0] == pytest.approx(degrees, abs=0.3)
    assert shapes.measure[0] == found.size[0]
    assert shapes.diameter[0] == pytest.approx(math.sqrt(200 * 80), rel=0.005)


@pytest.mark.parametrize(("radius", "within"), [(10, 0.05), (40.5, 0.02), (130, 0.01)])
def test_perimeters_of_circles(radius: float, within: float) -> None:
    shapes = shapes_of(components_of([ellipse(2 * radius, 2 * radius, 0)]))
    assert shapes.boundary[0] == pytest.approx(2 * math.pi * radius, rel=within)


@pytest.mark.parametrize("degrees", [0, 15, 22.5, 30, 45])
def test_perimeters_of_turned_squares_are_within_six_percent(degrees: float) -> None:
    up, right = -(np.arange(301)[:, None] - 150), np.arange(301)[None, :] - 150
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    square = np.maximum(np.abs(right * c + up * s), np.abs(up * c - right * s)) < 80.2
    assert shapes_of(components_of([square])).boundary[0] == pytest.approx(4 * 160.4, rel=0.06)


def test_a_scale_multiplies_lengths(rng: np.random.Generator) -> None:
    found = components_of([ellipse(60, 30, 30, 101)])
    plain, scaled = shapes_of(found), shapes_of(found, (0.25, 0.25))
    assert np.allclose(scaled.axes, plain.axes / 4)
    assert np.allclose(scaled.boundary, plain.boundary / 4)
    assert np.allclose(scaled.diameter, plain.diameter / 4)
    assert np.allclose(scaled.measure, plain.measure / 16)


@pytest.mark.parametrize("spacing", [(1, 1, 1), (3.0, 1.0, 0.5)])
def test_a_ball_is_a_ball_at_any_spacing(spacing: tuple[float, float, float]) -> None:
    found = components_of([ball(20, spacing)])
    shapes = shapes_of(found, spacing)
    assert np.allclose(shapes.axes[0], 40, rtol=0.02)
    assert shapes.diameter[0] == pytest.approx(40, rel=0.01)
    assert shapes.boundary[0] == pytest.approx(4 * math.pi * 400, rel=0.04)


def test_small_things() -> None:
    """A single pixel is a square of side 1; no direction is longer in a square."""
    found = components_of([np.pad(np.ones((1, 1), np.uint8), 1)])
    shapes = shapes_of(found)
    assert np.allclose(shapes.axes, 4 / math.sqrt(12))
    assert shapes.elongation[0] == pytest.approx(1)
    assert np.isnan(orientations(found)[0])
    assert orientations(components_of([np.ones((3, 1), np.uint8)]))[0] == 90
    assert str(orientations(components_of([np.ones((1, 3), np.uint8)]))[0]) == "0.0"  # not -0
    assert orientations(components_of([np.eye(5, dtype=np.uint8)], connectivity=8))[0] == pytest.approx(-45)
    assert diameter_of(np.array([math.pi]), 2)[0] == pytest.approx(2)
    assert diameter_of(np.array([math.pi / 6]), 3)[0] == pytest.approx(1)


def test_scales_that_do_not_fit_are_refused() -> None:
    found = components_of([np.ones((2, 2), np.uint8)])
    for scale in ((1.0,), (1.0, 1.0, 1.0), (0.0, 0.0), (1.0, 2.0), (math.nan, math.nan)):
        with pytest.raises(ValueError, match=r"scale|square"):
            shapes_of(found, scale)


@pytest.mark.parametrize("ndim", [2, 3])
def test_the_table_has_a_line_for_each_and_a_cell_for_each_name(rng: np.random.Generator, ndim: int) -> None:
    mask = np.zeros((6, 7, 9)[-ndim:], np.uint8)
    mask[(0,) * ndim], mask[..., -3:] = 2, 1
    found = components_of([mask])
    for scale in (None, (0.5,) * ndim):
        lines = [
            dict(zip(table_header(ndim), line, strict=True))
            for line in table_lines(found, scale=scale, names={1: "stone"})
        ]
        assert [line["id"] for line in lines] == ["1", "2"]
        assert [line["name"] for line in lines] == ["2", "stone"]
        assert [line["class"] for line in lines] == ["2", "1"]
        unit, physical = ("px", "um") if ndim == 2 else ("vx", "mm")
        assert [int(line[f"size_{unit}"]) for line in lines] == found.size.tolist()
        assert lines[1]["left"] == str(mask.shape[-1] - 3)
        assert lines[1]["width"] == "3"
        assert lines[1]["touches_border"] == lines[0]["extent"] == "1"
        cells = [line[f"{kind}_{physical}"] for line in lines for kind in ("diameter", "major", "minor")]
        assert all(cells) if scale else not any(cells)
        if scale:
            name = "area_um2" if ndim == 2 else "volume_mm3"
            assert [float(line[name]) for line in lines] == (found.size * 0.5**ndim).tolist()


def test_a_table_of_many_lines_goes_on_counting(rng: np.random.Generator) -> None:
    mask = np.zeros((200, 100), np.uint8)
    mask[::2, ::2] = 1
    lines = list(table_lines(components_of([mask]), scale=None, names={}))
    assert [int(line[0]) for line in lines] == list(range(1, 5001))
    assert list(lines[4999][5:7]) == ["198.000", "98.000"]
