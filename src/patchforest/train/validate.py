"""Validation as a user would see it: full-resolution masks of whole images, scored against the truth."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from torch import nn

from patchforest.data.layout import Case
from patchforest.errors import InputError
from patchforest.infer.predict import predict
from patchforest.io.label import check_pair, read_label
from patchforest.io.open import open_image
from patchforest.models.bundle import Bundle, ModelSpec
from patchforest.train.metrics import confusion_matrix, dice_of
from patchforest.values import Array

LabelMap = Mapping[int | str, int]


def read_pair(case: Case, label_map: LabelMap | None, classes: int) -> tuple[Array, Array]:
    """Image (H, W, C) in the file's dtype and class numbers (H, W) of a case; InputError unless both fit."""
    if case.label is None:
        raise InputError(case.image, "has no mask to compare with", "add one, or leave the case out")
    image, label = open_image(case.image).read(), read_label(case.label, label_map=label_map, num_classes=classes)
    check_pair(image.shape, label.shape, case.image, case.label)
    return image, label


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
        chosen = np.linspace(0, len(cases) - 1, number).round().astype(int) if number else []
        self.cases = tuple(cases[i] for i in chosen)
        self._spec, self._label_map, self._precision, self._stop = spec, label_map, precision, stop

    def __call__(self, network: nn.Module) -> Validation | None:
        """The scores, or None when stopped on the way or without cases."""
        start, classes, scores, empty = time.perf_counter(), len(self._spec.classes), [], 0
        for case in self.cases:
            if self._stop():
                return None
            image, truth = read_pair(case, self._label_map, classes)
            mask = predict(Bundle(network=network, spec=self._spec), image, precision=self._precision).mask
            confusion = confusion_matrix(mask, truth, classes)
            scores.append(dice_of(confusion))
            empty += int(((confusion.sum(0) + confusion.sum(1)) == 0)[1:].sum())
        if not scores:
            return None
        mean = np.mean(scores, axis=0)
        elapsed = time.perf_counter() - start
        return Validation(float(mean[1:].mean()), tuple(float(v) for v in mean), len(scores), empty, elapsed)
