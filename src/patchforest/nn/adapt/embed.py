"""Leaves to the tokens that a pretrained transformer knows: its pixels, its positions; scale and stem start at zero.

Dimension letters: B batch, L leaves, C channels, D model width, F features, p patch side, g grid entries. A volume has
one axis more.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from patchforest.nn.adapt.positions import leaf_places, read_table
from patchforest.nn.adapt.projection import Projection
from patchforest.nn.raster import ForestBatch


class AdaptedEmbed(nn.Module):
    """Tokens (B, L, D) of patches (B, L, C, p, p), called as ``nn.embed.PatchEmbed`` is.

    A token is the projection of the patch, plus the table of positions read at the leaf's centre, plus s · a + s² · b
    for s = log2(leaf side / side of the pretrained patch), plus a projection of the stem's features if there are any.
    a, b and the last projection start at zero, so a fresh model gives the pretrained tokens. Padding becomes zero.

    Parameters
    ----------
    projection : brought to patch and channels already.
    table : (g, g, D) positions.
    pretrained_side : of the pretrained patch, in pixels.
    norm : what the pretrained model does between projection and positions.
    framed : whether the table spans the whole image or what the network sees of it; see ``positions``.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        projection: Projection,
        table: Tensor,
        *,
        pretrained_side: float,
        norm: nn.Module,
        framed: bool = True,
        stem_features: int = 0,
    ) -> None:
        super().__init__()
        width = len(projection.weight)
        each = (-1,) + (1,) * (projection.weight.ndim - 2)
        self.register_buffer("mean", projection.mean.view(each).clone())
        self.register_buffer("std", projection.std.view(each).clone())
        flat = projection.weight.flatten(1)
        self.pixels = nn.Linear(flat.shape[1], width, device=flat.device, dtype=flat.dtype)
        self.pixels.weight = nn.Parameter(flat.clone())
        self.pixels.bias = nn.Parameter(projection.bias.clone())
        self.norm = norm
        self.table = nn.Parameter(table.clone())
        self.scale = nn.Parameter(table.new_zeros(2, width))
        self.stem = nn.Linear(stem_features, width) if stem_features else None
        if self.stem is not None:
            nn.init.zeros_(self.stem.weight)
            nn.init.zeros_(self.stem.bias)
        self.pretrained_side, self.framed = pretrained_side, framed

    def forward(self, patches_BLCpp: Tensor, forest: ForestBatch, stem_BLF: Tensor | None = None) -> Tensor:
        tokens_BLD = self.norm(self.pixels(((patches_BLCpp - self.mean) / self.std).flatten(2)))
        place_BLn = leaf_places(forest, tuple(self.table.shape[:-1]), framed=self.framed)
        scale_BL1 = torch.log2(forest.size_BL[..., None] / self.pretrained_side)
        tokens_BLD = tokens_BLD + read_table(self.table, place_BLn)
        tokens_BLD = tokens_BLD + scale_BL1 * self.scale[0] + scale_BL1.square() * self.scale[1]
        if self.stem is not None and stem_BLF is not None:
            tokens_BLD = tokens_BLD + self.stem(stem_BLF)
        return tokens_BLD * forest.valid_BL[..., None]
