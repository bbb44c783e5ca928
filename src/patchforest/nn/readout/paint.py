"""Paint readout: leaf states painted at the stem's coarsest stride, joined with stem features, light convolutions, and
sub-pixel answers.

The stem keeps the thin structures; the tokens bring what is far away. All convolutions run on features of a stride, and
every cell of them answers for its stride × stride pixels at once: full resolution at the price of a coarse one.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from patchforest.nn.embed import ConvNormAct, Residual
from patchforest.nn.raster import ForestBatch, crop, paint_features
from patchforest.nn.readout.output import RasterMask, start_with_background


class PaintReadout(nn.Module):
    """Logits of every pixel from leaf states and the stem's rasters.

    Source of the last step: sub-pixel convolution (Shi et al. 2016).

    Parameters
    ----------
    width : of the token states.
    stem : widths of the stem's stages, strides 2, 4, ...; the last stage's stride is where leaves are painted.
    sub : each leaf is painted as a sub × sub grid of its own (1 or 2).
    stride : of the finest features, which answer on stride × stride values a cell: a power of two from 2 to the stem's
        last stride.
    norm : of the convolutions, see ``nn.embed.NORMS``.
    """

    def __init__(
        self, width: int, classes: int, stem: tuple[int, ...], *, sub: int = 1, stride: int = 4, norm: str = "batch"
    ) -> None:
        super().__init__()
        if not stem or stride < 2 or stride & (stride - 1) or stride > 2 ** len(stem):
            raise ValueError(
                f"stride must be a power of two from 2 to the stem's {2 ** len(stem)}; got {stride}, stem {stem}"
            )
        self.sub, self.stride, self.token_stride = sub, stride, 2 ** len(stem)
        project = nn.Linear(width, sub * sub * stem[-1])
        nn.init.zeros_(project.weight)  # convolutions lead at first, tokens join in as they learn
        nn.init.zeros_(project.bias)
        self.project = nn.Sequential(nn.LayerNorm(width), project)
        self.merge = nn.Sequential(
            ConvNormAct(2 * stem[-1], stem[-1], side=1, norm=norm), Residual(stem[-1], norm=norm)
        )
        doublings = stride.bit_length() - 1
        skips = stem[doublings - 1 : -1][::-1]  # from the token stride's neighbour to the finest
        self.steps = nn.ModuleList(
            ConvNormAct(coarse + skip, skip, norm=norm) for coarse, skip in zip((stem[-1], *skips), skips)
        )
        self.head = nn.Conv2d(skips[-1] if skips else stem[-1], classes * stride * stride, 1)
        start_with_background(self.head, classes)

    def forward(self, states_BLD: Tensor, forest: ForestBatch, rasters: list[Tensor]) -> RasterMask:
        painted = paint_features(self.project(states_BLD), forest, self.token_stride, sub=self.sub)
        x = self.merge(torch.cat([painted.to(rasters[-1].dtype), rasters[-1]], 1))
        for step, skip in zip(self.steps, reversed(rasters[:-1])):
            x = step(torch.cat([double_to(x, skip), skip], 1))
        return RasterMask(logits=crop(F.pixel_shuffle(self.head(x), self.stride), forest.shape), stride=1)


def double_to(x: Tensor, like: Tensor) -> Tensor:
    """Nearest up-sampling by two, cropped to the size of ``like`` (odd sides lose the last row or column)."""
    return F.interpolate(x, scale_factor=2.0, mode="nearest")[..., : like.shape[2], : like.shape[3]]
