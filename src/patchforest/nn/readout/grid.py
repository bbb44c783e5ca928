"""UNETR's convolutional decoder on a regular grid of tokens, for any power-of-two patch.

Dimension letters: B batch, C channels, D width, K classes, H W image, h w grid.
"""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from patchforest.nn.readout.output import start_with_background

SLOPE = 0.01
"""Of leaky ReLU."""


class GridDecoder(nn.Module):
    """Token rasters of side 1/p and the image to logits (B, K, H, W).

    The last raster is doubled log2 p times by transposed convolutions. After each of the first three an earlier tap
    joins, itself doubled to that stride, and after the last the image's own features, each by a residual block. Small
    patches have fewer taps (log2 p - 1, the latest first); above 16 the doublings in excess join nothing. Widths are
    8f, 4f, 2f at the taps for p ≥ 16 and f at the image.

    Source: UNETR (Hatamizadeh et al. 2022) as in MONAI's blocks; other patches than 16 as the APF authors do.

    Parameters
    ----------
    width : D of the tokens.
    features : f.
    """

    def __init__(self, width: int, channels: int, classes: int, features: int, *, patch: int) -> None:
        super().__init__()
        doublings = patch.bit_length() - 1
        if patch < 2 or patch != 1 << doublings:
            raise ValueError(f"patch must be a power of two from 2 on; got {patch}")
        self.num_taps = min(doublings - 1, 3)
        widths = [features << k for k in range(self.num_taps, 0, -1)]
        self.taps = nn.ModuleList(_tap(width, w, number) for number, w in enumerate(widths))
        steps = [width, *widths, *[widths[-1]] * max(doublings - 4, 0), features] if widths else [width, features]
        self.image = InstanceResidual(channels, features)
        self.up = nn.ModuleList(_double(a, b) for a, b in pairwise(steps))
        joined = [True] * self.num_taps + [False] * max(doublings - 4, 0) + [True]
        self.merge = nn.ModuleList(InstanceResidual(b + b * j, b) for b, j in zip(steps[1:], joined))
        self.head = nn.Conv2d(features, classes, 1)
        start_with_background(self.head, classes)

    def forward(self, rasters_BDhw: list[Tensor], image_BCHW: Tensor) -> Tensor:
        """``rasters``: ``num_taps`` + 1 of them, the last state first; ``image``: whole patches."""
        x, *earlier = rasters_BDhw
        skips: list[Tensor | None] = [tap(raster) for tap, raster in zip(self.taps, earlier, strict=True)]
        skips += [None] * (len(self.up) - len(skips) - 1)
        for up, merge, skip in zip(self.up, self.merge, [*skips, self.image(image_BCHW)]):
            x = up(x)
            x = merge(x if skip is None else torch.cat([x, skip], 1))
        return self.head(x)


class InstanceResidual(nn.Module):
    """Two 3 × 3 convolutions, each with an instance norm without weights, around a skip; leaky ReLU.

    A change of width takes a 1 × 1 convolution with norm on the skip. The norm is over one image and channel: never
    give it a single pixel.
    """

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels_in, channels_out, 3, padding=1, bias=False)
        self.second = nn.Conv2d(channels_out, channels_out, 3, padding=1, bias=False)
        self.skip = nn.Conv2d(channels_in, channels_out, 1, bias=False) if channels_in != channels_out else None

    def forward(self, x: Tensor) -> Tensor:
        y = F.leaky_relu(instance_norm(self.first(x)), SLOPE)
        y = instance_norm(self.second(y))
        return F.leaky_relu(y + (x if self.skip is None else instance_norm(self.skip(x))), SLOPE)


def instance_norm(x: Tensor) -> Tensor:
    """Every channel of every image to zero mean and unit variance; as group norm, several times quicker on CPUs."""
    return F.group_norm(x, x.shape[1])


def _double(channels_in: int, channels_out: int) -> nn.Module:
    return nn.ConvTranspose2d(channels_in, channels_out, 2, 2, bias=False)


def _tap(width: int, features: int, number: int) -> nn.Module:
    """From tokens to the stride where tap ``number`` (0 the latest) joins: ``number`` + 1 doublings."""
    more = [
        layer for _ in range(number) for layer in (_double(features, features), InstanceResidual(features, features))
    ]
    return nn.Sequential(_double(width, features), *more)
