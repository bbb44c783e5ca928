"""Images and volumes read in a disposable process: a file of a stranger that kills, hangs or fills its reader harms
nothing else.

It is a fence against accidents of decoders, no jail: the process may read what its user may read. See
``reader_process`` for what is expected of its answers.
"""

from __future__ import annotations

import base64
import math
import os
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from patchforest.errors import InputError
from patchforest.io.array import window_of
from patchforest.io.open import open_image
from patchforest.io.orientation import Grid, placed_grid
from patchforest.io.reader_process import Gone, ReaderProcess, name_of, plain_text
from patchforest.io.volume import open_volume
from patchforest.io.volume_array import box_of
from patchforest.values import Array, ImageSource, VolumeSource

MEMORY = 2 << 30
"""Bytes that reading a file may take where the user does not say, beside the libraries that are loaded at first."""
SECONDS = 60.0
"""Seconds that opening it, or one read, may take."""

_AGAIN = "copy or export the file again"
_MAX_ENDS = 3  # processes that a file may cost before it is given up
_MAX_LEVELS = 64


def open_isolated(
    path: str | Path,
    *,
    memory: int = MEMORY,
    seconds: float = SECONDS,
    opener: Callable[..., ImageSource] = open_image,
) -> IsolatedImage:
    """The image that ``opener(path)`` gives, opened and read in a process of its own; see the module.

    Parameters
    ----------
    memory : bytes that it may take there.
    seconds : that opening, or one read, may take.
    opener : a function that a new process can import, or ``functools.partial`` of one with plain keyword arguments.

    Raises
    ------
    InputError
        As of ``opener``; the process ended by a signal, took too long or too much memory, or gave a senseless answer.
    ValueError
        Another kind of ``opener``.
    """
    return IsolatedImage(path, memory=memory, seconds=seconds, opener=opener)


def isolated_volume(
    path: str | Path,
    *,
    memory: int = MEMORY,
    seconds: float = SECONDS,
    opener: Callable[..., VolumeSource] = open_volume,
) -> IsolatedVolume:
    """As ``open_isolated``, for volumes."""
    return IsolatedVolume(path, memory=memory, seconds=seconds, opener=opener)


class _Isolated(ABC):
    """A file and its process, which is started anew where it is needed: in every process that reads, after it ended.

    Several threads may read at once; they take turns. A read that cost the process is not tried again, another one
    starts a new process, until three have ended.
    """

    def __init__(self, path: str | Path, *, memory: int, seconds: float, opener: Callable[..., Any]) -> None:
        self._path = Path(path)
        self._memory, self._seconds = memory, seconds
        self._opener = name_of(opener)
        self._lock = threading.Lock()
        self._process: ReaderProcess | None = None
        self._ends: list[str] = []
        self._about: dict[str, Any] | None = None
        with self._lock:
            try:
                self._running()
            except Gone as gone:
                raise InputError(self._path, str(gone), _AGAIN) from None
        try:
            self._take(self._about or {})
        except (LookupError, TypeError, ValueError, OverflowError) as fault:
            self.close()
            raise InputError(self._path, f"is described in a senseless way ({plain_text(fault)})", _AGAIN) from None

    def close(self) -> None:
        """Ends the process; a later read starts another."""
        with self._lock:
            self._end()

    def __getstate__(self) -> dict[str, object]:
        state = {**self.__dict__, "_process": None}
        del state["_lock"]
        return state

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)
        self._lock = threading.Lock()

    @abstractmethod
    def _take(self, about: dict[str, Any]) -> None:
        """Keep what the process says of the file, checked; any of the usual exceptions where it makes no sense."""

    def _pixels(self, arguments: tuple[Any, ...], shape: tuple[int, ...]) -> Array:
        """What the source's ``read`` gives for these arguments, of ``shape``."""
        with self._lock:
            try:
                return self._running().pixels(arguments, shape, self._memory)
            except Gone as gone:
                self._ends.append(str(gone))
                self._end()
                raise InputError(self._path, str(gone), _AGAIN) from None

    def _running(self) -> ReaderProcess:
        """The process, which has opened the file."""
        process = self._process
        if process is not None and process.owner == os.getpid():
            return process
        if len(self._ends) >= _MAX_ENDS:
            raise Gone(f"was given up after {_MAX_ENDS} attempts, the last of which {self._ends[-1]}")
        self._process = ReaderProcess(self._path, self._opener, self._memory, self._seconds)  # a parent's is left alone
        try:
            about = self._process.about()
            if about != (self._about or about):
                raise InputError(self._path, "has changed since it was opened", "open it again")
        except BaseException:
            self._end()
            raise
        self._about = about
        return self._process

    def _end(self) -> None:
        if self._process is not None:
            self._process.end()
            self._process = None


class IsolatedImage(_Isolated):
    """An ``ImageSource`` that another process reads."""

    shape: tuple[int, ...]
    levels: tuple[tuple[int, int], ...]
    mpp: float | None
    tile: tuple[int, int]
    magnification: float | None
    format: str

    def _take(self, about: dict[str, Any]) -> None:
        self.levels = tuple((height, width) for height, width in map(_sizes, about["levels"]))
        (channels,) = _sizes([about["channels"]])
        self.shape = (*self.levels[0], channels)
        rows, columns = _sizes(about["tile"])
        self.tile = min(rows, self.shape[0]), min(columns, self.shape[1])
        self.mpp, self.magnification = _positive(about["mpp"]), _positive(about["magnification"])
        self.format = plain_text(about["format"])
        if len(self.levels) > _MAX_LEVELS:
            raise ValueError(f"{len(self.levels)} levels")

    def read(
        self,
        level: int = 0,
        row: int = 0,
        column: int = 0,
        height: int | None = None,
        width: int | None = None,
    ) -> Array:
        """(height, width, C) as of the file's own reader."""
        row, column, height, width = window_of(self.levels, level, row, column, height, width)
        return self._pixels(
            tuple(map(int, (level, row, column, height, width))), (int(height), int(width), self.shape[2])
        )


class IsolatedVolume(_Isolated):
    """A ``VolumeSource`` that another process reads."""

    grid: Grid
    shape: tuple[int, int, int, int]
    format: str

    def _take(self, about: dict[str, Any]) -> None:
        first, second, third = _sizes(about["stored"])
        stored, nifti = (first, second, third), base64.b64decode(about["nifti"], validate=True)
        if about["affine"] is not None:
            self.grid = placed_grid(stored, np.asarray(about["affine"], np.float64), nifti=nifti)
        else:
            spacing = None if about["spacing"] is None else tuple(float(s) for s in about["spacing"])
            if spacing is not None and (len(spacing) != 3 or not all(math.isfinite(s) and s > 0 for s in spacing)):
                raise ValueError(f"spacing {spacing}")
            self.grid = Grid(stored, spacing=spacing, nifti=nifti)
        (channels,) = _sizes([about["channels"]])
        self.shape = (*self.grid.layout.shape(stored), channels)
        self.format = plain_text(about["format"])

    @property
    def spacing(self) -> tuple[float, float, float] | None:
        """Millimetres along (plane, row, column), or None."""
        return self.grid.shown_spacing

    @property
    def affine(self) -> Array | None:
        """(4, 4) float64: shown index to millimetres RAS, or None."""
        return self.grid.shown_affine

    def read(self, origin: tuple[int, int, int] = (0, 0, 0), shape: tuple[int, int, int] | None = None) -> Array:
        """(d, h, w, C) as of the file's own reader."""
        origin, shape = box_of(self.shape[:3], origin, shape)
        return self._pixels((origin, shape), (*shape, self.shape[3]))


def _sizes(values: Any) -> list[int]:
    """Whole numbers from 1 to 2^40; ValueError otherwise."""
    if any(not isinstance(v, int) or isinstance(v, bool) or not 1 <= v <= 1 << 40 for v in values):
        raise ValueError(f"sizes {str(values)[:60]}")
    return list(values)


def _positive(value: Any) -> float | None:
    if value is not None and not (isinstance(value, int | float) and math.isfinite(value) and value > 0):
        raise ValueError(f"scale {str(value)[:40]}")
    return None if value is None else float(value)
