"""Parts of a step: they add up, and the encoder's share grows with the tokens."""

from __future__ import annotations

from patchforest.bench import parts
from patchforest.bench.parts import time_parts
from patchforest.bench.settings import Settings
from patchforest.data.layout import find_cases
from patchforest.train.config import load_config
from patchforest.train.fit import resolve


def measured(settings: Settings, *changes: str) -> dict[str, float]:
    data = settings.data / "discs"
    config = resolve(load_config(settings.recipe("discs"), changes), find_cases(data), 3)
    return time_parts(config, data, repeats=1)


def test_parts_are_there_and_models_without_encoder_have_none(settings: Settings) -> None:
    adaptive = measured(settings)
    assert set(adaptive) == {"input", "encoder", "rest"}
    assert all(seconds > 0 for seconds in adaptive.values())
    pixels = measured(settings, "model.name=unet", "model.width=4")
    assert pixels["encoder"] == 0
    assert pixels["rest"] > 0


def test_the_encoder_is_timed_on_the_tokens_it_is_given(settings: Settings, monkeypatch) -> None:
    seen = []

    def alone(encoder, given, autocast, clock) -> float:
        seen.append(tuple(given[0][0].shape))
        return 0.0

    monkeypatch.setattr(parts, "_encoder_alone", alone)
    measured(settings, "forest.uniform=8")
    assert seen == [(2, 16, 16)] * 2  # batch, tokens, width; a first batch and one that counts
