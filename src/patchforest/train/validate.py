"""Validation as a user would see it: full-resolution masks of whole images, scored against the truth.

Of prepared items the same score without a raster: every block of a leaf counts with its pixels (nearest painting, where
prediction from an image blends linearly between blocks).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from patchforest.data.layout import Case
from patchforest.data.load import LabelMap
from patchforest.data.manifest import Prepared, PreparedCase
from patchforest.data.sequences import as_sequence, collate_sequences, read_case
from patchforest.infer.options import PredictOptions
from patchforest.infer.predict import inference
from patchforest.io.scale import AS_STORED, Scale
from patchforest.models.bundle import Bundle, ModelSpec
from patchforest.nn.readout.output import TokenMask
from patchforest.train.losses import merge_subpixels
from patchforest.train.metrics import dice_of
from patchforest.train.scoring import score_picture
from patchforest.train.sequences import network_input
from patchforest.values import Array


@dataclass(frozen=True)
class Validation:
    """Mean Dice over the cases: of all foreground classes, and of each (background included, in class order).

    ``empty`` counts the pairs of case and foreground class that neither mask holds and that count as 1.
    """

    dice: float
    per_class: tuple[float, ...]
    cases: int
    empty: int
    seconds: float

    @property
    def score(self) -> float:
        """What the best model has most of."""
        return self.dice

    def values(self) -> tuple[float | None, ...]:
        """In the order of ``MaskValidator.columns``."""
        return self.dice, *self.per_class[1:]

    @property
    def line(self) -> str:
        """For a line of progress."""
        empty = f", {self.empty} empty in both" if self.empty else ""
        return f"Dice {self.dice:.4f} ({self.cases} images, {self.seconds:.0f} s{empty})"


class MaskValidator:
    """What the validators of masks have in common: the names of their scores."""

    word = "Dice"

    def columns(self, classes: Sequence[str]) -> list[str]:
        """Of metrics.csv; the first is ``score``."""
        return ["dice", *(f"dice_{name}" for name in classes[1:])]


class ImageValidator(MaskValidator):
    """Scores a network on a fixed choice of cases; call it with the network.

    Parameters
    ----------
    scale : see the cases, and compare their masks, at this scale.
    limit : at most so many cases, evenly spread over the list; None: all.
    stop : asked after every case; True abandons the validation.
    scorer : cuts the forests, where their policy wants one.
    """

    def __init__(
        self,
        cases: Sequence[Case],
        spec: ModelSpec,
        label_map: LabelMap | None,
        *,
        scale: Scale = AS_STORED,
        limit: int | None = None,
        precision: str = "fp32",
        stop: Callable[[], bool] = lambda: False,
        scorer: Bundle | None = None,
    ) -> None:
        self.cases = tuple(cases[i] for i in evenly(len(cases), limit))
        self._scorer = scorer
        self._spec, self._label_map, self._precision, self._stop = spec, label_map, precision, stop
        self._scale = scale

    def __call__(self, network: nn.Module) -> Validation | None:
        """The scores, or None when stopped on the way or without cases."""
        start, scores, empty = time.perf_counter(), [], 0
        bundle = Bundle(network=network, spec=self._spec, scorer=self._scorer)
        options = PredictOptions(precision=self._precision)
        for case in self.cases:
            if self._stop():
                return None
            scored = score_picture(bundle, case, label_map=self._label_map, scale=self._scale, options=options)
            confusion = scored.confusion
            scores.append(dice_of(confusion))
            empty += int(((confusion.sum(0) + confusion.sum(1)) == 0)[1:].sum())
        return _mean(scores, empty, start)


class SequenceValidator(MaskValidator):
    """Scores a network on the fixed forests of prepared cases, by pixels of the (down-scaled) masks.

    Parameters as of ``ImageValidator``; no case of ``cases`` may be a failed one.
    """

    def __init__(
        self,
        prepared: Prepared,
        cases: Sequence[PreparedCase],
        *,
        limit: int | None = None,
        precision: str = "fp32",
        stop: Callable[[], bool] = lambda: False,
    ) -> None:
        self.cases = tuple(cases[i] for i in evenly(len(cases), limit))
        self._prepared, self._precision, self._stop = prepared, precision, stop

    def __call__(self, network: nn.Module) -> Validation | None:
        """The scores, or None when stopped on the way or without cases."""
        start, scores, empty = time.perf_counter(), [], 0
        device = next(network.parameters()).device
        for case in self.cases:
            if self._stop():
                return None
            batch = collate_sequences([as_sequence(read_case(self._prepared, case))]).to(device)
            with inference(network, self._precision):
                output = network.output(*network_input(batch))  # type: ignore[operator]
            confusion = token_confusion(output, batch.shares)
            scores.append(dice_of(confusion))
            empty += int(((confusion.sum(0) + confusion.sum(1)) == 0)[1:].sum())
        return _mean(scores, empty, start)


def token_confusion(output: TokenMask, shares_BLKqq: Tensor) -> Array:
    """(K, K) int64 pixels by true class (row) and predicted class (column), of masks painted by nearest; exact.

    Parameters
    ----------
    shares_BLKqq : as in ``train.losses.token_loss``. One output means two classes.
    """
    logits_BLKqq = merge_subpixels(output).float()
    shares = shares_BLKqq.double()
    if logits_BLKqq.shape[2] == 1:
        predicted = (torch.sigmoid(logits_BLKqq[:, :, 0]) > 0.5).long()
        true = torch.stack([shares[:, :, 0] - shares[:, :, 1], shares[:, :, 1]], 2)
    else:
        predicted, true = logits_BLKqq.argmax(2), shares[:, :, 1:]
    area_BL = (output.forest.size_BL.double() / logits_BLKqq.shape[-1]).square()
    pixels = true * area_BL[:, :, None, None, None]
    classes = pixels.shape[2]
    columns = [(pixels * (predicted == k)[:, :, None]).sum((0, 1, 3, 4)) for k in range(classes)]
    return np.rint(torch.stack(columns, 1).cpu().numpy()).astype(np.int64)


def evenly(number: int, limit: int | None) -> list[int]:
    """At most ``limit`` positions of ``number``, evenly spread."""
    return [round(i) for i in np.linspace(0, number - 1, number if limit is None else min(limit, number))]


def _mean(scores: list[Array], empty: int, start: float) -> Validation | None:
    if not scores:
        return None
    mean = np.mean(scores, axis=0)
    elapsed = time.perf_counter() - start
    return Validation(float(mean[1:].mean()), tuple(float(v) for v in mean), len(scores), empty, elapsed)
