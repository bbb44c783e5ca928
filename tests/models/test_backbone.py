"""Foreign transformers by name: every model works with them, saved ones need no other file, bad names are refused."""

from __future__ import annotations

import importlib.util
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from patchforest.errors import InputError
from patchforest.models.backbone import build_original, resolve_backbone
from patchforest.models.build import build_model
from patchforest.models.bundle import ModelSpec, load_model, save_model
from patchforest.models.config import ModelConfig
from patchforest.nn.raster import ForestBatch, gather_batch
from patchforest.values import ForestPolicy
from tests.forests import random_forest
from tests.nn.adapt.uniform import in_rows, uniform

for package in ("timm", "transformers", "monai", "einops"):
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"the extras backbones and medical are not installed: no {package}", allow_module_level=True)

VIT = {
    "model_type": "vit",
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "image_size": 64,
}
SMALL = ModelConfig(name="shf", stem=(4, 8), width=32, depth=2, heads=2)


def folder(path: Path, settings: dict[str, Any] = VIT, **processor: Any) -> Path:
    """A folder as transformers saves it, without weights."""
    path.mkdir()
    (path / "config.json").write_text(json.dumps({**settings, "id2label": {"0": "cat"}}))
    if processor:
        (path / "preprocessor_config.json").write_text(json.dumps(processor))
    return path


@pytest.fixture(params=["timm", "hf", "monai"])
def backbone(request: pytest.FixtureRequest, tmp_path: Path) -> ModelConfig:
    """A small configuration of every family, not resolved."""
    if request.param == "timm":
        settings = {"img_size": 64, "embed_dim": 32, "depth": 3, "num_heads": 2}
        return replace(SMALL, backbone="timm:vit_tiny_patch16_224", backbone_config=settings)
    if request.param == "hf":
        path = folder(tmp_path / "vit", image_mean=[0.1, 0.2, 0.3], image_std=[0.2, 0.2, 0.2])
        return replace(SMALL, backbone=f"hf:{path}")
    return replace(SMALL, backbone="monai:vit")


def test_a_resolved_backbone_says_everything(backbone: ModelConfig) -> None:
    config = resolve_backbone(backbone)
    assert resolve_backbone(config) == config
    assert config.backbone in ("timm:vit_tiny_patch16_224", "hf:vit", "monai:vit")
    assert config.backbone_config is not None
    assert json.loads(json.dumps(config.backbone_config)) == config.backbone_config
    means = {"timm": [0.5, 0.5, 0.5], "hf:v": [0.1, 0.2, 0.3], "mona": [0.5]}
    assert config.backbone_config["image_mean"] == means[config.backbone[:4]]
    assert (config.width, config.depth) == (32, 3 if config.backbone.startswith("timm") else 2)
    assert "id2label" not in config.backbone_config


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("shf", {"stem": ()}),
        ("apf_unetr", {}),
        ("apf_unetr", {"readout": "raster", "embedding": "window"}),
        ("apf_vit", {"patch": 16, "channels": 1}),
    ],
)
def test_every_model_reads_forests_through_it(
    backbone: ModelConfig, name: str, change: dict[str, Any], rng: np.random.Generator
) -> None:
    torch.manual_seed(0)
    network = build_model(replace(backbone, name=name, **change))
    forest = ForestBatch.stack([random_forest(rng, (64, 80), budget=b) for b in (10, 30)])
    image = torch.rand(2, change.get("channels", 3), 64, 80)
    out = network(image, forest)
    assert out.shape == ((2, 1) if name == "apf_vit" else (2, 1, 64, 80))
    out.square().mean().backward()
    assert network.trunk.embed.stem is None or not network.trunk.embed.stem.weight.any()
    if name == "shf":
        blocks = network.trunk.encoder.blocks.named_parameters()
        assert all(p.grad is not None and p.grad.any() for n, p in blocks if "cross" not in n and "k_proj" not in n)


def test_the_trunk_sees_what_the_original_sees() -> None:
    """From an image in [0, 1], through our normalisation, to the features of the original with its own."""
    config = replace(SMALL, stem=(), patch=16, cell=16, backbone="timm:test_vit", backbone_config={"img_size": 64})
    torch.manual_seed(0)
    network = build_model(config).eval()
    torch.manual_seed(0)
    original = build_original(resolve_backbone(config)).eval()
    image, forest = torch.rand(1, 3, 64, 64), uniform((64, 64), 16)
    with torch.no_grad():
        states = network.trunk(image, forest)[0]
        wanted = original.forward_features(image * 2 - 1)[:, 1:]
    torch.testing.assert_close(states[:, in_rows(forest)], wanted, atol=1e-4, rtol=1e-4)


def test_a_saved_model_needs_no_other_file(backbone: ModelConfig, tmp_path: Path, rng: np.random.Generator) -> None:
    config = resolve_backbone(backbone)
    network = build_model(config).eval()
    save_model(
        tmp_path / "model", network, ModelSpec(config, ForestPolicy(budget=64, window=64), ("a", "b"), window=64)
    )
    shutil.rmtree(tmp_path / "vit", ignore_errors=True)
    again = load_model(tmp_path / "model")
    assert str(tmp_path) not in (tmp_path / "model" / "config.json").read_text()
    assert again.spec.model == config
    image, forest = torch.rand(1, 3, 64, 64), ForestBatch.stack([random_forest(rng, (64, 64), budget=20)])
    with torch.no_grad():
        assert torch.equal(again.network(image, forest), network(image, forest))


def test_channels_of_the_image_may_differ_from_the_backbones() -> None:
    network = build_model(replace(SMALL, stem=(), channels=1, backbone="timm:test_vit"))
    patches = gather_batch(torch.rand(1, 1, 64, 64), uniform((64, 64), 8), 8)
    assert network.trunk.embed(patches, uniform((64, 64), 8)).shape == (1, 64, 64)


def test_volumes_are_read_by_monai() -> None:
    config = replace(SMALL, stem=(), spatial=3, channels=1, patch=4, cell=4, width=24, backbone="monai:vit")
    forest = uniform((8, 8, 8), 4)
    assert build_model(config)(torch.rand(1, 1, 8, 8, 8), forest).shape == (1, 1, 8, 8, 8)
    with pytest.raises(ValueError, match="timm:test_vit reads images; for volumes there is monai:vit"):
        build_model(replace(config, backbone="timm:test_vit", channels=3))


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"backbone": "vit_tiny"}, r"backbone must be timm:NAME, hf:FOLDER or monai:vit; got 'vit_tiny'"),
        ({"backbone": "torchvision:vit"}, "backbone must be timm:NAME"),
        (
            {"backbone": "timm:vit_tiny_patch16_225"},
            "no model 'vit_tiny_patch16_225'; near it are vit_tiny_patch16_224",
        ),
        ({"backbone": "timm:hf_hub:someone/model"}, "timm has no model 'hf_hub:someone/model'"),
        ({"backbone": "timm:resnet18"}, "found no plain vision transformer in ResNet"),
        (
            {"backbone": "timm:test_vit", "backbone_config": {"checkpoint_path": "x.pth"}},
            "unknown setting 'checkpoint_path'",
        ),
        ({"backbone": "timm:test_vit", "backbone_config": {"depth": 10**9}}, "depth of the backbone is 1000000000"),
        (
            {"backbone": "timm:test_vit", "backbone_config": {"num_heads": 7}},
            "backbone timm:test_vit: dim should be divisible",
        ),
        ({"backbone": "timm:test_vit", "dropout": 0.1}, "set the backbone's in backbone_config"),
        ({"backbone": "timm:test_vit", "embedding": "index"}, "set embedding to place or window"),
        (
            {"backbone": "timm:test_vit", "name": "unet"},
            "unet has no place for a backbone; apf_unetr, shf, apf_vit have",
        ),
        ({"backbone": "monai:unet"}, "of MONAI there is monai:vit"),
        ({"backbone": "hf:nowhere"}, "nowhere: cannot be read.*pass a folder with the config.json"),
        ({"backbone": "hf:vit", "backbone_config": VIT}, "does not say which pixel values.*preprocessor_config.json"),
        ({"backbone": "hf:x", "backbone_config": {"model_type": "nonsense"}}, "backbone hf:x: .*nonsense"),
        (
            {"backbone": "hf:x", "backbone_config": {"model_type": "timm_backbone", "use_pretrained_backbone": True}},
            "use_pretrained_backbone would load a model from elsewhere",
        ),
        ({"backbone": "hf:x", "backbone_config": {"model_type": "timm_wrapper"}}, "timm_wrapper would load a model"),
        ({"backbone": "hf:x", "backbone_config": {**VIT, "auto_map": {"AutoModel": "a.B"}}}, "auto_map would load"),
        (
            {
                "backbone": "hf:x",
                "backbone_config": {"model_type": "clip", "vision_config": {"num_hidden_layers": 9999}},
            },
            "num_hidden_layers of the backbone is 9999",
        ),
    ],
)
def test_what_does_not_fit_is_refused(change: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=match) as caught:
        build_model(replace(SMALL, **change))
    assert "\n" not in str(caught.value)


def test_broken_folders_are_refused_by_name(tmp_path: Path) -> None:
    path = folder(tmp_path / "vit", {"hidden_size": 3})
    with pytest.raises(InputError, match=r"config\.json: does not say its model_type"):
        resolve_backbone(replace(SMALL, backbone=f"hf:{path}"))
    (path / "config.json").write_text("{")
    with pytest.raises(InputError, match=r"config\.json: is no valid JSON"):
        resolve_backbone(replace(SMALL, backbone=f"hf:{path / 'config.json'}"))
    (path / "config.json").write_text("[]")
    with pytest.raises(InputError, match="holds no settings"):
        resolve_backbone(replace(SMALL, backbone=f"hf:{path}"))


VISION = {k: v for k, v in VIT.items() if k != "model_type"} | {"num_hidden_layers": 3, "patch_size": 16}
TEXT = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 48, "vocab_size": 100}


def test_of_a_model_of_images_and_text_the_vision_transformer_is_taken(tmp_path: Path) -> None:
    nested = {"model_type": "siglip", "vision_config": VISION, "text_config": TEXT}
    path = folder(tmp_path / "siglip", nested, image_mean=[0.5] * 3, image_std=[0.5] * 3)
    config = resolve_backbone(replace(SMALL, backbone=f"hf:{path}"))
    assert (config.backbone, config.width, config.depth) == ("hf:siglip", 32, 3)


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"model_type": "vit", "vision_config": VISION}, "a vit has no vision_config; name the model_type"),
        (
            {"model_type": "llava", "vision_config": {"model_type": "timm_wrapper"}, "text_config": TEXT},
            "timm_wrapper would load a model from elsewhere",
        ),
        (
            {"model_type": "siglip", "vision_config": {**VISION, "auto_map": {"AutoModel": "a.B"}}},
            "auto_map would load a model from elsewhere",
        ),
    ],
)
def test_nested_settings_are_never_passed_over(settings: dict[str, Any], match: str, tmp_path: Path) -> None:
    path = folder(tmp_path / "nested", settings, image_mean=[0.5] * 3, image_std=[0.5] * 3)
    with pytest.raises(InputError, match=rf"nested/config\.json: .*{match}") as caught:
        resolve_backbone(replace(SMALL, backbone=f"hf:{path}"))
    assert "\n" not in str(caught.value)


def test_an_absent_library_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    for backbone, extra in {"timm:test_vit": "backbones", "monai:vit": "medical"}.items():
        with pytest.raises(InputError, match=rf"backbone {backbone}: needs the package.*patchforest\[{extra}\]"):
            build_model(replace(SMALL, backbone=backbone))
