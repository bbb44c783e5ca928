"""A uniform forest with the raster readout is the plain grid model; the pseudo grid is not registered."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from patchforest.nn.raster import ForestBatch
from patchforest.nn.readout.unetr import PseudoReadout, RasterReadout
from patchforest.tree.forest import build_forest
from tests.forests import random_forest


def test_uniform_forest_is_the_plain_grid() -> None:
    torch.manual_seed(0)
    side, width = 8, 16
    forest = build_forest(np.ones((8, 12), np.float32), shape=(64, 96), cell=8, uniform=side)
    batch = ForestBatch.stack([forest])
    readout = RasterReadout(width, 3, 1, 4, cell=8).eval()
    states, image = [torch.rand(1, len(forest), width) for _ in range(4)], torch.rand(1, 3, 64, 96)
    got = readout(states, batch, image).logits
    rows, columns = torch.from_numpy(forest.origin // side).unbind(1)
    rasters = []
    for k, (state, project) in enumerate(zip(states, readout.project)):
        grid = torch.empty(1, project.out_features, 8, 12)
        grid[0, :, rows, columns] = project(state)[0].T
        rasters.append(grid.repeat_interleave(2**k, 2).repeat_interleave(2**k, 3))
    torch.testing.assert_close(got, readout.decoder(rasters, image).logits)


@pytest.mark.parametrize("branch", [True, False])
@pytest.mark.parametrize("shape", [(64, 64), (37, 90)])
def test_any_length_and_size(rng: np.random.Generator, branch: bool, shape: tuple[int, int]) -> None:
    batch = ForestBatch.stack([random_forest(rng, shape, budget=21)])
    states = [torch.rand(1, batch.size_BL.shape[1], 8)] * 4
    out = RasterReadout(8, 1, 2, 4, cell=8, image_branch=branch).eval()(states, batch, torch.rand(1, 1, *shape))
    assert out.raster(shape).shape == (1, 2, *shape)


def test_pseudo_grid_takes_any_length(rng: np.random.Generator) -> None:
    batch = ForestBatch.stack([random_forest(rng, (64, 80), budget=23)])
    states = [torch.rand(1, batch.size_BL.shape[1], 8)] * 4
    out = PseudoReadout(8, 3, 2, 4).eval()(states, batch, torch.rand(1, 3, 64, 80))
    assert out.logits.shape == (1, 2, 64, 80)


def test_padding_is_blank_in_the_pseudo_grid(rng: np.random.Generator) -> None:
    """What the encoder leaves in padded places must not reach the neighbours' mask."""
    batch = ForestBatch.stack([random_forest(rng, (64, 64), budget=b) for b in (28, 34)])
    padded = ~batch.valid_BL
    assert padded[0].any()
    states, image = torch.rand(2, batch.size_BL.shape[1], 8), torch.rand(2, 3, 64, 64)
    readout = PseudoReadout(8, 3, 2, 4).eval()
    before = readout([states] * 4, batch, image).logits
    after = readout([states + 50.0 * padded[..., None]] * 4, batch, image).logits
    assert torch.equal(before, after)
