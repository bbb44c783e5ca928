"""Pooling: each rule by hand, and padding without weight in all of them."""

from __future__ import annotations

import pytest
import torch

from patchforest.nn.pool import POOLINGS, GatedAttention, Pool


@pytest.mark.parametrize("pooling", POOLINGS)
def test_padding_has_no_weight(pooling: str) -> None:
    torch.manual_seed(0)
    pool = Pool(6, pooling).double()
    states = torch.randn(2, 5, 6, dtype=torch.float64)
    valid = torch.tensor([[True] * 5, [True, True, True, False, False]])
    area = torch.tensor([[64, 64, 256, 64, 1024], [64, 256, 64, 7, 9]])
    together = pool(states, valid, area)
    assert together.shape == (2, 6)
    torch.testing.assert_close(together[1:], pool(states[1:, :3], valid[1:, :3], area[1:, :3]))


def test_means_by_hand() -> None:
    states = torch.tensor([[[1.0, 2.0], [3.0, 6.0]]])
    valid, area = torch.ones(1, 2, dtype=torch.bool), torch.tensor([[192, 64]])
    assert Pool(2, "tokens")(states, valid, area).tolist() == [[2.0, 4.0]]
    assert Pool(2, "area")(states, valid, area).tolist() == [[1.5, 3.0]]
    assert Pool(2, "area")(states, valid).tolist() == [[2.0, 4.0]]


def test_attention_is_its_formula() -> None:
    torch.manual_seed(1)
    pool = GatedAttention(4, 3)
    states = torch.randn(1, 6, 4)
    scores = []
    for h in states[0]:
        hidden = torch.tanh(pool.value.weight @ h + pool.value.bias) * torch.sigmoid(
            pool.gate.weight @ h + pool.gate.bias
        )
        scores.append(pool.score.weight[0] @ hidden + pool.score.bias[0])
    weight = torch.exp(torch.stack(scores))
    wanted = (weight[:, None] * states[0]).sum(0) / weight.sum()
    torch.testing.assert_close(pool(states, torch.ones(1, 6, dtype=torch.bool))[0], wanted)


def test_an_unknown_rule_is_refused() -> None:
    with pytest.raises(ValueError, match="tokens, area, attention"):
        Pool(4, "max")
