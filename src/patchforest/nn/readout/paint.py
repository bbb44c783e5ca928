"""Paint readout: leaf states painted at the stem's finest token stride, joined with stem features, light convolutions.

The stem keeps the thin structures at full sharpness; the tokens bring what is far away. Best on vessels and cracks.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from patchforest.nn.embed import ConvNormAct, Residual
from patchforest.nn.raster import ForestBatch, paint_features
from patchforest.nn.readout.output import RasterMask, start_with_background


class PaintReadout(nn.Module):
    """Logits on a raster of stride ``stride`` from leaf states and the stem's rasters.

    Parameters
    ----------
    width : of the token states.
    stem : widths of the stem's stages, strides 2, 4, ...; the last stage's stride is where leaves are painted.
    sub : each leaf is painted as a sub × sub grid of its own (1 or 2).
    stride : of the logits: a power of two, at most the stem's last stride (1 adds a convolution on the image).
    """

    def __init__(
        self, width: int, channels: int, classes: int, stem: tuple[int, ...], *, sub: int = 1, stride: int = 2
    ) -> None:
        super().__init__()
        if not stem or stride < 1 or stride & (stride - 1) or stride > 2 ** len(stem):
            raise ValueError(
                f"stride must be a power of two up to the stem's {2 ** len(stem)}; got {stride}, stem {stem}"
            )
        self.sub, self.stride, self.token_stride = sub, stride, 2 ** len(stem)
        project = nn.Linear(width, sub * sub * stem[-1])
        nn.init.zeros_(project.weight)  # convolutions lead at first, tokens join in as they learn
        nn.init.zeros_(project.bias)
        self.project = nn.Sequential(nn.LayerNorm(width), project)
        self.merge = nn.Sequential(ConvNormAct(2 * stem[-1], stem[-1]), Residual(stem[-1]))
        doublings = stride.bit_length() - 1
        skips = stem[max(doublings - 1, 0) : -1][::-1]  # from the token stride's neighbour to the logits' stride
        self.steps = nn.ModuleList(
            nn.Sequential(ConvNormAct(coarse + skip, skip), ConvNormAct(skip, skip))
            for coarse, skip in zip((stem[-1], *skips), skips)
        )
        last = skips[-1] if skips else stem[-1]
        self.full = ConvNormAct(last + channels, last) if stride == 1 else None
        self.head = nn.Conv2d(last, classes, 1)
        start_with_background(self.head, classes)

    def forward(self, states_BLD: Tensor, forest: ForestBatch, image: Tensor, rasters: list[Tensor]) -> RasterMask:
        painted = paint_features(self.project(states_BLD), forest, self.token_stride, sub=self.sub)
        x = self.merge(torch.cat([painted.to(rasters[-1].dtype), rasters[-1]], 1))
        for step, skip in zip(self.steps, reversed(rasters[:-1])):
            x = step(torch.cat([double_to(x, skip), skip], 1))
        if self.full is not None:
            x = self.full(torch.cat([double_to(x, image), image], 1))
        return RasterMask(logits=self.head(x), stride=self.stride)


def double_to(x: Tensor, like: Tensor) -> Tensor:
    """Nearest up-sampling by two, cropped to the size of ``like`` (odd sides lose the last row or column)."""
    return F.interpolate(x, scale_factor=2.0, mode="nearest")[..., : like.shape[2], : like.shape[3]]
