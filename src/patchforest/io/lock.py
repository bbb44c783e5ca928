"""One process at a time: locks that die with their holder, so that none is ever left to be removed by hand."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from patchforest.errors import InputError


@contextmanager
def locked(path: Path, *, wait: bool, tell: Callable[[str], None] = lambda line: None) -> Iterator[None]:
    """Hold a lock that dies with this process; the file is gone after.

    ``wait`` for another process that holds it, or raise InputError. ``tell`` hears of a file system without locks.
    """
    handle = _open_locked(path, wait, tell)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(handle)


def _open_locked(path: Path, wait: bool, tell: Callable[[str], None]) -> int:
    while True:
        handle = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            os.close(handle)
            raise InputError(path.parent, "another process is at this very job", "wait for it or stop it") from None
        except OSError:
            tell("this file system has no locks: make sure that no other process works in the same folder")
            return handle
        try:
            if os.path.samestat(os.fstat(handle), os.stat(path)):
                return handle
        except FileNotFoundError:  # its holder removed it between our open and our lock
            pass
        os.close(handle)


def is_held(path: Path) -> bool:
    """Whether some process holds the lock of a path."""
    try:
        handle = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return False
    except OSError:
        return True
    finally:
        os.close(handle)
