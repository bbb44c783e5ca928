"""APF models (SC'24): the transformer reads forest leaves; three dense readouts and a class head.

``APFUNETR`` with ``readout="raster"`` is the published composition with the decoder's input correctly registered;
``readout="pseudo"`` keeps the papers' √L grid for comparison; ``readout="paint"`` is ours and the default. The
uniform-grid twin of any of them is the same class on a uniform forest.
"""

from __future__ import annotations

from torch import Tensor, nn

from patchforest.models.config import ModelConfig
from patchforest.models.trunk import PatchBatch, Trunk
from patchforest.nn.pool import Pool
from patchforest.nn.raster import ForestBatch
from patchforest.nn.readout.output import DenseOutput
from patchforest.nn.readout.paint import PaintReadout
from patchforest.nn.readout.unetr import PseudoReadout, RasterReadout

READOUTS = ("paint", "raster", "pseudo")


class APFUNETR(nn.Module):
    """Dense segmentation from forest leaves; ``forward`` gives logits (B, K, H, W)."""

    needs_forest = True

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        if config.readout not in READOUTS:
            raise ValueError(f"readout must be one of {', '.join(READOUTS)}; got {config.readout!r}")
        self.trunk = Trunk(config)
        c = config
        self.paint: PaintReadout | None = None
        self.unetr: RasterReadout | PseudoReadout | None = None
        if c.readout == "paint":
            self.paint = PaintReadout(c.width, c.classes, c.stem, sub=self.trunk.sub, stride=c.stride, norm=c.norm)
        elif c.readout == "raster":
            self.unetr = RasterReadout(
                c.width, c.channels, c.classes, c.features, cell=c.cell, image_branch=c.image_branch, norm=c.norm
            )
        else:
            self.unetr = PseudoReadout(c.width, c.channels, c.classes, c.features, norm=c.norm)

    def output(self, image_BCHW: Tensor, forest: ForestBatch) -> DenseOutput:
        """Logits before painting, for the loss."""
        states, taps, rasters, image = self.trunk(image_BCHW, forest)
        if self.paint is not None:
            return self.paint(states, forest, rasters)
        assert self.unetr is not None
        return self.unetr([states, *taps[1:]], forest, image)

    def forward(self, image_BCHW: Tensor, forest: ForestBatch) -> Tensor:
        return self.output(image_BCHW, forest).raster(forest.shape)


class APFViT(nn.Module):
    """Classification from forest leaves: logits (B, K) from the pooled token states (``pooling``, see ``nn.pool``).

    Without a stem it reads nothing of an image but its leaves (``reads_leaves``), and takes them in place of an image.
    """

    needs_forest = True
    classifies = True

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.trunk = Trunk(config)
        self.pool = Pool(config.width, config.pooling)
        self.head = nn.Linear(config.width, config.classes)

    @property
    def reads_leaves(self) -> bool:
        """Whether ``PatchBatch`` is all it needs."""
        return self.trunk.stem is None

    def forward(self, image_BCHW: Tensor | PatchBatch, forest: ForestBatch) -> Tensor:
        if isinstance(image_BCHW, PatchBatch):
            states, _ = self.trunk.read(image_BCHW, forest)
        else:
            states, _, _, _ = self.trunk(image_BCHW, forest)
        return self.head(self.pool(states, forest.valid_BL, forest.area_BL))
