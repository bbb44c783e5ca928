"""UNETR in 2-D: a plain ViT over a regular grid of patches, and a convolutional decoder over four of its depths."""

from __future__ import annotations

from torch import Tensor, nn

from patchforest.models.config import ModelConfig
from patchforest.models.normalise import see, seen_channels
from patchforest.nn.encoder import Encoder, taps_of
from patchforest.nn.grid import GridEmbed, as_raster, padded
from patchforest.nn.raster import ForestBatch
from patchforest.nn.readout.grid import GridDecoder
from patchforest.nn.readout.output import DenseOutput, RasterMask


class UNETR(nn.Module):
    """Logits at full resolution; any power-of-two ``patch``, ``width``, ``depth``, ``heads``, ``features``, ``window``.

    Taps after blocks 3, 6, 9 of 12 (quarters of any depth) as in the paper, and the last state after a final norm as
    in the authors' code. The image is padded to whole patches inside. Source: Hatamizadeh et al. 2022 (ViT-B: width
    768, depth 12, heads 12, patch 16, features 16).

    Attributes
    ----------
    fixed_window : it has a table of positions, so that ``infer`` shows it windows of the training size.
    """

    needs_forest = False
    fixed_window = True

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        c = config
        if c.window is None:
            raise ValueError("unetr has a table of positions; set window, the (height, width) of its images")
        if c.depth < 1:
            raise ValueError(f"depth of unetr must be at least 1; got {c.depth}")
        self.surround, channels = c.surround, seen_channels(c.channels, c.surround)
        self.decoder = GridDecoder(c.width, channels, c.classes, c.features, patch=c.patch)
        self.embed = GridEmbed(channels, c.width, c.patch, window=c.window)
        self.encoder = Encoder(c.width, c.depth, c.heads, dropout=c.dropout)
        self.taps = tuple(reversed(taps_of(c.depth)))[1 : 1 + self.decoder.num_taps]

    def output(self, image_BCHW: Tensor, forest: ForestBatch | None = None) -> DenseOutput:
        """Logits at stride 1, for the loss."""
        height, width = image_BCHW.shape[2:]
        patch = self.embed.patch
        x = padded(see(image_BCHW, self.surround), patch)
        states, taps = self.encoder(self.embed(x), taps=self.taps)
        grid = (x.shape[2] // patch, x.shape[3] // patch)
        logits = self.decoder([as_raster(state, grid) for state in (states, *taps)], x)
        return RasterMask(logits=logits[..., :height, :width], stride=1)

    def forward(self, image_BCHW: Tensor, forest: ForestBatch | None = None) -> Tensor:
        height, width = image_BCHW.shape[2:]
        return self.output(image_BCHW).raster((height, width))
