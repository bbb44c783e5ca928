"""Folders that are whole or absent, for formats of many files: written beside the target, then renamed. POSIX only."""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

from patchforest.errors import InputError
from patchforest.io.atomic import TEMPORARY

_FULL = (errno.ENOSPC, errno.EDQUOT)
_SYNCING = 16  # threads


@contextmanager
def atomic_folder(path: str | Path, *, overwrite: bool = False) -> Iterator[Path]:
    """A temporary empty folder beside ``path``; when the block ends well, it becomes ``path`` with all it holds.

    If the block raises, nothing at ``path`` changes and the temporary folder is removed. A process killed at any moment
    leaves no part of a folder at ``path``, and at most a leftover beside it, which :func:`remove_leftover_folders`
    finds. Missing parent folders are made. With ``overwrite`` a folder that is there gives way: two renames, between
    which a kill leaves nothing at ``path``.

    Raises
    ------
    InputError
        ``path`` is no folder, or one that is not empty and ``overwrite`` is false, or its parent cannot be written.
    OSError
        With ``errno`` ENOSPC or EDQUOT and the path and free bytes in its text, when the disk is full.
    """
    target = Path(path)
    _require_free(target, overwrite)
    try:
        temporary, handle = _create_beside(target)
    except OSError as fault:
        raise _explained(fault, target) from fault
    try:
        yield temporary
        _require_free(target, overwrite)
        _sync(temporary)
        _publish(temporary, target)
    except OSError as fault:
        ours = fault.errno in _FULL or str(temporary) in str(fault.filename)
        raise (_explained(fault, target) if ours else fault) from fault
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        os.close(handle)


def remove_leftover_folders(folder: str | Path) -> list[Path]:
    """Temporary folders that killed writers left in ``folder`` (not below it), now removed; the living keep theirs."""
    removed = []
    for path in sorted(Path(folder).glob(TEMPORARY + "*")):
        with suppress(OSError):
            handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(path)
                removed.append(path)
            finally:
                os.close(handle)
    return removed


def _require_free(target: Path, overwrite: bool) -> None:
    """InputError unless ``target`` is absent, an empty folder, or a folder to overwrite."""
    try:
        mode = os.lstat(target).st_mode
        taken = stat.S_ISDIR(mode) and not overwrite and any(os.scandir(target))
    except FileNotFoundError:
        return
    except (OSError, ValueError) as fault:
        raise _explained(fault, target) from fault
    if not stat.S_ISDIR(mode):
        raise InputError(target, "exists and is no folder to replace", "choose another output path")
    if taken:
        raise InputError(target, "exists and holds files", "choose another output path or remove it first")


def _create_beside(target: Path) -> tuple[Path, int]:
    """A new empty locked folder beside the target (mode 0777 & ~umask) and its descriptor."""
    target.parent.mkdir(parents=True, exist_ok=True)
    while True:
        temporary = target.with_name(f"{TEMPORARY}{secrets.token_hex(8)}")
        temporary.mkdir()
        try:
            handle = os.open(temporary, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:  # remove_leftover_folders of another process came between: try again
            continue
        with suppress(OSError):  # a file system without locks: leftovers then stay until removed by hand
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if temporary.exists():
            return temporary, handle
        os.close(handle)


def _sync(folder: Path) -> None:
    """fsync of everything below ``folder`` and of itself; side by side, which file systems answer with one commit."""
    paths = [os.path.join(place, name) for place, _, names in os.walk(folder) for name in (*names, ".")]
    with ThreadPoolExecutor(_SYNCING) as pool:
        for _ in pool.map(_sync_one, paths):
            pass


def _sync_one(path: str | Path) -> None:
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _publish(temporary: Path, target: Path) -> None:
    """Renames the temporary folder to the target, puts away what was there, fsyncs the parent."""
    aside: Path | None = target.with_name(f"{TEMPORARY}{secrets.token_hex(8)}")
    try:
        os.rename(target, str(aside))
    except FileNotFoundError:
        aside = None
    try:
        os.rename(temporary, target)
    except OSError:
        if aside is not None:
            os.rename(aside, target)
        raise
    if aside is not None:
        shutil.rmtree(aside, ignore_errors=True)
    _sync_one(target.parent)


def _explained(fault: OSError | ValueError, target: Path) -> Exception:
    """The fault with the target's name in it: OSError for a full disk, else InputError."""
    if isinstance(fault, OSError) and fault.errno in _FULL:
        folder = next((p for p in target.parents if p.exists()), Path("."))
        return OSError(fault.errno, f"disk full ({shutil.disk_usage(folder).free} bytes free)", str(target))
    reason = (fault.strerror or str(fault)) if isinstance(fault, OSError) else str(fault)
    return InputError(target, f"cannot be written ({reason})", "choose a folder that exists and that you may write to")
