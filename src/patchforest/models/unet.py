"""U-Net, the standing baseline, at any down-scaling: what users will compare with, so always shown beside a result."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from patchforest.models.config import ModelConfig
from patchforest.models.normalise import see, seen_channels
from patchforest.nn.embed import ConvNormAct
from patchforest.nn.raster import ForestBatch
from patchforest.nn.readout.output import DenseOutput, RasterMask, start_with_background
from patchforest.nn.readout.paint import double_to


class UNet(nn.Module):
    """Two convolutions a level, ``depth`` halvings, widths w, 2w, 4w, ...; sees the image averaged by ``downscale``.

    Source: Ronneberger et al. 2015, with padding, batch norm and nearest up-sampling. Parameters with the defaults of
    the recipes (width 16, depth 4): 1.9 million.
    """

    needs_forest = False

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.downscale = config.downscale
        self.surround = -(-config.surround // config.downscale)
        widths = [config.width << k for k in range(config.depth + 1)]
        self.down = nn.ModuleList(
            _pair(a, b, config.norm) for a, b in zip([seen_channels(config.channels, self.surround), *widths], widths)
        )
        self.up = nn.ModuleList(_pair(a + b, b, config.norm) for a, b in zip(widths[:0:-1], widths[-2::-1]))
        self.head = nn.Conv2d(widths[0], config.classes, 1)
        start_with_background(self.head, config.classes)

    def output(self, image_BCHW: Tensor, forest: ForestBatch | None = None) -> DenseOutput:
        """Logits at stride ``downscale``, for the loss."""
        x = image_BCHW
        if self.downscale > 1:
            short = [(-s) % self.downscale for s in x.shape[2:]]
            x = F.avg_pool2d(F.pad(x, (0, short[1], 0, short[0]), mode="replicate"), self.downscale)
        x = see(x, self.surround).contiguous(memory_format=torch.channels_last)
        skips = []
        for k, level in enumerate(self.down):
            x = level(F.max_pool2d(x, 2, ceil_mode=True) if k else x)
            skips.append(x)
        for level, skip in zip(self.up, reversed(skips[:-1])):
            x = level(torch.cat([double_to(x, skip), skip], 1))
        return RasterMask(logits=self.head(x), stride=self.downscale)

    def forward(self, image_BCHW: Tensor, forest: ForestBatch | None = None) -> Tensor:
        height, width = image_BCHW.shape[2:]
        return self.output(image_BCHW).raster((height, width))


def _pair(channels_in: int, channels_out: int, norm: str) -> nn.Sequential:
    return nn.Sequential(
        ConvNormAct(channels_in, channels_out, norm=norm), ConvNormAct(channels_out, channels_out, norm=norm)
    )
