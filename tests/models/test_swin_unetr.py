"""Swin UNETR: MONAI's network at any size; what is missing is named."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from patchforest.errors import InputError
from patchforest.models.bundle import ModelSpec, load_model, save_model
from patchforest.models.config import ModelConfig
from patchforest.models.swin_unetr import SwinUNETR
from patchforest.nn.readout.output import RARE
from tests.models.baselines import answers_any_size, learns_a_square

CONFIG = ModelConfig(name="swin_unetr", features=12, window=(64, 64))


@pytest.fixture
def monai() -> None:
    for package in ("monai", "einops"):
        pytest.importorskip(package, reason="extra medical")


def block(a: int, b: int) -> int:
    return 9 * a * b + 9 * b * b + (a * b if a != b else 0)


@pytest.mark.usefixtures("monai")
def test_parameters_by_formula() -> None:
    f, channels, classes = 12, 5, 3
    swin = 4 * channels * f + f
    for stage, heads in enumerate((3, 6, 12, 24)):
        d = f << stage
        attention = 3 * (d * d + d) + d * d + d + heads * 13**2  # and the bias of relative positions in 7 × 7
        swin += 2 * (attention + 2 * 2 * d + 8 * d * d + 5 * d)
        swin += 4 * d * 2 * d + 2 * 4 * d  # merging
    convolutions = block(channels, f) + block(f, f) + block(2 * f, 2 * f) + block(4 * f, 4 * f) + block(16 * f, 16 * f)
    for a, b in ((16 * f, 8 * f), (8 * f, 4 * f), (4 * f, 2 * f), (2 * f, f), (f, f)):
        convolutions += 4 * a * b + block(2 * b, b)
    model = SwinUNETR(replace(CONFIG, channels=channels, classes=classes))
    assert sum(p.numel() for p in model.parameters()) == swin + convolutions + f * classes + classes
    assert model.network.out.conv.conv.bias.tolist() == [RARE, 0, 0]


@pytest.mark.usefixtures("monai")
def test_any_size() -> None:
    answers_any_size(replace(CONFIG, channels=5, classes=3), [(37, 70), (1, 3)])


@pytest.mark.usefixtures("monai")
def test_learns_a_square() -> None:
    learns_a_square(CONFIG, steps=15)


@pytest.mark.usefixtures("monai")
def test_it_is_loaded_as_it_was_saved(tmp_path: Path) -> None:
    model, image = SwinUNETR(CONFIG).eval(), torch.rand(1, 3, 40, 40)
    save_model(tmp_path, model, ModelSpec(CONFIG, None, ("background", "thing"), window=64))
    with torch.inference_mode():
        assert torch.equal(load_model(tmp_path).network(image), model(image))


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for missing in ("monai", "einops"):
        with monkeypatch.context() as patch:
            patch.setattr(importlib.util, "find_spec", lambda name, missing=missing: None if name == missing else name)
            with pytest.raises(InputError, match=rf"package {missing}; pip install 'patchforest\[medical\]'"):
                SwinUNETR(CONFIG)


@pytest.mark.usefixtures("monai")
def test_features_are_multiples_of_12() -> None:
    with pytest.raises(ValueError, match="multiple of 12; got 16"):
        SwinUNETR(replace(CONFIG, features=16))
