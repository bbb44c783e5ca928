"""Every token answers from its own state alone."""

from __future__ import annotations

import numpy as np
import torch

from patchforest.nn.raster import ForestBatch
from patchforest.nn.readout.token import TokenReadout
from tests.forests import random_forest


def test_each_token_answers_for_itself(rng: np.random.Generator) -> None:
    batch = ForestBatch.stack([random_forest(rng, (64, 64), budget=20)])
    readout = TokenReadout(8, 3, 4)
    states = torch.rand(1, batch.size_BL.shape[1], 8, requires_grad=True)
    out = readout(states, batch).logits
    assert out.shape == (1, states.shape[1], 3, 4, 4)
    out[0, 5].sum().backward()
    assert states.grad is not None
    touched = torch.nonzero(states.grad.abs().sum(-1)[0])[:, 0].tolist()
    assert touched == [5]


def test_tokens_of_volumes_answer_on_cubes(rng: np.random.Generator) -> None:
    batch = ForestBatch.stack([random_forest(rng, (16, 32, 32), cell=4, budget=30)])
    readout = TokenReadout(8, 3, 2, spatial=3)
    out = readout(torch.rand(1, batch.size_BL.shape[1], 8), batch)
    assert out.logits.shape == (1, batch.size_BL.shape[1], 3, 2, 2, 2)
    assert out.raster((16, 32, 32)).shape == (1, 3, 16, 32, 32)
    assert (out.raster((16, 32, 32)).softmax(1)[:, 0] > 0.5).all()  # background leads
