"""Two looks at one budget: a first forest and what the network makes of it decide where the leaves of the second lie.

As AMR codes refine by an error estimator: half of the encoder's blocks read the first forest, a head says what every
leaf shows, the leaves whose answer is mixed or unsure are split and sure ones are joined, at a fixed number of leaves,
and the other half of the blocks reads the second forest. States go with their leaves, so a leaf that stays is not read
again. Where both forests have as many leaves, one look of the same depth costs the same but for the second gathering
and the small head; a first look at a quarter of the leaves (``growth=4``) costs less.
"""

from __future__ import annotations

import warnings

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from patchforest.models.config import ModelConfig
from patchforest.models.trunk import Trunk
from patchforest.nn.encoder import Encoder
from patchforest.nn.forest import build_forest_batch
from patchforest.nn.raster import ForestBatch, paint_batch, paint_features
from patchforest.nn.readout.output import RasterMask, Staged, TokenMask, start_with_background
from patchforest.nn.readout.paint import PaintReadout
from patchforest.nn.readout.token import TokenReadout

READOUTS = ("paint", "token")
LOOKS = ("leaves", "stem")


class Refined(nn.Module):
    """Dense segmentation by two looks; ``forward`` gives logits (B, K, H, W), ``output`` those of both looks.

    ``config.readout`` says how the second look answers: ``paint`` as APF-UNETR, ``token`` as SHF. The first is trained
    beside it; no gradient flows through the choice of leaves. With ``config.look`` ``leaves`` it is that of half of the
    blocks, and answers by p × p logits a leaf; with ``stem`` the convolutions look first, at every cell of their last
    stride, and all blocks read the second forest.
    """

    needs_forest = True

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        c = config
        if c.readout not in READOUTS:
            raise ValueError(f"readout of refined must be one of {', '.join(READOUTS)}; got {c.readout!r}")
        self.trunk, self.growth = Trunk(c), c.growth
        self.blocks_first = c.depth // 2 if c.look == "leaves" else 0
        self.look = self._first_look(c)
        self.paint: PaintReadout | None = None
        self.token: TokenReadout | None = None
        if c.readout == "paint":
            self.q = self.trunk.sub
            self.paint = PaintReadout(c.width, c.classes, c.stem, sub=self.trunk.sub, stride=c.stride, norm=c.norm)
        else:
            self.q = c.q or 2 * c.patch
            self.token = TokenReadout(c.width, c.classes, self.q)

    @property
    def reads_first(self) -> bool:
        """Whether the encoder reads the first forest too."""
        return self.blocks_first > 0

    def _first_look(self, c: ModelConfig) -> TokenReadout | nn.Conv2d:
        if c.look == "leaves":
            if c.depth < 2:
                raise ValueError(f"two looks at leaves need a depth of at least 2; got {c.depth}")
            return TokenReadout(c.width, c.classes, c.patch, hidden=c.width)
        if not c.stem:
            raise ValueError("a first look by the stem needs one; got stem ()")
        look = nn.Conv2d(c.stem[-1], c.classes, 1)
        start_with_background(look, c.classes)
        return look

    def output(self, image_BCHW: Tensor, forest: ForestBatch) -> Staged:
        """Logits of both looks, before painting, for the loss."""
        trunk, encoder = self.trunk, self.trunk.encoder
        assert isinstance(encoder, Encoder)
        image, rasters = trunk.see(image_BCHW)
        if isinstance(self.look, nn.Conv2d):
            seen = RasterMask(self.look(rasters[-1]), trunk.stem_stride)
            second = refine(seen, self.q, growth=self.growth, forest=forest)
            states = encoder.norm(encoder.part(trunk.tokens(image, rasters, second), second.valid_BL, 0))
            return Staged(self._answer(states, second, rasters), seen, second)
        states = encoder.part(trunk.tokens(image, rasters, forest), forest.valid_BL, 0, self.blocks_first)
        first = self.look(states, forest)
        second = refine(first, self.q, growth=self.growth)
        carried, stays = carry(states, forest, second)
        fresh = trunk.tokens(image, rasters, second)
        states = carried + fresh * ~stays[..., None]
        states = encoder.norm(encoder.part(states, second.valid_BL, self.blocks_first))
        return Staged(self._answer(states, second, rasters), first, second)

    def _answer(self, states: Tensor, forest: ForestBatch, rasters: list[Tensor]) -> TokenMask | RasterMask:
        if self.paint is not None:
            return self.paint(states, forest, rasters)
        assert self.token is not None
        return self.token(states, forest)

    def forward(self, image_BCHW: Tensor, forest: ForestBatch) -> Tensor:
        return self.output(image_BCHW, forest).raster(forest.shape)


@torch.no_grad()
def refine(first: TokenMask | RasterMask, q: int, *, growth: int = 1, forest: ForestBatch | None = None) -> ForestBatch:
    """The forests of ``growth`` times as many leaves that are small where a first answer is mixed or unsure.

    A node's score is what a leaf there may get wrong: the probability that its cells are not what they most likely
    are, summed, times the side of the blocks that a leaf of q × q answers paints, up to two cells: finer blocks help
    the more the longer they are, and leaves up to q pixels get nothing wrong (``tree.refine.uncertainty_scores``, of
    cells in place of blocks).

    Half of the score is how many leaves the first forest has there: a first answer that misses a small lesion must not
    take the leaves from where the image has detail. ``forest``: the first one, where a raster answers.
    """
    if isinstance(first, TokenMask):
        forest = first.forest
    assert forest is not None
    logits = first.logits.float()
    axis = 2 if isinstance(first, TokenMask) else 1
    probability = logits.sigmoid() if logits.shape[axis] == 1 else logits.softmax(axis)
    with torch.autocast(logits.device.type, enabled=False):
        if isinstance(first, TokenMask):
            mean_BKhw = paint_batch(probability, forest.at_stride(forest.cell), "nearest")
        else:
            mean_BKhw = F.avg_pool2d(probability, forest.cell // first.stride, ceil_mode=True, count_include_pad=False)
    likeliest_Bhw = mean_BKhw.amax(1)
    if mean_BKhw.shape[1] == 1:
        likeliest_Bhw = likeliest_Bhw.maximum(1 - likeliest_Bhw)
    unsure_Bhw = (1 - likeliest_Bhw).nan_to_num(0.0).clamp(min=0.0)
    area_B1hw = paint_features(forest.size_BL[..., None].float().square(), forest, forest.cell)
    detail_Bhw = _shares(unsure_Bhw) + _shares(1 / area_B1hw[:, 0])
    sides = [forest.root >> level for level in range((forest.root // forest.cell).bit_length() - 1)]
    weights = [min(1.0, side / q / (2 * forest.cell)) * (side > q) for side in sides]
    budgets = (growth * forest.valid_BL.sum(1)).tolist()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # where all is sure, the rest of the leaves split the largest
        built = [
            build_forest_batch(
                detail_Bhw[run],
                shape=forest.shape,
                cell=forest.cell,
                root=forest.root,
                budget=budgets[run.start],
                weights=weights,
                place=forest.place_B4[run],
            )
            for run in _runs(budgets)
        ]
    return built[0] if len(built) == 1 else ForestBatch.join(built)


def _shares(detail_Bhw: Tensor) -> Tensor:
    """Of every image's sum."""
    return detail_Bhw / detail_Bhw.sum((1, 2), keepdim=True).clamp(min=1e-12)


def _runs(values: list[int]) -> list[slice]:
    """Slices of equal neighbours."""
    ends = [i for i in range(1, len(values)) if values[i] != values[i - 1]]
    return [slice(a, b) for a, b in zip([0, *ends], [*ends, len(values)])]


def carry(states_BLD: Tensor, old: ForestBatch, new: ForestBatch) -> tuple[Tensor, Tensor]:
    """Old states on new leaves (B, M, D), and which of the new leaves were there before (B, M) bool.

    A leaf that stays keeps its state, a part of an old leaf gets that leaf's, and a leaf over several old ones the mean
    of theirs by area. In Z-order these are a run of neighbours, so means are differences of running sums.
    """
    batch, length, width = states_BLD.shape
    cells = tuple((new.origin_BLn // new.cell).unbind(-1))
    rows = torch.arange(batch, device=states_BLD.device)[:, None].expand(-1, new.size_BL.shape[1])
    start_BM = old.index[(rows, *cells)]
    counts_B1 = old.valid_BL.sum(1, keepdim=True)
    start_BM = torch.where(new.valid_BL, start_BM, counts_B1)  # padding begins behind the last leaf
    end_BM = torch.cat([start_BM[:, 1:], counts_B1], 1).maximum(start_BM + 1).clamp(max=length)
    inside_BM = start_BM.clamp(max=length - 1)
    alone_BM = end_BM - start_BM == 1
    area_BL = old.area_BL.double()  # differences of long running sums
    sums_BLD = F.pad((states_BLD.to(area_BL.dtype) * area_BL[..., None]).cumsum(1), (0, 0, 1, 0))
    areas_BL = F.pad(area_BL.cumsum(1), (1, 0))

    def at(values_BLD: Tensor, index_BM: Tensor) -> Tensor:
        return values_BLD.gather(1, index_BM[..., None].expand(-1, -1, width))

    area_BM = (areas_BL.gather(1, end_BM) - areas_BL.gather(1, inside_BM)).clamp(min=1)
    mean_BMD = (at(sums_BLD, end_BM) - at(sums_BLD, inside_BM)) / area_BM[..., None]
    carried = torch.where(alone_BM[..., None], at(states_BLD, inside_BM), mean_BMD.to(states_BLD.dtype))
    stays_BM = alone_BM & (old.size_BL.gather(1, inside_BM) == new.size_BL) & new.valid_BL
    return carried * new.valid_BL[..., None], stays_BM
