"""What a dense readout hands to the loss and to the painter: logits per leaf, or logits on a raster.

Dimension letters: B batch, L leaves, K classes, q output side a leaf, H W image, h w raster; of volumes q q q, D H W.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from patchforest.nn.raster import ForestBatch, check_mode, crop, paint_batch


@dataclass(frozen=True, eq=False)
class TokenMask:
    """Logits (B, L, K, q, q), of volumes (B, L, K, q, q, q): every leaf answers on a grid over its square or cube."""

    logits: Tensor
    forest: ForestBatch

    def raster(self, shape: tuple[int, ...], mode: str = "bilinear") -> Tensor:
        """(B, K, H, W) full-resolution logits."""
        return crop(paint_batch(self.logits, self.forest, mode), shape)


@dataclass(frozen=True, eq=False)
class RasterMask:
    """Logits (B, K, ceil(H/stride), ceil(W/stride)), images only: one answer a ``stride`` × ``stride`` block."""

    logits: Tensor
    stride: int

    def raster(self, shape: tuple[int, ...], mode: str = "bilinear") -> Tensor:
        """(B, K, H, W) full-resolution logits."""
        check_mode(mode)
        logits = self.logits
        if self.stride > 1:
            if mode == "nearest":
                logits = F.interpolate(logits, scale_factor=float(self.stride), mode="nearest")
            else:
                logits = F.interpolate(logits, scale_factor=float(self.stride), mode="bilinear", align_corners=False)
        return crop(logits, shape)


@dataclass(frozen=True, eq=False)
class Staged:
    """The answer of a network that looks twice, with that of its first look, which is trained beside it.

    Attributes
    ----------
    last : what counts.
    first : what the first look said.
    forest : the forest of the last look.
    weight : of the first look's loss, that of the last one being 1.
    """

    last: TokenMask | RasterMask
    first: TokenMask | RasterMask
    forest: ForestBatch
    weight: float = 0.5

    def raster(self, shape: tuple[int, ...], mode: str = "bilinear") -> Tensor:
        """(B, K, H, W) full-resolution logits of the last look."""
        return self.last.raster(shape, mode)


DenseOutput = TokenMask | RasterMask | Staged


def answer(output: DenseOutput) -> TokenMask | RasterMask:
    """The output that counts: the last look of a staged one."""
    return output.last if isinstance(output, Staged) else output


RARE = 2.0
"""Logit by which background leads at the start of training, p(foreground) = 0.12 for two classes."""


def start_with_background(head: nn.Conv2d | nn.Linear, classes: int) -> None:
    """Set a new head's bias so that background leads: foreground is rare, and learning that first wastes many steps.

    ``head`` has ``classes`` outputs, or as many blocks of equal length (q × q logits a class). With one output
    (sigmoid) it is lowered, with several (softmax) the first is raised.
    """
    assert head.bias is not None
    with torch.no_grad():
        bias = head.bias.view(classes, -1)
        bias.zero_()
        bias[0] = -RARE if classes == 1 else RARE
