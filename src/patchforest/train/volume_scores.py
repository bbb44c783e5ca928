"""Scores of a predicted volume against the truth, and the best that its octrees and working grid allow at all.

Masks are (D, H, W) class numbers, 0 = background. Distances are in columns' widths: planes count as far apart as the
spacing says, rows as far as columns.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from patchforest.data.layout import Case
from patchforest.data.load import LabelMap
from patchforest.errors import InputError
from patchforest.infer.options import DEFAULTS, PredictOptions
from patchforest.infer.volume import VolumePrediction, cover_volume, predict_volume
from patchforest.models.bundle import Bundle
from patchforest.train.evaluate import CaseScore
from patchforest.train.metrics import ClassScore, confusion_matrix, dice_of, iou_of
from patchforest.tree.gather import gather
from patchforest.tree.paint import paint
from patchforest.tree.volume import Factors, working_shape
from patchforest.values import Array, Forest, Region, VolumeSource

Windows = Sequence[tuple[Region, Forest | None]]


def score_volume_case(
    bundle: Bundle, case: Case, label_map: LabelMap | None, options: PredictOptions = DEFAULTS
) -> CaseScore:
    """What ``train.evaluate`` writes of one case, for a volume that the model looks at as ``options`` say.

    The ceiling is that of octree models; None for models of slices.

    Raises InputError for files that cannot be read or do not fit each other.
    """
    source, truth, prediction = predict_case(bundle, case, label_map, options)
    classes = len(bundle.spec.classes)
    ceiling = None
    if bundle.spec.model.spatial == 3 and bundle.spec.forest is not None:
        ceiling = volume_ceiling(prediction, truth, bundle.spec.model.q or 2 * bundle.spec.model.patch, classes)
    return CaseScore(
        id=case.id,
        classes=score_volume(prediction.mask, truth, classes, spacing=source.spacing),
        confusion=confusion_matrix(prediction.mask, truth, classes),
        ceiling=ceiling,
        tokens=prediction.tokens,
        seconds=prediction.seconds,
    )


def predict_case(
    bundle: Bundle, case: Case, label_map: LabelMap | None, options: PredictOptions
) -> tuple[VolumeSource, Array, VolumePrediction]:
    """The volume of a case, its true mask (D, H, W) and what the model says.

    Raises InputError for a case without mask, for files that cannot be read or do not fit each other.
    """
    from patchforest.io.volume import open_volume
    from patchforest.io.volume_label import check_volume_pair, read_label_volume

    if case.label is None:
        raise InputError(case.image, "has no mask", "add one of the same stem or leave the volume out")
    source = open_volume(case.image)
    check_volume_pair(source, open_volume(case.label), case.image, case.label)
    truth = read_label_volume(case.label, label_map=label_map, num_classes=len(bundle.spec.classes))
    try:
        prediction = predict_volume(
            bundle,
            source,
            trees=options.trees,
            flips=options.flips,
            window=options.window,
            precision=options.precision,
        )
    except InputError as error:
        raise InputError(case.image, error.what, error.hint) from None
    return source, truth, prediction


def score_volume(
    prediction: Array,
    truth: Array,
    num_classes: int,
    *,
    spacing: tuple[float, float, float] | None = None,
    tolerance: float = 2.0,
) -> tuple[ClassScore, ...]:
    """Every score of every class, as ``train.metrics.score_case`` of volumes: surfaces in place of boundaries.

    The surface of a mask is its voxels with a face neighbour outside it; the volume's rim counts as outside.
    """
    confusion = confusion_matrix(prediction, truth, num_classes)
    overlap, union = dice_of(confusion), iou_of(confusion)
    apart = 1.0 if spacing is None else spacing[0] / spacing[2]
    scores = []
    for k in range(num_classes):
        held = [bool(confusion[k].any()), bool(confusion[:, k].any())]
        near, hd95 = (1.0 if not any(held) else 0.0), None
        if all(held):
            to_truth, to_prediction = surface_distances(prediction == k, truth == k, apart)
            precision, recall = (to_truth <= tolerance).mean(), (to_prediction <= tolerance).mean()
            near = float(2 * precision * recall / (precision + recall)) if precision + recall else 0.0
            hd95 = float(max(np.percentile(to_truth, 95), np.percentile(to_prediction, 95)))
        overlaps = float(overlap[k]), float(union[k])
        scores.append(ClassScore(*overlaps, boundary_f=near, hd95=hd95, empty=not any(held)))
    return tuple(scores)


def surface_distances(prediction: Array, truth: Array, apart: float = 1.0) -> tuple[Array, Array]:
    """Distance of each voxel of the predicted surface to the true one, and back; planes lie ``apart`` widths apart.

    Exact: within every plane by OpenCV, over the planes by comparison. Both masks hold some voxel.
    """
    box = tuple(
        slice(int(at.min()), int(at.max()) + 1)
        for at in (np.flatnonzero((prediction | truth).any(axis=tuple({0, 1, 2} - {a}))) for a in range(3))
    )
    surfaces = [_surface(mask[box]) for mask in (prediction, truth)]
    return _distances(surfaces[0], surfaces[1], apart), _distances(surfaces[1], surfaces[0], apart)


def volume_ceiling(prediction: VolumePrediction, truth: Array, q: int, num_classes: int) -> float | None:
    """Best Dice (mean of the foreground classes present) of masks made of the prediction's q × q × q blocks a leaf.

    See ``ceiling_of_windows``. None where leaves and q do not divide evenly.
    """
    sides = np.unique(np.concatenate([f.size for _, f in prediction.windows if f is not None]))
    if (np.log2(np.maximum(sides, q) / np.minimum(sides, q)) % 1).any():
        return None
    per_class = ceiling_of_windows(truth, prediction.windows, prediction.factors, q, num_classes)
    present = [v for v in per_class[1:] if v is not None]
    return float(np.mean(present)) if present else 1.0


def ceiling_of_windows(
    truth: Array, windows: Windows, factors: Factors, q: int | None, num_classes: int
) -> tuple[float | None, ...]:
    """Best Dice of every class (None where absent) that octrees in windows allow when each leaf says q × q × q blocks.

    One octree over the volume: the best threshold on the true share of every block, each class by itself. Blended
    windows: the same of the blend of the best each can answer. Painting linearly can end a little above.

    Parameters
    ----------
    truth : (D, H, W) class numbers at the stored voxels.
    windows : see ``VolumePrediction``; none: what averaging over ``factors`` allows without any octree.
    """
    shape = working_shape(truth.shape, factors)
    room = _block_sums(np.ones(truth.shape, np.uint8), factors)
    parts = np.stack([_block_sums(truth == k, factors) for k in range(num_classes)])
    if windows:
        assert q is not None
        shares, total = np.zeros((num_classes, *shape)), np.zeros(shape)
        _, lines = cover_volume(windows[0][0].shape, "whole", (1, 1, 1))
        weight = lines[0][:, None, None] * lines[1][:, None] * lines[2]
        for region, forest in windows:
            assert forest is not None
            box = tuple(slice(o, o + s) for o, s in zip(region.origin, region.shape))
            painted = paint(_leaf_shares(parts[(slice(None), *box)], room[box], forest, q), forest)
            shares[(slice(None), *box)] += painted * weight
            total[box] += weight
        shares = (shares / total).astype(np.float32)  # rounded, so that a block's voxels tie
    else:
        shares = (parts / room).astype(np.float32)
    return tuple(_best_dice(s, p, room) if p.any() else None for s, p in zip(shares, parts))


def _leaf_shares(parts: Array, room: Array, forest: Forest, q: int) -> Array:
    """(L, K, q, q, q) float32: of the voxels inside the volume in every block, the share of each class."""
    largest = int(forest.size.max())
    short = [(0, -s % largest) for s in forest.shape]
    both = np.pad(np.stack([room, *parts], -1), [*short, (0, 0)])
    whole = Forest(forest.origin, forest.size, forest.level, both.shape[:3], forest.root, forest.cell)
    means = gather(both, whole, q).patches
    return means[:, 1:] / np.maximum(means[:, :1], 1e-12)


def _best_dice(share: Array, truth: Array, room: Array) -> float:
    """Highest Dice over thresholds on the share; voxels of one share are taken together."""
    order = np.argsort(-share.ravel(), kind="stable")
    ranked = share.ravel()[order]
    found, taken = np.cumsum(truth.ravel()[order]), np.cumsum(room.ravel()[order])
    ends = np.append(np.flatnonzero(np.diff(ranked)), len(ranked) - 1)
    return float((2 * found[ends] / (taken[ends] + found[-1])).max())


def _block_sums(values: Array, factors: Factors) -> Array:
    """(d, h, w) float64 sums over blocks; beyond the far ends there is nothing."""
    out = values.astype(np.float64)
    for axis, factor in enumerate(factors):
        out = np.add.reduceat(out, np.arange(0, out.shape[axis], factor), axis=axis)
    return out


def _surface(mask: Array) -> Array:
    inner = np.pad(mask, 1)
    kept = mask.copy()
    for axis in range(3):
        for shift in (-1, 1):
            kept &= np.roll(inner, shift, axis)[1:-1, 1:-1, 1:-1]
    return mask & ~kept


def _distances(start: Array, target: Array, apart: float) -> Array:
    """Of every true voxel of ``start``, in order, the distance to the nearest of ``target``."""
    flat = np.full(target.shape, np.inf, np.float32)  # squared, within the plane
    for k in np.flatnonzero(target.any(axis=(1, 2))).tolist():
        flat[k] = cv2.distanceTransform((~target[k]).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE) ** 2
    planes = np.arange(len(target))
    found = []
    for k in range(len(start)):
        rows, columns = np.nonzero(start[k])
        steps = ((planes - k) * apart).astype(np.float32) ** 2
        found.append(np.sqrt((flat[:, rows, columns] + steps[:, None]).min(axis=0)))
    return np.concatenate(found)
