"""Any vision transformer as an encoder of forests: ``adapt(model, patch=8)`` reads leaves where it read a grid.

Dimension letters: B batch, L leaves, C channels, D model width, p patch side. A volume has one axis more.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from patchforest.nn.adapt.blocks import AdaptedBlocks
from patchforest.nn.adapt.embed import AdaptedEmbed
from patchforest.nn.adapt.projection import Projection
from patchforest.nn.adapt.readers import find_parts
from patchforest.nn.encoder import taps_of
from patchforest.nn.raster import ForestBatch


class AdaptedEncoder(nn.Module):
    """A pretrained transformer that reads leaves: ``embed`` makes tokens of patches, ``encoder`` states of tokens.

    Attributes
    ----------
    width, depth : of the transformer.
    patch : side p to which leaves are to be gathered.
    """

    def __init__(self, embed: AdaptedEmbed, encoder: AdaptedBlocks, *, patch: int) -> None:
        super().__init__()
        self.embed, self.encoder, self.patch = embed, encoder, patch
        self.width, self.depth = embed.table.shape[-1], len(encoder.blocks)

    def forward(
        self, patches_BLCpp: Tensor, forest: ForestBatch, taps: tuple[int, ...] | None = None
    ) -> tuple[Tensor, list[Tensor]]:
        """States (B, L, D) of the leaves, and those after the blocks in ``taps`` (default: at quarters of the depth).

        ``patches_BLCpp`` as from ``gather_batch`` of an image whose values are those of mean and std.
        """
        taps = taps_of(self.depth) if taps is None else taps
        return self.encoder(self.embed(patches_BLCpp, forest), forest.valid_BL, taps)


def adapt(
    model: nn.Module,
    *,
    patch: int,
    channels: int | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    grid: Sequence[int] | None = None,
    framed: bool = True,
    stem_features: int = 0,
) -> AdaptedEncoder:
    """A transformer of timm, Hugging Face or MONAI as an encoder of forest leaves, with all that it has learned.

    A uniform forest of leaves of the pretrained patch, on an image of the size that the model was made for, gives the
    model's own features at ``patch`` equal to the pretrained one. At other patches its weights are resampled
    (``projection``), at other places its positions are interpolated (``positions``), and the leaf's side enters by
    terms that start at zero. Class and register tokens are kept; padding is masked in every block; the order of leaves
    does not matter. Of SAM's encoders the blocks are made global, relative positions and the neck are dropped.

    Parameters
    ----------
    model : timm VisionTransformer or NaFlexVit, transformers ViT, DINOv2 or SAM, MONAI ViT, or a model that holds one
        of these. Its blocks are shared, not copied; its head and pooling are left out.
    patch : side p to which leaves will be gathered.
    channels : of the images; None for those of the model. See ``Projection.with_channels``.
    mean, std : a channel of the model, in the values that patches will have. None: those that a timm model says, for
        images in [0, 1].
    grid : (rows, columns) of its position table, for a model that does not say it and whose image is not square.
    framed : whether positions span the whole image, or what the network sees of it.
    stem_features : length of further features a leaf, added by a projection that starts at zero.

    Raises
    ------
    ValueError : no transformer of these kinds found, or one with rotary or relative positions, without mask, or with a
        patch embedding that is no single projection; mean and std that nobody says.
    """
    parts = find_parts(model, grid)
    weight = parts.weight.detach()
    shown = [_per_channel(name, value, model, weight) for name, value in (("mean", mean), ("std", std))]
    bias = weight.new_zeros(len(weight)) if parts.bias is None else parts.bias.detach()
    projection = Projection(weight, bias, *shown)
    if channels is not None:
        projection = projection.with_channels(channels)
    embed = AdaptedEmbed(
        projection.with_patch(patch),
        parts.table.detach(),
        pretrained_side=math.prod(weight.shape[2:]) ** (1 / (weight.ndim - 2)),
        norm=parts.embed_norm,
        framed=framed,
        stem_features=stem_features,
    )
    encoder = AdaptedBlocks(
        parts.blocks,
        prefix_TD=None if parts.prefix is None else parts.prefix.detach().clone(),
        dropout=parts.dropout,
        before=parts.before,
        norm=parts.norm,
    )
    return AdaptedEncoder(embed, encoder, patch=patch)


def _per_channel(name: str, given: Sequence[float] | None, model: nn.Module, weight: Tensor) -> Tensor:
    """Mean or std of every channel of a model, given or as timm keeps it."""
    said = getattr(model, "pretrained_cfg", None)
    if given is None and isinstance(said, dict):
        given = said.get(name)
    if given is None:
        raise ValueError(
            f"{type(model).__name__} does not say which pixel values it is used to; say mean= and std= (image_mean and "
            "image_std of its preprocessor_config.json)"
        )
    if len(given) not in (1, weight.shape[1]) or (name == "std" and min(given) <= 0):
        raise ValueError(f"{name} must be {weight.shape[1]} numbers, one a channel of the model; got {tuple(given)}")
    return torch.tensor(tuple(given), dtype=weight.dtype, device=weight.device).expand(weight.shape[1]).clone()
