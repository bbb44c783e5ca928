"""Blocks of foreign transformers, called one way: (tokens, which of them are there) → tokens.

Dimension letters: B batch, N tokens with prefix, L leaves, D width, T prefix tokens, E width a head.
"""

from __future__ import annotations

import inspect

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def wrapped(block: nn.Module) -> nn.Module:
    """A block that takes (tokens, valid): ``GlobalBlock`` of one with windows, else ``MaskedBlock``."""
    return GlobalBlock(block) if hasattr(block, "window_size") else MaskedBlock(block)


def check_block(block: nn.Module) -> None:
    """ValueError for a block from which padding cannot be hidden."""
    if not hasattr(block, "window_size") and not _keyword(block):
        raise ValueError(
            f"blocks of kind {type(block).__name__} take no mask, so padding cannot be hidden from them; "
            "blocks must take attn_mask or attention_mask"
        )


def _keyword(block: nn.Module) -> str:
    names = inspect.signature(block.forward).parameters
    return next((n for n in ("attn_mask", "attention_mask") if n in names), "")


class MaskedBlock(nn.Module):
    """A block as it is, with padding masked in the way that its ``forward`` wants it."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block = block
        check_block(block)
        self.keyword = _keyword(block)
        attention = getattr(block, "attn", None)
        self.flat = hasattr(attention, "att_mat") and not getattr(attention, "use_flash_attention", False)  # MONAI

    def forward(self, x_BND: Tensor, valid_BN: Tensor | None) -> Tensor:
        out = self.block(x_BND, **{self.keyword: None if valid_BN is None else self._mask(x_BND, valid_BN)})
        return out[0] if isinstance(out, tuple) else out

    def _mask(self, x_BND: Tensor, valid_BN: Tensor) -> Tensor:
        if self.flat:
            return valid_BN
        mask_B11N = valid_BN[:, None, None, :]
        if self.keyword == "attn_mask":
            return mask_B11N
        return torch.zeros(mask_B11N.shape, dtype=x_BND.dtype, device=x_BND.device).masked_fill(~mask_B11N, -torch.inf)


class GlobalBlock(nn.Module):
    """A block of SAM's kind whose attention reaches over all tokens: windows and relative positions are dropped.

    Windows and offsets between grid cells have no meaning among leaves of many sizes.
    """

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        attention = block.attn
        assert isinstance(attention, nn.Module)
        self.norm1, self.norm2 = first_of(block, "norm1", "layer_norm1"), first_of(block, "norm2", "layer_norm2")
        self.qkv, self.proj = first_of(attention, "qkv"), first_of(attention, "proj")
        self.heads: int = getattr(attention, "num_heads", None) or getattr(attention, "num_attention_heads")  # noqa: B009
        self.q_norm, self.k_norm = optional(attention, "q_norm"), optional(attention, "k_norm")
        self.mlp = first_of(block, "mlp")
        self.after1 = nn.Sequential(optional(block, "ls1"), optional(block, "drop_path1"))
        self.after2 = nn.Sequential(optional(block, "ls2"), optional(block, "drop_path2"))

    def forward(self, x_BND: Tensor, valid_BN: Tensor | None) -> Tensor:
        x_BND = x_BND + self.after1(self._attend(self.norm1(x_BND), valid_BN))
        return x_BND + self.after2(self.mlp(self.norm2(x_BND)))

    def _attend(self, x_BND: Tensor, valid_BN: Tensor | None) -> Tensor:
        batch, length, width = x_BND.shape
        q, k, v = self.qkv(x_BND).view(batch, length, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        mask_B11N = None if valid_BN is None else valid_BN[:, None, None, :]
        y_BNLE = F.scaled_dot_product_attention(self.q_norm(q), self.k_norm(k), v, attn_mask=mask_B11N)
        return self.proj(y_BNLE.transpose(1, 2).reshape(batch, length, width))


class AdaptedBlocks(nn.Module):
    """The blocks of a foreign transformer, called as ``nn.encoder.Encoder`` is.

    Class and register tokens are put before the leaves, attended to, and left out of what is returned.
    """

    def __init__(
        self,
        blocks: list[nn.Module],
        *,
        prefix_TD: Tensor | None,
        dropout: nn.Module,
        before: nn.Module,
        norm: nn.Module,
    ) -> None:
        super().__init__()
        self.prefix = None if prefix_TD is None else nn.Parameter(prefix_TD)
        self.dropout, self.before = dropout, before
        self.blocks = nn.ModuleList(wrapped(block) for block in blocks)
        self.norm = norm

    def forward(
        self, tokens_BLD: Tensor, valid_BL: Tensor | None = None, taps: tuple[int, ...] = ()
    ) -> tuple[Tensor, list[Tensor]]:
        """Leaf states after the final norm, and after each block counted in ``taps`` (0: the input of the first)."""
        valid = None if valid_BL is None or bool(valid_BL.all()) else valid_BL
        count = 0
        if self.prefix is not None:
            count = len(self.prefix)
            prefix_BTD = self.prefix.to(tokens_BLD.dtype).expand(len(tokens_BLD), -1, -1)
            tokens_BLD = torch.cat([prefix_BTD, tokens_BLD], 1)
            valid = None if valid is None else F.pad(valid, (count, 0), value=True)
        x_BND = self.before(self.dropout(tokens_BLD))
        states = {0: x_BND}
        for number, block in enumerate(self.blocks, start=1):
            x_BND = block(x_BND, valid)
            states[number] = x_BND
        return self.norm(x_BND)[:, count:], [states[t][:, count:] for t in taps]


def first_of(module: nn.Module, *names: str) -> nn.Module:
    """The first child there is of these names; ValueError where there is none."""
    for name in names:
        child = getattr(module, name, None)
        if isinstance(child, nn.Module):
            return child
    raise ValueError(f"{type(module).__name__} has no {' or '.join(names)}")


def optional(module: nn.Module, *names: str) -> nn.Module:
    """The first child there is of these names, else the identity."""
    return next((c for c in (getattr(module, n, None) for n in names) if isinstance(c, nn.Module)), nn.Identity())
