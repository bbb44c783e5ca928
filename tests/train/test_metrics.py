"""Metrics against brute force, by hand and at their empty ends."""

from __future__ import annotations

import time

import numpy as np
import pytest

from patchforest.train import metrics
from patchforest.values import Array


def blobs(rng: np.random.Generator, shape: tuple[int, int], classes: int) -> Array:
    """Random class mask with connected areas: coarse noise, enlarged."""
    coarse = rng.integers(0, classes, tuple(-(-s // 5) for s in shape))
    return np.kron(coarse, np.ones((5, 5), int))[: shape[0], : shape[1]].astype(np.uint8)


def boundary_points(mask: Array) -> Array:
    """Pixels of a mask with a 4-neighbour outside it, one by one."""
    points = []
    for r, c in np.argwhere(mask):
        for dr, dc in ((-1, 0), (1, 0), (0, -1), (0, 1)):
            rr, cc = r + dr, c + dc
            if not (0 <= rr < mask.shape[0] and 0 <= cc < mask.shape[1]) or not mask[rr, cc]:
                points.append((r, c))
                break
    return np.array(points, float).reshape(-1, 2)


def brute_distances(a: Array, b: Array) -> Array:
    return np.sqrt(((a[:, None] - b[None]) ** 2).sum(-1)).min(1)


@pytest.mark.parametrize("shape", [(23, 31), (40, 17), (1, 12), (9, 1)])
def test_scores_equal_brute_force(rng: np.random.Generator, shape: tuple[int, int]) -> None:
    for _ in range(4):
        prediction, truth = blobs(rng, shape, 3), blobs(rng, shape, 3)
        scores = metrics.score_case(prediction, truth, 3)
        for k, score in enumerate(scores):
            p, t = prediction == k, truth == k
            if not p.any() and not t.any():
                assert score.empty
                continue
            assert score.dice == pytest.approx(2 * (p & t).sum() / (p.sum() + t.sum()))
            assert score.iou == pytest.approx((p & t).sum() / (p | t).sum())
            if not p.any() or not t.any():
                assert (score.boundary_f, score.hd95) == (0.0, None)
                continue
            a, b = boundary_points(p), boundary_points(t)
            there, back = brute_distances(a, b), brute_distances(b, a)
            precision, recall = (there <= 2).mean(), (back <= 2).mean()
            expected = 2 * precision * recall / (precision + recall) if precision + recall else 0.0
            assert score.boundary_f == pytest.approx(expected)
            assert score.hd95 == pytest.approx(max(np.percentile(there, 95), np.percentile(back, 95)), abs=1e-4)


def test_single_functions_agree_with_score_case(rng: np.random.Generator) -> None:
    prediction, truth = blobs(rng, (30, 30), 4), blobs(rng, (30, 30), 4)
    scores = metrics.score_case(prediction, truth, 4)
    assert metrics.dice(prediction, truth, 4).tolist() == [s.dice for s in scores]
    assert metrics.iou(prediction, truth, 4).tolist() == [s.iou for s in scores]
    assert metrics.boundary_f(prediction, truth, 4).tolist() == [s.boundary_f for s in scores]
    assert list(metrics.hd95(prediction, truth, 4)) == [s.hd95 for s in scores]


def test_by_hand_a_square_shifted_by_three() -> None:
    truth, prediction = np.zeros((40, 40), np.uint8), np.zeros((40, 40), np.uint8)
    truth[10:20, 10:20] = 1
    prediction[10:20, 13:23] = 1
    score = metrics.score_case(prediction, truth, 2)[1]
    assert score.dice == pytest.approx(0.7)
    assert score.iou == pytest.approx(70 / 130)
    assert score.hd95 == pytest.approx(3.0)
    assert 0 < score.boundary_f < 1


def test_tolerance_decides() -> None:
    truth, prediction = np.zeros((20, 20), np.uint8), np.zeros((20, 20), np.uint8)
    truth[5, 3:17] = 1
    prediction[7, 3:17] = 1
    assert metrics.boundary_f(prediction, truth, 2, tolerance=2)[1] == 1.0
    assert metrics.boundary_f(prediction, truth, 2, tolerance=1)[1] == 0.0


def test_empty_masks() -> None:
    empty, some = np.zeros((8, 8), np.uint8), np.eye(8, dtype=np.uint8)
    both = metrics.score_case(empty, empty, 3)
    assert (both[1].dice, both[1].iou, both[1].boundary_f, both[1].hd95, both[1].empty) == (1.0, 1.0, 1.0, None, True)
    one = metrics.score_case(some, empty, 2)[1]
    assert (one.dice, one.boundary_f, one.hd95, one.empty) == (0.0, 0.0, None, False)
    assert metrics.dice_of(metrics.confusion_matrix(empty, some, 3)).tolist() == [14 * 8 / (64 + 56), 0.0, 1.0]


def test_wrong_input_is_named() -> None:
    with pytest.raises(ValueError, match=r"\(4, 4\) and \(4, 5\)"):
        metrics.dice(np.zeros((4, 4), np.uint8), np.zeros((4, 5), np.uint8), 2)
    with pytest.raises(ValueError, match="0 to 1; got 0 to 255"):
        metrics.dice(np.zeros((2, 2), np.uint8), np.array([[0, 255], [0, 0]], np.uint8), 2)


def test_twelve_megapixels_of_five_classes_take_seconds(rng: np.random.Generator) -> None:
    coarse = rng.integers(0, 5, (50, 40)).astype(np.uint8)
    truth = np.kron(coarse, np.ones((40, 40), np.uint8))  # 2000 x 1600 = 3.2 Mpx, a quarter of the promise
    start = time.process_time()
    metrics.score_case(np.roll(truth, 3, axis=0), truth, 5)
    assert time.process_time() - start < 6.0
