"""The paint readout places leaf states where the leaves are, at any stride and odd sizes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from patchforest.nn.embed import Stem
from patchforest.nn.raster import ForestBatch
from patchforest.nn.readout.paint import PaintReadout
from tests.forests import random_forest


@pytest.mark.parametrize("stride", [1, 2, 4, 8])
def test_shapes_at_every_stride(rng: np.random.Generator, stride: int) -> None:
    shape = (45, 70)
    batch = ForestBatch.stack([random_forest(rng, shape, budget=20)])
    image = torch.rand(1, 3, *shape)
    rasters = Stem(3, (4, 6, 8)).eval()(image)
    out = PaintReadout(16, 3, 2, (4, 6, 8), stride=stride).eval()(
        torch.rand(1, batch.size_BL.shape[1], 16), batch, image, rasters
    )
    assert out.stride == stride
    assert out.logits.shape == (1, 2, -(-shape[0] // stride), -(-shape[1] // stride))


def test_a_state_changes_the_mask_only_around_its_leaf(rng: np.random.Generator) -> None:
    forest = random_forest(rng, (256, 256), budget=120)
    batch = ForestBatch.stack([forest])
    image = torch.rand(1, 3, 256, 256)
    rasters = Stem(3, (4, 6)).eval()(image)
    readout = PaintReadout(16, 3, 1, (4, 6), sub=2, stride=4).eval()
    torch.nn.init.normal_(readout.project[1].weight)  # zero at the start of training
    states = torch.rand(1, len(forest), 16)
    changed = states.clone()
    leaf = int(np.argmin(forest.size))
    changed[0, leaf] += 3.0 * torch.randn(16)
    difference = (readout(states, batch, image, rasters).logits - readout(changed, batch, image, rasters).logits).abs()
    rows, columns = torch.nonzero(difference[0, 0] > 1e-6, as_tuple=True)
    low, high = forest.origin[leaf] // 4 - 4, (forest.origin[leaf] + forest.size[leaf]) // 4 + 4
    assert len(rows) > 0
    assert low[0] <= rows.min() <= rows.max() <= high[0]
    assert low[1] <= columns.min() <= columns.max() <= high[1]


@pytest.mark.parametrize(("stem", "stride"), [((), 2), ((4, 6), 3), ((4,), 4)])
def test_strides_that_do_not_fit_are_refused(stem: tuple[int, ...], stride: int) -> None:
    with pytest.raises(ValueError, match="stride"):
        PaintReadout(8, 3, 1, stem, stride=stride)
