"""Where to look, learned: a small network that says of every square how many pixels leaves there would get wrong.

Edges are where an image changes, not where its labels do. This network is trained on the error of labels itself, by
``train.scorer``; ``infer.scorer`` makes forests of its answers.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from patchforest.models.config import ModelConfig
from patchforest.models.normalise import see, seen_channels
from patchforest.nn.embed import ConvNormAct
from patchforest.nn.raster import ForestBatch
from patchforest.nn.readout.paint import double_to

BLOCKS = (2, 4, 8, 16, 32, 64)
"""Sides of the blocks, in pixels, whose error it says: a leaf of side s with q × q answers paints blocks of s / q."""


@dataclass(frozen=True, eq=False)
class WrongShares:
    """Logits (B, S, ⌈H / stride⌉, ⌈W / stride⌉) of the share of every square's pixels that blocks of a side get wrong.

    One channel an entry of ``BLOCKS``. A block shows the class that it has most of.
    """

    logits: Tensor
    stride: int


class Scorer(nn.Module):
    """A U of 3 × 3 convolutions on the image averaged by ``config.downscale``: widths ``config.stem``, two convolutions
    at each of the strides 2, 4, ..., and back up to stride 4 by sums.

    ``config.surround`` is in averaged pixels: what is worth small leaves is often faint beside light and stain.

    ``output`` gives logits for the loss, ``forward`` the shares, at stride 4 · downscale.
    """

    needs_forest = False
    scores_leaves = True

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        if len(config.stem) < 2:
            raise ValueError(f"a scorer has at least two stages; got stem {list(config.stem)}")
        if config.downscale < 1 or config.downscale & (config.downscale - 1):
            raise ValueError(f"the downscale of a scorer is a power of two, e.g. 4; got {config.downscale}")
        widths = config.stem
        self.downscale, self.surround = config.downscale, config.surround
        self.down = nn.ModuleList(
            nn.Sequential(ConvNormAct(a, b, stride=2, norm=config.norm), ConvNormAct(b, b, norm=config.norm))
            for a, b in zip((seen_channels(config.channels, config.surround), *widths), widths)
        )
        pairs = list(zip(widths[2:], widths[1:]))[::-1]
        self.up = nn.ModuleList(nn.Conv2d(a, b, 1) for a, b in pairs)
        self.fuse = nn.ModuleList(ConvNormAct(b, b, norm=config.norm) for _, b in pairs)
        self.head = nn.Conv2d(widths[1], len(BLOCKS), 1)
        assert self.head.bias is not None
        nn.init.constant_(self.head.bias, -4.0)  # most squares are painted right

    @property
    def stride(self) -> int:
        """Side of the squares in pixels."""
        return 4 * self.downscale

    def output(self, image_BCHW: Tensor, forest: ForestBatch | None = None) -> WrongShares:
        """Logits for the loss."""
        x = image_BCHW
        if self.downscale > 1:
            short = [(-s) % self.downscale for s in x.shape[2:]]
            x = F.avg_pool2d(F.pad(x, (0, short[1], 0, short[0]), mode="replicate"), self.downscale)
        return WrongShares(self.logits(x), self.stride)

    def logits(self, small_BCHW: Tensor) -> Tensor:
        """Logits of an image that was averaged by ``downscale`` before."""
        x = see(small_BCHW, self.surround).contiguous(memory_format=torch.channels_last)
        levels = []
        for stage in self.down:
            x = stage(x)
            levels.append(x)
        for up, fuse, level in zip(self.up, self.fuse, levels[-2:0:-1]):
            x = fuse(double_to(up(x), level) + level)
        return self.head(x)

    def forward(self, image_BCHW: Tensor, forest: ForestBatch | None = None) -> Tensor:
        """(B, S, h, w) shares in (0, 1)."""
        return self.output(image_BCHW).logits.sigmoid()
