"""The trunk: padding has no influence, leaf order does not matter, settings that clash are refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from patchforest.models.config import ModelConfig
from patchforest.models.normalise import normalise, see
from patchforest.models.trunk import PatchBatch, Trunk
from patchforest.nn.raster import ForestBatch, gather_batch
from tests.forests import random_forest

SMALL = ModelConfig(width=16, depth=2, heads=2, stem=(4, 8))


def test_padding_has_no_influence(rng: np.random.Generator) -> None:
    torch.manual_seed(0)
    trunk = Trunk(SMALL).eval()
    small, large = random_forest(rng, (64, 64), budget=10), random_forest(rng, (64, 64), budget=40)
    image = torch.rand(2, 3, 64, 64)
    together = trunk(image, ForestBatch.stack([small, large]))[0]
    alone = trunk(image[:1], ForestBatch.stack([small]))[0]
    torch.testing.assert_close(together[0, : len(small)], alone[0], atol=1e-5, rtol=1e-4)


def test_order_of_leaves_does_not_matter(rng: np.random.Generator) -> None:
    torch.manual_seed(0)
    trunk = Trunk(SMALL).eval()
    batch = ForestBatch.stack([random_forest(rng, (64, 64), budget=40)])
    order = torch.randperm(batch.size_BL.shape[1])
    mixed = replace(batch, origin_BLn=batch.origin_BLn[:, order], size_BL=batch.size_BL[:, order])
    image = torch.rand(1, 3, 64, 64)
    torch.testing.assert_close(trunk(image, mixed)[0], trunk(image, batch)[0][:, order], atol=1e-5, rtol=1e-4)


def test_settings_that_clash_are_refused(rng: np.random.Generator) -> None:
    with pytest.raises(ValueError, match="stride"):
        Trunk(replace(SMALL, stem=(4, 4, 4, 4)))
    batch = ForestBatch.stack([random_forest(rng, (64, 64), cell=16, budget=10)])
    with pytest.raises(ValueError, match="cell 16"):
        Trunk(SMALL)(torch.rand(1, 3, 64, 64), batch)


def test_patches_gathered_before_are_read_as_the_image_is(rng: np.random.Generator) -> None:
    torch.manual_seed(0)
    trunk = Trunk(replace(SMALL, stem=())).eval()
    batch = ForestBatch.stack([random_forest(rng, (70, 50), budget=b) for b in (10, 40)])
    image = torch.rand(2, 3, 70, 50)
    states, taps, _, _ = trunk(image, batch)
    read, read_taps = trunk.read(PatchBatch(gather_batch(image, batch, 8)), batch)
    torch.testing.assert_close(read[batch.valid_BL], states[batch.valid_BL], atol=1e-5, rtol=1e-4)
    assert len(read_taps) == len(taps)
    with pytest.raises(ValueError, match="stem of this model reads an image"):
        Trunk(SMALL).read(PatchBatch(gather_batch(image, batch, 8)), batch)
    with pytest.raises(ValueError, match=r"patches must be \(B, L, C, p, p\)"):
        trunk.read(PatchBatch(gather_batch(image, batch, 4)), batch)
    with pytest.raises(ValueError, match="cell 8"):
        Trunk(replace(SMALL, stem=(), cell=16)).read(PatchBatch(gather_batch(image, batch, 8)), batch)


def test_padding_and_order_have_no_influence_on_volumes(rng: np.random.Generator) -> None:
    torch.manual_seed(0)
    trunk = Trunk(replace(SMALL, spatial=3, stem=(4, 4), patch=4, cell=4, channels=1)).eval()
    small, large = (random_forest(rng, (16, 32, 24), cell=4, root=16, budget=b) for b in (12, 60))
    volume = torch.rand(2, 1, 16, 32, 24)
    batch = ForestBatch.stack([small, large])
    together = trunk(volume, batch)[0]
    torch.testing.assert_close(
        together[0, : len(small)], trunk(volume[:1], ForestBatch.stack([small]))[0][0], atol=1e-5, rtol=1e-4
    )
    order = torch.randperm(len(large))
    alone = ForestBatch.stack([large])
    mixed = replace(alone, origin_BLn=alone.origin_BLn[:, order], size_BL=alone.size_BL[:, order])
    torch.testing.assert_close(trunk(volume[1:], mixed)[0][0], together[1, order], atol=1e-5, rtol=1e-4)


def test_the_stem_sees_values_against_their_surroundings_and_leaves_see_values_alone() -> None:
    trunk = Trunk(ModelConfig(width=16, depth=1, heads=2, stem=(4, 8), surround=16)).eval()
    image = torch.rand(1, 3, 48, 64)
    with torch.no_grad():
        seen, rasters = trunk.see(image)
        assert trunk.stem is not None
        expected = trunk.stem(see(image, 16).contiguous(memory_format=torch.channels_last))
    assert torch.equal(seen, normalise(image))
    assert all(torch.equal(a, b) for a, b in zip(rasters, expected, strict=True))
