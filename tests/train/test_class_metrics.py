"""Scores of classes against brute force and by hand."""

from __future__ import annotations

import numpy as np
import pytest

from patchforest.train.class_metrics import auc_of, class_scores
from patchforest.values import Array


def brute(scores: Array, positive: Array) -> float:
    """Pairs in which the positive scores higher; ties count half."""
    pairs = [(p > n) + 0.5 * (p == n) for p in scores[positive] for n in scores[~positive]]
    return float(np.mean(pairs))


@pytest.mark.parametrize("values", [3, 1000])
def test_auc_counts_pairs(rng: np.random.Generator, values: int) -> None:
    for _ in range(40):
        number = int(rng.integers(2, 30))
        scores, positive = rng.integers(0, values, number) / 7, rng.random(number) < 0.4
        if positive.any() and not positive.all():
            assert auc_of(scores, positive) == pytest.approx(brute(scores, positive), abs=1e-12)
        else:
            assert auc_of(scores, positive) is None


def test_two_classes_by_hand() -> None:
    probability = np.array([[0.9, 0.1], [0.4, 0.6], [0.5, 0.5], [0.2, 0.8]])
    scores = class_scores(probability, np.array([0, 0, 1, 1]))
    assert scores.confusion == ((1, 1), (1, 1))  # of equal ones the first is told
    assert (scores.accuracy, scores.balanced_accuracy, scores.auc) == (0.5, 0.5, 0.75)
    assert scores.cross_entropy == pytest.approx(-np.log([0.9, 0.4, 0.5, 0.8]).mean())


def test_balanced_over_the_classes_present(rng: np.random.Generator) -> None:
    truth = np.array([0] * 8 + [2] * 2)
    probability = np.zeros((10, 3))
    probability[:8, 0] = probability[8, 2] = probability[9, 1] = 1.0
    scores = class_scores(probability, truth)
    assert scores.accuracy == pytest.approx(0.9)
    assert scores.balanced_accuracy == pytest.approx((1 + 0.5) / 2)
    assert np.isfinite(scores.cross_entropy)


def test_auc_of_several_classes_is_the_mean_of_each_against_the_rest(rng: np.random.Generator) -> None:
    probability = rng.dirichlet(np.ones(4), 40)
    truth = rng.integers(0, 3, 40)  # the fourth is absent
    wanted = np.mean([brute(probability[:, k], truth == k) for k in range(3)])
    assert class_scores(probability, truth).auc == pytest.approx(wanted)
    assert class_scores(probability, np.zeros(40, int)).auc is None


@pytest.mark.parametrize(
    ("shape", "truth"), [((0, 2), []), ((2, 2), [0]), ((2,), [0, 1]), ((2, 2), [0, 2]), ((2, 2), [-1, 0])]
)
def test_what_does_not_fit(shape: tuple[int, ...], truth: list[int]) -> None:
    with pytest.raises(ValueError, match=r"truth must hold|give"):
        class_scores(np.full(shape, 0.5), np.array(truth, int))
