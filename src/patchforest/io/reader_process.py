"""The process that reads one file for ``isolate``, as its parent sees it: started, asked, held to its limits, ended.

Its answers are not trusted: a header in JSON and plain numbers, every size of which is checked. Nothing is unpickled.
"""

from __future__ import annotations

import fcntl
import json
import math
import os
import select
import signal
import subprocess
import sys
import time
import warnings
import weakref
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from patchforest.errors import InputError
from patchforest.io.reader_child import LENGTH, MAX_WARNINGS, too_much
from patchforest.values import Array

_BOOT = (
    "import json, signal, sys; [signal.signal(n, signal.SIG_IGN) for n in map(int, sys.argv[2].split())]; "
    "sys.path[:] = json.loads(sys.argv[1]); from patchforest.io.reader_child import serve; serve()"
)
_IGNORED = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)  # a signal to the group is the main process's business
_ENVIRONMENT = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "2"}
_START = 120.0  # seconds for imports, on a machine that is busy
_PIPE = 1 << 20
_MAX_HEADER = 1 << 20
_MAX_TEXT = 1000
_DTYPES = {np.dtype(code).str for code in ("?", "u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f2", "f4", "f8")}


class Gone(Exception):
    """The process has ended, or had to be; the text completes "<file>: ..."."""


class ReaderProcess:
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
        with suppress(AttributeError, OSError):  # no Linux, or not allowed: only slower
            fcntl.fcntl(self._answers, fcntl.F_SETPIPE_SZ, _PIPE)
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
            raise Gone(
                f"gave pixels {plain_text(header.get('shape'))} of {plain_text(header.get('dtype'))}, not {shape}"
            )
        dtype = np.dtype(header["dtype"])
        if math.prod(shape) * dtype.itemsize > most:
            raise Gone(too_much(most))
        out = np.empty(shape, dtype)
        self._fill(out.reshape(-1).view(np.uint8).data, deadline)
        return out

    def _send(self, order: dict[str, Any]) -> None:
        data = memoryview(json.dumps(order).encode() + b"\n")
        try:
            while data:
                data = data[os.write(self._orders, data) :]
        except OSError:
            raise Gone(self._how_it_ended()) from None

    def _header(self, seconds: float) -> dict[str, Any]:
        """The next header, its warnings given and its error raised."""
        deadline = time.monotonic() + seconds
        length = bytearray(LENGTH)
        self._fill(memoryview(length), deadline)
        size = int.from_bytes(length, "little")
        if size > _MAX_HEADER:
            raise Gone("was answered for with too long a header")
        text = bytearray(size)
        self._fill(memoryview(text), deadline)
        try:
            header = dict(json.loads(text))
            told, error = [plain_text(t) for t in header.get("warnings", ())][:MAX_WARNINGS], header.get("error")
            fault = None if error is None else InputError(*(plain_text(error[k]) for k in ("path", "what", "hint")))
        except (ValueError, TypeError, KeyError, RecursionError):
            raise Gone("was answered for with a damaged header") from None
        for text_of_warning in told:
            warnings.warn(text_of_warning, stacklevel=1)
        if fault is not None:
            raise fault
        return header

    def _fill(self, view: memoryview, deadline: float) -> None:
        """Reads as many bytes as the view has; Gone where they do not come."""
        poll = select.poll()
        poll.register(self._answers, select.POLLIN)
        while view:
            left = deadline - time.monotonic()
            if left <= 0 or not poll.poll(left * 1000):
                raise Gone(f"took longer than {self._seconds:g} seconds to be read, and was stopped")
            count = os.readv(self._answers, [view])
            if not count:
                raise Gone(self._how_it_ended())
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


def name_of(opener: Callable[..., Any]) -> dict[str, Any]:
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


def plain_text(text: Any) -> str:
    """Foreign text as it may be printed: no control characters, not too long."""
    return "".join(c if c.isprintable() else "?" for c in " ".join(str(text).split()))[:_MAX_TEXT]
