"""Two looks: leaves move to where the first answer is unsure, states go with them, batch mates have no say."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from patchforest.models.config import ModelConfig
from patchforest.models.refined import Refined, carry, refine
from patchforest.nn.raster import ForestBatch
from patchforest.nn.readout.output import RasterMask, TokenMask
from patchforest.train.losses import segmentation_loss
from patchforest.tree.forest import build_forest
from patchforest.values import Forest
from tests.forests import random_forest

SMALL = ModelConfig(name="refined", width=16, depth=4, heads=2, stem=(4, 8))


def _pixels(states: np.ndarray, forest: Forest) -> np.ndarray:
    """(H, W, D): the state of the leaf over every pixel."""
    out = np.zeros((*forest.shape, states.shape[1]))
    for state, (row, column), side in zip(states, forest.origin, forest.size):
        out[row : row + side, column : column + side] = state
    return out


def test_states_go_with_their_leaves(rng: np.random.Generator) -> None:
    """A leaf's state is the mean of the old states over its pixels, and of one that stays exactly its own."""
    for shape in ((128, 192), (90, 70), (40, 200)):
        olds = [random_forest(rng, shape, budget=n) for n in (60, 30)]
        news = [random_forest(rng, shape, budget=n) for n in (40, 90)]
        old, new = ForestBatch.stack(olds), ForestBatch.stack(news)
        states = rng.normal(size=(2, old.size_BL.shape[1], 5))
        got, stays = carry(torch.from_numpy(states), old, new)
        kept = 0
        for b in range(2):
            pixels = _pixels(states[b], olds[b])
            before = {(int(row), int(column), int(side)) for (row, column), side in zip(olds[b].origin, olds[b].size)}
            for leaf, ((row, column), side) in enumerate(zip(news[b].origin, news[b].size)):
                mean = pixels[row : row + side, column : column + side].mean((0, 1))
                np.testing.assert_allclose(got[b, leaf].numpy(), mean, atol=1e-10)
                assert bool(stays[b, leaf]) == ((int(row), int(column), int(side)) in before)
                kept += bool(stays[b, leaf])
            assert not got[b, len(news[b]) :].any()
            assert not stays[b, len(news[b]) :].any()
        assert 0 < kept < len(news[0]) + len(news[1])


def test_means_of_float32_states_are_exact_far_into_the_sequence(rng: np.random.Generator) -> None:
    old, new = random_forest(rng, (1024, 1024), budget=4000), random_forest(rng, (1024, 1024), budget=900)
    states = torch.randn(1, len(old), 3) + 5
    batches = ForestBatch.stack([old]), ForestBatch.stack([new])
    got, expected = carry(states, *batches)[0], carry(states.double(), *batches)[0]
    assert got.dtype == torch.float32
    torch.testing.assert_close(got.double(), expected, atol=1e-6, rtol=1e-6)


def test_leaves_go_where_the_answer_is_mixed_or_unsure() -> None:
    """The left half is surely background; an edge runs through the right half: the leaves gather along it."""
    old = build_forest(np.ones((16, 16)), shape=(128, 128), cell=8, uniform=32, root=128)
    logits = torch.full((1, len(old), 1, 8, 8), -12.0)
    for leaf, (_, column) in enumerate(old.origin):
        if column == 64:
            logits[0, leaf, 0, :, 3:] = 12.0  # an edge at column 76, in the cells from 72 to 80
        if column > 64:
            logits[0, leaf] = 12.0
    new = refine(TokenMask(logits, ForestBatch.stack([old])), 2).unstack()[0]
    assert len(old) - 3 <= len(new) <= len(old)
    small = new.size == new.size.min()
    assert (abs(new.origin[small][:, 1] + new.size.min() / 2 - 76) <= 16).all()
    assert new.size[new.origin[:, 1] < 32].min() >= 32


@pytest.mark.parametrize("readout", ["paint", "token"])
def test_learns_a_square_and_trains_both_looks(rng: np.random.Generator, readout: str) -> None:
    torch.manual_seed(0)
    model = Refined(replace(SMALL, readout=readout))
    image = 0.2 * torch.rand(2, 3, 64, 64)
    label = torch.zeros(2, 64, 64, dtype=torch.long)
    label[0, 8:32, 16:48] = label[1, 30:60, 4:30] = 1
    image += 0.6 * label[:, None]
    batch = ForestBatch.stack([random_forest(rng, (64, 64), budget=28) for _ in range(2)])
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
    losses = []
    for _ in range(40):
        loss = segmentation_loss(model.output(image, batch), label)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]
    assert all(p.grad is not None for p in model.parameters())
    assert model(image, batch).shape == (2, 1, 64, 64)


@pytest.mark.parametrize("readout", ["paint", "token"])
def test_it_runs_in_bf16(rng: np.random.Generator, readout: str) -> None:
    model = Refined(replace(SMALL, readout=readout))
    batch = ForestBatch.stack([random_forest(rng, (64, 64), budget=28)])
    with torch.autocast("cpu", torch.bfloat16):
        output = model.output(torch.rand(1, 3, 64, 64), batch)
        loss = segmentation_loss(output, torch.zeros(1, 64, 64, dtype=torch.long))
    loss.backward()
    assert torch.isfinite(output.raster((64, 64))).all()


@pytest.mark.parametrize("readout", ["paint", "token"])
def test_padding_and_batch_mates_have_no_influence(rng: np.random.Generator, readout: str) -> None:
    torch.manual_seed(0)
    model = Refined(replace(SMALL, readout=readout)).eval().double()
    small, large = random_forest(rng, (50, 64), budget=10), random_forest(rng, (50, 64), budget=40)
    image = torch.rand(2, 3, 50, 64, dtype=torch.float64)
    together = model(image, ForestBatch.stack([small, large]))
    alone = model(image[:1], ForestBatch.stack([small]))
    torch.testing.assert_close(together[:1], alone, atol=1e-7, rtol=0)  # place features are float32


def test_the_loss_counts_the_first_look_by_its_weight(rng: np.random.Generator) -> None:
    model = Refined(replace(SMALL, readout="token")).eval()
    batch = ForestBatch.stack([random_forest(rng, (64, 64), budget=20)])
    output = model.output(torch.rand(1, 3, 64, 64), batch)
    label = torch.randint(0, 2, (1, 64, 64))
    whole = segmentation_loss(output, label)
    parts = segmentation_loss(output.last, label) + output.weight * segmentation_loss(output.first, label)
    torch.testing.assert_close(whole, parts)


def test_the_second_forest_grows_as_wanted(rng: np.random.Generator) -> None:
    model = Refined(replace(SMALL, readout="token", growth=4)).eval()
    forest = random_forest(rng, (128, 128), budget=16)
    output = model.output(torch.rand(1, 3, 128, 128), ForestBatch.stack([forest]))
    assert 4 * len(forest) - 3 <= output.forest.size_BL.shape[1] <= 4 * len(forest)


@pytest.mark.parametrize("change", [{"readout": "raster"}, {"depth": 1}])
def test_settings_that_cannot_work_are_refused(change: dict) -> None:
    with pytest.raises(ValueError, match=r"paint, token|depth"):
        Refined(replace(SMALL, **change))


@pytest.mark.parametrize("readout", ["token", "paint"])
def test_the_stem_looks_first_and_leaves_go_where_it_is_unsure(readout: str) -> None:
    torch.manual_seed(0)
    model = Refined(replace(SMALL, look="stem", readout=readout, norm="instance")).eval()
    detail = np.ones((1, 16, 16), np.float32)
    forest = ForestBatch.stack([build_forest(detail[0], shape=(128, 128), cell=8, root=64, budget=40)])
    with torch.no_grad():
        assert isinstance(model.look, torch.nn.Conv2d)
        model.look.weight.zero_()
        said = model.output(torch.rand(1, 3, 128, 128), forest)
        assert isinstance(said.first, RasterMask)
        assert tuple(said.first.logits.shape[2:]) == (32, 32)
        assert said.forest.valid_BL.sum() in range(38, 41)
    label = torch.zeros(1, 128, 128, dtype=torch.long)
    label[:, 20:60, 30:90] = 1
    loss = segmentation_loss(model.train().output(torch.rand(1, 3, 128, 128), forest), label)
    loss.backward()
    assert model.look.weight.grad is not None
    assert float(model.look.weight.grad.abs().sum()) > 0


def test_a_raster_that_is_mixed_in_one_corner_gets_its_leaves_there() -> None:
    forest = ForestBatch.stack(
        [build_forest(np.ones((16, 16), np.float32), shape=(128, 128), cell=8, root=64, budget=40)]
    )
    logits = torch.full((1, 1, 32, 32), -20.0)
    logits[..., :8:2, :8:2] = 20.0
    found = refine(RasterMask(logits, 4), 8, forest=forest)
    size = found.size_BL[found.valid_BL]
    first = found.origin_BLn[found.valid_BL]
    fine = first[size == 8]
    assert len(fine) > 0
    assert int(fine.max()) < 64
