"""A token is the projected patch and the table at the leaf; scale and stem have no say until they learn."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from patchforest.nn.adapt.embed import AdaptedEmbed
from patchforest.nn.adapt.positions import leaf_places, read_table
from patchforest.nn.adapt.projection import Projection
from patchforest.nn.raster import ForestBatch, gather_batch
from tests.forests import random_forest


def made(**options: object) -> AdaptedEmbed:
    torch.manual_seed(0)
    projection = Projection(torch.randn(6, 2, 8, 8), torch.randn(6), torch.tensor([0.1, 0.2]), torch.tensor([0.3, 0.4]))
    return AdaptedEmbed(projection, torch.randn(3, 4, 6), pretrained_side=16.0, norm=nn.LayerNorm(6), **options)  # type: ignore[arg-type]


def test_a_token_is_pixels_and_position(rng: np.random.Generator) -> None:
    embed, forest = made(), ForestBatch.stack([random_forest(rng, (64, 64), budget=b) for b in (10, 40)])
    image = torch.rand(2, 2, 64, 64)
    patches = gather_batch(image, forest, 8)
    tokens = embed(patches, forest)
    seen = (patches - torch.tensor([0.1, 0.2])[:, None, None]) / torch.tensor([0.3, 0.4])[:, None, None]
    wanted = embed.norm(torch.einsum("blcij,dcij->bld", seen, embed.pixels.weight.view(6, 2, 8, 8)) + embed.pixels.bias)
    wanted = wanted + read_table(embed.table, leaf_places(forest, (3, 4), framed=True))
    torch.testing.assert_close(tokens[forest.valid_BL], wanted[forest.valid_BL], atol=1e-5, rtol=1e-4)
    assert not tokens[~forest.valid_BL].any()


def test_scale_and_stem_start_silent_and_learn(rng: np.random.Generator) -> None:
    forest = ForestBatch.stack([random_forest(rng, (64, 64), budget=40)])
    patches, stem = torch.rand(1, 40, 2, 8, 8), torch.rand(1, 40, 5)
    embed = made(stem_features=5)
    plain = embed(patches, forest, stem)
    torch.testing.assert_close(plain, made()(patches, forest))
    plain.square().sum().backward()
    assert embed.stem is not None
    for parameter in (embed.scale, embed.stem.weight, embed.pixels.weight, embed.table):
        assert parameter.grad is not None
        assert parameter.grad.abs().sum() > 0
    with torch.no_grad():
        embed.scale[0] = 1.0
        embed.scale[1] = 10.0
    s = torch.log2(forest.size_BL / 16.0)[..., None]
    assert s.unique().numel() > 1
    torch.testing.assert_close(embed(patches, forest, stem) - plain, (s + 10 * s**2).expand(-1, -1, 6))


def test_windows_may_fill_the_table(rng: np.random.Generator) -> None:
    forest = random_forest(rng, (64, 64), budget=40)
    whole, patches = ForestBatch.stack([forest]), torch.rand(1, 40, 2, 8, 8)
    window = ForestBatch.stack([forest], place=torch.tensor([[512.0, 0, 1024, 1024]]))
    torch.testing.assert_close(made(framed=False)(patches, window), made()(patches, whole))
    assert not torch.allclose(made()(patches, window), made()(patches, whole))
