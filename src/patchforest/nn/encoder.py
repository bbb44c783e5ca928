"""The transformer over tokens: pre-norm blocks with plain scaled dot-product attention and a key mask for padding.

Dimension letters: B batch, L tokens, D width, N heads, E width a head.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Attention(nn.Module):
    """Multi-head self-attention; padded keys get no weight."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"width must be a multiple of heads; got {width} and {heads}")
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x_BLD: Tensor, mask_B11L: Tensor | None) -> Tensor:
        batch, length, width = x_BLD.shape
        qkv = self.qkv(x_BLD).view(batch, length, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        y_BNLE = F.scaled_dot_product_attention(qkv[0], qkv[1], qkv[2], attn_mask=mask_B11L)
        return self.out(y_BNLE.transpose(1, 2).reshape(batch, length, width))


class Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)) with a hidden width of ``ratio`` times the width and GELU."""

    def __init__(self, width: int, heads: int, *, ratio: int = 4, dropout: float = 0.0) -> None:
        super().__init__()
        self.norm1, self.attention = nn.LayerNorm(width), Attention(width, heads)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, ratio * width), nn.GELU(), nn.Linear(ratio * width, width))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x_BLD: Tensor, mask_B11L: Tensor | None) -> Tensor:
        x_BLD = x_BLD + self.dropout(self.attention(self.norm1(x_BLD), mask_B11L))
        return x_BLD + self.dropout(self.mlp(self.norm2(x_BLD)))


class Encoder(nn.Module):
    """``depth`` pre-norm blocks and a final norm (ViT; ViT-B is width 768, depth 12, heads 12)."""

    def __init__(self, width: int, depth: int, heads: int, *, ratio: int = 4, dropout: float = 0.0) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([Block(width, heads, ratio=ratio, dropout=dropout) for _ in range(depth)])
        self.norm = nn.LayerNorm(width)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    def forward(
        self, tokens_BLD: Tensor, valid_BL: Tensor | None = None, taps: tuple[int, ...] = ()
    ) -> tuple[Tensor, list[Tensor]]:
        """Token states after the final norm, and the states after each block counted in ``taps`` (0: the input)."""
        mask = _key_mask(valid_BL)
        states = {0: tokens_BLD}
        for number, block in enumerate(self.blocks, start=1):
            tokens_BLD = block(tokens_BLD, mask)
            states[number] = tokens_BLD
        return self.norm(tokens_BLD), [states[t] for t in taps]

    def part(self, tokens_BLD: Tensor, valid_BL: Tensor | None, first: int, last: int | None = None) -> Tensor:
        """Token states after the blocks from number ``first`` (counted from 0) up to ``last``, before the norm."""
        mask = _key_mask(valid_BL)
        for block in self.blocks[first:last]:
            tokens_BLD = block(tokens_BLD, mask)
        return tokens_BLD


def _key_mask(valid_BL: Tensor | None) -> Tensor | None:
    """(B, 1, 1, L) of the keys to attend to; None where that is all."""
    return None if valid_BL is None or bool(valid_BL.all()) else valid_BL[:, None, None, :]


def taps_of(depth: int, count: int = 4) -> tuple[int, ...]:
    """Block numbers at even fractions of the depth: 3, 6, 9, 12 for ViT-B as in UNETR."""
    return tuple(max(round(depth * (i + 1) / count), 1) for i in range(count))


def pooled(states_BLD: Tensor, valid_BL: Tensor, area_BL: Tensor) -> Tensor:
    """(B, D) mean of the token states weighted, as by the area of their leaves; padding has no weight."""
    weight = (area_BL * valid_BL).to(states_BLD.dtype)
    return torch.einsum("bld,bl->bd", states_BLD, weight) / weight.sum(1, keepdim=True)
