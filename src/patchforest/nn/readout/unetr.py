"""UNETR's convolutional decoder in 2-D, on rasters of token states: registered (``raster``) or the papers' √L grid.

Dimension letters: B batch, L leaves, D width, K classes, h w raster.
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from patchforest.nn.embed import ConvNormAct
from patchforest.nn.raster import ForestBatch, paint_features
from patchforest.nn.readout.output import RasterMask, start_with_background


class UNETRDecoder(nn.Module):
    """Four token rasters, finest tap first, to features at stride ``token_stride`` / 8 and then logits.

    Taps enter at strides s, s/2, s/4, s/8 (s = ``token_stride``): the last state at s, earlier ones painted directly at
    their finer stride, each joined with the features coming up by a transposed convolution, as in UNETR. With
    ``image_branch``, two convolutions of the image itself join at full resolution.
    """

    def __init__(
        self,
        channels: int,
        classes: int,
        features: int,
        *,
        token_stride: int,
        image_branch: bool = True,
        norm: str = "batch",
    ) -> None:
        super().__init__()
        widths = [features * 8, features * 4, features * 2, features]
        self.up, self.fuse = nn.ModuleList(), nn.ModuleList()
        for coarse, fine in pairwise(widths):
            self.up.append(nn.ConvTranspose2d(coarse, fine, 2, 2))
            self.fuse.append(nn.Sequential(ConvNormAct(2 * fine, fine, norm=norm), ConvNormAct(fine, fine, norm=norm)))
        self.stride = max(token_stride // 8, 1)
        self.branch = (
            nn.Sequential(ConvNormAct(channels, features, norm=norm), ConvNormAct(features, features, norm=norm))
            if image_branch
            else None
        )
        self.last = ConvNormAct(2 * features, features, norm=norm) if image_branch else None
        self.head = nn.Conv2d(features, classes, 1)
        start_with_background(self.head, classes)
        self.widths = tuple(widths)

    def forward(self, rasters: list[Tensor], image: Tensor) -> RasterMask:
        """``rasters``: widths 8f, 4f, 2f, f at strides s, s/2, s/4, s/8, coarsest first."""
        x = rasters[0]
        for up, fuse, skip in zip(self.up, self.fuse, rasters[1:]):
            x = up(x)[..., : skip.shape[2], : skip.shape[3]]
            x = fuse(torch.cat([x, skip], 1))
        stride = self.stride
        if self.branch is not None and self.last is not None:
            while x.shape[2] < image.shape[2] or x.shape[3] < image.shape[3]:
                x = F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)
            x = self.last(torch.cat([x[..., : image.shape[2], : image.shape[3]], self.branch(image)], 1))
            stride = 1
        return RasterMask(logits=self.head(x), stride=stride)


class RasterReadout(nn.Module):
    """UNETR on a forest, correctly registered for any number of leaves: taps painted at the decoder's strides."""

    def __init__(
        self,
        width: int,
        channels: int,
        classes: int,
        features: int,
        *,
        cell: int,
        image_branch: bool = True,
        norm: str = "batch",
    ) -> None:
        super().__init__()
        self.token_stride = max(cell, 8)
        self.decoder = UNETRDecoder(
            channels, classes, features, token_stride=self.token_stride, image_branch=image_branch, norm=norm
        )
        self.project = nn.ModuleList(nn.Linear(width, w) for w in self.decoder.widths)

    def rasters(self, taps: list[Tensor], forest: ForestBatch) -> list[Tensor]:
        """The four painted rasters, coarsest first; ``taps`` last state first."""
        strides = [self.token_stride >> k for k in range(4)]
        return [
            paint_features(project(tap), forest, stride) for tap, project, stride in zip(taps, self.project, strides)
        ]

    def forward(self, taps: list[Tensor], forest: ForestBatch, image: Tensor) -> RasterMask:
        return self.decoder(self.rasters(taps, forest), image)


class PseudoReadout(nn.Module):
    """The papers' √L × √L pseudo-image: tokens row by row in sequence order. For comparison only: neighbours in it are
    not neighbours in the image, and only the image branch is registered. L is that of the longest forest of the batch;
    padding is blank.
    """

    def __init__(self, width: int, channels: int, classes: int, features: int, *, norm: str = "batch") -> None:
        super().__init__()
        self.decoder = UNETRDecoder(channels, classes, features, token_stride=8, image_branch=False, norm=norm)
        self.project = nn.ModuleList(nn.Linear(width, w) for w in self.decoder.widths)
        self.branch = nn.Sequential(
            ConvNormAct(channels, features, norm=norm), ConvNormAct(features, features, norm=norm)
        )
        head = nn.Conv2d(features, classes, 1)
        start_with_background(head, classes)
        self.last = nn.Sequential(ConvNormAct(2 * features, features, norm=norm), head)
        self.decoder.head = nn.Conv2d(features, features, 1)

    def forward(self, taps: list[Tensor], forest: ForestBatch, image: Tensor) -> RasterMask:
        side = math.ceil(math.sqrt(taps[0].shape[1]))
        rasters = []
        for k, (tap, project) in enumerate(zip(taps, self.project)):
            tokens = F.pad(project(tap) * forest.valid_BL[..., None], (0, 0, 0, side * side - tap.shape[1]))
            raster = tokens.transpose(1, 2).reshape(tokens.shape[0], -1, side, side)
            rasters.append(F.interpolate(raster, scale_factor=float(2**k), mode="nearest"))
        grid = self.decoder(rasters, image).logits
        grid = F.interpolate(grid, size=image.shape[2:], mode="bilinear", align_corners=False)
        return RasterMask(logits=self.last(torch.cat([grid, self.branch(image)], 1)), stride=1)
