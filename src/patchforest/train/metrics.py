"""Scores of a predicted mask against the truth: per class, on hard masks at full resolution.

Masks are (H, W) arrays of class numbers, 0 = background. All functions return one value a class, background included,
in class order. Distances are in pixels of the masks given.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from patchforest.values import Array


@dataclass(frozen=True)
class ClassScore:
    """How well one class of one case was found.

    ``empty`` says that neither mask holds the class: Dice, IoU and boundary F are then 1 by convention, so report how
    many of a mean's cases are such. ``hd95`` is None when the class is absent from either mask; it and boundary F are
    None of images too large for memory.
    """

    dice: float
    iou: float
    boundary_f: float | None
    hd95: float | None
    empty: bool


def score_case(prediction: Array, truth: Array, num_classes: int, *, tolerance: float = 2.0) -> tuple[ClassScore, ...]:
    """Every score of every class at once, sharing the work; 12 Mpx of 5 classes take seconds."""
    confusion = confusion_matrix(prediction, truth, num_classes)
    overlap, union = dice_of(confusion), iou_of(confusion)
    scores = []
    for k in range(num_classes):
        empty = not confusion[k].any() and not confusion[:, k].any()
        to_truth, to_prediction = _surface_distances(prediction == k, truth == k)
        scores.append(
            ClassScore(
                dice=float(overlap[k]),
                iou=float(union[k]),
                boundary_f=_boundary_f_of(to_truth, to_prediction, tolerance),
                hd95=_hd95_of(to_truth, to_prediction),
                empty=empty,
            )
        )
    return tuple(scores)


def score_counts(confusion: Array) -> tuple[ClassScore, ...]:
    """The scores of every class that pixel counts (K, K) alone give."""
    overlap, union = dice_of(confusion), iou_of(confusion)
    size = confusion.sum(0) + confusion.sum(1)
    return tuple(ClassScore(float(overlap[k]), float(union[k]), None, None, not size[k]) for k in range(len(confusion)))


def confusion_matrix(prediction: Array, truth: Array, num_classes: int) -> Array:
    """(K, K) int64: pixels by true class (row) and predicted class (column). Counts of several images add up.

    Raises
    ------
    ValueError : masks of different shapes, or class numbers outside 0 .. K − 1.
    """
    if prediction.shape != truth.shape:
        raise ValueError(f"prediction and truth must have one shape; got {prediction.shape} and {truth.shape}")
    for name, mask in (("prediction", prediction), ("truth", truth)):
        if mask.size and (mask.min() < 0 or mask.max() >= num_classes):
            raise ValueError(f"{name} must hold classes 0 to {num_classes - 1}; got {mask.min()} to {mask.max()}")
    pairs = truth.ravel().astype(np.int32)
    pairs *= num_classes
    pairs += prediction.ravel().astype(np.int32, copy=False)
    return np.bincount(pairs, minlength=num_classes**2).reshape(num_classes, num_classes)


def dice(prediction: Array, truth: Array, num_classes: int) -> Array:
    """(K,) float64: 2 |P ∩ T| / (|P| + |T|); 1 where both are empty (spec section 15)."""
    return dice_of(confusion_matrix(prediction, truth, num_classes))


def iou(prediction: Array, truth: Array, num_classes: int) -> Array:
    """(K,) float64: |P ∩ T| / |P ∪ T|; 1 where both are empty."""
    return iou_of(confusion_matrix(prediction, truth, num_classes))


def boundary_f(prediction: Array, truth: Array, num_classes: int, *, tolerance: float = 2.0) -> Array:
    """(K,) float64: F of the boundaries, a boundary pixel being found when the other boundary is ≤ tolerance away.

    The boundary of a mask is its pixels with a 4-neighbour outside it; the image's rim counts as outside.
    1 where both are empty, 0 where one is.
    """
    pairs = (_surface_distances(prediction == k, truth == k) for k in range(num_classes))
    return np.array([_boundary_f_of(a, b, tolerance) for a, b in pairs])


def hd95(prediction: Array, truth: Array, num_classes: int) -> tuple[float | None, ...]:
    """95th percentile of the boundary distances in pixels, the larger of both directions; None if a side is empty.

    Same definition as MONAI's symmetric Hausdorff distance at percentile 95.
    """
    pairs = (_surface_distances(prediction == k, truth == k) for k in range(num_classes))
    return tuple(_hd95_of(a, b) for a, b in pairs)


def dice_of(confusion: Array) -> Array:
    """(K,) Dice of a confusion matrix; 1 where both sides are empty."""
    both, size = np.diag(confusion).astype(float), confusion.sum(0) + confusion.sum(1)
    return np.where(size > 0, 2 * both / np.maximum(size, 1), 1.0)


def iou_of(confusion: Array) -> Array:
    """(K,) IoU of a confusion matrix; 1 where both sides are empty."""
    both = np.diag(confusion).astype(float)
    union = confusion.sum(0) + confusion.sum(1) - np.diag(confusion)
    return np.where(union > 0, both / np.maximum(union, 1), 1.0)


def _boundary_f_of(to_truth: Array | None, to_prediction: Array | None, tolerance: float) -> float:
    if to_truth is None or to_prediction is None:
        return 1.0 if to_truth is None and to_prediction is None else 0.0
    if not len(to_truth) or not len(to_prediction):
        return 0.0
    precision, recall = (to_truth <= tolerance).mean(), (to_prediction <= tolerance).mean()
    return float(2 * precision * recall / (precision + recall)) if precision + recall else 0.0


def _hd95_of(to_truth: Array | None, to_prediction: Array | None) -> float | None:
    if to_truth is None or to_prediction is None or not len(to_truth) or not len(to_prediction):
        return None
    return float(max(np.percentile(to_truth, 95), np.percentile(to_prediction, 95)))


def _surface_distances(prediction: Array, truth: Array) -> tuple[Array | None, Array | None]:
    """Distances of the predicted boundary's pixels to the true boundary, and back.

    (None, None) when both masks are empty; two empty arrays when one is. Only the box around both masks is looked at.
    """
    box = _bounding_box(prediction | truth)
    if box is None:
        return None, None
    edges = [_boundary(np.ascontiguousarray(mask[box])) for mask in (prediction, truth)]
    if not edges[0].any() or not edges[1].any():
        return np.empty(0, np.float32), np.empty(0, np.float32)
    far = [cv2.distanceTransform((~e).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE) for e in edges]
    return far[1][edges[0]], far[0][edges[1]]


def _boundary(mask: Array) -> Array:
    cross = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
    inner = cv2.erode(mask.astype(np.uint8), cross, borderType=cv2.BORDER_CONSTANT, borderValue=0)
    return mask & (inner == 0)


def _bounding_box(mask: Array) -> tuple[slice, slice] | None:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return None
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)
