"""The one place where exceptions become exit codes and a single line of text.

0 all well · 1 a bug of ours · 2 wrong usage · 3 bad input · 4 finished, some items failed · 5 disk or memory full
75 pre-empted, run the same command again · 130 interrupted
"""

from __future__ import annotations

import errno
import re
from pathlib import Path

import typer

from patchforest.errors import InputError

OK, BUG, USAGE, BAD_INPUT, SOME_FAILED, RESOURCES, INTERRUPTED = 0, 1, 2, 3, 4, 5, 130

EXTRA_OF = {
    "lightning": "train", "tensorboard": "train", "torchmetrics": "train",
    "dask": "cluster", "distributed": "cluster",
    "nibabel": "volumes", "nrrd": "volumes", "pydicom": "volumes",
    "zarr": "wsi", "openslide": "wsi", "openslide_bin": "wsi",
}  # fmt: skip
"""Which install extra brings a module that is imported only where it is needed."""

_CLICK_ERROR = next(c for c in typer.BadParameter.__mro__ if c.__name__ == "ClickException")
_PACKAGE = str(Path(__file__).resolve().parents[1])
_FULL = (errno.ENOSPC, errno.EDQUOT)
_NO_MEMORY = re.compile(r"out of memory|can't allocate memory|insufficient memory|unable to allocate", re.IGNORECASE)
_FROM_WORKER = re.compile(r"Caught \w+ in DataLoader worker.*patchforest\.errors\.InputError: (?P<line>.+)", re.DOTALL)


def explain(error: BaseException) -> tuple[int, str]:
    """(exit code, one line without ``error:``) for anything that ends a command; no line for a plain exit."""
    code, text = _explain(error)
    return code, " ".join(text.split())


def _explain(error: BaseException) -> tuple[int, str]:
    if isinstance(error, SystemExit):
        return (error.code if isinstance(error.code, int) else OK if error.code is None else BUG), ""
    if isinstance(error, typer.Exit):
        return error.exit_code, ""
    if isinstance(error, KeyboardInterrupt | typer.Abort):
        return INTERRUPTED, "interrupted"
    if isinstance(error, _CLICK_ERROR):
        return _usage(error)
    if isinstance(error, InputError):
        return BAD_INPUT, str(error)
    if isinstance(error, ModuleNotFoundError):
        return _missing_module(error)
    if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and _NO_MEMORY.search(str(error))):
        return RESOURCES, f"out of memory ({_first_line(error)}); use a smaller window, batch or budget, or more memory"
    if isinstance(error, OSError) and (error.errno in _FULL or error.filename is not None):
        return _file_fault(error)
    if from_worker := _FROM_WORKER.search(str(error)):
        return BAD_INPUT, from_worker["line"].strip().splitlines()[-1]
    if isinstance(error, ValueError) and _raised_by_us(error):
        return USAGE, str(error)
    if type(error).__mro__[1] is RuntimeError and _raised_by_us(error):  # a run that cannot go on, such as diverged
        return BUG, str(error)
    return BUG, (
        f"this is a bug in patchforest: {type(error).__name__}: {_first_line(error)}; "
        "run it again with --debug and report the traceback"
    )


def _usage(error: BaseException) -> tuple[int, str]:
    context = getattr(error, "ctx", None)
    command = context.command_path if context is not None else "patchforest"
    return USAGE, f"{error.format_message().rstrip('.')}; see `{command} --help`"  # type: ignore[attr-defined]


def _missing_module(error: ModuleNotFoundError) -> tuple[int, str]:
    module = (error.name or "").split(".")[0]
    if module == "patchforest":
        return BUG, f"this is a bug in patchforest: {error}; run it again with --debug and report the traceback"
    extra = f"[{EXTRA_OF[module]}]" if module in EXTRA_OF else ""
    return BAD_INPUT, f"{module}: is not installed; run: pip install 'patchforest{extra}'"


def _file_fault(error: OSError) -> tuple[int, str]:
    path, reason = error.filename, error.strerror or str(error)
    if error.errno in _FULL:
        return RESOURCES, f"{path or 'output'}: {reason}; free some disk space and run the same command again"
    hint = {
        errno.ENOENT: "check the path",
        errno.EACCES: "check who may read or write it",
        errno.EPERM: "check who may read or write it",
    }.get(error.errno or 0, "check the file and its disk")
    return BAD_INPUT, f"{path}: {reason}; {hint}"


def _raised_by_us(error: BaseException) -> bool:
    """Whether the innermost frame is our code: such a ValueError says what was given and what fits (house style)."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace is not None and trace.tb_frame.f_code.co_filename.startswith(_PACKAGE)


def _first_line(error: BaseException) -> str:
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
