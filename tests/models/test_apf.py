"""APF models: every readout answers at full resolution, learns, and the class head ignores padding."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from patchforest.models.apf import APFUNETR, APFViT
from patchforest.models.config import ModelConfig
from patchforest.nn.raster import ForestBatch
from patchforest.train.losses import segmentation_loss
from patchforest.tree.forest import build_forest
from tests.forests import random_forest

SMALL = ModelConfig(width=16, depth=4, heads=2, stem=(4, 8), features=4)


@pytest.mark.parametrize("readout", ["paint", "raster", "pseudo"])
def test_learns_a_square(rng: np.random.Generator, readout: str) -> None:
    torch.manual_seed(0)
    model = APFUNETR(replace(SMALL, readout=readout))
    image = 0.2 * torch.rand(2, 3, 64, 64)
    label = torch.zeros(2, 64, 64, dtype=torch.long)
    label[0, 8:32, 16:48] = label[1, 30:60, 4:30] = 1
    image += 0.6 * label[:, None]
    batch = ForestBatch.stack([random_forest(rng, (64, 64), budget=28) for _ in range(2)])
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
    losses = []
    for _ in range(60):
        loss = segmentation_loss(model.output(image, batch), label)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < (0.75 if readout == "pseudo" else 0.6) * losses[0]
    assert all(p.grad is not None for p in model.parameters())
    assert model(image, batch).shape == (2, 1, 64, 64)


def test_unknown_readout_is_refused() -> None:
    with pytest.raises(ValueError, match="paint, raster, pseudo"):
        APFUNETR(replace(SMALL, readout="conv"))


def test_class_head_ignores_padding(rng: np.random.Generator) -> None:
    torch.manual_seed(0)
    model = APFViT(replace(SMALL, classes=5)).eval()
    small, large = random_forest(rng, (64, 64), budget=10), random_forest(rng, (64, 64), budget=40)
    image = torch.rand(2, 3, 64, 64)
    together = model(image, ForestBatch.stack([small, large]))
    assert together.shape == (2, 5)
    torch.testing.assert_close(together[:1], model(image[:1], ForestBatch.stack([small])), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("readout", ["paint", "raster"])
def test_padding_and_batch_mates_have_no_influence(rng: np.random.Generator, readout: str) -> None:
    torch.manual_seed(0)
    model = APFUNETR(replace(SMALL, readout=readout)).eval().double()
    for parameter in model.parameters():
        if not parameter.any():  # tokens join in only after some training
            torch.nn.init.normal_(parameter, std=0.1)
    small, large = random_forest(rng, (50, 64), budget=10), random_forest(rng, (50, 64), budget=40)
    image = torch.rand(2, 3, 50, 64, dtype=torch.float64, requires_grad=True)
    together = model(image, ForestBatch.stack([small, large]))[:1]
    alone = model(image[:1], ForestBatch.stack([small]))
    torch.testing.assert_close(together, alone, atol=1e-8, rtol=0)  # place features are float32
    together.sum().backward()
    assert image.grad is not None
    assert image.grad[0].any()
    assert not image.grad[1].any()


def test_class_head_weighs_by_the_area_inside_the_image(rng: np.random.Generator) -> None:
    """Four roots over 65 × 65 pixels: three of them show next to nothing."""
    model = APFViT(replace(SMALL, classes=2, pooling="area")).eval()
    batch = ForestBatch.stack([build_forest(np.ones((9, 9)), shape=(65, 65), cell=8, uniform=64, root=64)])
    image = torch.rand(1, 3, 65, 65)
    states = model.trunk(image, batch)[0][0]
    weight = torch.tensor([64.0 * 64, 64, 64, 1]) / 65**2
    torch.testing.assert_close(model(image, batch)[0], model.head(weight @ states))


def test_detail_weighs_more_where_every_token_counts_alike(rng: np.random.Generator) -> None:
    model = APFViT(replace(SMALL, classes=2)).eval()
    batch = ForestBatch.stack([random_forest(rng, (64, 64), budget=22)])
    image = torch.rand(1, 3, 64, 64)
    states = model.trunk(image, batch)[0][0]
    torch.testing.assert_close(model(image, batch)[0], model.head(states.mean(0)))
