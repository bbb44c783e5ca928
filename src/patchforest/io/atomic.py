"""Files that are whole or absent: the one place of this package that puts bytes on a disk.

Everything goes through :func:`atomic_path`: a temporary file beside the target, fsync, rename, fsync of the folder. A
process killed at any moment leaves the old file or the new one, and at most a leftover temporary file, which
:func:`remove_leftovers` finds (its writer held a kernel lock on it, which dies with the writer). POSIX only.
"""

from __future__ import annotations

import errno
import fcntl
import json
import math
import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from patchforest.errors import InputError

TEMPORARY = ".patchforest-"
_FULL = (errno.ENOSPC, errno.EDQUOT)
_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISLNK, "a symbolic link"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
)


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """A temporary path with the target's suffix; when the block ends well, its content becomes ``path``, whole.

    The block may write into the temporary file or replace it. If the block raises, nothing at ``path`` changes and the
    temporary file is removed. Missing parent folders are made. The new file's mode follows the umask.

    Raises
    ------
    InputError
        ``path`` exists and is no regular file (folder, link, device), or its folder cannot be written.
    OSError
        With ``errno`` ENOSPC or EDQUOT and the path and free bytes in its text, when the disk is full.
    """
    target = Path(path)
    _require_writable(target)
    try:
        temporary, handle = _create_beside(target)
    except OSError as fault:
        raise _explained(fault, target) from fault
    try:
        mode = stat.S_IMODE(os.fstat(handle).st_mode)
        yield temporary
        _require_writable(target)
        _publish(temporary, target, mode)
    except OSError as fault:
        raise (_explained(fault, target) if _is_ours(fault, temporary) else fault) from fault
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        os.close(handle)


def write_bytes(path: str | Path, data: bytes | bytearray | memoryview) -> None:
    """``path`` holds exactly ``data``; errors as in :func:`atomic_path`."""
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        file.write(data)


def write_text(path: str | Path, text: str) -> None:
    """``path`` holds ``text`` in UTF-8 with the newlines as given; errors as in :func:`atomic_path`.

    Stray bytes of file names, which Python holds as lone surrogates, are written as ``\\udcff``: JSON reads them back.
    """
    write_bytes(path, text.encode("utf-8", "backslashreplace"))


def write_json(path: str | Path, value: Any) -> None:
    """``path`` holds ``value`` as indented strict JSON.

    NaN and infinities become null, NumPy scalars and arrays numbers and lists, paths strings, tuples lists. Keys
    keep their order. Errors as in :func:`atomic_path`; TypeError for a value JSON has no form for.
    """
    write_text(path, json.dumps(_plain(value), indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def remove_leftovers(folder: str | Path) -> list[Path]:
    """Temporary files that killed writers left in ``folder`` (not below it), now removed; live writers keep theirs."""
    removed = []
    for path in sorted(Path(folder).glob(TEMPORARY + "*")):
        with suppress(OSError):
            handle = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink()
                removed.append(path)
            finally:
                os.close(handle)
    return removed


def _require_writable(target: Path) -> None:
    """InputError unless ``target`` is absent or a regular file."""
    try:
        mode = os.lstat(target).st_mode
    except FileNotFoundError:
        return
    except (OSError, ValueError) as fault:
        raise _explained(fault, target) from fault
    if not stat.S_ISREG(mode):
        kind = next((name for test, name in _KINDS if test(mode)), "no regular file")
        raise InputError(target, f"exists and is {kind}, not a file to replace", "choose another output path")


def _create_beside(target: Path) -> tuple[Path, int]:
    """A new empty locked file in the target's folder (mode 0666 & ~umask) and its descriptor."""
    target.parent.mkdir(parents=True, exist_ok=True)
    while True:
        suffix = target.suffix if len(target.suffix) <= 16 else ""
        temporary = target.with_name(f"{TEMPORARY}{secrets.token_hex(8)}{suffix}")
        handle = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o666)
        try:
            with suppress(OSError):  # a file system without locks: leftovers then stay until removed by hand
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(handle), os.stat(temporary)):
                return temporary, handle
        except FileNotFoundError:  # remove_leftovers of another process came between open and lock: try again
            pass
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)


def _publish(temporary: Path, target: Path, mode: int) -> None:
    """fsync the temporary file, rename it to the target, fsync the folder."""
    handle = os.open(temporary, os.O_RDWR | os.O_CLOEXEC)
    try:
        os.fchmod(handle, mode)
        os.fsync(handle)
    finally:
        os.close(handle)
    os.replace(temporary, target)
    folder = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _is_ours(fault: OSError, temporary: Path) -> bool:
    """Whether a fault inside the block concerns the output rather than some file the block read."""
    return fault.errno in _FULL or (fault.filename is not None and str(fault.filename) == str(temporary))


def _explained(fault: OSError | ValueError, target: Path) -> Exception:
    """The fault with the target's name in it: OSError for a full disk, else InputError."""
    if isinstance(fault, OSError) and fault.errno in _FULL:
        folder = next((p for p in target.parents if p.exists()), Path("."))
        return OSError(fault.errno, f"disk full ({shutil.disk_usage(folder).free} bytes free)", str(target))
    reason = (fault.strerror or str(fault)) if isinstance(fault, OSError) else str(fault)
    return InputError(target, f"cannot be written ({reason})", "choose a folder that exists and that you may write to")


def _plain(value: Any) -> Any:
    """``value`` in the types JSON knows."""
    if isinstance(value, dict):
        return {key if isinstance(key, str) else str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, np.generic):
        return _plain(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Path):
        return str(value)
    return value
