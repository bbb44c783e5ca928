"""Tokens know pixels, place and scale, and nothing of their index; padding is zero."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from patchforest.nn.embed import ConvNormAct, PatchEmbed, Stem, place_feature_count, place_features
from patchforest.nn.raster import ForestBatch
from tests.forests import random_forest


def test_the_same_leaf_at_another_index_gets_the_same_embedding(rng: np.random.Generator) -> None:
    batch = ForestBatch.stack([random_forest(rng, (128, 128), budget=b) for b in (20, 50)])
    features = place_features(batch)
    assert features.shape[-1] == place_feature_count() == 50
    shared = 0
    for i in range(20):
        same = (batch.origin_BLn[1] == batch.origin_BLn[0, i]).all(-1) & (batch.size_BL[1] == batch.size_BL[0, i])
        for j in torch.nonzero(same & batch.valid_BL[1])[:, 0].tolist():
            torch.testing.assert_close(features[0, i], features[1, j])
            shared += i != j
    assert shared > 0


def test_a_window_knows_its_place_in_the_frame(rng: np.random.Generator) -> None:
    forest = random_forest(rng, (64, 64), budget=20)
    here = ForestBatch.stack([forest])
    there = replace(here, place_B4=torch.tensor([[100.0, 30.0, 500.0, 500.0]]))
    assert not torch.allclose(place_features(here), place_features(there))
    patches = torch.rand(1, len(forest), 3, 4, 4)
    for embedding in ("place", "window"):
        embed = PatchEmbed(48, 16, embedding=embedding)
        assert torch.equal(embed(patches, here), embed(patches, there)) == (embedding == "window")


def test_place_separates_neighbouring_leaves_and_sizes(rng: np.random.Generator) -> None:
    features = place_features(ForestBatch.stack([random_forest(rng, (256, 256), budget=100)]))[0]
    distance = torch.cdist(features, features) + torch.eye(len(features)) * 9
    assert distance.min() > 0.1


def test_padding_is_zero_and_index_has_a_limit(rng: np.random.Generator) -> None:
    batch = ForestBatch.stack([random_forest(rng, (128, 128), budget=b) for b in (20, 50)])
    patches = torch.rand(*batch.size_BL.shape, 3, 4, 4)
    for kind in ("place", "index"):
        tokens = PatchEmbed(48, 32, embedding=kind)(patches, batch)
        assert tokens.shape == (2, batch.size_BL.shape[1], 32)
        assert not tokens[~batch.valid_BL].any()
    with pytest.raises(ValueError, match="place"):
        PatchEmbed(48, 32, embedding="index", max_tokens=10)(patches, batch)
    with pytest.raises(ValueError, match="embedding"):
        PatchEmbed(48, 32, embedding="rope")


@pytest.mark.parametrize("shape", [(64, 48), (1, 1), (7, 30)])
def test_stem_strides(shape: tuple[int, int]) -> None:
    rasters = Stem(3, (4, 8, 16)).eval()(torch.rand(1, 3, *shape))
    assert [tuple(r.shape[1:]) for r in rasters] == [
        (w, -(-shape[0] // s), -(-shape[1] // s)) for w, s in ((4, 2), (8, 4), (16, 8))
    ]


def test_leaves_of_a_volume_are_told_apart_and_know_their_window(rng: np.random.Generator) -> None:
    forest = random_forest(rng, (32, 64, 64), cell=4, budget=120)
    whole = ForestBatch.stack([forest])
    features = place_features(whole)[0]
    assert features.shape == (len(forest), place_feature_count(3)) == (len(forest), 72)
    assert (torch.cdist(features, features) + torch.eye(len(features)) * 9).min() > 0.1
    corner = ForestBatch.stack([forest], place=torch.tensor([[0.0, 0, 0, 32, 64, 64]]))
    torch.testing.assert_close(place_features(corner)[0], features)
    for axis in range(3):
        place = torch.tensor([[0.0, 0, 0, 99, 99, 99]])
        place[0, axis] = 40
        moved = place_features(replace(whole, place_B4=place))[0]
        unmoved = replace(whole, origin_BLn=whole.origin_BLn + 40 * (torch.arange(3) == axis))
        torch.testing.assert_close(moved, place_features(unmoved)[0])
    tokens = PatchEmbed(64, 16, spatial=3)(torch.rand(1, len(forest), 1, 4, 4, 4), whole)
    assert tokens.shape == (1, len(forest), 16)


@pytest.mark.parametrize("shape", [(16, 24, 8), (1, 5, 30)])
def test_stem_of_volumes(shape: tuple[int, int, int]) -> None:
    rasters = Stem(1, (4, 8), spatial=3).eval()(torch.rand(2, 1, *shape))
    assert [tuple(r.shape[1:]) for r in rasters] == [(w, *(-(-n // s) for n in shape)) for w, s in ((4, 2), (8, 4))]


@pytest.mark.parametrize("batch", [1, 2])
def test_an_instance_norm_of_one_pixel_leaves_its_bias_alone(batch: int) -> None:
    layer = ConvNormAct(3, 4, norm="instance")
    norm = layer[1]
    assert isinstance(norm, torch.nn.InstanceNorm2d)
    with torch.no_grad():
        norm.bias.copy_(torch.tensor([-1.0, 2.0, -3.0, 4.0]))
    before = norm.bias.detach().clone()
    x = torch.rand(batch, 3, 1, 1)
    with torch.no_grad():
        assert torch.equal(layer(x), before.clamp(min=0)[None, :, None, None].expand(batch, -1, 1, 1))
    layer(x).sum().backward()
    assert torch.equal(norm.bias, before)
    assert norm.bias.grad is not None
