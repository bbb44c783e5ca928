"""The one exception for bad input: a line, and whole across processes."""

from __future__ import annotations

import multiprocessing

from patchforest.errors import InputError


def test_it_is_one_line_of_path_fault_and_remedy() -> None:
    error = InputError("a b.png", "is\nempty", "copy it\tagain")
    assert str(error) == "a b.png: is empty; copy it again"
    assert (error.path, error.what, error.hint) == ("a b.png", "is\nempty", "copy it\tagain")
    assert isinstance(error, ValueError)


def _fail(name: str) -> None:
    raise InputError(name, "is broken", "mend it")


def test_it_survives_the_way_back_from_another_process() -> None:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        try:
            pool.apply(_fail, ("x.png",))
        except InputError as error:
            assert str(error) == "x.png: is broken; mend it"
        else:
            raise AssertionError("no error came back")
