"""Options mean the same wherever they are given: names and defaults are those of the functions that they go to."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from patchforest.infer.folder import predict_many
from patchforest.infer.options import DEFAULTS, PredictOptions
from patchforest.infer.predict import predict
from patchforest.infer.slide import predict_slide
from patchforest.infer.volume import predict_volume
from patchforest.io.write import write_image
from patchforest.train.evaluate import evaluate
from tests.infer.fakes import Bright, fake

NAMES = {field.name for field in dataclasses.fields(PredictOptions)}


@pytest.mark.parametrize(
    ("function", "without"),
    [
        (predict, set()),
        (predict_slide, set()),
        (predict_many, set()),
        (evaluate, set()),
        (predict_volume, {"tissue"}),
    ],
)
def test_names_and_defaults_are_the_functions_own(function: Callable[..., object], without: set[str]) -> None:
    known = inspect.signature(function).parameters
    assert {name: known[name].default for name in NAMES - without} == {
        name: getattr(DEFAULTS, name) for name in NAMES - without
    }
    assert not any(p.kind is p.VAR_KEYWORD for p in known.values())


@pytest.mark.parametrize(("name", "without"), [("a.png", set()), ("v.npy", {"tissue"})])
def test_a_folder_hands_every_option_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, without: set[str]
) -> None:
    class Seen(Exception):
        """What was asked for is known."""

    def recorded(*_: object, **options: object) -> None:
        raise Seen(options)

    asked = {"trees": 2, "flips": True, "window": 40, "precision": "bf16", "tissue": False}
    write_image(tmp_path / "a.png", np.zeros((20, 30, 3), np.uint8))
    np.save(tmp_path / "v.npy", np.zeros((4, 20, 30), np.uint8))
    monkeypatch.setattr("patchforest.infer.folder.predict_slide", recorded)
    monkeypatch.setattr("patchforest.infer.folder.predict_volume", recorded)
    with pytest.raises(Seen) as caught:
        predict_many(fake(Bright()), [tmp_path / name], tmp_path / "out", **asked)  # type: ignore[arg-type]
    seen = caught.value.args[0]
    assert {k: v for k, v in seen.items() if k in NAMES} == {k: v for k, v in asked.items() if k not in without}


def test_a_misspelt_option_is_an_error_at_the_call(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="tree"):
        PredictOptions(tree=2)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="tree"):
        predict_many(fake(Bright()), [tmp_path], tmp_path / "out", tree=2)  # type: ignore[call-arg]
