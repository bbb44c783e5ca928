"""Adapted transformers on a uniform forest are the originals; on any forest padding and order have no say."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from patchforest.nn.adapt.adapt import AdaptedEncoder, adapt
from patchforest.nn.compat import require
from patchforest.nn.raster import ForestBatch, gather_batch
from tests.forests import random_forest
from tests.nn.adapt.uniform import in_rows, roughened, uniform

for package in ("timm", "transformers", "monai", "einops"):
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"the extras backbones and medical are not installed: no {package}", allow_module_level=True)

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
TINY = {"img_size": (64, 96), "embed_dim": 32, "depth": 2, "num_heads": 2}
HF = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48, "image_size": 64}
Original = tuple[nn.Module, Callable[[Tensor], Tensor], tuple[int, int], int]
"""A model, its features of the patches (B, N, D) in rows, the size and the patch it was made for."""


def timm_vit(name: str, **settings: Any) -> Original:
    timm = require("timm", user="test", extra="backbones")
    model = roughened(timm.create_model(name, num_classes=0, **settings))
    size = getattr(getattr(model, "patch_embed", None), "img_size", (256, 256))
    return model, lambda x: model.forward_features(x)[:, model.num_prefix_tokens :], size, 16


def naflex() -> Original:
    return timm_vit("naflexvit_base_patch16_map", embed_dim=32, depth=2, num_heads=2)


def timm_sam() -> Original:
    settings = {**TINY, "img_size": 64, "use_rel_pos": False, "window_size": 0, "global_attn_indexes": ()}
    model, _, size, patch = timm_vit("samvit_base_patch16", **settings)
    return model, before_neck(model, model.blocks[-1]), size, patch


def hugging_face(kind: str, **settings: Any) -> Original:
    transformers = require("transformers", user="test", extra="backbones")
    config = transformers.AutoConfig.for_model(kind, **{**HF, **settings})
    model = roughened(transformers.AutoModel.from_config(config))
    size = (config.image_size, config.image_size)
    if "sam" in kind:
        return model, before_neck(model, model.vision_encoder.layers[-1]), size, config.patch_size
    count = (config.image_size // config.patch_size) ** 2
    return model, lambda x: model(x).last_hidden_state[:, -count:], size, config.patch_size


def sam(**settings: Any) -> Original:
    everywhere = {"window_size": 0, "global_attn_indexes": [0, 1], "use_rel_pos": False, "mlp_dim": 48}
    return hugging_face("sam_vision_model", **everywhere, **settings)


def monai(**settings: Any) -> Original:
    nets = require("monai.networks.nets", user="test", extra="medical")
    layers = {"hidden_size": 32, "mlp_dim": 48, "num_layers": 2, "num_heads": 2, "spatial_dims": 2}
    model = roughened(nets.ViT(in_channels=3, img_size=64, patch_size=16, **layers, **settings))
    return model, lambda x: model.norm(model(x)[1][-1])[:, -16:], (64, 64), 16


def before_neck(model: nn.Module, last: nn.Module) -> Callable[[Tensor], Tensor]:
    """States after the last block of SAM's encoder, before its neck."""
    kept: list[Tensor] = []
    last.register_forward_hook(lambda module, given, out: kept.append(out.flatten(1, 2)))

    def features(x: Tensor) -> Tensor:
        getattr(model, "forward_features", model)(x)
        return kept.pop()

    return features


ORIGINALS: dict[str, Callable[[], Original]] = {
    "timm, class token": lambda: timm_vit("vit_tiny_patch16_224", **TINY),
    "timm, no class token": lambda: timm_vit("vit_base_patch16_siglip_224", **TINY),
    "timm, registers, layer scale, dynamic size": lambda: timm_vit("test_vit2"),
    "timm, registers without positions": lambda: timm_vit("vit_small_patch14_reg4_dinov2", **TINY, patch_size=16),
    "timm, two class tokens": lambda: timm_vit("deit_tiny_distilled_patch16_224", **TINY),
    "timm, norm before": lambda: timm_vit("vit_base_patch16_clip_224", **TINY),
    "timm NaFlexVit": naflex,
    "timm SAM": timm_sam,
    "ViT": lambda: hugging_face("vit"),
    "DINOv2": lambda: hugging_face("dinov2", patch_size=14, image_size=56),
    "DINOv2, gated": lambda: hugging_face("dinov2", patch_size=14, image_size=56, use_swiglu_ffn=True),
    "DINOv2, registers": lambda: hugging_face("dinov2_with_registers", patch_size=14, image_size=56),
    "CLIP": lambda: hugging_face("clip_vision_model", patch_size=16),
    "SAM": sam,
    "SAM without positions": lambda: sam(use_abs_pos=False),
    "MONAI": monai,
    "MONAI, class token, perceptron": lambda: monai(classification=True, proj_type="perceptron"),
}


@pytest.mark.parametrize("name", ORIGINALS)
def test_a_uniform_forest_gives_the_original_features(name: str, rng: np.random.Generator) -> None:
    model, features, size, patch = ORIGINALS[name]()
    mean, std = torch.tensor(MEAN)[:, None, None], torch.tensor(STD)[:, None, None]
    image, forest = torch.rand(1, 3, *size), uniform(size, patch)
    encoder = adapt(model, patch=patch, mean=MEAN, std=STD)
    with torch.no_grad():
        wanted = features((image - mean) / std)
        states, taps = encoder(gather_batch(image, forest, patch), forest)
    assert states.shape[-1] == encoder.width
    assert len(taps) == 4
    assert states.std() > 0.1
    torch.testing.assert_close(states[:, in_rows(forest)], wanted, atol=1e-4, rtol=1e-4)
    check_any_forest(adapt(model, patch=8, mean=MEAN, std=STD), rng)


def check_any_forest(encoder: AdaptedEncoder, rng: np.random.Generator) -> None:
    """Padding has no influence, neither has the order of leaves, in full and in low precision."""
    small, large = random_forest(rng, (64, 80), budget=8), random_forest(rng, (64, 80), budget=30)
    image, batch = torch.rand(2, 3, 64, 80), ForestBatch.stack([small, large])
    patches = gather_batch(image, batch, 8)
    with torch.no_grad():
        together = encoder(patches, batch)[0]
        alone = encoder(patches[:1, : len(small)], ForestBatch.stack([small]))[0]
        order = torch.randperm(len(large))
        mixed = ForestBatch.stack([large])
        mixed = replace(mixed, origin_BLn=mixed.origin_BLn[:, order], size_BL=mixed.size_BL[:, order])
        shuffled = encoder(patches[1:, order], mixed)[0]
        with torch.autocast("cpu", dtype=torch.bfloat16):
            low = encoder(patches, batch)[0]
    torch.testing.assert_close(together[0, : len(small)], alone[0], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(shuffled[0], together[1, order], atol=1e-4, rtol=1e-4)
    assert (low.float() - together)[batch.valid_BL].abs().mean() < 0.1 * together.std()


def test_pixels_at_another_patch_answer_as_their_averages() -> None:
    """Fine enough images: a model adapted to 32 sees in 32-pixel patches what the original sees in their averages."""
    model, features, size, _ = ORIGINALS["timm, class token"]()
    image = torch.rand(1, 3, *size).repeat_interleave(2, 2).repeat_interleave(2, 3)
    forest = uniform(tuple(image.shape[2:]), 32)
    encoder = adapt(model, patch=32, mean=(0.5,), std=(0.25,))
    with torch.no_grad():
        wanted = features((image[..., ::2, ::2] - 0.5) / 0.25)
        states, _ = encoder(gather_batch(image, forest, 32), forest)
    torch.testing.assert_close(states[:, in_rows(forest)], wanted, atol=1e-4, rtol=1e-4)


def test_a_timm_model_knows_its_pixel_values_and_others_must_be_told() -> None:
    model, features, size, patch = ORIGINALS["timm, class token"]()
    forest, image = uniform(size, patch), torch.rand(1, 3, *size)
    encoder = adapt(model, patch=patch)
    assert encoder.embed.mean.flatten().tolist() == [0.5] * 3
    with torch.no_grad():
        states, _ = encoder(gather_batch(image, forest, patch), forest)
        torch.testing.assert_close(states[:, in_rows(forest)], features(image * 2 - 1), atol=1e-4, rtol=1e-4)
    with pytest.raises(ValueError, match=r"ViTModel does not say.*mean= and std=.*preprocessor_config"):
        adapt(hugging_face("vit")[0], patch=16)
    with pytest.raises(ValueError, match="mean must be 3 numbers"):
        adapt(model, patch=16, mean=(0.1, 0.2), std=(1, 1, 1))
    with pytest.raises(ValueError, match="std must be 3 numbers"):
        adapt(model, patch=16, mean=(0.1, 0.2, 0.3), std=(1, 0, 1))


def test_the_original_keeps_its_mode_and_lends_its_blocks() -> None:
    model = timm_vit("vit_tiny_patch16_224", **TINY, pos_drop_rate=0.5)[0]
    model.train()
    model.blocks[0].eval()
    encoder = adapt(model, patch=8, stem_features=3)
    assert model.training
    assert not model.blocks[0].training
    assert encoder.encoder.blocks[1].block is model.blocks[1]
    assert encoder.depth == 2
    names = dict(encoder.named_parameters())
    assert not [n for n in names if "head" in n]
    assert names["embed.table"] is not model.pos_embed
    torch.testing.assert_close(adapt(model, patch=8).embed.table, encoder.embed.table)  # no dropout while reading


def test_of_a_model_of_pictures_and_text_the_picture_half_is_read() -> None:
    transformers = require("transformers", user="test", extra="backbones")
    text = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    both = transformers.CLIPConfig(vision_config={**HF, "patch_size": 16}, text_config=text, projection_dim=8)
    encoder = adapt(transformers.CLIPModel(both), patch=8, mean=MEAN, std=STD)
    assert (encoder.width, encoder.depth) == (32, 2)


def test_volumes_are_read_by_a_model_of_volumes() -> None:
    nets = require("monai.networks.nets", user="test", extra="medical")
    layers = {"hidden_size": 24, "mlp_dim": 48, "num_layers": 2, "num_heads": 2, "spatial_dims": 3}
    model = roughened(nets.ViT(in_channels=1, img_size=(8, 16, 24), patch_size=8, **layers))
    forest, volume = uniform((8, 16, 24), 8), torch.rand(1, 1, 8, 16, 24)
    encoder = adapt(model, patch=8, mean=(0.0,), std=(1.0,), grid=(1, 2, 3))
    with torch.no_grad():
        states, _ = encoder(gather_batch(volume, forest, 8), forest)
        torch.testing.assert_close(states[:, in_rows(forest)], model(volume)[0], atol=1e-4, rtol=1e-4)
    with pytest.raises(ValueError, match=r"its 6 positions are no grid.*grid=\(rows, columns\)"):
        adapt(model, patch=8, mean=(0.0,), std=(1.0,))


@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("eva02_tiny_patch14_224", r"rotary positions \(rope\)"),
        ("resnet18", "found no plain vision transformer in ResNet"),
        ("swin_tiny_patch4_window7_224", "found no plain vision transformer in SwinTransformer"),
        ("vit_tiny_r_s16_p8_224", "HybridEmbed is no single projection"),
    ],
)
def test_what_is_no_plain_transformer_is_refused(name: str, match: str) -> None:
    timm = require("timm", user="test", extra="backbones")
    with torch.device("meta"):
        model = timm.create_model(name, num_classes=0)
    with pytest.raises(ValueError, match=match):
        adapt(model, patch=8)
