"""SHF and SAP, decoder-free: every token answers for its own leaf on a q × q grid (volumes: q × q × q); no raster in
training.
"""

from __future__ import annotations

from torch import Tensor, nn

from patchforest.models.config import ModelConfig
from patchforest.models.trunk import PatchBatch, Trunk
from patchforest.nn.raster import ForestBatch
from patchforest.nn.readout.output import DenseOutput
from patchforest.nn.readout.token import TokenReadout


class SHF(nn.Module):
    """Token masks from forest leaves; ``forward`` paints them to logits (B, K, H, W) or (B, K, D, H, W), linear inside
    a leaf.

    Source: SHF and ROVAI (SAP). Changed: place embedding instead of index vectors, a convolutional stem, q = 2p, and
    the exact area-weighted loss (``train.losses``).
    """

    needs_forest = True

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.trunk = Trunk(config)
        q = config.q or 2 * config.patch
        self.readout = TokenReadout(config.width, config.classes, q, spatial=config.spatial)

    def output(self, image_BCHW: Tensor | PatchBatch, forest: ForestBatch) -> DenseOutput:
        """Logits per leaf, for the loss, of an image or (without a stem) of patches gathered before."""
        if isinstance(image_BCHW, PatchBatch):
            states, _ = self.trunk.read(image_BCHW, forest)
        else:
            states, _, _, _ = self.trunk(image_BCHW, forest)
        return self.readout(states, forest)

    def forward(self, image_BCHW: Tensor, forest: ForestBatch) -> Tensor:
        return self.output(image_BCHW, forest).raster(forest.shape)
