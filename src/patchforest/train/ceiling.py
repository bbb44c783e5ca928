"""The label ceiling of a trained model on an image: the best Dice that its forest and output grid allow at all."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import cv2
import numpy as np
import torch

from patchforest.infer.predict import Prediction, inference
from patchforest.infer.scorer import scorer_of
from patchforest.infer.windows import blend_weights
from patchforest.models.bundle import Bundle
from patchforest.nn.raster import ForestBatch
from patchforest.nn.readout.output import TokenMask, answer
from patchforest.tree.ceiling import label_ceiling, label_shares
from patchforest.tree.cut import cut_forest
from patchforest.tree.paint import paint
from patchforest.values import Array

BINS = 4096
PROBE = 64
_MODES = (cv2.INTER_NEAREST_EXACT, cv2.INTER_LINEAR)


@dataclass(frozen=True)
class OutputGrid:
    """Where a model answers: on ``q`` × ``q`` values a leaf, or (``q`` None) once every ``stride`` level-0 pixels."""

    q: int | None
    stride: int


def output_grid(bundle: Bundle) -> OutputGrid:
    """The grid of a model, found by asking it about a small empty image."""
    spec = bundle.spec
    device = next(bundle.network.parameters()).device
    blank, forest = np.zeros((PROBE, PROBE, spec.model.channels), np.float32), None
    if spec.forest is not None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of course there is nothing to see in a blank image
            forest = ForestBatch.stack([cut_forest(blank, spec.forest, criterion=scorer_of(bundle))], device=device)
    with inference(bundle.network):
        pixels = torch.from_numpy(blank.transpose(2, 0, 1))[None].to(device)
        output = answer(bundle.network.output(pixels, forest))  # type: ignore[operator]
    if isinstance(output, TokenMask):
        return OutputGrid(output.logits.shape[-1], spec.downscale)
    return OutputGrid(None, output.stride * spec.downscale)


def model_ceiling(prediction: Prediction, truth: Array, grid: OutputGrid, num_classes: int) -> float | None:
    """Best Dice (mean of the foreground classes present) that a model could reach on this image; 1.0 without any.

    One forest over the whole image: exactly ``tree.ceiling.label_ceiling``. Blended windows: the blend of the best
    each can answer. Models on rasters: blocks of their stride, or, where that is better, linear between their
    middles, as they are painted. None where leaves and q do not divide evenly.

    Parameters
    ----------
    prediction : of the image; its windows and forests are used, not its mask.
    truth : (H, W) class numbers.
    """
    present = [k for k in range(1, num_classes) if (truth == k).any()]
    if not present or (grid.q is None and grid.stride == 1):
        return 1.0
    if grid.q is None:
        return max(_best_dice(_blocks(truth, grid.stride, num_classes, mode), truth, present) for mode in _MODES)
    sides = np.unique(np.concatenate([f.size for _, f in prediction.windows if f is not None]))
    ratios = np.maximum(sides, grid.q) / np.minimum(sides, grid.q)
    if (np.log2(ratios) % 1).any():
        return None
    if prediction.forest is not None:
        return label_ceiling(truth, prediction.forest, grid.q, num_classes=num_classes)
    return _best_dice(_blended(prediction, truth, grid.q, num_classes), truth, present)


def _blended(prediction: Prediction, truth: Array, q: int, num_classes: int) -> Array:
    canvas, total = np.zeros((num_classes, *truth.shape), np.float32), np.zeros(truth.shape, np.float32)
    for region, forest in prediction.windows:
        assert forest is not None
        box = tuple(slice(o, o + s) for o, s in zip(region.origin, region.shape))
        weight = blend_weights(region.shape)
        shares, _ = label_shares(truth[box], forest, q, num_classes)
        canvas[(slice(None), *box)] += paint(shares, forest) * weight
        total[box] += weight
    canvas /= total
    return canvas


def _blocks(truth: Array, stride: int, num_classes: int, mode: int) -> Array:
    height, width = truth.shape
    rows, columns = -(-height // stride), -(-width // stride)
    whole = np.pad(truth, ((0, rows * stride - height), (0, columns * stride - width)), mode="edge")
    canvas = np.empty((num_classes, height, width), np.float32)
    for k in range(num_classes):
        means = cv2.resize((whole == k).astype(np.float32), (columns, rows), interpolation=cv2.INTER_AREA)
        canvas[k] = cv2.resize(means, whole.shape[::-1], interpolation=mode)[:height, :width]
    return canvas


def _best_dice(shares: Array, truth: Array, present: list[int]) -> float:
    """Mean over the classes present of the Dice by the best threshold on the class's share, each by itself."""
    best = []
    for k in present:
        level = np.minimum((shares[k].ravel() * BINS).astype(np.int64), BINS)
        above = np.bincount(level, minlength=BINS + 1)[::-1].cumsum()
        found = np.bincount(level[truth.ravel() == k], minlength=BINS + 1)[::-1].cumsum()
        best.append(float((2 * found / (above + found[-1])).max()))
    return float(np.mean(best))
