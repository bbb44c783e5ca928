"""Voxels out of a file: mapped from disk where they lie there plainly, inflated and checked where they are compressed.

What a header says is held against what the file holds before anything is allocated.
"""

from __future__ import annotations

import bz2
import gzip
import math
import os
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from patchforest.errors import InputError
from patchforest.values import Array

AGAIN = "copy or export the file again"
_PADDING = 16  # bytes that writers may add behind the voxels
_BLOCK = 1 << 22
_Stream = gzip.GzipFile | bz2.BZ2File
_EXPANSION = {"gzip": 1032, "bzip2": 1 << 20}  # bytes that one byte of these can stand for, at most


def require_bytes(path: Path, needed: int, held: int) -> None:
    """InputError unless ``held`` bytes of voxels are what a header describes, or a little more."""
    if held < needed:
        raise InputError(path, f"is truncated: its header describes {needed} bytes of voxels, it holds {held}", AGAIN)
    if held > needed + _PADDING:
        raise InputError(path, f"holds {held} bytes of voxels but its header describes {needed}", AGAIN)


def require_capacity(path: Path, needed: int, codec: str) -> None:
    """InputError where a compressed file cannot hold what its header describes, or this machine cannot."""
    size = path.stat().st_size
    if needed > size * _EXPANSION[codec]:
        what = f"is truncated or damaged: its header describes {needed} bytes of voxels, which {size} cannot hold"
        raise InputError(path, what, AGAIN)
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if needed > memory:
        what = f"needs {needed / 2**30:.1f} GiB in memory, and this machine has {memory / 2**30:.1f}"
        raise InputError(path, what, "save it uncompressed: it is then read in parts")


def mapped_voxels(path: Path, shape: tuple[int, ...], dtype: np.dtype[Any], offset: int) -> Array:
    """Voxels ``shape``, fastest axis first, mapped read-only; the caller has checked that the file holds them."""
    try:
        return np.memmap(path, dtype, "r", offset, shape, order="F")
    except (OSError, ValueError, OverflowError) as fault:
        raise InputError(path, f"cannot be read ({fault})", AGAIN) from fault


def inflated_voxels(
    path: Path, shape: tuple[int, ...], dtype: np.dtype[Any], *, codec: str = "gzip", offset: int = 0, skip: int = 0
) -> Array:
    """Voxels ``shape``, fastest axis first, from a compressed stream, which is read to its end so that it is checked.

    Parameters
    ----------
    codec : "gzip" (its CRC and length are checked) or "bzip2".
    offset : where the stream begins in the file, in bytes.
    skip : inflated bytes before the first voxel.

    Raises
    ------
    InputError
        The stream is damaged, or holds more or fewer voxels than ``shape``.
    """
    needed = math.prod(shape) * dtype.itemsize
    try:
        require_capacity(path, needed, codec)
        with open(path, "rb") as file:
            file.seek(offset)
            with gzip.GzipFile(fileobj=file, mode="rb") if codec == "gzip" else bz2.BZ2File(file) as stream:
                left = skip - _drained(stream, skip)
                voxels = np.empty(needed, np.uint8)
                held = _filled(stream, voxels) if not left else 0
                held += _drained(stream, None)
    except InputError:
        raise
    except (OSError, EOFError, ValueError, zlib.error) as fault:
        reason = str(fault)[:120] or type(fault).__name__
        raise InputError(path, f"is damaged or truncated in its compressed data ({reason})", AGAIN) from fault
    require_bytes(path, needed, held)
    return voxels.view(dtype).reshape(shape, order="F")


def _filled(stream: _Stream, out: Array) -> int:
    """Bytes written into ``out``: as many as the stream has, at most all."""
    view, done = out.data, 0
    while done < len(view):
        count = stream.readinto(view[done : done + _BLOCK])
        if not count:
            break
        done += count
    return done


def _drained(stream: _Stream, limit: int | None) -> int:
    """Bytes read and thrown away: ``limit``, or up to the end."""
    done = 0
    while limit is None or done < limit:
        data = stream.read(_BLOCK if limit is None else min(_BLOCK, limit - done))
        if not data:
            break
        done += len(data)
    return done
