"""Validation as a user would see it: full-resolution masks of whole images, scored against the truth."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from torch import nn

from patchforest.data.layout import Case
from patchforest.data.load import LabelMap, load_case
from patchforest.infer.predict import predict
from patchforest.models.bundle import Bundle, ModelSpec
from patchforest.train.metrics import confusion_matrix, dice_of


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


class Validator:
    """Scores a network on a fixed choice of cases; call it with the network.

    Parameters
    ----------
    limit : at most so many cases, evenly spread over the list; None: all.
    stop : asked after every case; True abandons the validation.
    """

    def __init__(
        self,
        cases: Sequence[Case],
        spec: ModelSpec,
        label_map: LabelMap | None,
        *,
        limit: int | None = None,
        precision: str = "fp32",
        stop: Callable[[], bool] = lambda: False,
    ) -> None:
        number = len(cases) if limit is None else min(limit, len(cases))
        self.cases = tuple(cases[round(i)] for i in np.linspace(0, len(cases) - 1, number))
        self._spec, self._label_map, self._precision, self._stop = spec, label_map, precision, stop

    def __call__(self, network: nn.Module) -> Validation | None:
        """The scores, or None when stopped on the way or without cases."""
        start, scores, empty = time.perf_counter(), [], 0
        classes, window = len(self._spec.classes), self._spec.intensity_window
        for case in self.cases:
            if self._stop():
                return None
            picture = load_case(case, label_map=self._label_map, num_classes=classes, intensity_window=window)
            mask = predict(Bundle(network=network, spec=self._spec), picture.image, precision=self._precision).mask
            confusion = confusion_matrix(mask, picture.label, classes)
            scores.append(dice_of(confusion))
            empty += int(((confusion.sum(0) + confusion.sum(1)) == 0)[1:].sum())
        if not scores:
            return None
        mean = np.mean(scores, axis=0)
        elapsed = time.perf_counter() - start
        return Validation(float(mean[1:].mean()), tuple(float(v) for v in mean), len(scores), empty, elapsed)
