"""How every network of ours sees pixel values: as they are and, beside that, against their surroundings."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

MEAN, STD = 0.5, 0.25

CONTRAST = 0.05
"""Difference to the surroundings that counts as one."""


def normalise(image: Tensor) -> Tensor:
    """Values in [0, 1] to about zero mean and unit spread: (x − 0.5) / 0.25."""
    return (image - MEAN) * (1 / STD)


def see(image_BCHW: Tensor, surround: int) -> Tensor:
    """The normalised image and, where ``surround`` is not 0, its ``contrast`` (B, 2C, H, W)."""
    seen = normalise(image_BCHW)
    return torch.cat([seen, contrast(image_BCHW, surround)], 1) if surround else seen


def seen_channels(channels: int, surround: int) -> int:
    """Channels of what ``see`` gives."""
    return 2 * channels if surround else channels


def contrast(image_BCHW: Tensor, side: int) -> Tensor:
    """(B, C, H, W) differences to the means around every pixel, in units of ``CONTRAST``.

    What a mask is about is often faint beside what light and stain do to an image: learning to see past them took most
    of a short training.
    """
    return (image_BCHW - surroundings(image_BCHW, side)) * (1 / CONTRAST)


def surroundings(image_BCHW: Tensor, side: int) -> Tensor:
    """(B, C, H, W) smooth means of the image over some three times ``side`` pixels around every pixel.

    At the edges of an image over those of them that lie inside.
    """
    means = F.avg_pool2d(image_BCHW, side, ceil_mode=True, count_include_pad=False)
    means = F.avg_pool2d(means, 3, 1, 1, count_include_pad=False)
    wide = F.interpolate(means, scale_factor=float(side), mode="bilinear", align_corners=False)
    return wide[..., : image_BCHW.shape[2], : image_BCHW.shape[3]]
