"""Every exception that can end a command becomes one line and the right exit code."""

import errno

import pytest
import typer

from patchforest.cli import boundary
from patchforest.errors import InputError
from patchforest.values import ForestPolicy


def _raised(error: BaseException) -> BaseException:
    try:
        raise error
    except BaseException as caught:
        return caught


def _ours() -> ValueError:
    with pytest.raises(ValueError, match="exactly one") as caught:
        ForestPolicy()
    return caught.value


def _library() -> ValueError:
    with pytest.raises(ValueError) as caught:
        int("x")
    return caught.value


WORKER = (
    "Caught InputError in DataLoader worker process 0.\nOriginal Traceback (most recent call last):\n  File x\n"
    "patchforest.errors.InputError: a.png: is empty; copy it again\n"
)


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (InputError("a b.png", "is\nempty", "copy it"), 3, "a b.png: is empty; copy it"),
        (FileNotFoundError(errno.ENOENT, "No such file", "x.png"), 3, "x.png: No such file; check the path"),
        (PermissionError(errno.EACCES, "Permission denied", "x"), 3, "x: Permission denied; check who may"),
        (IsADirectoryError(errno.EISDIR, "Is a directory", "x"), 3, "x: Is a directory"),
        (OSError(errno.ENOSPC, "disk full (0 bytes free)", "out/x.png"), 5, "out/x.png: disk full"),
        (OSError(errno.ENOSPC, "No space left on device"), 5, "No space left"),
        (MemoryError(), 5, "out of memory"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: x\nframe 1"), 5, "out of memory"),
        (RuntimeError("CUDA out of memory. Tried"), 5, "out of memory"),
        (RuntimeError(WORKER), 3, "a.png: is empty; copy it again"),
        (ModuleNotFoundError("No module named 'lightning'", name="lightning.pytorch"), 3, "'patchforest[train]'"),
        (ModuleNotFoundError("No module named 'numpy'", name="numpy"), 3, "pip install 'patchforest'"),
        (ModuleNotFoundError("No module named", name="patchforest.nope"), 1, "bug"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (typer.Exit(4), 4, ""),
        (SystemExit(75), 75, ""),
        (SystemExit(), 0, ""),
        (typer.BadParameter("is wrong."), 2, "see `patchforest --help`"),
        (_ours(), 2, "exactly one"),
        (_library(), 1, "bug in patchforest: ValueError: invalid literal"),
        (ZeroDivisionError("a\nb"), 1, "--debug"),
        (OSError("odd"), 1, "bug"),
    ],
)
def test_code_and_line(error: BaseException, code: int, line: str) -> None:
    got_code, got_line = boundary.explain(error if error.__traceback__ else _raised(error))
    assert got_code == code
    assert line in got_line
    assert "\n" not in got_line
    assert "Traceback" not in got_line
