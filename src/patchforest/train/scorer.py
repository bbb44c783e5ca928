"""Training of a scorer: its loss, the share of pixels that leaves get wrong, and its validation, the label ceiling.

Dimension letters: B batch, K classes, S sides of blocks, H W image, h w squares.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from patchforest.data.layout import Case
from patchforest.data.load import LabelMap, Picture
from patchforest.data.pictures import open_picture
from patchforest.data.samples import WindowSamples
from patchforest.errors import InputError
from patchforest.infer.scorer import LeafScorer, scorer_q
from patchforest.io.scale import AS_STORED, Scale
from patchforest.models.bundle import Bundle, ModelSpec
from patchforest.models.scorer import BLOCKS, WrongShares
from patchforest.train.config import TrainConfig
from patchforest.train.task import TrainingTask
from patchforest.train.validate import evenly
from patchforest.tree.ceiling import label_ceiling
from patchforest.tree.cut import cut_forest
from patchforest.tree.forest import FlatGround
from patchforest.tree.window import unit_range
from patchforest.values import Array, Forest


def scorer_loss(output: WrongShares, label_BHW: Tensor, classes: int) -> Tensor:
    """Cross-entropy between predicted and true shares of wrong pixels, summed over the sides of blocks.

    It is least where the prediction is the mean of what may be there, so that sums over nodes are expected errors. By
    known pixels; a scalar.
    """
    wrong, known = wrong_shares(label_BHW, classes, output.stride)
    cross = F.binary_cross_entropy_with_logits(output.logits.float(), wrong, reduction="none")
    return (cross * known).sum() / known.sum().clamp(min=1e-12)


def wrong_shares(label_BHW: Tensor, classes: int, stride: int) -> tuple[Tensor, Tensor]:
    """Of every square the share of its known pixels that blocks of each side get wrong, and its known share.

    A block shows the class that it has most of. Blocks of 2 ... 64 start at the window's corner, as nodes do at the
    image's.

    Parameters
    ----------
    label_BHW : class numbers; negative where ignored.
    classes : including background.
    stride : side of the squares, a power of two.

    Returns
    -------
    (B, S, h, w) and (B, 1, h, w), float32.
    """
    longest = max(BLOCKS[-1], stride)
    label = F.pad(label_BHW, [v for s in reversed(label_BHW.shape[1:]) for v in (0, -s % longest)], value=-1)
    held = torch.stack([label == k for k in range(classes)], 1).float()
    rows, columns = (-(-s // stride) for s in label_BHW.shape[1:])
    squares = F.avg_pool2d(held, stride)
    known, wrong, side = squares.sum(1, keepdim=True), [], 1
    for block in BLOCKS:
        held, side = F.avg_pool2d(held, block // side), block
        if block <= stride:
            share = F.avg_pool2d(held.sum(1, keepdim=True) - held.amax(1, keepdim=True), stride // block)
        else:
            shown = held.argmax(1, keepdim=True)
            for axis in (2, 3):
                shown = shown.repeat_interleave(block // stride, axis)
            share = known - squares.gather(1, shown)
        wrong.append(share)
    shares = (torch.cat(wrong, 1) / known.clamp(min=1e-12)).clamp(0, 1)
    return shares[..., :rows, :columns], known[..., :rows, :columns]


class ScorerTask(TrainingTask):
    """A scorer in training."""

    def __init__(self, network: nn.Module, config: TrainConfig, samples: WindowSamples, *, classes: int) -> None:
        super().__init__(network, config, samples)
        self._classes = classes

    def _loss(self, batch: Any) -> Tensor:
        return scorer_loss(self.network.output(batch.image), batch.label, self._classes)  # type: ignore[operator]


@dataclass(frozen=True)
class CeilingValidation:
    """Mean label ceilings over the validation images: of the scorer's forests, and of edges at as many leaves."""

    ceiling: float
    edges: float
    cases: int
    seconds: float

    @property
    def score(self) -> float:
        """What the best scorer has most of."""
        return self.ceiling

    def values(self) -> tuple[float | None, ...]:
        """In the order of ``CeilingValidator.columns``."""
        return self.ceiling, self.edges

    @property
    def line(self) -> str:
        """For a line of progress."""
        return f"ceiling {self.ceiling:.4f} (edges {self.edges:.4f}, {self.cases} images, {self.seconds:.0f} s)"


@dataclass(frozen=True, eq=False)
class Judged:
    """A case as a scorer sees it: image, label, the forest that it cuts, and the one that edges cut.

    The ceilings are the label ceilings of the two forests.
    """

    image: Array
    label: Array
    forest: Forest
    by_edges: Forest
    ceiling: float
    ceiling_edges: float


def judge(scorer: Bundle, case: Case, *, label_map: LabelMap | None = None, scale: Scale = AS_STORED) -> Judged:
    """What the forest of a whole image is worth that a scorer cuts, by the policy and q of its specification.

    Raises
    ------
    InputError : as of ``data.pictures.open_picture``; images too large for memory.
    """
    spec = scorer.spec
    assert spec.forest is not None
    classes, q = len(spec.classes), scorer_q(spec.model)
    picture = open_picture(
        case,
        label_map=label_map,
        num_classes=classes,
        downscale=spec.downscale,
        intensity_window=spec.intensity_window,
        scale=scale,
        names=spec.classes,
    )
    if not isinstance(picture, Picture):
        raise InputError(case.image, "is too large to judge a scorer by", "set train.validate_cases=0")
    image, label = picture.image, picture.label
    if image.dtype != np.uint8 or spec.intensity_window is not None:
        image = unit_range(image, spec.intensity_window)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FlatGround)
        forest = cut_forest(image, spec.forest, criterion=LeafScorer(scorer, q))
        by_edges = cut_forest(image, replace(spec.forest, criterion="edges"))
    own, edges = (label_ceiling(label, f, q, num_classes=classes) for f in (forest, by_edges))
    return Judged(image, label, forest, by_edges, own, edges)


class CeilingValidator:
    """Scores a scorer by the label ceilings of its forests of whole images; call it with the network.

    Parameters as of ``train.validate.ImageValidator``.
    """

    word = "ceiling"

    def __init__(
        self,
        cases: Sequence[Case],
        spec: ModelSpec,
        label_map: LabelMap | None,
        *,
        scale: Scale = AS_STORED,
        limit: int | None = None,
        stop: Callable[[], bool] = lambda: False,
    ) -> None:
        self.cases = tuple(cases[i] for i in evenly(len(cases), limit))
        self._spec, self._label_map, self._scale, self._stop = spec, label_map, scale, stop

    def columns(self, classes: Sequence[str]) -> list[str]:
        """Of metrics.csv; the first is ``score``."""
        return ["ceiling", "ceiling_edges"]

    def __call__(self, network: nn.Module) -> CeilingValidation | None:
        """The scores, or None when stopped on the way or without cases."""
        start, found = time.perf_counter(), []
        bundle = Bundle(network=network, spec=self._spec)
        for case in self.cases:
            if self._stop():
                return None
            judged = judge(bundle, case, label_map=self._label_map, scale=self._scale)
            found.append((judged.ceiling, judged.ceiling_edges))
        if not found:
            return None
        ceiling, edges = (float(v) for v in np.mean(found, axis=0))
        return CeilingValidation(ceiling, edges, len(found), time.perf_counter() - start)
