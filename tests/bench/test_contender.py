"""A contender is a value: the same text, key and folder for the same work, others for any other."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import pytest

from patchforest.bench.contender import Contender

ONE = Contender("quality", "GlaS 512", "U-Net 2x", ("model.name=unet", "train.lr=1e-3"), 3, "r.yaml", "data", "ab", 2)


def test_text_and_back() -> None:
    assert Contender.from_json(ONE.to_json()) == ONE
    assert "\n" not in ONE.to_json()


def test_the_key_is_a_folder_that_tells_what_it_is() -> None:
    kind, label, name = ONE.key.split("/")
    assert (kind, label) == ("quality", "glas_512")
    assert name.startswith("u_net_2x-3-")
    assert ONE.folder(Path("out")) == Path("out/runs") / ONE.key


@pytest.mark.parametrize("name", [f.name for f in fields(Contender)])
def test_other_work_has_another_key(name: str) -> None:
    value = getattr(ONE, name)
    other = value + 1 if isinstance(value, int) else (*value, "x=1") if isinstance(value, tuple) else value + "x"
    assert replace(ONE, **{name: other}).key != ONE.key
