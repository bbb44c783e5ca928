"""SHF: token masks, painted at the image's size for every side from 1 to 70."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from patchforest.models.config import ModelConfig
from patchforest.models.shf import SHF
from patchforest.models.trunk import PatchBatch
from patchforest.nn.raster import ForestBatch
from patchforest.nn.readout.output import TokenMask
from patchforest.tree.cut import cut_forest
from patchforest.tree.gather import gather
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


def test_it_answers_for_patches_as_for_the_image(rng: np.random.Generator) -> None:
    model = SHF(ModelConfig(name="shf", width=8, depth=1, heads=2, stem=())).eval()
    image = rng.random((40, 56, 3), np.float32)
    forest = cut_forest(image, ForestPolicy(budget=20, criterion="random"))
    batch, pixels = ForestBatch.stack([forest]), torch.from_numpy(image.transpose(2, 0, 1))[None]
    patches = PatchBatch(torch.from_numpy(gather(image, forest, 8).patches)[None])
    with torch.inference_mode():
        wanted, got = model.output(pixels, batch), model.output(patches, batch)
    assert isinstance(wanted, TokenMask)
    assert isinstance(got, TokenMask)
    torch.testing.assert_close(got.logits, wanted.logits, atol=1e-5, rtol=1e-4)
