"""Large images whose class is told by a few small marks: classification in which what matters is hard to find.

Quiet, textured tissue with some marks of two dozen pixels on it. The class decides the pattern *inside* a few of them
(rings or spokes); the others, of patterns that mean nothing, lie in images of every class. Marks of all patterns are
discs, covered by half, of one colour: neither their outline nor the mean colour of anything tells a class, and what is
averaged over a mark is the same for all. ``noise`` hides the marks in strong texture: edges are everywhere, a forest
degenerates to the uniform grid, and adaptive patches gain nothing. That is the honest worst case.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from patchforest.data.synthetic import case_seed
from patchforest.errors import InputError
from patchforest.io.atomic import write_text
from patchforest.io.write import write_image
from patchforest.values import Array

NEEDLE_CLASSES = ("rings", "spokes")
TILE = 256
TARGETS = "targets.csv"

_TISSUE = np.array([222.0, 178.0, 206.0], np.float32)
_MARK = np.array([96.0, 62.0, 138.0], np.float32)
_OCTAVES = ((128, 10.0), (32, 5.0), (8, 2.5))
"""(period in pixels, standard deviation in grey levels) of the smooth parts of the texture."""
_GRAIN = 2.0
_FINE = 3
_FACTORS = (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB)


@dataclass(frozen=True)
class Mark:
    """One mark.

    Attributes
    ----------
    pattern : a key of ``PATTERNS``.
    evidence : whether its pattern is that of the image's class.
    centre : (row, column) in pixels.
    radius : in pixels.
    turn : angle in radians.
    strength : how much of its colour covers the tissue, up to 1.
    """

    pattern: str
    evidence: bool
    centre: tuple[float, float]
    radius: float
    turn: float
    strength: float


class NeedleImage:
    """An image of the task, made where it is looked at: any window, the same pixels whatever the window.

    An ``ImageSource`` of one level, RGB uint8, without a physical scale.

    Parameters
    ----------
    side : of the square image in pixels, at least 64.
    label : class number, see ``NEEDLE_CLASSES``.
    seed : of everything else: the two classes of one seed differ in the patterns of the evidence alone.
    evidence : marks of the class.
    distractors : smallest and largest number of marks that mean nothing.
    diameter : smallest and largest of all marks, in pixels.
    noise : standard deviation of strong fine texture in grey levels; 0 for quiet tissue, 40 for the worst case.
    """

    def __init__(
        self,
        side: int,
        label: int,
        *,
        seed: int,
        evidence: int = 4,
        distractors: tuple[int, int] = (6, 10),
        diameter: tuple[float, float] = (24.0, 32.0),
        noise: float = 0.0,
    ) -> None:
        if not 0 <= label < len(NEEDLE_CLASSES):
            raise ValueError(f"label must be 0 to {len(NEEDLE_CLASSES) - 1}; got {label}")
        if side < 64 or seed < 0 or noise < 0 or evidence < 0 or not 0 <= distractors[0] <= distractors[1]:
            raise ValueError(
                "side must be at least 64; seed, noise, evidence and distractors (smallest, largest) not negative; got "
                f"{side}, {seed}, {noise}, {evidence}, {distractors}"
            )
        if not 4 <= diameter[0] <= diameter[1] <= side / 2:
            raise ValueError(f"diameter must be (smallest, largest), 4 to side / 2 pixels; got {diameter}")
        self.label, self._seed, self._noise = label, seed, np.float32(noise)
        self.shape = (side, side, 3)
        self.levels = ((side, side),)
        self.mpp: float | None = None
        self.tile = (min(TILE, side), min(TILE, side))
        self.marks = _place_marks(side, label, seed, evidence, distractors, diameter)

    def read(
        self, level: int = 0, row: int = 0, column: int = 0, height: int | None = None, width: int | None = None
    ) -> Array:
        """Pixels (height, width, 3) uint8 of a window; up to the far corner where no size is given."""
        side = self.shape[0]
        height, width = side - row if height is None else height, side - column if width is None else width
        inside = 0 <= row <= row + height <= side and 0 <= column <= column + width <= side
        if level != 0 or not inside or min(height, width) < 1:
            raise ValueError(f"no window {height} × {width} at ({row}, {column}) of level {level} in {self.shape}")
        out = np.empty((height, width, 3), np.uint8)
        for top in range(row // TILE * TILE, row + height, TILE):
            for left in range(column // TILE * TILE, column + width, TILE):
                rows = slice(max(row, top), min(row + height, top + TILE))
                columns = slice(max(column, left), min(column + width, left + TILE))
                tile = self._tile(top, left)[rows.start - top : rows.stop - top, columns.start - left :]
                there = (slice(rows.start - row, rows.stop - row), slice(columns.start - column, columns.stop - column))
                out[there] = tile[:, : columns.stop - columns.start]
        return out

    def _tile(self, top: int, left: int) -> Array:
        """(TILE, TILE, 3) uint8: tissue, marks and grain of one tile."""
        pixels = np.broadcast_to(_TISSUE, (TILE, TILE, 3)).copy()
        for number, (period, spread) in enumerate(_OCTAVES):
            for channel in range(3):  # mostly of one sign in all channels, a little of each channel's own
                own = _smooth((self._seed, number, channel + 1), top, left, period)
                pixels[..., channel] += np.float32(spread / 3) * own
            pixels += np.float32(spread) * _smooth((self._seed, number, 0), top, left, period)[..., None]
        for mark in self.marks:
            _draw(pixels, mark, top, left)
        grain = _lattice((self._seed, 100, 0), top, left, TILE, TILE)
        pixels += (np.float32(_GRAIN) * grain)[..., None]
        if self._noise:
            pixels += (self._noise * _smooth((self._seed, 101, 0), top, left, 2))[..., None]
        return np.clip(np.rint(pixels), 0, 255).astype(np.uint8)


def _rings(r: Array, angle: Array) -> Array:
    """A disc and a ring around it: four annuli of equal area, every other one covered."""
    return (np.floor(4 * r * r) % 2 == 0) & (r < 1)


def _spokes(r: Array, angle: Array) -> Array:
    """Four spokes: eight sectors of equal area, every other one covered."""
    return (np.floor(angle / (np.pi / 4)) % 2 == 0) & (r < 1)


def _halves(r: Array, angle: Array) -> Array:
    """One half of the disc."""
    return (np.sin(angle) > 0) & (r < 1)


def _veil(r: Array, angle: Array) -> Array:
    """The whole disc, half as strong."""
    return 0.5 * (r < 1)


PATTERNS: dict[str, Callable[[Array, Array], Array]] = {
    "rings": _rings, "spokes": _spokes, "halves": _halves, "veil": _veil,
}  # fmt: skip
DISTRACTORS = ("halves", "veil")


def write_needle(
    folder: str | Path,
    count: int,
    side: int,
    *,
    seed: int,
    evidence: int = 4,
    distractors: tuple[int, int] = (6, 10),
    diameter: tuple[float, float] = (24.0, 32.0),
    noise: float = 0.0,
) -> Path:
    """``folder`` with images/ and targets.csv (``id``, ``class``), which ``data.targets`` reads; returns the folder.

    Classes take turns. Image k depends on its settings, seed and k alone. ``targets.csv`` is written last, so a folder
    that has it is whole: then nothing is made again.

    Parameters
    ----------
    others : of ``NeedleImage``.

    Raises
    ------
    ValueError : count below 1, and what ``NeedleImage`` refuses.
    InputError : the folder holds targets of another data set.
    """
    folder = Path(folder)
    if count < 1:
        raise ValueError(f"count must be at least 1; got {count}")
    names = [f"needle_{k:04d}" for k in range(count)]
    rows = [f"{name},{NEEDLE_CLASSES[k % 2]}" for k, name in enumerate(names)]
    told = f"needle side {side} seed {seed} marks {evidence} {distractors} {diameter} noise {noise:g}"
    table = "\n".join(["id,class,made", *(f'{row},"{told}"' for row in rows)]) + "\n"
    if (folder / TARGETS).exists():
        if (folder / TARGETS).read_text(encoding="utf-8") == table:
            return folder
        raise InputError(folder / TARGETS, "is of another data set", "choose an empty folder")
    for k, name in enumerate(names):
        image = NeedleImage(
            side,
            k % 2,
            seed=case_seed(seed, k),
            evidence=evidence,
            distractors=distractors,
            diameter=diameter,
            noise=noise,
        )
        write_image(folder / "images" / f"{name}.png", image.read())
    write_text(folder / TARGETS, table)
    return folder


def _place_marks(
    side: int, label: int, seed: int, evidence: int, distractors: tuple[int, int], diameter: tuple[float, float]
) -> tuple[Mark, ...]:
    """Marks that do not touch, in a random order; ValueError where there is no room for them."""
    rng = np.random.default_rng([seed, side])
    idle = int(rng.integers(distractors[0], distractors[1] + 1))
    marks: list[Mark] = []
    for number in range(evidence + idle):
        radius = float(rng.uniform(*diameter)) / 2
        for _ in range(1000):
            row, column = rng.uniform(radius + 2, side - radius - 2, 2)
            gaps = [np.hypot(row - m.centre[0], column - m.centre[1]) - m.radius - radius for m in marks]
            if min(gaps, default=np.inf) > 4:
                break
        else:
            raise ValueError(f"no room for {evidence + idle} marks of {diameter} pixels in {side}² pixels; use fewer")
        turn, strength = float(rng.uniform(0, 2 * np.pi)), float(rng.uniform(0.7, 1.0))
        other = DISTRACTORS[int(rng.integers(len(DISTRACTORS)))]
        pattern = NEEDLE_CLASSES[label] if number < evidence else other
        marks.append(Mark(pattern, number < evidence, (float(row), float(column)), radius, turn, strength))
    return tuple(marks)


def _draw(pixels: Array, mark: Mark, top: int, left: int) -> None:
    """Cover what a mark covers of a tile, by the share of each pixel that it covers (on 3 × 3 points)."""
    reach = mark.radius + 1
    first = [max(int(c - reach) - o, 0) for c, o in zip(mark.centre, (top, left))]
    last = [min(int(c + reach) + 2 - o, TILE) for c, o in zip(mark.centre, (top, left))]
    if first[0] >= last[0] or first[1] >= last[1]:
        return
    rows, columns = (
        (np.arange(a * _FINE, b * _FINE) + 0.5) / _FINE + o - c
        for a, b, o, c in zip(first, last, (top, left), mark.centre)
    )
    r = np.hypot(rows[:, None], columns[None, :]) / mark.radius
    angle = (np.arctan2(rows[:, None], columns[None, :]) + mark.turn) % (2 * np.pi)
    fine = PATTERNS[mark.pattern](r, angle).astype(np.float32)
    cover = fine.reshape(last[0] - first[0], _FINE, last[1] - first[1], _FINE).mean((1, 3)) * np.float32(mark.strength)
    part = pixels[first[0] : last[0], first[1] : last[1]]
    part += cover[..., None] * (_MARK - part)


def _smooth(key: tuple[int, int, int], top: int, left: int, period: int) -> Array:
    """(TILE, TILE) float32 of unit variance or a little less, linear between random values ``period`` pixels apart."""
    count = TILE // period + 1
    values = _lattice(key, top // period, left // period, count, count)
    at = (np.arange(TILE) + 0.5) / period
    base = at.astype(int)
    weight: Array = np.zeros((TILE, count), np.float32)
    weight[np.arange(TILE), base] = 1 - (at - base)
    weight[np.arange(TILE), base + 1] = at - base
    return 1.5 * (weight @ values @ weight.T)


def _lattice(key: tuple[int, int, int], row: int, column: int, height: int, width: int) -> Array:
    """(height, width) float32 of zero mean and unit variance, each a hash of the key and its own place."""
    start = np.random.SeedSequence(key).generate_state(1, np.uint64)[0]
    a, b, c = (np.uint64(f) for f in _FACTORS)
    with np.errstate(over="ignore"):
        rows = (np.arange(row, row + height, dtype=np.uint64) + start) * a
        rows = (rows ^ (rows >> np.uint64(30))) * b
        x = (rows[:, None] + np.arange(column, column + width, dtype=np.uint64)[None, :]) * a
        x = (x ^ (x >> np.uint64(30))) * b
        x = (x ^ (x >> np.uint64(27))) * c
        x ^= x >> np.uint64(31)
    return ((x >> np.uint64(40)).astype(np.float32) / np.float32(1 << 24) - np.float32(0.5)) * np.float32(12**0.5)
