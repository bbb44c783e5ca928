"""ViT for classification: a plain transformer over a regular grid of patches, one answer an image."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from patchforest.models.config import ModelConfig
from patchforest.models.normalise import normalise
from patchforest.nn.encoder import Encoder
from patchforest.nn.grid import GridEmbed, padded
from patchforest.nn.pool import Pool
from patchforest.nn.raster import ForestBatch


class ViT(nn.Module):
    """Logits (B, K) from the pooled token states; any ``patch``, ``width``, ``depth``, ``heads``, ``pooling``.

    The table of positions is made for images of ``window`` and interpolated for others. The image is padded to whole
    patches inside. Source: Dosovitskiy et al. 2021 (ViT-B: width 768, depth 12, heads 12, patch 16), with mean pooling
    in place of a class token.

    Attributes
    ----------
    fixed_window : it has a table of positions.
    """

    needs_forest = False
    fixed_window = True
    classifies = True

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        c = config
        if c.window is None:
            raise ValueError("vit has a table of positions; set window, the (height, width) of its images")
        self.embed = GridEmbed(c.channels, c.width, c.patch, window=c.window)
        self.encoder = Encoder(c.width, c.depth, c.heads, dropout=c.dropout)
        self.pool = Pool(c.width, c.pooling)
        self.head = nn.Linear(c.width, c.classes)

    def num_tokens(self, shape: tuple[int, int]) -> int:
        """Tokens of an image of so many rows and columns."""
        return -(-shape[0] // self.embed.patch) * -(-shape[1] // self.embed.patch)

    def forward(self, image_BCHW: Tensor, forest: ForestBatch | None = None) -> Tensor:
        tokens = self.embed(padded(normalise(image_BCHW), self.embed.patch))
        states, _ = self.encoder(tokens)
        return self.head(self.pool(states, torch.ones(states.shape[:2], dtype=torch.bool, device=states.device)))
