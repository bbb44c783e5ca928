"""HIPT, compact: three transformers, each over what the one below made of its squares of the image.

Dimension letters: B batch, C channels, H W image, R regions, S crops a region, L patches a crop, D width.

Three readings of the name:

- *The original* (Chen et al. 2022): crops of 256 px in patches of 16, regions of 4,096 px of 16 × 16 crops, the slide a
  sequence of regions; levels 1 and 2 are taught by DINO and frozen. These are ``patch=16``, ``crop=256``,
  ``region=4096``, ``width=384``, ``depth=12``, ``heads=6``, ``dropout=0.25`` (of the third level) here.
- *Ours*: the same three levels, but there are no such weights to freeze, so all of them learn from the labels. Narrow
  ones learn nothing in reasonable time under the published dropout, whose noise drowns what three levels hand up.
- *The APF paper's* "256, 1024, 16384 with patches 16, 256, 4096" for an image of 16,384 px: each level sees the image
  at a size of its own, which the original never does. Without resizing, patches of 16, 256 and 4,096 are those that
  the three levels see; on a smaller image scale all of them alike, e.g. ``patch=8``, ``crop=64``, ``region=256``.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from patchforest.models.config import ModelConfig
from patchforest.models.normalise import normalise
from patchforest.nn.encoder import Encoder
from patchforest.nn.grid import GridEmbed, padded
from patchforest.nn.pool import GatedAttention
from patchforest.nn.raster import ForestBatch


class HIPT(nn.Module):
    """Logits (B, K) from patches, crops and regions of an image of any size.

    Level 1: a ViT (``width``, ``depth``, ``heads``) on each crop gives its class token. Level 2: a ViT of half the
    width and depth on the class tokens of a region's crops gives that of the region. Level 3: two transformer blocks
    over the regions, which have no positions, and attention pooling with a gate. Crops and regions beyond the far
    edges of the image do not exist; a crop that the edge cuts is filled by its last pixels.
    """

    needs_forest = False
    classifies = True

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        c = config
        if c.crop % c.patch or c.region % c.crop:
            raise ValueError(
                f"region must be a multiple of crop, and crop of patch; got {c.region}, {c.crop} and {c.patch}"
            )
        half = c.width // 2
        if c.width % 2 or half % c.heads or c.depth < 1:
            raise ValueError(f"half of width must be a multiple of heads, depth at least 1; got {c.width}, {c.heads}")
        self.crop, self.side = c.crop, c.region // c.crop
        self.patches = Level(
            GridEmbed(c.channels, c.width, c.patch, window=(c.crop, c.crop)), c.width, c.depth, c.heads
        )
        narrow = nn.Sequential(nn.Linear(c.width, half), nn.GELU())
        self.crops = Level(Places(narrow, half, self.side**2), half, max(c.depth // 2, 1), c.heads)
        self.regions = nn.Sequential(nn.Linear(half, half), nn.ReLU(), nn.Dropout(c.dropout))
        heads = c.heads // 2 if c.heads % 2 == 0 else c.heads
        self.slide = Encoder(half, 2, heads, ratio=1, dropout=c.dropout)
        self.pool = GatedAttention(half, half, dropout=c.dropout)
        self.head = nn.Sequential(nn.Linear(half, half), nn.ReLU(), nn.Dropout(c.dropout), nn.Linear(half, c.classes))
        for encoder in (self.patches.encoder, self.crops.encoder, self.slide):
            _pass_on(encoder)

    def num_tokens(self, shape: tuple[int, int]) -> int:
        """Patches of the first level for an image of so many rows and columns."""
        crops = -(-shape[0] // self.crop) * -(-shape[1] // self.crop)
        return crops * int(self.crop // self.patches.embed.patch) ** 2  # type: ignore[operator]

    def forward(self, image_BCHW: Tensor, forest: ForestBatch | None = None) -> Tensor:
        crops_BRSD, exists_BRS = self._crops(padded(normalise(image_BCHW), self.crop))
        batch, regions = exists_BRS.shape[:2]
        regions_BRD = self.crops(crops_BRSD.flatten(0, 1), exists_BRS.flatten(0, 1)).view(batch, regions, -1)
        states_BRD, _ = self.slide(self.regions(regions_BRD))
        there = torch.ones(batch, regions, dtype=torch.bool, device=states_BRD.device)
        return self.head(self.pool(states_BRD, there))

    def _crops(self, image_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        """Class tokens (B, R, S, D) of the crops by region, row by row, and which of them exist (B, R, S)."""
        batch, channels, height, width = image_BCHW.shape
        rows, columns = height // self.crop, width // self.crop
        cut = image_BCHW.view(batch, channels, rows, self.crop, columns, self.crop).permute(0, 2, 4, 1, 3, 5)
        tokens = self.patches(cut.reshape(-1, channels, self.crop, self.crop)).view(batch, rows, columns, -1)
        over = (-rows % self.side, -columns % self.side)
        tokens = F.pad(tokens, (0, 0, 0, over[1], 0, over[0]))
        exists = F.pad(torch.ones(batch, rows, columns, 1, device=tokens.device), (0, 0, 0, over[1], 0, over[0]))
        return self._by_region(tokens), self._by_region(exists)[..., 0] > 0

    def _by_region(self, grid: Tensor) -> Tensor:
        """(B, R, S, D) of (B, rows, columns, D)."""
        batch, rows, columns, depth = grid.shape
        side = self.side
        parts = grid.reshape(batch, rows // side, side, columns // side, side, depth).transpose(2, 3)
        return parts.reshape(batch, -1, side * side, depth)


def _pass_on(encoder: nn.Module) -> None:
    """Begin with weights that pass on as much at any width as those of the published one (spread 0.02 at width 384).

    Three narrow levels of spread 0.02 would hand next to nothing of the image up to the classes.
    """
    for module in encoder.modules():
        if isinstance(module, nn.Linear):
            nn.init.trunc_normal_(module.weight, std=0.02 * (384 / module.in_features) ** 0.5)


class Places(nn.Module):
    """Tokens (N, S, D) of the states (N, S, E) of a region's crops, plus a learned vector a place in the region."""

    def __init__(self, narrow: nn.Module, width: int, places: int) -> None:
        super().__init__()
        self.narrow = narrow
        self.table = nn.Parameter(torch.zeros(1, places, width))
        nn.init.trunc_normal_(self.table, std=0.02)

    def forward(self, states: Tensor) -> Tensor:
        return self.narrow(states) + self.table


class Level(nn.Module):
    """The state of a class token that reads the tokens ``embed`` makes: (N, D) from N sets, absent tokens unread."""

    def __init__(self, embed: nn.Module, width: int, depth: int, heads: int) -> None:
        super().__init__()
        self.embed = embed
        self.token = nn.Parameter(torch.zeros(1, 1, width))
        nn.init.trunc_normal_(self.token, std=0.02)
        self.encoder = Encoder(width, depth, heads)

    def forward(self, x: Tensor, exists_NS: Tensor | None = None) -> Tensor:
        tokens = self.embed(x)
        tokens = torch.cat([self.token.expand(len(tokens), -1, -1).to(tokens.dtype), tokens], 1)
        valid = None if exists_NS is None else F.pad(exists_NS, (1, 0), value=True)
        return self.encoder(tokens, valid)[0][:, 0]
