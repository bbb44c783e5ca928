"""Images on regular grids of patches: padding to whole patches, tokens with a learned table of positions, and back.

Dimension letters: B batch, C channels, H W image, h w grid, L = h·w tokens, D width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def padded(image_BCHW: Tensor, multiple: int, *, least: int = 1) -> Tensor:
    """The image with its last row and column repeated until both sides are multiples, and at least ``least``."""
    short = [max(-(-s // multiple) * multiple, least) - s for s in image_BCHW.shape[2:]]
    return F.pad(image_BCHW, (0, short[1], 0, short[0]), mode="replicate") if any(short) else image_BCHW


class GridEmbed(nn.Module):
    """Tokens (B, L, D), row by row, of the p × p patches of a raster, plus a learned vector a place of the grid.

    The table is made for the grid of ``window``; on another grid it is interpolated (bicubic), which a network has to
    be trained for to be good at.

    Parameters
    ----------
    window : (height, width) of the rasters it is made for; sides are rounded up to whole patches.
    """

    def __init__(self, channels: int, width: int, patch: int, *, window: tuple[int, int]) -> None:
        super().__init__()
        self.patch = patch
        self.pixels = nn.Conv2d(channels, width, patch, patch)
        self.table = nn.Parameter(torch.zeros(1, width, *(-(-s // patch) for s in window)))
        nn.init.trunc_normal_(self.table, std=0.02)

    def forward(self, raster_BCHW: Tensor) -> Tensor:
        """Sides of the raster are multiples of the patch."""
        tokens_BDhw = self.pixels(raster_BCHW)
        table: Tensor = self.table
        if tokens_BDhw.shape[2:] != table.shape[2:]:
            table = F.interpolate(table, size=tokens_BDhw.shape[2:], mode="bicubic", align_corners=False)
        return (tokens_BDhw + table).flatten(2).transpose(1, 2)


def as_raster(tokens_BLD: Tensor, grid: tuple[int, int]) -> Tensor:
    """Tokens row by row as a raster (B, D, h, w)."""
    return tokens_BLD.transpose(1, 2).reshape(tokens_BLD.shape[0], -1, *grid)
