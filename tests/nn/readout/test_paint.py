"""The paint readout places leaf states where the leaves are, at any stride and odd sizes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from patchforest.nn.embed import Stem
from patchforest.nn.raster import ForestBatch
from patchforest.nn.readout.paint import PaintReadout
from patchforest.tree.forest import build_forest
from tests.forests import random_forest


@pytest.mark.parametrize("stride", [2, 4, 8])
def test_shapes_at_every_stride(rng: np.random.Generator, stride: int) -> None:
    shape = (45, 70)
    batch = ForestBatch.stack([random_forest(rng, shape, budget=20)])
    rasters = Stem(3, (4, 6, 8)).eval()(torch.rand(1, 3, *shape))
    states = torch.rand(1, batch.size_BL.shape[1], 16)
    out = PaintReadout(16, 2, (4, 6, 8), stride=stride).eval()(states, batch, rasters)
    assert out.stride == 1
    assert out.logits.shape == (1, 2, *shape)


def test_a_cell_answers_for_its_own_pixels() -> None:
    """Of a head that says in turn 0 to 15 for class 0 and 100 to 115 for class 1, every 4 × 4 pixels read so."""
    readout = PaintReadout(16, 2, (4, 6), stride=4).eval()
    torch.nn.init.zeros_(readout.head.weight)
    with torch.no_grad():
        readout.head.bias.copy_(torch.cat([torch.arange(16.0), 100 + torch.arange(16.0)]))
    batch = ForestBatch.stack([build_forest(np.ones((2, 3)), shape=(16, 24), cell=8, budget=6, root=8)])
    logits = readout(torch.rand(1, 6, 16), batch, Stem(3, (4, 6)).eval()(torch.rand(1, 3, 16, 24))).logits
    for k in range(2):
        expected = 100.0 * k + torch.arange(16.0).view(4, 4).repeat(4, 6)
        torch.testing.assert_close(logits[0, k], expected)


def test_a_state_changes_the_mask_only_around_its_leaf(rng: np.random.Generator) -> None:
    forest = random_forest(rng, (256, 256), budget=120)
    batch = ForestBatch.stack([forest])
    rasters = Stem(3, (4, 6)).eval()(torch.rand(1, 3, 256, 256))
    readout = PaintReadout(16, 1, (4, 6), sub=2, stride=4).eval()
    torch.nn.init.normal_(readout.project[1].weight)  # zero at the start of training
    states = torch.rand(1, len(forest), 16)
    changed = states.clone()
    leaf = int(np.argmin(forest.size))
    changed[0, leaf] += 3.0 * torch.randn(16)
    difference = (readout(states, batch, rasters).logits - readout(changed, batch, rasters).logits).abs()
    rows, columns = torch.nonzero(difference[0, 0] > 1e-6, as_tuple=True)
    low, high = forest.origin[leaf] - 16, forest.origin[leaf] + forest.size[leaf] + 16
    assert len(rows) > 0
    assert low[0] <= rows.min() <= rows.max() <= high[0]
    assert low[1] <= columns.min() <= columns.max() <= high[1]


@pytest.mark.parametrize(("stem", "stride"), [((), 2), ((4, 6), 3), ((4,), 4), ((4, 6), 1)])
def test_strides_that_do_not_fit_are_refused(stem: tuple[int, ...], stride: int) -> None:
    with pytest.raises(ValueError, match="stride"):
        PaintReadout(8, 1, stem, stride=stride)
