"""TransUNet: a residual network to stride 16, a ViT over its last raster, and a U of up-sampling blocks with skips."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from patchforest.models.config import ModelConfig
from patchforest.models.normalise import see, seen_channels
from patchforest.nn.embed import ConvNormAct
from patchforest.nn.encoder import Encoder
from patchforest.nn.grid import GridEmbed, as_raster, padded
from patchforest.nn.raster import ForestBatch
from patchforest.nn.readout.output import DenseOutput, RasterMask, start_with_background

STRIDE = 16
UNITS = (3, 4, 9)
"""Residual units at strides 4, 8 and 16: those of R50+ViT."""


class TransUNet(nn.Module):
    """Logits at full resolution; ``features`` is the width of the stem, ``width``, ``depth``, ``heads`` are of the ViT.

    Widths b, 4b, 8b, 16b at strides 2, 4, 8, 16 (``features`` b = 64: ResNet-50), tokens of 1 × 1 of the last raster
    with a table of positions for ``window``, then 8b and 4b, 2b, b and 16 (b where that is less) at full resolution.
    The image is padded to multiples of 16 inside. Source: Chen et al. 2021, R50-ViT-B/16 (width 768, depth 12, heads
    12, features 64); units activate after the sum, as in the authors' code. Changed: the stem's pooling is padded.

    Attributes
    ----------
    fixed_window : it has a table of positions, so that ``infer`` shows it windows of the training size.
    """

    needs_forest = False
    fixed_window = True

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        c, base = config, config.features
        if c.window is None:
            raise ValueError("transunet has a table of positions; set window, the (height, width) of its images")
        self.surround = c.surround
        self.stem = StandardConv(seen_channels(c.channels, c.surround), base, 7, stride=2)
        self.norm = group_norm(base)
        widths = [base, 4 * base, 8 * base, 16 * base]
        self.stages = nn.ModuleList(
            _stage(before, after, units, stride)
            for before, after, units, stride in zip(widths, widths[1:], UNITS, (1, 2, 2))
        )
        grid = (-(-c.window[0] // STRIDE), -(-c.window[1] // STRIDE))
        self.embed = GridEmbed(widths[-1], c.width, 1, window=grid)
        self.encoder = Encoder(c.width, c.depth, c.heads, dropout=c.dropout)
        self.neck = ConvNormAct(c.width, 8 * base, norm=c.norm)
        coarse, fine = (8 * base, 4 * base, 2 * base, base), (4 * base, 2 * base, base, min(base, 16))
        self.up = nn.ModuleList(
            nn.Sequential(ConvNormAct(a + skip, b, norm=c.norm), ConvNormAct(b, b, norm=c.norm))
            for a, b, skip in zip(coarse, fine, (*widths[-2::-1], 0))
        )
        self.head = nn.Conv2d(fine[-1], c.classes, 3, padding=1)
        start_with_background(self.head, c.classes)

    def output(self, image_BCHW: Tensor, forest: ForestBatch | None = None) -> DenseOutput:
        """Logits at stride 1, for the loss."""
        height, width = image_BCHW.shape[2:]
        x = padded(see(image_BCHW, self.surround), STRIDE).contiguous(memory_format=torch.channels_last)
        x = F.relu(self.norm(self.stem(x)))
        skips = [x]
        x = F.max_pool2d(x, 3, 2, padding=1)
        for stage in self.stages:
            x = stage(x)
            skips.append(x)
        states, _ = self.encoder(self.embed(x))
        x = self.neck(as_raster(states, (x.shape[2], x.shape[3])).contiguous(memory_format=torch.channels_last))
        for up, skip in zip(self.up, (*skips[-2::-1], None)):
            x = F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)
            x = up(x if skip is None else torch.cat([x, skip], 1))
        return RasterMask(logits=self.head(x)[..., :height, :width], stride=1)

    def forward(self, image_BCHW: Tensor, forest: ForestBatch | None = None) -> Tensor:
        height, width = image_BCHW.shape[2:]
        return self.output(image_BCHW).raster((height, width))


class StandardConv(nn.Conv2d):
    """Convolution whose weights are standardised for each output, without bias (Qiao et al. 2019)."""

    def __init__(self, channels_in: int, channels_out: int, side: int, *, stride: int = 1) -> None:
        super().__init__(channels_in, channels_out, side, stride, side // 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        variance, mean = torch.var_mean(self.weight, (1, 2, 3), keepdim=True, correction=0)
        weight = (self.weight - mean) * torch.rsqrt(variance + 1e-5)
        return F.conv2d(x, weight, None, self.stride, self.padding)


class Unit(nn.Module):
    """Bottleneck: 1 × 1 to a quarter of the width, 3 × 3, 1 × 1 back, around a skip; projected where shapes change."""

    def __init__(self, channels_in: int, channels_out: int, stride: int) -> None:
        super().__init__()
        inner = channels_out // 4
        self.body = nn.Sequential(
            StandardConv(channels_in, inner, 1),
            group_norm(inner),
            nn.ReLU(inplace=True),
            StandardConv(inner, inner, 3, stride=stride),
            group_norm(inner),
            nn.ReLU(inplace=True),
            StandardConv(inner, channels_out, 1),
            group_norm(channels_out),
        )
        self.skip = None
        if stride > 1 or channels_in != channels_out:
            self.skip = nn.Sequential(
                StandardConv(channels_in, channels_out, 1, stride=stride), nn.GroupNorm(channels_out, channels_out)
            )

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.body(x) + (x if self.skip is None else self.skip(x)))


def group_norm(channels: int) -> nn.GroupNorm:
    """32 groups, or fewer, so that each has at least two channels where they divide."""
    return nn.GroupNorm(max(math.gcd(64, channels) // 2, 1), channels)


def _stage(channels_in: int, channels_out: int, units: int, stride: int) -> nn.Sequential:
    more = [Unit(channels_out, channels_out, 1) for _ in range(units - 1)]
    return nn.Sequential(Unit(channels_in, channels_out, stride), *more)
