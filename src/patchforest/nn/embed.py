"""Patches to tokens: pixels + place + scale.

Dimension letters: B batch, L leaves, C channels, D model width, F features, n spatial axes, p patch side, H W image. A
volume has one axis more: where p p or H W stand, read p p p or D H W.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from patchforest.nn.raster import ForestBatch

LONGEST, SHORTEST = 16384.0, 16.0
"""Wavelengths of the place embedding in level-0 pixels."""
WAVES = 11


def place_feature_count(spatial: int = 2) -> int:
    """Numbers a leaf in ``place_features``: 50 of images, 72 of volumes."""
    return 2 * spatial * WAVES + 6


def place_features(forest: ForestBatch, *, framed: bool = True) -> Tensor:
    """(B, L, 2·n·11 + 6) sines and cosines of leaf centres (level-0 pixels of the frame) and of log2 of their side.

    Depends on where a leaf lies and how large it is, never on its index: the same leaf gets the same features in any
    forest and any batch. Wavelengths run geometrically from 16,384 to 16 pixels. Volumes are placed by six numbers, the
    window's corner and the frame's shape; without them they are whole. ``framed`` False counts from the corner of the
    window instead.
    """
    centre = forest.center_BLn
    n = centre.shape[-1]
    if framed and forest.place_B4.shape[1] == 2 * n:
        centre = centre + forest.place_B4[:, None, :n]
    steps = torch.arange(WAVES, device=centre.device, dtype=torch.float32) / (WAVES - 1)
    waves = 2 * math.pi / (LONGEST * (SHORTEST / LONGEST) ** steps)
    angles = (centre[..., None] * waves).flatten(-2)
    side = torch.log2(forest.size_BL.float())[..., None]
    scale = torch.cat([side / 8, torch.sin(side * math.pi / 4), torch.cos(side * math.pi / 4)], -1)
    return torch.cat([torch.sin(angles), torch.cos(angles), scale, torch.square(scale)], -1)


class PatchEmbed(nn.Module):
    """Tokens (B, L, D) of patches (B, L, C, p, p), stem features (B, L, F) and the geometry of their leaves.

    ``embedding="place"`` (default) embeds centre and side, so that it carries to any image and any length;
    ``"window"`` counts places from the window's corner, so that a few frames cannot be learnt by heart;
    ``"index"`` is the papers' learned vector per position in the sequence, which knows no geometry and works only up
    to ``max_tokens`` leaves. Padding becomes zero.
    """

    def __init__(
        self,
        in_features: int,
        width: int,
        *,
        stem_features: int = 0,
        embedding: str = "place",
        max_tokens: int = 4096,
        spatial: int = 2,
    ) -> None:
        super().__init__()
        if embedding not in ("place", "window", "index"):
            raise ValueError(f"embedding must be place, window or index; got {embedding!r}")
        self.framed = embedding == "place"
        self.pixels = nn.Linear(in_features, width)
        self.stem = nn.Linear(stem_features, width) if stem_features else None
        self.geometry: nn.Sequential | None = None
        self.index: nn.Parameter | None = None
        if embedding == "index":
            self.index = nn.Parameter(torch.zeros(max_tokens, width))
        else:
            features = place_feature_count(spatial)
            self.geometry = nn.Sequential(nn.Linear(features, width), nn.GELU(), nn.Linear(width, width))

    def forward(self, patches_BLCpp: Tensor, forest: ForestBatch, stem_BLF: Tensor | None = None) -> Tensor:
        tokens_BLD = self.pixels(patches_BLCpp.flatten(2))
        if self.stem is not None and stem_BLF is not None:
            tokens_BLD = tokens_BLD + self.stem(stem_BLF)
        length = tokens_BLD.shape[1]
        if self.index is not None:
            if length > len(self.index):
                raise ValueError(
                    f"the index embedding was made for {len(self.index)} leaves; got {length}. Use embedding='place'"
                )
            tokens_BLD = tokens_BLD + self.index[:length]
        if self.geometry is not None:
            tokens_BLD = tokens_BLD + self.geometry(place_features(forest, framed=self.framed).to(tokens_BLD.dtype))
        return tokens_BLD * forest.valid_BL[..., None]


class ConvNormAct(nn.Sequential):
    """3 × 3 (volumes: 3 × 3 × 3) convolution, or one of another odd side; a norm of ``NORMS``, ReLU."""

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        *,
        stride: int = 1,
        side: int = 3,
        spatial: int = 2,
        norm: str = "batch",
    ) -> None:
        super().__init__(*_conv_norm(channels_in, channels_out, stride, spatial, norm, side), nn.ReLU(inplace=True))


class Residual(nn.Module):
    """Two such convolutions around a skip: x + f(x)."""

    def __init__(self, channels: int, *, spatial: int = 2, norm: str = "batch") -> None:
        super().__init__()
        self.first = ConvNormAct(channels, channels, spatial=spatial, norm=norm)
        self.second = nn.Sequential(*_conv_norm(channels, channels, 1, spatial, norm))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.second(self.first(x)))


class Stem(nn.Module):
    """Convolutional features before the gather: rasters at strides 2, 4, ..., one per entry of ``widths``.

    A convolution of stride 2 each, and from the second on a residual block: at the first, largest stride a block costs
    most and teaches least.
    """

    def __init__(self, channels: int, widths: tuple[int, ...], *, spatial: int = 2, norm: str = "batch") -> None:
        super().__init__()
        stages = []
        for number, width in enumerate(widths):
            first = ConvNormAct(channels, width, stride=2, spatial=spatial, norm=norm)
            stages.append(nn.Sequential(first, Residual(width, spatial=spatial, norm=norm)) if number else first)
            channels = width
        self.stages = nn.ModuleList(stages)

    def forward(self, image_BCHW: Tensor) -> list[Tensor]:
        """Rasters of ceil(H / 2^k), k = 1, 2, ..."""
        out = []
        for stage in self.stages:
            image_BCHW = stage(image_BCHW)
            out.append(image_BCHW)
        return out


class _InstanceNorm(nn.InstanceNorm2d):
    """Instance norm with weights; of a single pixel it leaves the bias."""

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[2] * x.shape[3] > 1:
            return super().forward(x)
        return x * 0 + self.bias[None, :, None, None].to(x.dtype)


NORMS: dict[tuple[str, int], Callable[[int], nn.Module]] = {
    ("batch", 2): lambda channels: nn.BatchNorm2d(channels, momentum=0.05),
    ("batch", 3): lambda channels: nn.BatchNorm3d(channels, momentum=0.05),
    ("instance", 2): lambda channels: _InstanceNorm(channels, affine=True),
}
"""By name and number of spatial axes."""


def check_norm(norm: str, spatial: int) -> None:
    """ValueError for a norm that there is not for so many spatial axes."""
    if (norm, spatial) not in NORMS:
        known = ", ".join(name for name, axes in NORMS if axes == spatial)
        raise ValueError(f"norm must be one of {known} with {spatial} spatial axes; got {norm!r}")


def _conv_norm(
    channels_in: int, channels_out: int, stride: int, spatial: int, norm: str, side: int = 3
) -> tuple[nn.Module, nn.Module]:
    check_norm(norm, spatial)
    conv: Callable[..., nn.Module] = nn.Conv2d if spatial == 2 else nn.Conv3d
    return conv(channels_in, channels_out, side, stride, side // 2, bias=False), NORMS[norm, spatial](channels_out)
