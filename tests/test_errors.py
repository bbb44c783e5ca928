"""The one exception for bad input: a line, and whole across processes."""

from __future__ import annotations

import multiprocessing

import pytest

from patchforest.errors import InputError


def test_it_is_one_line_of_path_fault_and_remedy() -> None:
    error = InputError("a b.png", "is\nempty", "copy it\tagain")
    assert str(error) == "a b.png: is empty; copy it again"
    assert (error.path, error.what, error.hint) == ("a b.png", "is\nempty", "copy it\tagain")
    assert isinstance(error, ValueError)


def _fail(name: str) -> None:
    raise InputError(name, "is broken", "mend it")


def test_it_survives_the_way_back_from_another_process() -> None:
    with (
        multiprocessing.get_context("spawn").Pool(1) as pool,
        pytest.raises(InputError, match=r"^x\.png: is broken; mend it$"),
    ):
        pool.apply(_fail, ("x.png",))
