"""A saved model answers the same when loaded; broken or foreign folders end in one line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from patchforest.errors import InputError
from patchforest.models.build import build_model
from patchforest.models.bundle import ModelSpec, load_model, save_model
from patchforest.models.config import ModelConfig
from patchforest.nn.raster import ForestBatch
from patchforest.values import ForestPolicy
from tests.forests import random_forest

SPEC = ModelSpec(
    model=ModelConfig(width=8, depth=1, heads=2, stem=(4, 4)),
    forest=ForestPolicy(budget=32, window=64),
    classes=("background", "vessel"),
    intensity_window=(0.0, 4095.0),
    window=64,
)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    torch.manual_seed(1)
    save_model(tmp_path / "run" / "best", build_model(SPEC.model), SPEC)
    return tmp_path / "run"


def test_round_trip(saved: Path, rng: np.random.Generator) -> None:
    torch.manual_seed(1)
    original = build_model(SPEC.model).eval()
    save_model(saved / "again", original, SPEC)
    written = [(saved / name / "model.safetensors").read_bytes() for name in ("best", "again")]
    assert written[0] == written[1]
    bundle = load_model(saved)
    assert bundle.spec == SPEC
    assert not bundle.network.training
    batch = ForestBatch.stack([random_forest(rng, (40, 64), budget=20)])
    image = torch.rand(1, 3, 40, 64)
    assert torch.equal(bundle.network(image, batch), original(image, batch))


def test_the_window_of_a_table_of_positions_is_kept_and_checked(tmp_path: Path) -> None:
    config = ModelConfig(name="unetr", width=8, depth=1, heads=2, features=4, window=(40, 64))
    spec = ModelSpec(model=config, forest=None, classes=("background", "vessel"), window=(40, 64))
    original, image = build_model(config).eval(), torch.rand(1, 3, 40, 64)
    save_model(tmp_path, original, spec)
    bundle = load_model(tmp_path)
    assert bundle.spec == spec
    assert torch.equal(bundle.network(image), original(image))
    raw = json.loads((tmp_path / "config.json").read_text())
    for window, match in (
        ([40], "window must be"),
        ([40, 0], "window must be"),
        ([40, 64.5], "window must be"),
        ("wide", "window must be"),
        (40, "window must be"),
        (None, "set window"),
        ([64, 64], r"embed\.table is"),
        ([10**9, 10**9], "cannot be built|do not fit"),
    ):
        (tmp_path / "config.json").write_text(json.dumps({**raw, "model": {**raw["model"], "window": window}}))
        with pytest.raises(InputError, match=match):
            load_model(tmp_path)


def test_broken_folders_end_in_one_line(saved: Path, tmp_path: Path) -> None:
    weights, config = saved / "best" / "model.safetensors", saved / "best" / "config.json"
    good_weights, good_config = weights.read_bytes(), config.read_text()

    def refused(match: str, path: Path = saved) -> None:
        with pytest.raises(InputError, match=match) as caught:
            load_model(path)
        assert "\n" not in str(caught.value)

    weights.write_bytes(good_weights[:-20])
    refused("not a whole safetensors")
    for place in np.linspace(len(good_weights) // 2, len(good_weights) - 1, 20).astype(int):
        flipped = bytearray(good_weights)
        flipped[place] ^= 1
        weights.write_bytes(flipped)
        refused("damaged")
    weights.write_bytes(b"\x80\x04pickle")
    refused("not a whole safetensors")
    weights.unlink()
    refused("is missing")
    weights.write_bytes(good_weights)
    raw = json.loads(good_config)
    for change, match in [
        ({"model": {**raw["model"], "width": 16}}, "do not fit config.json"),
        ({"model": {**raw["model"], "hidden": 1}}, "unknown setting 'hidden'"),
        ({"model": {**raw["model"], "name": "evil"}}, "cannot be built"),
        ({"model": {**raw["model"], "heads": 0}}, "cannot be built"),
        ({"model": {**raw["model"], "width": -8}}, "cannot be built"),
        ({"model": {**raw["model"], "width": 10**12}}, "cannot be built"),
        ({"format": 99}, "format 2"),
        ({"forest": {"budget": 3, "threshold": 1.0}}, "exactly one"),
    ]:
        config.write_text(json.dumps({**raw, **change}))
        refused(match)
    config.write_text("{not json")
    refused("not valid JSON")
    refused("no such folder", tmp_path / "nowhere")
    refused("no config.json", tmp_path)
    foreign = tmp_path / "model.pt"
    foreign.write_bytes(b"anything")
    refused("never loaded", foreign)
