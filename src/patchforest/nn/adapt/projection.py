"""The patch projection of a pretrained transformer, brought to another patch side and another number of channels.

Dimension letters: D width, C channels, p patch side. A volume has one axis more: where p p stand, read p p p.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from patchforest.nn.raster import resample_matrix


@dataclass(frozen=True, eq=False)
class Projection:
    """From pixels to tokens: (pixels − mean) / std through weight and bias.

    Attributes
    ----------
    weight : (D, C, p, p).
    bias : (D,).
    mean, std : (C,), of the pixel values.
    """

    weight: Tensor
    bias: Tensor
    mean: Tensor
    std: Tensor

    def with_patch(self, patch: int) -> Projection:
        """The same for area-averaged patches of side ``patch``; see ``resample_weight``."""
        return Projection(resample_weight(self.weight, patch), self.bias, self.mean, self.std)

    def with_channels(self, channels: int) -> Projection:
        """The same for images of so many channels.

        One channel: a grey image gives exactly what the same grey in all channels gave. Otherwise the weights are taken
        in turn (first, second, third, first, ...) and scaled so that channels of equal values give what they gave.
        """
        held = self.weight.shape[1]
        if channels == held:
            return self
        if channels > 1:
            turn = torch.arange(channels, device=self.weight.device) % held
            return Projection(self.weight[:, turn] * held / channels, self.bias, self.mean[turn], self.std[turn])
        mean, std = self.mean.mean(0, keepdim=True), self.std.mean(0, keepdim=True)
        per_channel = self.weight.flatten(2) / self.std[:, None]
        weight = per_channel.sum(1, keepdim=True) * std
        bias = self.bias + (per_channel.sum(2) * (mean - self.mean)).sum(1)
        return Projection(weight.unflatten(2, self.weight.shape[2:]), bias, mean, std)


def resample_weight(weight_DCpp: Tensor, patch: int) -> Tensor:
    """(D, C, patch, patch) weights that answer to area-averaged patches as the given ones did to patches of their side.

    Finer patches: exactly the answer to those patches averaged to the old side. Coarser ones: the least-squares fit
    over all patches of the old side, given only their averages (FlexiViT's pseudo-inverse, with area averages in place
    of bilinear resizing). Constant patches get the same answer at every side; the old side gives the weights unchanged.
    """
    for axis in range(2, weight_DCpp.ndim):
        side = weight_DCpp.shape[axis]
        if side != patch:
            matrix = _transfer(side, patch, weight_DCpp.device).to(weight_DCpp.dtype)
            weight_DCpp = torch.tensordot(weight_DCpp, matrix, dims=([axis], [1])).movedim(-1, axis)
    return weight_DCpp


def _transfer(side: int, patch: int, device: torch.device) -> Tensor:
    """(patch, side) float64: weights over ``side`` pixels to weights over ``patch`` pixels."""
    if patch > side:
        return resample_matrix(patch, side, "nearest", device).T
    return torch.linalg.pinv(resample_matrix(side, patch, "nearest", device)).T
