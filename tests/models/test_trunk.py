"""The trunk: padding has no influence, leaf order does not matter, settings that clash are refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from patchforest.models.config import ModelConfig
from patchforest.models.trunk import Trunk
from patchforest.nn.raster import ForestBatch
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
