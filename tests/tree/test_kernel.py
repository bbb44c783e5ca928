"""Kernels are compiled with a cache where there is a place for one, and without it elsewhere."""

import pytest

from patchforest.tree import kernel as module
from patchforest.tree.kernel import kernel


def double(value):  # type: ignore[no-untyped-def]
    return 2 * value


def test_kept_on_disk() -> None:
    assert kernel(double)(21) == 42
    assert kernel(double)._cache.cache_path


def test_without_a_place_for_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = module.njit

    def refusing(cache: bool = False, **options: object):  # type: ignore[no-untyped-def]
        if cache:
            raise RuntimeError("cannot cache function 'double': no locator available for file")
        return plain(**options)

    monkeypatch.setattr(module, "njit", refusing)
    assert kernel(double)(21) == 42
