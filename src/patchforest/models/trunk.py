"""From image and forest to token states: stem → gather → embed → encoder. Shared by every adaptive model."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from patchforest.models.backbone import build_backbone
from patchforest.models.config import ModelConfig
from patchforest.models.normalise import normalise, see, seen_channels
from patchforest.nn.adapt.blocks import AdaptedBlocks
from patchforest.nn.adapt.embed import AdaptedEmbed
from patchforest.nn.embed import PatchEmbed, Stem
from patchforest.nn.encoder import Encoder, taps_of
from patchforest.nn.raster import ForestBatch, gather_batch


@dataclass(frozen=True, eq=False)
class PatchBatch:
    """Leaves that were gathered before, in place of an image: (B, L, C, p, p) with values in [0, 1], any where padded.

    They belong to a ``ForestBatch`` of the same L, whose leaves may be of images of several sizes.
    """

    patches_BLCpp: Tensor


class Trunk(nn.Module):
    """Token states of every leaf, with the stem's rasters and the encoder's taps.

    The stem sees the whole image at stride 2, 4, ... before anything is averaged into leaves: every token reads its
    own pixels and what the stem found in its leaf. With ``config.backbone`` a foreign transformer takes the place of
    our own; what the stem found is added to its tokens by a projection that starts at zero.
    """

    embed: PatchEmbed | AdaptedEmbed
    encoder: Encoder | AdaptedBlocks

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.channels, self.patch, self.cell = config.channels, config.patch, config.cell
        self.spatial = n = config.spatial
        self.surround = config.surround if n == 2 else 0
        self.stem: Stem | None = None
        if config.stem:
            channels = seen_channels(config.channels, self.surround)
            self.stem = Stem(channels, config.stem, spatial=n, norm=config.norm)
        self.stem_stride = 2 ** len(config.stem)
        if self.stem is not None and config.cell % self.stem_stride:
            raise ValueError(
                f"the stem's stride {self.stem_stride} must divide the smallest leaf {config.cell}; use fewer stages"
            )
        self.sub = min(2, config.cell // self.stem_stride)
        stem_features = config.stem[-1] * self.sub**n if config.stem else 0
        if config.backbone is not None:
            adapted = build_backbone(config, stem_features=stem_features)
            self.embed, self.encoder = adapted.embed, adapted.encoder
        else:
            self.embed = PatchEmbed(
                config.channels * config.patch**n,
                config.width,
                stem_features=stem_features,
                embedding=config.embedding,
                max_tokens=config.max_tokens,
                spatial=n,
            )
            self.encoder = Encoder(config.width, config.depth, config.heads, dropout=config.dropout)
        depth = len(self.encoder.blocks)
        self.taps = tuple(reversed(taps_of(depth))) if depth else (0, 0, 0, 0)

    def forward(self, image_BCHW: Tensor, forest: ForestBatch) -> tuple[Tensor, list[Tensor], list[Tensor], Tensor]:
        """States (B, L, D); taps, last first; stem rasters; the normalised image, or volume (B, C, D, H, W)."""
        image_BCHW, rasters = self.see(image_BCHW)
        states, taps = self.encoder(self.tokens(image_BCHW, rasters, forest), forest.valid_BL, self.taps)
        return states, taps, rasters, image_BCHW

    def see(self, image_BCHW: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The normalised image, and the rasters that the stem makes of it: what no forest changes."""
        image = normalise(image_BCHW)
        if self.stem is None:
            return image, []
        layout = torch.channels_last if self.spatial == 2 else torch.channels_last_3d
        return image, self.stem(see(image_BCHW, self.surround).contiguous(memory_format=layout))

    def tokens(self, image_BCHW: Tensor, rasters: list[Tensor], forest: ForestBatch) -> Tensor:
        """(B, L, D) embedded leaves of an image that was seen, before the encoder."""
        self._check_cell(forest)
        patches = gather_batch(image_BCHW, forest, self.patch)
        stem_BLF = None
        if rasters:
            last = rasters[-1] if self.spatial == 2 else rasters[-1].float()  # the CPU averages no bf16 volumes
            stem_BLF = gather_batch(last, forest.at_stride(self.stem_stride), self.sub).flatten(2)
        return self.embed(patches, forest, stem_BLF)

    def read(self, patches: PatchBatch, forest: ForestBatch) -> tuple[Tensor, list[Tensor]]:
        """States (B, L, D) and taps, last first, of leaves gathered before: those of ``forward`` without a stem.

        Raises ValueError for a model whose stem reads the image, and patches of another shape than the model's.
        """
        self._check_cell(forest)
        wanted = (*forest.size_BL.shape, self.channels, *[self.patch] * self.spatial)
        if self.stem is not None:
            raise ValueError("the stem of this model reads an image; use stem=() to read patches alone")
        if tuple(patches.patches_BLCpp.shape) != wanted:
            raise ValueError(f"patches must be (B, L, C, p, p) = {wanted}; got {tuple(patches.patches_BLCpp.shape)}")
        tokens = self.embed(normalise(patches.patches_BLCpp), forest, None)
        return self.encoder(tokens, forest.valid_BL, self.taps)

    def _check_cell(self, forest: ForestBatch) -> None:
        if forest.cell != self.cell:
            raise ValueError(f"this model was made for forests of cell {self.cell}; got cell {forest.cell}")
