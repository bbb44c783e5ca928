"""SHF: token masks, painted at the image's size for every side from 1 to 70."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from patchforest.models.config import ModelConfig
from patchforest.models.shf import SHF
from patchforest.nn.raster import ForestBatch
from patchforest.tree.cut import cut_forest
from patchforest.values import ForestPolicy


@pytest.mark.parametrize("readout_q", [None, 4])
def test_any_size(rng: np.random.Generator, readout_q: int | None) -> None:
    model = SHF(ModelConfig(name="shf", width=8, depth=1, heads=2, stem=(4, 4), q=readout_q)).eval()
    assert model.readout.q == (readout_q or 16)
    policy = ForestPolicy(budget=16, window=64)
    for side in range(1, 71, 3):
        shape = (side, 71 - side)
        forest = ForestBatch.stack([cut_forest(rng.integers(0, 255, (*shape, 3), dtype=np.uint8), policy)])
        with torch.inference_mode():
            assert model(torch.rand(1, 3, *shape), forest).shape == (1, 1, *shape)
