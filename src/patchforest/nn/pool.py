"""From the states of many tokens to one state an image: means, and attention with a gate.

Dimension letters: B batch, L tokens, D width, A attention width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from patchforest.nn.encoder import pooled

POOLINGS = ("tokens", "area", "attention")


class Pool(nn.Module):
    """(B, D) from token states (B, L, D); padding has no weight.

    ``tokens`` is the plain mean, in which detail weighs more, for small leaves crowd there; ``area`` weighs tokens by
    the pixels that they show; ``attention`` learns the weights.
    """

    def __init__(self, width: int, pooling: str) -> None:
        super().__init__()
        if pooling not in POOLINGS:
            raise ValueError(f"pooling must be one of {', '.join(POOLINGS)}; got {pooling!r}")
        self.pooling = pooling
        self.gate = GatedAttention(width, max(width // 2, 1)) if pooling == "attention" else None

    def forward(self, states_BLD: Tensor, valid_BL: Tensor, area_BL: Tensor | None = None) -> Tensor:
        if self.gate is not None:
            return self.gate(states_BLD, valid_BL)
        weight = valid_BL.long() if area_BL is None or self.pooling == "tokens" else area_BL
        return pooled(states_BLD, valid_BL, weight)


class GatedAttention(nn.Module):
    """Weighted mean (B, D) of states whose weights are softmax_l w · (tanh(V h_l) ⊙ sigmoid(U h_l)).

    Source: Ilse et al. 2018, attention-based deep multiple instance learning; the pooling of CLAM and of HIPT.
    """

    def __init__(self, width: int, hidden: int, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.value, self.gate = nn.Linear(width, hidden), nn.Linear(width, hidden)
        self.score = nn.Linear(hidden, 1)
        self.dropout = nn.Dropout(dropout)

    def forward(self, states_BLD: Tensor, valid_BL: Tensor) -> Tensor:
        hidden_BLA = self.dropout(self.value(states_BLD).tanh()) * self.dropout(self.gate(states_BLD).sigmoid())
        score_BL = self.score(hidden_BLA)[..., 0].float().masked_fill(~valid_BL, float("-inf"))
        return torch.einsum("bld,bl->bd", states_BLD, score_BL.softmax(1).to(states_BLD.dtype))
