"""Weights from files: into the very parameters, with prefixes, shards and older names, or refused by name."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from patchforest.errors import InputError
from patchforest.models.backbone import adapt_original, build_original, resolve_backbone
from patchforest.models.build import build_model
from patchforest.models.config import ModelConfig
from patchforest.models.pretrained import load_backbone, read_weights
from tests.models.test_backbone import SMALL, VIT
from tests.nn.adapt.uniform import roughened

if importlib.util.find_spec("timm") is None or importlib.util.find_spec("transformers") is None:
    pytest.skip("the extra backbones is not installed", allow_module_level=True)

TIMM = resolve_backbone(replace(SMALL, backbone="timm:test_vit"))
HF = resolve_backbone(
    replace(SMALL, backbone="hf:vit", backbone_config={**VIT, "image_mean": [0.5] * 3, "image_std": [0.5] * 3})
)


def check(config: ModelConfig, weights: Path, original: nn.Module) -> None:
    """A network that started from a file has the original's parameters."""
    network = build_model(config)
    load_backbone(network, config, weights)
    wanted = adapt_original(original, config, stem_features=network.trunk.embed.stem.in_features)
    for name, mine in (("embed", network.trunk.embed), ("encoder", network.trunk.encoder)):
        for key, value in getattr(wanted, name).state_dict().items():
            if "stem" not in key:
                torch.testing.assert_close(mine.state_dict()[key], value, msg=f"{name}.{key}")


def original_of(config: ModelConfig) -> nn.Module:
    return roughened(build_original(config))


@pytest.mark.parametrize("prefix", ["", "backbone."])
def test_a_file_of_timm(prefix: str, tmp_path: Path) -> None:
    original = original_of(TIMM)
    state = {prefix + k: v.clone() for k, v in original.state_dict().items()}
    save_file({**state, prefix + "head.weight": torch.zeros(10, 64)}, tmp_path / "weights.safetensors")
    check(TIMM, tmp_path / "weights.safetensors", original)
    check(TIMM, tmp_path, original)
    check(replace(TIMM, channels=1, patch=16), tmp_path, original)


def test_a_folder_of_transformers_with_a_head(tmp_path: Path) -> None:
    transformers = importlib.import_module("transformers")
    config = transformers.AutoConfig.for_model(**VIT)
    whole = roughened(transformers.ViTForImageClassification(config))
    whole.save_pretrained(tmp_path / "vit")
    older = load_file(tmp_path / "vit" / "model.safetensors")
    assert "vit.encoder.layer.0.attention.attention.query.weight" in older
    check(HF, tmp_path / "vit", whole.vit)
    newer = {k: v.clone() for k, v in whole.vit.state_dict().items()}
    assert "layers.0.attention.q_proj.weight" in newer
    save_file(newer, tmp_path / "newer.safetensors")
    check(HF, tmp_path / "newer.safetensors", whole.vit)


def test_shards_and_half_precision(tmp_path: Path) -> None:
    original = original_of(TIMM).half().float()
    state = {k: v.half() for k, v in original.state_dict().items()}
    names = sorted(state)
    parts = {"a.safetensors": names[:20], "b.safetensors": names[20:]}
    for file, keys in parts.items():
        save_file({k: state[k] for k in keys}, tmp_path / file)
    index = {"weight_map": {k: file for file, keys in parts.items() for k in keys}}
    with pytest.raises(InputError, match=r"holds 2 \.safetensors files, not one"):
        read_weights(tmp_path)
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    assert read_weights(tmp_path)["norm.weight"].dtype == torch.float32
    check(TIMM, tmp_path, original)
    (tmp_path / "model.safetensors.index.json").write_text("{}")
    with pytest.raises(InputError, match="is no list of safetensors files"):
        read_weights(tmp_path)


def test_what_does_not_fit_is_refused_by_name(tmp_path: Path) -> None:
    network, state = build_model(TIMM), {k: v.clone() for k, v in build_original(TIMM).state_dict().items()}

    def refuse(match: str, changed: dict[str, torch.Tensor], config: ModelConfig = TIMM) -> None:
        save_file(changed, tmp_path / "w.safetensors")
        with pytest.raises(InputError, match=match) as caught:
            load_backbone(build_model(config), config, tmp_path / "w.safetensors")
        assert "\n" not in str(caught.value)

    refuse(
        r"w\.safetensors: does not fit timm:test_vit: lacks norm\.bias",
        {k: v for k, v in state.items() if k != "norm.bias"},
    )
    refuse(r"pos_embed is \(1, 5, 64\), not \(1, 101, 64\).*img_size", {**state, "pos_embed": torch.zeros(1, 5, 64)})
    refuse(r"lacks .* and \d+ more", {"x": torch.zeros(1)})
    refuse("does not fit hf:vit: lacks", {"x": torch.zeros(1)}, HF)
    with pytest.raises(InputError, match="there is no such file or folder"):
        load_backbone(network, TIMM, tmp_path / "absent.safetensors")
    (tmp_path / "w.pth").write_bytes(b"x")
    with pytest.raises(InputError, match=r"is no \.safetensors file; pickled checkpoints are never loaded"):
        load_backbone(network, TIMM, tmp_path / "w.pth")
    (tmp_path / "w.safetensors").write_bytes(b"x")
    with pytest.raises(InputError, match="not a whole safetensors file"):
        load_backbone(network, TIMM, tmp_path / "w.safetensors")
    with pytest.raises(InputError, match=r"weights of a backbone, and there is none; set model\.backbone"):
        load_backbone(build_model(SMALL), SMALL, tmp_path / "w.safetensors")
