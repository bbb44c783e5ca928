"""Attention against a float64 reference written out; padded keys have no influence; taps as in UNETR."""

from __future__ import annotations

import pytest
import torch

from patchforest.nn.encoder import Attention, Encoder, pooled, taps_of


def test_attention_is_softmax_of_scaled_products() -> None:
    torch.manual_seed(0)
    layer = Attention(12, 3).double()
    x = torch.rand(2, 5, 12, dtype=torch.float64)
    q, k, v = layer.qkv(x).split(12, dim=-1)
    heads = []
    for h in range(3):
        part = slice(4 * h, 4 * h + 4)
        scores = q[..., part] @ k[..., part].transpose(1, 2) / 4**0.5
        heads.append(torch.softmax(scores, -1) @ v[..., part])
    torch.testing.assert_close(layer(x, None), layer.out(torch.cat(heads, -1)))


def test_padding_has_no_influence_and_no_gradient() -> None:
    torch.manual_seed(0)
    encoder = Encoder(16, 2, 2).eval()
    tokens = torch.rand(1, 7, 16)
    padded = torch.cat([tokens, torch.full((1, 3, 16), 50.0)], 1).requires_grad_()
    valid = torch.tensor([[True] * 7 + [False] * 3])
    alone, _ = encoder(tokens)
    beside, _ = encoder(padded, valid)
    torch.testing.assert_close(beside[:, :7], alone)
    beside[:, :7].sum().backward()
    assert padded.grad is not None
    assert not padded.grad[:, 7:].any()


def test_order_of_tokens_does_not_matter() -> None:
    torch.manual_seed(0)
    encoder = Encoder(16, 2, 2).eval()
    tokens, order = torch.rand(1, 9, 16), torch.randperm(9)
    torch.testing.assert_close(encoder(tokens[:, order])[0], encoder(tokens)[0][:, order])


def test_taps_are_the_states_after_their_blocks() -> None:
    assert taps_of(12) == (3, 6, 9, 12)
    assert taps_of(4) == (1, 2, 3, 4)
    encoder = Encoder(8, 3, 2).eval()
    x = torch.rand(1, 4, 8)
    _, taps = encoder(x, None, (0, 2))
    torch.testing.assert_close(taps[0], x)
    torch.testing.assert_close(taps[1], encoder.blocks[1](encoder.blocks[0](x, None), None))


def test_pooling_weighs_by_area_and_ignores_padding() -> None:
    states = torch.tensor([[[1.0], [3.0], [99.0]]])
    valid, area = torch.tensor([[True, True, False]]), torch.tensor([[64, 192, 64]])
    assert pooled(states, valid, area).item() == pytest.approx(2.5)


def test_width_must_divide() -> None:
    with pytest.raises(ValueError, match="multiple"):
        Attention(10, 3)
