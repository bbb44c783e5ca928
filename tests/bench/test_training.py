"""Contenders that are trained: which were asked for, how their data are found, and counting tokens."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from patchforest.bench import training
from patchforest.bench.settings import Settings
from patchforest.bench.training import (
    counted_tokens,
    make_contender,
    peak_mib,
    picked,
    read_rates,
    seconds_to_predict,
    tuned,
)
from patchforest.models.build import build_model
from patchforest.models.config import ModelConfig


def test_the_recipes_content_is_part_of_the_work(settings: Settings) -> None:
    before = make_contender("quality", "discs", "SHF", ("a.b=1",), 5, settings)
    assert before.changes == ("a.b=1", "train.seed=5", "train.threads=1", "train.num_workers=0")
    assert before.data == str((settings.data / "discs").resolve())
    path = settings.recipe("discs")
    path.write_text(path.read_text() + "\n# another\n")
    after = make_contender("quality", "discs", "SHF", ("a.b=1",), 5, settings)
    assert after.key != before.key
    named = make_contender("speed", "discs", "SHF", (), 5, settings, label="discs 32", data=Path("/elsewhere"))
    assert (named.set, named.data) == ("discs 32", "/elsewhere")


def test_changes_of_all_come_last(settings: Settings) -> None:
    made = make_contender("quality", "discs", "SHF", ("train.lr=1",), 0, replace(settings, changes=("train.lr=2",)))
    assert made.changes[-1] == "train.lr=2"


def test_those_that_were_asked_for(settings: Settings) -> None:
    known: dict[str, tuple[str, ...]] = {"a": (), "b": ("x=1",)}
    assert list(picked(known, settings)) == ["a", "b"]
    assert list(picked(known, replace(settings, contenders=("b", "a")))) == ["b", "a"]
    with pytest.raises(ValueError, match="no contender 'c'; there are a, b"):
        picked(known, replace(settings, contenders=("c",)))


def test_without_tuning_there_are_no_rates(settings: Settings) -> None:
    assert read_rates(settings.out) == {}
    assert tuned(settings, "discs", "SHF") == ()


def test_tokens_of_grids_are_counted_and_hooks_removed() -> None:
    network = build_model(ModelConfig("unetr", width=16, depth=1, heads=2, patch=8, window=(32, 48))).eval()
    with torch.no_grad(), counted_tokens(network) as seen:
        network(torch.rand(2, 3, 32, 48))
        network(torch.rand(1, 3, 32, 48))
    assert seen == [2 * 24, 24]
    with torch.no_grad():
        network(torch.rand(1, 3, 32, 48))
    assert len(seen) == 2
    unet = build_model(ModelConfig("unet", width=4, depth=1))
    with torch.no_grad(), counted_tokens(unet) as none:
        unet(torch.rand(1, 3, 32, 32))
    assert none == []


def test_memory_is_measured() -> None:
    assert 50 < peak_mib() < 1 << 20


@pytest.mark.parametrize(
    ("costs", "seconds", "calls"),
    [
        ([9.0, 3.0, 1.0, 2.0], 2.0, 4),  # the first is to warm up
        ([19.9, 19.0, 30.0, 20.0], 20.0, 4),
        ([20.0, 1.0, 1.0, 1.0], 20.0, 1),
    ],
)
def test_a_prediction_is_timed_warm_and_three_times_or_once_where_it_is_long(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, costs: list[float], seconds: float, calls: int
) -> None:
    now, given = [0.0], []  # type: list[float], list[Any]

    def predict(bundle: Any, pixels: Any, *, precision: str) -> None:
        now[0] += costs[len(given)]
        given.append(pixels)

    monkeypatch.setattr("patchforest.infer.predict.predict", predict)
    monkeypatch.setattr(training, "clock_of", lambda device: lambda: now[0])
    monkeypatch.setattr(training, "precision_of", lambda config, bundle: "fp32")
    image = next((settings.data / "discs").rglob("*.png"))
    trained: Any = SimpleNamespace(
        config=SimpleNamespace(volume=None),
        bundle=SimpleNamespace(network=torch.nn.Linear(1, 1)),
        validation=[SimpleNamespace(image=image)],
    )
    assert seconds_to_predict(trained) == pytest.approx(seconds)
    assert len(given) == calls
    assert len({id(pixels) for pixels in given}) == 1  # always the same image, read beforehand
