"""The full-resolution objective at the price of the tokens: area-weighted Dice + cross-entropy, exact (F4).

With nearest painting, sums over pixels equal area-weighted sums over blocks with area-averaged labels. So a readout
that answers per leaf, or on a coarse raster, trains on the same loss as its full-resolution mask. At that size only
the labels are touched (K + 1 shares a pixel, no gradient), never logits or probabilities.

Volumes alike: sums over voxels equal volume-weighted sums over blocks.

Dimension letters: B batch, L leaves, K output channels, q output side a leaf, n spatial axes (2 or 3), H W image, h w
raster; of volumes q q q and D H W.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from patchforest.nn.raster import gather_batch
from patchforest.nn.readout.output import DenseOutput, RasterMask, Staged, TokenMask


def segmentation_loss(output: DenseOutput, label_BHW: Tensor, *, weight: float = 0.5, eps: float = 1.0) -> Tensor:
    """weight · cross-entropy + (1 − weight) · (1 − Dice), as of the full-resolution mask painted by nearest.

    Parameters
    ----------
    output : logits of a dense readout, K = 1 (sigmoid, one foreground class) or K classes with background (softmax).
    label_BHW : class numbers, negative where ignored; of volumes (B, D, H, W).
    weight, eps : w and ε of APF equation 7. Dice sums run over the batch; with softmax, Dice is the mean over classes.

    Of a network that looks twice, the loss of the last look and, by its weight, of the first.

    Returns a scalar; zero (with a gradient of zero) where every pixel is ignored.

    Raises ValueError for labels of another size than the output's image, or (softmax) class numbers of K and more.
    """
    if isinstance(output, Staged):
        looks = [segmentation_loss(look, label_BHW, weight=weight, eps=eps) for look in (output.last, output.first)]
        return looks[0] + output.weight * looks[1]
    channels = output.logits.shape[2] if isinstance(output, TokenMask) else output.logits.shape[1]
    return _objective(*soft_targets(output, label_BHW, channels), weight=weight, eps=eps)


def token_loss(output: TokenMask, shares_BLKqq: Tensor, *, weight: float = 0.5, eps: float = 1.0) -> Tensor:
    """``segmentation_loss`` with label shares that were averaged before: the same number without any raster.

    Parameters
    ----------
    shares_BLKqq : (B, L, 1 + K, q, q) or (B, L, 1 + K, q, q, q), the known share of every block, then that of each of
        the K outputs; zero where padded. See ``data.prepared.PreparedItem``.

    Raises ValueError for shares of another shape than the logits.
    """
    wanted = (*output.logits.shape[:2], output.logits.shape[2] + 1, *output.logits.shape[3:])
    if tuple(shares_BLKqq.shape) != wanted:
        raise ValueError(f"label shares must be (B, L, 1 + K, q, q) = {wanted}; got {tuple(shares_BLKqq.shape)}")
    shares, logits, block = _flat(shares_BLKqq), _flat(merge_subpixels(output)), _block_area(output, shares_BLKqq)
    return _objective(logits, _target(shares), shares[:, :1] * block, weight=weight, eps=eps)


def _objective(logits: Tensor, target: Tensor, area: Tensor, *, weight: float, eps: float) -> Tensor:
    """Cross-entropy and Dice of logits (B, K, N) against label shares (B, K, N) of blocks of an area (B, 1, N)."""
    logits = logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits
    total = area.sum().clamp(min=1e-12)
    if logits.shape[1] == 1:
        cross = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
        probability = torch.sigmoid(logits)
    else:
        cross = -(target * F.log_softmax(logits, dim=1)).sum(1, keepdim=True)
        probability = torch.softmax(logits, dim=1)
    weighed = probability * area
    both = (weighed * target).sum((0, 2))
    either = weighed.sum((0, 2)) + (target * area).sum((0, 2))
    dice = (2 * both + eps) / (either + eps)
    return weight * (cross * area).sum() / total + (1 - weight) * (1 - dice).mean()


def soft_targets(output: TokenMask | RasterMask, label_BHW: Tensor, channels: int) -> tuple[Tensor, Tensor, Tensor]:
    """Logits (B, K, N), area-averaged labels (B, K, N) and known area in pixels (or voxels; B, 1, N) of every block."""
    dtype = torch.float64 if output.logits.dtype == torch.float64 else torch.float32
    _check_labels(output, label_BHW, channels)
    both = label_BHW.new_empty((len(label_BHW), channels + 1, *label_BHW.shape[1:]), dtype=dtype)  # known, then shares
    both[:, 0] = label_BHW >= 0
    for k in range(channels):
        both[:, k + 1] = label_BHW > 0 if channels == 1 else label_BHW == k
    if isinstance(output, TokenMask):
        shares, logits, block = _token_shares(output, both)
    else:
        both = F.pad(both, _short(both.shape[2:], output.stride))
        shares = (F.avg_pool2d(both, output.stride) if output.stride > 1 else both).flatten(2)
        logits, block = output.logits.flatten(2), shares.new_full((1, 1, 1), float(output.stride**2))
    return logits, _target(shares), shares[:, :1] * block


def _short(shape: Sequence[int], multiple: int) -> list[int]:
    """What ``F.pad`` adds behind each of the last axes to make them multiples."""
    return [v for length in reversed(shape) for v in (0, -length % multiple)]


def _check_labels(output: TokenMask | RasterMask, label_BHW: Tensor, channels: int) -> None:
    if isinstance(output, TokenMask):
        fits = tuple(label_BHW.shape[1:]) == output.forest.shape
    else:
        fits = tuple(-(-s // output.stride) for s in label_BHW.shape[1:]) == tuple(output.logits.shape[2:])
    if not fits or len(label_BHW) != len(output.logits):
        raise ValueError(
            f"labels {tuple(label_BHW.shape)} are not of the images that logits {tuple(output.logits.shape)} answer for"
        )
    if channels > 1 and label_BHW.numel() and int(label_BHW.max()) >= channels:
        raise ValueError(
            f"class number {int(label_BHW.max())} in the labels, but the model has {channels} outputs (0 to "
            f"{channels - 1}); raise `classes`, or mark pixels to ignore by a negative number"
        )


def _token_shares(output: TokenMask, both_BCHW: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    forest, q = output.forest, output.logits.shape[-1]
    largest = int(forest.size_BL.max())
    padded = F.pad(both_BCHW, _short(forest.shape, largest))
    wider = replace(forest, shape=tuple(padded.shape[2:]))
    shares = gather_batch(padded, wider, q)  # (B, L, 1 + K, q, q), zero where padded
    return _flat(shares), _flat(merge_subpixels(output)), _block_area(output, shares)


def _flat(values_BLKqq: Tensor) -> Tensor:
    """(B, K, L·qⁿ)."""
    return values_BLKqq.transpose(1, 2).flatten(2)


def _block_area(output: TokenMask, like: Tensor) -> Tensor:
    """(B, 1, L·qⁿ) pixels of every block, inside the image or not."""
    q, n = output.logits.shape[-1], output.logits.ndim - 3
    side_BL = output.forest.size_BL.to(like.dtype) / q
    return side_BL.pow(n)[:, None, :, None].expand(-1, -1, -1, q**n).flatten(2)


def _target(shares: Tensor) -> Tensor:
    """Of what is known of every block (B, 1 + K, N), the share of each output."""
    return (shares[:, 1:] / shares[:, :1].clamp(min=1e-12)).clamp(0, 1)


def merge_subpixels(output: TokenMask) -> Tensor:
    """Logits in which leaves shorter than q pixels say the same within every pixel: what painting shows of them."""
    logits, size_BL = output.logits, output.forest.size_BL
    q, n = logits.shape[-1], logits.ndim - 3
    for size in torch.unique(size_BL[size_BL < q]).tolist():
        factor = q // size
        b, leaf = torch.nonzero(size_BL == size, as_tuple=True)
        mean = logits[b, leaf]
        for axis in range(-n, 0):  # F.avg_pool3d knows no bf16 on the CPU
            mean = mean.unflatten(axis, (-1, factor)).mean(axis).repeat_interleave(factor, axis)
        logits = logits.index_put((b, leaf), mean)
    return logits
