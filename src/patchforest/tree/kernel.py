"""How kernels are compiled: once, and kept on disk where there is a place for it."""

from __future__ import annotations

from collections.abc import Callable

from numba import njit


def kernel(function: Callable) -> Callable:
    """``njit`` without Python's lock, and with numba's cache.

    numba raises RuntimeError at once where neither the source's folder nor the user's cache folder can be written (a
    read-only container or home): there kernels are compiled afresh in every process instead.
    """
    try:
        return njit(cache=True, nogil=True)(function)
    except RuntimeError:
        return njit(nogil=True)(function)
