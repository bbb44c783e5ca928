"""Foreign blocks hide padding whatever their keyword; SAM's blocks see everything; prefix tokens come and go."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from patchforest.nn.adapt.blocks import AdaptedBlocks, GlobalBlock, MaskedBlock, check_block


class Boolean(nn.Module):
    """Attention of every token to every other, as timm masks it."""

    def forward(self, x: Tensor, attn_mask: Tensor | None = None) -> Tensor:
        x = x[:, None]
        return F.scaled_dot_product_attention(x, x, x, attn_mask=attn_mask)[:, 0]


class Additive(nn.Module):
    """The same as transformers does it without a kernel, with a tuple around."""

    def forward(self, hidden_states: Tensor, attention_mask: Tensor | None = None) -> tuple[Tensor]:
        x = hidden_states[:, None]
        scores = x @ x.transpose(-1, -2) / x.shape[-1] ** 0.5
        scores = scores if attention_mask is None else scores + attention_mask
        return ((scores.softmax(-1) @ x)[:, 0],)


class Flat(nn.Module):
    """The same as MONAI masks it."""

    def __init__(self) -> None:
        super().__init__()
        self.attn = nn.Identity()
        self.attn.att_mat = torch.Tensor()

    def forward(self, x: Tensor, context: Tensor | None = None, attn_mask: Tensor | None = None) -> Tensor:
        scores = x @ x.transpose(-1, -2) / x.shape[-1] ** 0.5
        if attn_mask is not None:
            scores = scores.masked_fill(attn_mask.unsqueeze(1) == 0, float("-inf"))
        return scores.softmax(-1) @ x


class Windowed(nn.Module):
    """A block with the parts of SAM's, whose own ``forward`` nobody should call."""

    def __init__(self) -> None:
        super().__init__()
        self.window_size = 2
        self.layer_norm1, self.layer_norm2 = nn.LayerNorm(8), nn.LayerNorm(8)
        self.attn = nn.Module()
        self.attn.num_attention_heads = 2
        self.attn.qkv, self.attn.proj = nn.Linear(8, 24), nn.Linear(8, 8)
        self.mlp = nn.Linear(8, 8)


@pytest.mark.parametrize("kind", [Boolean, Additive, Flat, Windowed])
def test_padding_has_no_influence(kind: type[nn.Module]) -> None:
    torch.manual_seed(0)
    blocks = AdaptedBlocks(
        [kind(), kind()], prefix_TD=torch.randn(2, 8), dropout=nn.Identity(), before=nn.Identity(), norm=nn.Identity()
    )
    tokens = torch.randn(1, 5, 8)
    padded = torch.cat([tokens, torch.full((1, 2, 8), 9.0)], 1).requires_grad_()
    valid = torch.tensor([[True] * 5 + [False] * 2])
    alone, _ = blocks(tokens, None)
    beside, _ = blocks(padded, valid)
    torch.testing.assert_close(beside[:, :5], alone)
    beside[:, :5].sum().backward()
    assert padded.grad is not None
    assert not padded.grad[:, 5:].any()


def test_a_global_block_attends_to_all_and_drops_no_part() -> None:
    torch.manual_seed(0)
    windowed, x = Windowed(), torch.randn(1, 6, 8)
    q, k, v = (t.view(1, 6, 2, 4).transpose(1, 2) for t in windowed.attn.qkv(windowed.layer_norm1(x)).chunk(3, -1))
    heads = (q @ k.transpose(-1, -2) / 2).softmax(-1) @ v
    wanted = x + windowed.attn.proj(heads.transpose(1, 2).flatten(2))
    wanted = wanted + windowed.mlp(windowed.layer_norm2(wanted))
    torch.testing.assert_close(GlobalBlock(windowed)(x, None), wanted)


def test_prefix_tokens_are_attended_to_and_left_out() -> None:
    torch.manual_seed(0)
    parts = {"dropout": nn.Identity(), "before": nn.LayerNorm(8), "norm": nn.LayerNorm(8)}
    prefix, tokens = torch.randn(3, 8), torch.randn(2, 4, 8)
    states, taps = AdaptedBlocks([Boolean()], prefix_TD=prefix, **parts)(tokens, None, (1, 0))
    x = parts["before"](torch.cat([prefix.expand(2, -1, -1), tokens], 1))
    torch.testing.assert_close(taps[1], x[:, 3:])
    torch.testing.assert_close(taps[0], Boolean()(x)[:, 3:])
    torch.testing.assert_close(states, parts["norm"](Boolean()(x))[:, 3:])
    without, _ = AdaptedBlocks([Boolean()], prefix_TD=None, **parts)(tokens, None)
    assert without.shape == states.shape
    assert not torch.allclose(without, states)


def test_blocks_without_a_mask_are_refused() -> None:
    class Bare(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x

    with pytest.raises(ValueError, match="kind Bare take no mask"):
        check_block(Bare())
    with pytest.raises(ValueError, match="take no mask"):
        MaskedBlock(Bare())
    broken = Windowed()
    broken.attn.qkv = None
    with pytest.raises(ValueError, match="has no qkv"):
        GlobalBlock(broken)
