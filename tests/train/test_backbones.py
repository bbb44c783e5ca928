"""Whole runs with a foreign backbone that starts from a local file: trained, resumed and used without that file."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from patchforest.errors import InputError
from patchforest.infer.predict import predict
from patchforest.io.open import open_image
from patchforest.models.backbone import build_original
from patchforest.models.bundle import load_model
from patchforest.models.config import ModelConfig
from patchforest.train.config import parse_config
from patchforest.train.fit import fit
from tests.train.runs import settings

if importlib.util.find_spec("timm") is None:
    pytest.skip("the extra backbones is not installed", allow_module_level=True)

SMALL = {"img_size": 32, "embed_dim": 16, "depth": 2}


def backed(weights: Path, **train: Any) -> dict[str, Any]:
    """Settings of a run of ``timm:test_vit`` on leaves of 8 pixels."""
    raw = settings(weights=str(weights), **train)
    raw["model"] = {"name": "shf", "stem": [4, 8], "backbone": "timm:test_vit", "backbone_config": SMALL}
    return raw


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """What stands for pretrained weights: a file of timm's names."""
    torch.manual_seed(7)
    original = build_original(ModelConfig(backbone="timm:test_vit", backbone_config=SMALL))
    save_file(original.state_dict(), tmp_path / "weights.safetensors")
    return tmp_path / "weights.safetensors"


def test_a_run_starts_from_the_file_and_needs_it_no_more(
    data: Path, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from patchforest.train.task import TrainingTask

    held, real = load_file(weights), TrainingTask.made_step

    def made_step(self: TrainingTask) -> None:
        if self.budget.steps == 2:
            raise RuntimeError("power cut")
        real(self)

    raw = backed(weights, max_steps=3, lr=1e-7, ema=0.5, weight_decay=0.0)
    monkeypatch.setattr(TrainingTask, "made_step", made_step)
    with pytest.raises(RuntimeError, match="power cut"):
        fit(parse_config(raw), data, tmp_path / "run", quiet=True)
    monkeypatch.undo()
    weights.unlink()
    run = fit(parse_config(raw), data, tmp_path / "run", quiet=True)
    shutil.move(run / "best", tmp_path / "model")
    bundle = load_model(tmp_path / "model")
    assert (bundle.spec.model.width, bundle.spec.model.depth) == (16, 2)
    assert "weights" not in (tmp_path / "model" / "config.json").read_text()
    trained = bundle.network.state_dict()
    torch.testing.assert_close(
        trained["trunk.encoder.blocks.1.block.attn.qkv.weight"], held["blocks.1.attn.qkv.weight"], atol=1e-5, rtol=1e-5
    )
    assert trained["trunk.embed.pixels.weight"].shape == (16, 3 * 8 * 8)
    image = open_image(next((data / "images").iterdir())).read()
    prediction = predict(bundle, image)
    assert prediction.mask.shape == image.shape[:2]
    assert np.isin(prediction.mask, [0, 1]).all()


def test_weights_that_do_not_fit_end_the_run_before_it_begins(data: Path, weights: Path, tmp_path: Path) -> None:
    raw = backed(tmp_path / "absent.safetensors", max_steps=1)
    with pytest.raises(InputError, match=r"absent\.safetensors: there is no such file"):
        fit(parse_config(raw), data, tmp_path / "run", quiet=True)
    raw = backed(weights, max_steps=1)
    raw["model"]["backbone_config"] = {**SMALL, "depth": 3}
    with pytest.raises(InputError, match=r"does not fit timm:test_vit: lacks blocks\.2\.") as caught:
        fit(parse_config(raw), data, tmp_path / "run", quiet=True)
    assert "\n" not in str(caught.value)
    raw["model"]["backbone"] = "timm:test_vit9"
    with pytest.raises(
        InputError, match=r"model: backbone timm:test_vit9: timm has no model 'test_vit9'; near it are test_vit"
    ):
        fit(parse_config(raw), data, tmp_path / "run", quiet=True)
    raw["model"]["backbone"] = None
    with pytest.raises(InputError, match="weights of a backbone, and there is none"):
        fit(parse_config(raw), data, tmp_path / "run", quiet=True)
    assert not (tmp_path / "run" / "config.yaml").exists()
