"""Images whose reading is a misfortune, for the tests of ``io.isolate``; opened in its other process."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from patchforest.errors import InputError
from patchforest.io.array import ArraySource

SOFT = {  # the process lives on
    "bug": "cannot be read .TypeError: no such thing",
    "memory": r"needs more than the 0.0625 GiB",
    "letters": r"a.x: holds \?\[31mred\?; see here",
}
HARD = {
    "SIGSEGV": "ended the process that read it by SIGSEGV",
    "exit": "exit code 3",
    "hang": "took longer than 1.5 seconds",
    "shape": r"gave pixels \[5, 5, 3\] of \|u1, not \(\d+, 130, 3\)",
    "dtype": "gave pixels .* of <c16",
    "garbage": "damaged header",
    "length": "too long a header",
}
KINDS = ("noise", *SOFT, *HARD)
PIXELS = np.random.default_rng(4).integers(0, 256, (90, 130, 3), dtype=np.uint8)


class Trap(ArraySource):
    """An image of which reading one of the first rows is a misfortune."""

    def read(self, level: int = 0, row: int = 0, *rest: Any) -> Any:
        found = _misfortune(KINDS[row], self._path) if row < len(KINDS) else None
        return super().read(level, row, *rest) if found is None else found


def trapped(path: Path, at_open: str = "") -> Trap:
    """The opener of most tests; it runs in the other process."""
    _misfortune(at_open, path)
    return Trap(PIXELS, path)


def _misfortune(kind: str, path: Path) -> Any:
    if kind in signal.Signals.__members__:
        os.kill(os.getpid(), signal.Signals[kind])
    elif kind == "exit":
        os._exit(3)
    elif kind == "hang":
        time.sleep(60)
    elif kind == "memory":
        np.ones(300 << 20, np.uint8)
    elif kind == "bug":
        raise TypeError("no such thing")
    elif kind == "shape":
        return PIXELS[:5, :5]
    elif kind == "dtype":
        return np.zeros((90 - KINDS.index(kind), 130, 3), "c16")
    elif kind == "garbage":
        for number in range(3, 12):
            try:
                os.write(number, b'\x0a\0\0\0\0\0\0\0{"shape":[]')
            except OSError:
                continue
    elif kind == "length":
        for number in range(3, 12):
            try:
                os.write(number, b"\xff" * 64)
            except OSError:
                continue
    elif kind == "noise":
        print("one line", flush=True)
        os.write(1, b"\xff" * 4096)
        os.write(2, b"\xff" * 4096)
    elif kind == "letters":
        raise InputError(path, "holds \x1b[31mred\x07", "see\nhere")
    return None


def lying(path: Path, **lies: Any) -> Trap:
    source = trapped(path)
    for name, value in lies.items():
        setattr(source, name, value)
    return source


def facts(path: Path) -> ArraySource:
    """An image whose pixels tell of the process in which it was opened."""
    import resource

    limits = resource.getrlimit(resource.RLIMIT_CORE)[0], resource.getrlimit(resource.RLIMIT_CPU)[0]
    return ArraySource(np.array([[os.getpid(), "torch" in sys.modules, *limits]], np.int64), path)


def read_trap(path: Path) -> list[np.ndarray]:
    """A reader for ``benchmarks/mutants.py``, which does what its file says."""
    kind = path.read_text()
    if kind == "signal":
        os.kill(os.getpid(), signal.SIGSEGV)
    elif kind == "hang":
        time.sleep(60)
    elif kind == "exception":
        raise KeyError("no such thing")
    elif kind == "lines":
        raise InputError("another file", "is bad", "")
    elif kind == "shape":
        raise AssertionError("(1, 2) of (2, 2)")
    elif kind == "memory":
        np.ones((1 << 30) + 1, np.uint8)
    elif kind == "noisy":
        os.write(2, b"libtiff: oh\n")
    elif kind == "refused":
        raise InputError(path, "is bad", "copy it again")
    return [np.zeros(9) if kind == "zeros" else np.array([0, 0, 1 + (kind in ("different", "unseen"))])]
