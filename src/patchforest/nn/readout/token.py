"""Token readout (SHF, SAP): q × q (volumes: q × q × q) logits straight from every token, no raster while training."""

from __future__ import annotations

from torch import Tensor, nn

from patchforest.nn.raster import ForestBatch
from patchforest.nn.readout.output import TokenMask, start_with_background


class TokenReadout(nn.Module):
    """LayerNorm → Linear → GELU → Linear to K·qⁿ logits a token, n = 2 or 3.

    No normalisation after the last layer: it would bound the logits that a Dice loss wants to grow.
    """

    def __init__(self, width: int, classes: int, q: int, *, hidden: int | None = None, spatial: int = 2) -> None:
        super().__init__()
        self.classes, self.q, self.spatial = classes, q, spatial
        hidden = hidden or 2 * width
        last = nn.Linear(hidden, classes * q**spatial)
        start_with_background(last, classes)
        self.head = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, hidden), nn.GELU(), last)

    def forward(self, states_BLD: Tensor, forest: ForestBatch) -> TokenMask:
        batch, length, _ = states_BLD.shape
        logits = self.head(states_BLD).view(batch, length, self.classes, *[self.q] * self.spatial)
        return TokenMask(logits=logits, forest=forest)
