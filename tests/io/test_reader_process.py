"""The parent's side of a reading process: what may be its opener, and what of its text may be printed."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from patchforest.errors import InputError
from patchforest.io.open import open_image
from patchforest.io.reader_process import Gone, ReaderProcess, name_of, plain_text
from tests.io.traps import PIXELS, trapped


def test_openers_by_name() -> None:
    name = {"module": "patchforest.io.open", "name": "open_image"}
    assert name_of(open_image) == {**name, "keywords": {}}
    assert name_of(partial(partial(open_image, page=1, missing="fill"), page=2)) == {
        **name,
        "keywords": {"page": 2, "missing": "fill"},
    }


@pytest.mark.parametrize("opener", [lambda path: None, partial(trapped, Path()), partial(trapped, x=b""), PIXELS.copy])
def test_openers_that_a_process_cannot_import(opener: object) -> None:
    with pytest.raises(ValueError, match="opener"):
        name_of(opener)  # type: ignore[arg-type]


def test_text_of_strangers() -> None:
    assert plain_text("a\tb\n c \x1b[2J \u202e é") == "a b c ?[2J ? é"
    assert len(plain_text("x" * 9999)) == 1000
    assert plain_text(None) == "None"


def test_an_opener_that_is_not_there(tmp_path: Path) -> None:
    opener = {"module": "patchforest.no_such_module", "name": "f", "keywords": {}}
    with pytest.raises(InputError, match="no_such_module"):
        ReaderProcess(tmp_path, opener, 1 << 30, 60)


def test_pixels_are_never_more_than_the_memory(tmp_path: Path) -> None:
    process = ReaderProcess(tmp_path / "x", name_of(trapped), 1 << 28, 60)
    assert process.about()["channels"] == 3
    with pytest.raises(Gone, match=r"more than the 3\.26e-05 GiB"):
        process.pixels((0, 0, 0, 90, 130), (90, 130, 3), PIXELS.nbytes - 100)
    process.end()
    with pytest.raises(Gone, match="SIGKILL"):
        process._send({})
