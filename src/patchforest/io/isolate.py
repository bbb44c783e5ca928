"""Images and volumes read in a disposable process: a file of a stranger that kills, hangs or fills its reader harms
nothing else.

The process opens one file, once its memory is limited, and then answers requests through a pipe. What it answers is
not trusted either: JSON and plain numbers, every size of which is checked; nothing is unpickled. It is a fence against
accidents of decoders, no jail: it may read what its user may read.
"""

from __future__ import annotations

import base64
import importlib
import json
import math
import os
import select
import signal
import subprocess
import sys
import threading
import time
import warnings
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from patchforest.errors import InputError
from patchforest.io.array import window_of
from patchforest.io.open import open_image
from patchforest.io.orientation import Grid, placed_grid
from patchforest.io.volume import open_volume
from patchforest.io.volume_array import box_of
from patchforest.values import Array, ImageSource, VolumeSource

MEMORY = 2 << 30
"""Bytes that reading a file may take where the user does not say, beside the libraries that are loaded at first."""
SECONDS = 60.0
"""Seconds that opening it, or one read, may take."""

_AGAIN = "copy or export the file again"
_BOOT = (
    "import json, signal, sys; [signal.signal(n, signal.SIG_IGN) for n in map(int, sys.argv[2].split())]; "
    "sys.path[:] = json.loads(sys.argv[1]); from patchforest.io.isolate import serve; serve()"
)
_IGNORED = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)  # a signal to the group is the main process's business
_ENVIRONMENT = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "2"}
_START = 120.0  # seconds for imports, on a machine that is busy
_MAX_HEADER = 1 << 20
_MAX_ENDS = 3  # processes that a file may cost before it is given up
_MAX_LEVELS = 64
_MAX_WARNINGS = 8
_MAX_TEXT = 1000
_LENGTH = 8  # bytes in front of a header
_DTYPES = {np.dtype(code).str for code in ("?", "u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f2", "f4", "f8")}


class _Gone(Exception):
    """The process has ended, or had to be; the text completes "<file>: ..."."""


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


class _Isolated:
    """A file and its process, which is started anew where it is needed: in every process that reads, after it ended.

    Several threads may read at once; they take turns. A read that cost the process is not tried again, another one
    starts a new process, until three have ended.
    """

    def __init__(self, path: str | Path, *, memory: int, seconds: float, opener: Callable[..., Any]) -> None:
        self._path = Path(path)
        self._memory, self._seconds = memory, seconds
        self._opener = _name_of(opener)
        self._lock = threading.Lock()
        self._process: _Process | None = None
        self._ends: list[str] = []
        self._about: dict[str, Any] | None = None
        with self._lock:
            try:
                self._running()
            except _Gone as gone:
                raise InputError(self._path, str(gone), _AGAIN) from None
        try:
            self._take(self._about or {})
        except (KeyError, TypeError, ValueError, OverflowError) as fault:
            self.close()
            raise InputError(self._path, f"is described in a senseless way ({_plain(fault)})", _AGAIN) from None

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

    def _take(self, about: dict[str, Any]) -> None:
        """Keep what the process says of the file, checked; any of the usual exceptions where it makes no sense."""
        raise NotImplementedError

    def _pixels(self, arguments: tuple[Any, ...], shape: tuple[int, ...]) -> Array:
        """What the source's ``read`` gives for these arguments, of ``shape``."""
        with self._lock:
            try:
                return self._running().pixels(arguments, shape, self._memory)
            except _Gone as gone:
                self._ends.append(str(gone))
                self._end()
                raise InputError(self._path, str(gone), _AGAIN) from None

    def _running(self) -> _Process:
        """The process, which has opened the file."""
        process = self._process
        if process is not None and process.owner == os.getpid():
            return process
        if len(self._ends) >= _MAX_ENDS:
            raise _Gone(f"was given up after {_MAX_ENDS} attempts, the last of which {self._ends[-1]}")
        self._process = _Process(self._path, self._opener, self._memory, self._seconds)  # a parent's is left alone
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
        self.format = _plain(about["format"])
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
            self.grid = Grid(stored, spacing=spacing, nifti=nifti)  # type: ignore[arg-type]
        (channels,) = _sizes([about["channels"]])
        self.shape = (*self.grid.layout.shape(stored), channels)
        self.format = _plain(about["format"])

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


class _Process:
    """One process at one file. It ends with ``end``, when nobody holds this, and with the interpreter."""

    def __init__(self, path: Path, opener: dict[str, Any], memory: int, seconds: float) -> None:
        self.owner = os.getpid()
        self._path, self._seconds, self._memory = path, seconds, memory
        ignored = " ".join(str(int(number)) for number in _IGNORED)
        self._process = subprocess.Popen(
            [sys.executable, "-c", _BOOT, json.dumps(sys.path), ignored],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            env={**os.environ, **_ENVIRONMENT},
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._orders, self._answers = self._process.stdin.fileno(), self._process.stdout.fileno()
        self.end = weakref.finalize(self, _end_process, self._process, self.owner)
        self._send({**opener, "path": str(path), "memory": memory, "seconds": seconds})
        self._header(_START)

    def about(self) -> dict[str, Any]:
        """What the file's source says of itself, once it is open."""
        self._send({"open": True})
        return dict(self._header(self._seconds)["about"])

    def pixels(self, arguments: tuple[Any, ...], shape: tuple[int, ...], most: int) -> Array:
        """What a read gives, (``shape``); at most ``most`` bytes, since the process had to hold them too."""
        deadline = time.monotonic() + self._seconds
        self._send({"read": arguments})
        header = self._header(self._seconds)
        if header.get("shape") != list(shape) or header.get("dtype") not in _DTYPES:
            raise _Gone(f"gave pixels {_plain(header.get('shape'))} of {_plain(header.get('dtype'))}, not {shape}")
        dtype = np.dtype(header["dtype"])
        if math.prod(shape) * dtype.itemsize > most:
            raise _Gone(_too_much(most))
        out = np.empty(shape, dtype)
        self._fill(memoryview(out.reshape(-1).view(np.uint8)), deadline)
        return out

    def _send(self, order: dict[str, Any]) -> None:
        data = memoryview(json.dumps(order).encode() + b"\n")
        try:
            while data:
                data = data[os.write(self._orders, data) :]
        except OSError:
            raise _Gone(self._how_it_ended()) from None

    def _header(self, seconds: float) -> dict[str, Any]:
        """The next header, its warnings given and its error raised."""
        deadline = time.monotonic() + seconds
        length = bytearray(_LENGTH)
        self._fill(memoryview(length), deadline)
        size = int.from_bytes(length, "little")
        if size > _MAX_HEADER:
            raise _Gone("was answered for with too long a header")
        text = bytearray(size)
        self._fill(memoryview(text), deadline)
        try:
            header = dict(json.loads(text))
            told, error = [_plain(t) for t in header.get("warnings", ())][:_MAX_WARNINGS], header.get("error")
            fault = None if error is None else InputError(*(_plain(error[k]) for k in ("path", "what", "hint")))
        except (ValueError, TypeError, KeyError, RecursionError):
            raise _Gone("was answered for with a damaged header") from None
        for text_of_warning in told:
            warnings.warn(text_of_warning, stacklevel=1)
        if fault is not None:
            raise fault
        return header

    def _fill(self, view: memoryview, deadline: float) -> None:
        """Reads as many bytes as the view has; _Gone where they do not come."""
        poll = select.poll()
        poll.register(self._answers, select.POLLIN)
        while view:
            left = deadline - time.monotonic()
            if left <= 0 or not poll.poll(left * 1000):
                raise _Gone(f"took longer than {self._seconds:g} seconds to be read, and was stopped")
            count = os.readv(self._answers, [view])
            if not count:
                raise _Gone(self._how_it_ended())
            view = view[count:]

    def _how_it_ended(self) -> str:
        try:
            code = self._process.wait(5)
        except subprocess.TimeoutExpired:
            return "made the process that read it close its pipe"
        if code == -signal.SIGXCPU:
            return f"took longer than {self._seconds:g} seconds to be read, and was stopped"
        try:
            name = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        except ValueError:
            name = f"signal {-code}"
        return f"ended the process that read it by {name}"


def _end_process(process: subprocess.Popen[bytes], owner: int) -> None:
    """Gone when this returns; in a process that inherited it, only its pipes are closed."""
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()
    if owner == os.getpid():
        process.kill()
        process.wait()
    else:
        process.returncode = 0  # it is no child of this process: nobody waits for it here


def _name_of(opener: Callable[..., Any]) -> dict[str, Any]:
    """Module, name and keyword arguments of a function, as JSON; ValueError where it has none."""
    keywords: dict[str, Any] = {}
    while isinstance(opener, partial) and not opener.args:
        keywords, opener = {**opener.keywords, **keywords}, opener.func
    module, name = getattr(opener, "__module__", None), getattr(opener, "__qualname__", None)
    if not module or module == "__main__" or not name or "<" in name or isinstance(opener, partial):
        raise ValueError(f"opener must be a function that a new process can import; got {opener!r}")
    try:
        json.dumps(keywords)
    except (TypeError, ValueError) as fault:
        raise ValueError(f"opener's keyword arguments must be plain values; got {keywords}") from fault
    return {"module": module, "name": name, "keywords": keywords}


def _sizes(values: Any) -> list[int]:
    """Whole numbers from 1 to 2^40; ValueError otherwise."""
    if any(not isinstance(v, int) or isinstance(v, bool) or not 1 <= v <= 1 << 40 for v in values):
        raise ValueError(f"sizes {str(values)[:60]}")
    return list(values)


def _positive(value: Any) -> float | None:
    if value is not None and not (isinstance(value, int | float) and math.isfinite(value) and value > 0):
        raise ValueError(f"scale {str(value)[:40]}")
    return None if value is None else float(value)


def _plain(text: Any) -> str:
    """Foreign text as it may be printed: no control characters, not too long."""
    return "".join(c if c.isprintable() else "?" for c in " ".join(str(text).split()))[:_MAX_TEXT]


def _too_much(memory: int) -> str:
    return f"needs more than the {memory / 2**30:.3g} GiB of memory that reading it may take"


def serve() -> None:
    """The life of the process: it opens one file and reads of it what it is told to, until its pipe is closed."""
    orders, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb", buffering=0)
    nothing = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):  # what libraries print must not get into the answers
        os.dup2(nothing, number)
    task = json.loads(orders.readline())
    with _told(answers, task) as header:
        function = importlib.import_module(task["module"])
        for name in task["name"].split("."):
            function = getattr(function, name)
        _limit_memory(task["memory"])
        header["ready"] = True
    source: Any = None
    for line in orders:
        order = json.loads(line)
        _limit_time(task["seconds"])
        with _told(answers, task) as header:
            if source is None:
                source = function(Path(task["path"]), **task["keywords"])  # type: ignore[operator]
                header["about"] = _volume(source) if isinstance(source, VolumeSource) else _image(source)
            else:
                pixels = np.ascontiguousarray(source.read(*order["read"]))
                header.update(shape=pixels.shape, dtype=pixels.dtype.str)
        if "shape" in header and "error" not in header:
            _write(answers, memoryview(pixels.reshape(-1).view(np.uint8)))


@contextmanager
def _told(answers: BinaryIO, task: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A header to be filled, which is sent at the end, with the warnings given meanwhile, or with the error."""
    header: dict[str, Any] = {}
    package = str(Path(__file__).parents[1])
    with warnings.catch_warnings(record=True) as given:
        warnings.simplefilter("always")
        try:
            yield header
        except InputError as fault:
            header["error"] = {"path": fault.path, "what": fault.what, "hint": fault.hint}
        except MemoryError:
            what, hint = _too_much(task["memory"]), "allow it more, if the file is what it should be"
            header["error"] = {"path": task["path"], "what": what, "hint": hint}
        except Exception as fault:  # whatever a reader raises on foreign bytes, it is the file's
            what = f"cannot be read ({type(fault).__name__}: {str(fault)[:120]})"
            header["error"] = {"path": task["path"], "what": what, "hint": _AGAIN}
    ours = [str(one.message) for one in given if one.filename.startswith(package)]
    data = json.dumps({**header, "warnings": ours[:_MAX_WARNINGS]}).encode()
    _write(answers, memoryview(len(data).to_bytes(_LENGTH, "little") + data))


def _write(file: BinaryIO, data: memoryview) -> None:
    while data:
        data = data[file.write(data) :]


def _image(source: ImageSource) -> dict[str, Any]:
    return {
        "levels": source.levels,
        "channels": source.shape[2],
        "tile": source.tile,
        "mpp": source.mpp,
        "magnification": getattr(source, "magnification", None),
        "format": getattr(source, "format", "image"),
    }


def _volume(source: Any) -> dict[str, Any]:
    grid = source.grid
    return {
        "stored": grid.shape,
        "channels": source.shape[3],
        "affine": None if grid.affine is None else grid.affine.tolist(),
        "spacing": grid.spacing,
        "nifti": base64.b64encode(grid.nifti).decode(),
        "format": source.format,
    }


def _limit_memory(memory: int) -> None:
    """Memory that can be written to, beside what is held now; files that are mapped do not count."""
    import mmap
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        with open("/proc/self/status") as file:
            held = {key: int(rest.split()[0]) << 10 for key, _, rest in (line.partition(":") for line in file) if "Vm" in key}
    except (OSError, ValueError, IndexError):  # no Linux
        return
    resource.setrlimit(resource.RLIMIT_DATA, (held["VmData"] + memory,) * 2)
    try:
        mmap.mmap(-1, memory + held["VmData"], flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS).close()
    except OSError:
        return
    resource.setrlimit(resource.RLIMIT_AS, (held["VmSize"] + memory,) * 2)  # a kernel that does not count maps as data


def _limit_time(seconds: float) -> None:
    """A process whose parent is gone does not compute for ever."""
    import resource

    spent = resource.getrusage(resource.RUSAGE_SELF)
    soft = spent.ru_utime + spent.ru_stime + seconds * (os.cpu_count() or 1) + 2
    resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(soft), resource.getrlimit(resource.RLIMIT_CPU)[1]))
