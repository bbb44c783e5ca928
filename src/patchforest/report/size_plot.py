"""A picture of how large components are: histogram and gradation curve side by side, without a plotting library."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from patchforest.infer.gradation import Gradation
from patchforest.io.write import write_image
from patchforest.report.palette import class_colours
from patchforest.values import Array

_WIDTH, _HEIGHT = 680, 460
_LEFT, _RIGHT, _TOP, _BOTTOM = 74, 24, 44, 64
_INK, _SOFT, _LINE, _PAPER = (28, 35, 48), (92, 102, 118), (221, 226, 234), (255, 255, 255)
_NUM_BINS = 40
_MAX_KEYS = 12
_WORDS = {"um": "microns", "mm": "mm", "px": "pixels", "vx": "voxels"}

Place = Callable[[float, float], tuple[float, float]]


def write_size_plot(path: str | Path, grades: Sequence[Gradation]) -> None:
    """``path`` (PNG) holds the picture of ``draw_sizes``; errors as ``io.write.write_image``."""
    write_image(path, draw_sizes(grades))


def draw_sizes(grades: Sequence[Gradation]) -> Array:
    """(H, W, 3) uint8: one row of panels for images, one for volumes, over equivalent diameter on a logarithmic axis.

    Left: how many components of each class there are in bins of equal ratio (logarithmic count). Right: the share of
    all area or volume in components up to a diameter, the curve of a sieve analysis. Classes have the colours of masks.
    """
    rows = [[g for g in grades if g.ndim == ndim and len(g)] for ndim in (2, 3)]
    panels = [np.hstack([_histogram(row), _passing(row)]) for row in rows if row]
    return np.vstack(panels or [_empty()])


def length_text(length: float | None) -> str:
    """A length with four digits and never a power of ten; a dash for none."""
    if length is None:
        return "–"
    return f"{length:,.0f}" if length >= 1000 else f"{length:.4g}"


def _histogram(grades: Sequence[Gradation]) -> Array:
    low, high = _span(grades)
    edges = np.geomspace(low, high, _NUM_BINS + 1)
    counts = [np.histogram(np.clip(g.diameter, low, high), edges)[0] for g in grades]
    top = 10.0 ** math.ceil(math.log10(max(int(c.max()) for c in counts)) + 1e-9)
    image, draw, place = _panel("Components", _x_title(grades), (low, high), (0.8, top), log=True)
    for grade, count in zip(grades, counts, strict=True):
        points = []
        for left, right, value in zip(edges[:-1], edges[1:], count.tolist(), strict=True):
            points += [place(left, max(value, 0.8)), place(right, max(value, 0.8))]
        draw.line(points, fill=_colour(grade), width=3)
    _key(draw, [(f"{g.name}: {len(g):,}", _colour(g)) for g in grades])
    return np.asarray(image)


def _passing(grades: Sequence[Gradation]) -> Array:
    low, high = _span(grades)
    kind = "area" if grades[0].ndim == 2 else "volume"
    image, draw, place = _panel(f"Share of {kind} up to a diameter, %", _x_title(grades), (low, high), (0, 100))
    for grade in grades:
        at = np.unique(np.linspace(0, len(grade) - 1, 2000).astype(int))  # as many as one can see
        share = np.cumsum(grade.measure)
        share = 100 * share / share[-1]
        points, before = [place(low, 0)], 0.0
        for diameter, percent in zip(grade.diameter[at].tolist(), share[at].tolist(), strict=True):
            points += [place(diameter, before), place(diameter, percent)]
            before = percent
        draw.line([*points, place(high, 100)], fill=_colour(grade), width=3)
    _key(draw, [(f"{g.name}: D50 {length_text(g.by_measure(50))}", _colour(g)) for g in grades])
    return np.asarray(image)


def _panel(
    title: str, x_title: str, x: tuple[float, float], y: tuple[float, float], *, log: bool = False
) -> tuple[Image.Image, ImageDraw.ImageDraw, Place]:
    """An empty chart with its axes, and the function from values to pixels."""
    image = Image.new("RGB", (_WIDTH, _HEIGHT), _PAPER)
    draw = ImageDraw.Draw(image)

    def place(across: float, up: float) -> tuple[float, float]:
        share = math.log(across / x[0]) / math.log(x[1] / x[0])
        rise = math.log(up / y[0]) / math.log(y[1] / y[0]) if log else (up - y[0]) / (y[1] - y[0])
        return _LEFT + share * (_WIDTH - _LEFT - _RIGHT), _HEIGHT - _BOTTOM - rise * (_HEIGHT - _TOP - _BOTTOM)

    small, large = ImageFont.load_default(14), ImageFont.load_default(17)
    draw.text((_LEFT, 14), title, fill=_INK, font=large)
    for tick in _round_numbers(*y) if log else range(0, 101, 20):
        _, height = place(x[0], tick)
        draw.line([(_LEFT, height), (_WIDTH - _RIGHT, height)], fill=_LINE)
        draw.text((_LEFT - 8, height), f"{tick:g}", fill=_SOFT, font=small, anchor="rm")
    for tick in _round_numbers(*x):
        across, _ = place(tick, y[1])
        draw.line([(across, _TOP), (across, _HEIGHT - _BOTTOM)], fill=_LINE)
        draw.text((across, _HEIGHT - _BOTTOM + 8), f"{tick:g}", fill=_SOFT, font=small, anchor="mt")
    draw.text((_WIDTH - _RIGHT, _HEIGHT - 14), x_title, fill=_SOFT, font=small, anchor="rs")
    return image, draw, place


def _key(draw: ImageDraw.ImageDraw, entries: Sequence[tuple[str, tuple[int, ...]]]) -> None:
    """Names of the classes with a swatch each, at the upper left."""
    font = ImageFont.load_default(14)
    shown = list(entries[:_MAX_KEYS])
    if len(entries) > _MAX_KEYS:
        shown.append((f"and {len(entries) - _MAX_KEYS} more", _PAPER))
    for k, (text, colour) in enumerate(shown):
        top = _TOP + 8 + 20 * k
        draw.rectangle([_LEFT + 10, top, _LEFT + 24, top + 12], fill=colour)
        draw.text((_LEFT + 32, top + 6), text, fill=_INK, font=font, anchor="lm")


def _round_numbers(low: float, high: float) -> list[float]:
    """1, 2, 5, 10, 20, ... between two numbers; powers of ten alone where those are many already."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    steps = (1,) if len(powers) > 4 else (1, 2, 5)
    return [m * 10.0**p for p in powers for m in steps if low <= m * 10.0**p <= high]


def _span(grades: Sequence[Gradation]) -> tuple[float, float]:
    """Smallest and largest diameter, with a little room."""
    low, high = min(float(g.diameter[0]) for g in grades), max(float(g.diameter[-1]) for g in grades)
    return low / 1.1, high * 1.1


def _x_title(grades: Sequence[Gradation]) -> str:
    body = "circle" if grades[0].ndim == 2 else "ball"
    return f"diameter of a {body} of equal {'area' if body == 'circle' else 'volume'}, {_WORDS[grades[0].unit]}"


def _colour(grade: Gradation) -> tuple[int, ...]:
    return tuple(_colours(1 << grade.value.bit_length())[grade.value].tolist())


@cache
def _colours(num_classes: int) -> Array:
    return class_colours(num_classes)


def _empty() -> Array:
    image = Image.new("RGB", (2 * _WIDTH, _HEIGHT), _PAPER)
    text = "no component"
    ImageDraw.Draw(image).text((_WIDTH, _HEIGHT / 2), text, fill=_SOFT, font=ImageFont.load_default(17), anchor="mm")
    return np.asarray(image)
