"""The process that reads one file for ``isolate``, from inside: it opens the file once its memory is limited, then
answers requests until its pipe is closed.
"""

from __future__ import annotations

import base64
import importlib
import json
import math
import mmap
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from patchforest.errors import InputError
from patchforest.values import ImageSource, VolumeSource

LENGTH = 8
"""Bytes in front of a header, which say how long it is."""
MAX_WARNINGS = 8
_AGAIN = "copy or export the file again"


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
            _write(answers, pixels.reshape(-1).view(np.uint8).data)


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
            what, hint = too_much(task["memory"]), "allow it more, if the file is what it should be"
            header["error"] = {"path": task["path"], "what": what, "hint": hint}
        except Exception as fault:  # whatever a reader raises on foreign bytes, it is the file's
            what = f"cannot be read ({type(fault).__name__}: {str(fault)[:120]})"
            header["error"] = {"path": task["path"], "what": what, "hint": _AGAIN}
    ours = [str(one.message) for one in given if one.filename.startswith(package)]
    data = json.dumps({**header, "warnings": ours[:MAX_WARNINGS]}).encode()
    _write(answers, memoryview(len(data).to_bytes(LENGTH, "little") + data))


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
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        with open("/proc/self/status") as file:
            lines = [line.split() for line in file if line.startswith(("VmData:", "VmSize:"))]
        held = {words[0][:-1]: int(words[1]) << 10 for words in lines}
    except (OSError, ValueError, IndexError):  # not Linux
        return
    most = held["VmData"] + memory
    resource.setrlimit(resource.RLIMIT_DATA, (most, most))
    try:
        mmap.mmap(-1, most, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS).close()
    except OSError:
        return
    most = held["VmSize"] + memory  # for a kernel that does not count what is mapped as data
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


def _limit_time(seconds: float) -> None:
    """A process whose parent is gone does not compute for ever."""
    import resource

    spent = resource.getrusage(resource.RUSAGE_SELF)
    soft = spent.ru_utime + spent.ru_stime + seconds * (os.cpu_count() or 1) + 2
    resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(soft), resource.getrlimit(resource.RLIMIT_CPU)[1]))


def too_much(memory: int) -> str:
    return f"needs more than the {memory / 2**30:.3g} GiB of memory that reading it may take"
