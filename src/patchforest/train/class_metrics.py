"""Scores of predicted classes of images against the truth: hard and by rank.

Probabilities are (N, K) arrays, truth (N,) class numbers.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from patchforest.values import Array

_LEAST = 1e-7
"""A true class counts with at least this probability in the cross-entropy."""


@dataclass(frozen=True)
class ClassScores:
    """How well the classes of some images were told.

    Attributes
    ----------
    accuracy : share of images whose most probable class is the true one.
    balanced_accuracy : mean over the classes present of the share of each that was told.
    auc : area under the ROC curve: of class 1 for two classes, else the mean over the classes of each against the
        rest; None where no class is present and absent.
    cross_entropy : mean of −log p(true class), in nats.
    confusion : (K, K) images by true class (row) and told class (column).
    """

    accuracy: float
    balanced_accuracy: float
    auc: float | None
    cross_entropy: float
    confusion: tuple[tuple[int, ...], ...]


def class_scores(probability: Array, truth: Array) -> ClassScores:
    """Every score; of equal probabilities the smaller class number is told.

    Raises
    ------
    ValueError : no image, shapes that do not fit, or class numbers outside 0 .. K − 1.
    """
    if probability.ndim != 2 or truth.shape != probability.shape[:1] or not len(truth):
        raise ValueError(f"give (N, K) probabilities and (N,) classes, N > 0; got {probability.shape}, {truth.shape}")
    classes = probability.shape[1]
    if truth.min() < 0 or truth.max() >= classes:
        raise ValueError(f"truth must hold classes 0 to {classes - 1}; got {truth.min()} to {truth.max()}")
    told = probability.argmax(1)
    confusion = np.bincount(truth * classes + told, minlength=classes**2).reshape(classes, classes)
    count = confusion.sum(1)
    right = np.diag(confusion)
    of_truth = np.maximum(probability[np.arange(len(truth)), truth].astype(np.float64), _LEAST)
    sides = [1] if classes == 2 else range(classes)
    areas = [a for a in (auc_of(probability[:, k], truth == k) for k in sides) if a is not None]
    return ClassScores(
        accuracy=float(right.sum() / len(truth)),
        balanced_accuracy=float((right[count > 0] / count[count > 0]).mean()),
        auc=float(np.mean(areas)) if areas else None,
        cross_entropy=float(-np.log(of_truth).mean()),
        confusion=tuple(tuple(int(v) for v in row) for row in confusion),
    )


def auc_of(scores: Array, positive: Array) -> float | None:
    """Probability that a positive scores above a negative, ties counting half; None where either is absent.

    Exact, by the ranks of the positives (Mann-Whitney), equal scores sharing the mean of their ranks.
    """
    positives, negatives = int(positive.sum()), int((~positive).sum())
    if not positives or not negatives:
        return None
    _, place, count = np.unique(scores, return_inverse=True, return_counts=True)
    last = np.cumsum(count)
    rank = (last - (count - 1) / 2)[place]
    return float((rank[positive].sum() - positives * (positives + 1) / 2) / (positives * negatives))
