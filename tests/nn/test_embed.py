"""Tokens know pixels, place and scale, and nothing of their index; padding is zero."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from patchforest.nn.embed import PLACE_FEATURES, PatchEmbed, Stem, place_features
from patchforest.nn.raster import ForestBatch
from tests.forests import random_forest


def test_the_same_leaf_at_another_index_gets_the_same_embedding(rng: np.random.Generator) -> None:
    batch = ForestBatch.stack([random_forest(rng, (128, 128), budget=b) for b in (20, 50)])
    features = place_features(batch)
    assert features.shape[-1] == PLACE_FEATURES
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
