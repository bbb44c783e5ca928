"""Windows that cover an image with overlap, and the weights that blend them without a seam."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from patchforest.errors import InputError
from patchforest.values import Array, Region

OVERLAP = 0.25
AUTO = 32
"""Images of more pixels than this many training windows are cut into windows when the choice is ``auto``.

Up to there one forest for the whole image gave the same Dice as windows on glas and hrf, and cost less."""

MEMORY = 2 << 30
"""Bytes that a prediction may hold at a time, beside the model and the libraries, where the user does not say."""
WINDOW_BYTES = 400
"""Bytes a pixel of a window that a network of the recipes holds at most (measured for apf_unetr with its stem)."""

_FINEST = 1 << 8
_FIXED = 64 << 20  # what else is read, enlarged and packed at a time


@dataclass(frozen=True)
class Grid:
    """Windows of one size in rows and columns, the last ones shifted inward, so that all lie within the ``frame``.

    Attributes
    ----------
    frame : (h, w) of the image.
    side : (h, w) of every window.
    rows, columns : first row and first column of the windows.
    """

    frame: tuple[int, int]
    side: tuple[int, int]
    rows: tuple[int, ...]
    columns: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.rows) * len(self.columns)

    def __iter__(self) -> Iterator[Region]:
        return (Region((row, column), self.side) for row in self.rows for column in self.columns)

    def row(self, number: int) -> Iterator[Region]:
        """The windows of one row of the grid, from left to right."""
        return (Region((self.rows[number], column), self.side) for column in self.columns)


def cover(shape: tuple[int, ...], window: str | int, trained: int | tuple[int, int]) -> Grid:
    """Windows that cover an image of ``shape`` and overlap by about a quarter.

    Parameters
    ----------
    window : ``"whole"``: one window; a number: squares of that side; ``"auto"``: one window up to 32 times
        the pixels of a training window, above that windows of the size the model was ``trained`` on.

    Raises
    ------
    ValueError : another word, or a side below 1.
    """
    trained = (trained, trained) if isinstance(trained, int) else trained
    if isinstance(window, str):
        if window not in ("auto", "whole"):
            raise ValueError(f"window must be 'auto', 'whole' or a side in pixels; got {window!r}")
        large = shape[0] * shape[1] > AUTO * trained[0] * trained[1]
        wanted = trained if window == "auto" and large else (shape[0], shape[1])
    else:
        wanted = (window, window)
    if min(wanted) < 1:
        raise ValueError(f"the side of a window must be at least 1 pixel; got {min(wanted)}")
    return tiles((shape[0], shape[1]), wanted)


def tiles(frame: tuple[int, int], side: tuple[int, int]) -> Grid:
    """Windows of at most ``side`` that cover a frame and overlap by about a quarter."""
    side = (min(side[0], frame[0]), min(side[1], frame[1]))
    rows, columns = (tuple(_starts(s, w)) for s, w in zip(frame, side))
    return Grid(frame, side, rows, columns)


def plan_grid(
    frame: tuple[int, int],
    window: str | int,
    trained: int | tuple[int, int],
    outputs: int,
    *,
    memory: int = MEMORY,
    values: float = 1.0,
    fixed: bool = False,
    path: str | Path = "image",
) -> Grid:
    """``cover`` within a memory: ``auto`` takes the whole image only where it fits, and where the network is no
    ``fixed`` one.

    Parameters
    ----------
    fixed : the network wants windows of the size it was ``trained`` on (``models.build.has_fixed_window``).
    values : written for a pixel of the frame: of the mask at the image's own size, and of probabilities.

    Raises InputError where a row of windows does not fit.
    """
    side = (trained, trained) if isinstance(trained, int) else trained
    small = frame[0] * frame[1] <= AUTO * side[0] * side[1]
    grid = cover(frame, window, trained)
    if window == "auto" and (fixed or (small and held_bytes(grid, outputs, values) > memory)):
        grid = tiles(frame, side)
    needed = held_bytes(grid, outputs, values)
    if needed > memory:
        what = f"needs about {(needed >> 20) + 1:,} MB at a time, and {memory >> 20:,} MB are allowed"
        raise InputError(path, what, "give --memory more, a smaller --window, or a coarser --mpp")
    return grid


def held_bytes(grid: Grid, outputs: int, values: float = 1.0) -> int:
    """About what a prediction by these windows holds: a row of answers, a window in the network, a part to write."""
    row = grid.side[0] * grid.frame[1]
    answers = (16 * outputs + 16) * row  # the sums, and on their way out their means
    return round(answers + WINDOW_BYTES * grid.side[0] * grid.side[1] + 1.5 * values * row) + _FIXED


def blend_weights(shape: tuple[int, ...]) -> Array:
    """(h, w) float32 in (0, 1]: 1 in the middle, falling smoothly over the overlap towards every side.

    Multiples of 2^-16, so that in float64 sums of float32 values times weights are exact: equal answers of overlapping
    windows blend to exactly that answer.
    """
    rows, columns = (_ramp(s) for s in shape)
    return (rows[:, None] * columns[None, :]).astype(np.float32)


def _starts(length: int, window: int) -> list[int]:
    steps = -(-(length - window) // max(round(window * (1 - OVERLAP)), 1))
    return [round(i * (length - window) / steps) for i in range(steps + 1)] if steps else [0]


def _ramp(length: int) -> Array:
    nearest = np.minimum(np.arange(length), np.arange(length)[::-1]) + 0.5
    reach = np.clip(nearest / max(OVERLAP * length, 1.0), 0.0, 1.0)
    return np.maximum(np.rint((0.5 - 0.5 * np.cos(np.pi * reach)) * _FINEST), 1.0) / _FINEST
