"""From an image to the probabilities of its classes with a trained model: the image is seen as a whole.

image → (the model's scale) → unit range → forest → network → softmax.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from patchforest.errors import InputError
from patchforest.infer.predict import FLIPS, inference
from patchforest.infer.scorer import scorer_of
from patchforest.infer.working import WorkingImage, as_source
from patchforest.io.open import open_image
from patchforest.models.bundle import Bundle, load_model
from patchforest.models.trunk import PatchBatch
from patchforest.nn.raster import ForestBatch
from patchforest.tree.cut import cut_forest
from patchforest.tree.leaves import stream_leaves
from patchforest.values import Array, ImageSource, Region


@dataclass(frozen=True, eq=False)
class ClassPrediction:
    """What a model says about one image.

    Attributes
    ----------
    probability : (K,) float32 of the classes, in the order of the model's; their sum is 1.
    tokens : read by the network, all trees and flips together; of models without a forest, the patches they cut.
    seconds : from the pixels in memory (or the file) to the probabilities.
    """

    probability: Array
    tokens: int
    seconds: float


def classify(
    model: Bundle | str | Path,
    image: Array | ImageSource | str | Path,
    *,
    trees: int = 1,
    flips: bool = False,
    precision: str = "fp32",
) -> ClassPrediction:
    """The probabilities of the classes of an image, by a model of classes (loaded, or its folder).

    Parameters
    ----------
    image, trees, flips, precision : see ``infer.predict.predict``; probabilities are averaged.

    Raises
    ------
    InputError : the image cannot be read, or has other channels or values than the model was trained on; the model
        makes masks; its answer is not finite.
    ValueError : unknown ``precision``, ``trees`` below 1.
    """
    bundle = load_model(Path(model)) if isinstance(model, str | Path) else model
    name = str(image) if isinstance(image, str | Path) else "image"
    if not bundle.spec.of_images:
        raise InputError(name, f"the model {bundle.spec.model.name} makes masks, not classes", "use predict")
    if trees < 1:
        raise ValueError(f"trees must be at least 1; got {trees}")
    if isinstance(image, str | Path):
        image = open_image(Path(image))
    source = image if isinstance(image, ImageSource) else as_source(np.asarray(image), name)
    start = time.perf_counter()
    working = WorkingImage(source, bundle.spec, name)
    if getattr(bundle.network, "reads_leaves", False) and bundle.scorer is None and not flips:
        said = [_read(bundle, working, tree, precision) for tree in range(trees)]
        return _mean(said, start, name)
    pixels = working.read(Region((0, 0), working.frame))
    said = []
    with inference(bundle.network, precision):
        for flip in FLIPS if flips else FLIPS[:1]:
            turned = np.ascontiguousarray(np.flip(pixels, flip))
            for tree in range(trees if bundle.spec.forest is not None else 1):
                said.append(_look(bundle, turned, tree))
    return _mean(said, start, name)


def _mean(said: Sequence[tuple[Array, int]], start: float, name: str) -> ClassPrediction:
    """The mean of some answers (probabilities, tokens); InputError where one is not finite."""
    probability = np.mean([values for values, _ in said], axis=0)
    if not np.isfinite(probability).all():
        hint = "use --precision fp32, or look at the model: it may have diverged"
        raise InputError(name, "the model's answer is not finite", hint)
    tokens = sum(read for _, read in said)
    return ClassPrediction(probability.astype(np.float32), tokens, time.perf_counter() - start)


def _read(bundle: Bundle, image: WorkingImage, tree: int, precision: str) -> tuple[Array, int]:
    """The same as ``_look``, by leaves that are cut and gathered without holding the image."""
    spec, device = bundle.spec, next(bundle.network.parameters()).device
    assert spec.forest is not None
    rng = np.random.default_rng(tree) if tree else None
    try:
        forest, patches = stream_leaves(
            image.view, spec.forest, spec.model.patch, window=spec.intensity_window, rng=rng
        )
    except ValueError as error:
        if isinstance(error, InputError):
            raise
        raise InputError(image.path, str(error), "give values as in the training images") from None
    leaves = PatchBatch(torch.from_numpy(patches)[None].to(device))
    with inference(bundle.network, precision):
        logits = bundle.network(leaves, ForestBatch.stack([forest], device=device))[0]
    return logits.float().softmax(0).cpu().numpy().astype(np.float64), len(forest)


def _look(bundle: Bundle, pixels: Array, tree: int) -> tuple[Array, int]:
    """Probabilities (K,) through one forest, and its tokens; tree 0 is the fixed one, others are seeded by number."""
    network = bundle.network
    device = next(network.parameters()).device
    batch, tokens = None, 0
    if bundle.spec.forest is not None:
        rng = np.random.default_rng(tree) if tree else None
        forest = cut_forest(pixels, bundle.spec.forest, rng=rng, criterion=scorer_of(bundle))
        batch, tokens = ForestBatch.stack([forest], device=device), len(forest)
    elif hasattr(network, "num_tokens"):
        tokens = network.num_tokens(pixels.shape[:2])  # type: ignore[operator]
    image = torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))[None].to(device)
    return network(image, batch)[0].float().softmax(0).cpu().numpy().astype(np.float64), tokens
