"""Forests from a trained scorer: what ``cut_forest`` takes in place of a named criterion.

A scorer travels with the model whose forests it cuts, in the folder ``scorer/`` beside its weights, and works on the
CPU.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from patchforest.errors import InputError
from patchforest.infer.working import shrink
from patchforest.models.bundle import Bundle, ModelSpec, load_model
from patchforest.models.config import ModelConfig
from patchforest.models.scorer import Scorer
from patchforest.tree.refine import share_scores
from patchforest.tree.window import unit_range
from patchforest.values import Array


@dataclass(frozen=True, eq=False)
class LeafScorer:
    """A trained scorer and the output side q of the leaves that it is to place; see ``values.NodeScorer``."""

    bundle: Bundle
    q: int

    def shares(self, image: Array) -> Array:
        """(S, ⌈H / stride⌉, ⌈W / stride⌉) float32: of every square the share of pixels that blocks get wrong.

        ``image`` is (H, W, C), at the scale that the scorer was trained at: uint8, or float in [0, 1].

        Raises ValueError for other channels than it was trained on.
        """
        network = self.bundle.network
        assert isinstance(network, Scorer)
        pixels = image if image.ndim == 3 else image[..., None]
        channels = self.bundle.spec.model.channels
        if pixels.shape[2] != channels:
            raise ValueError(f"the scorer was trained on {channels} channels; the image has {pixels.shape[2]}")
        small = shrink(unit_range(pixels), network.downscale)  # averages of bytes would be rounded
        training = network.training
        device = next(network.parameters()).device
        network.eval()
        try:
            with torch.inference_mode():
                batch = torch.from_numpy(np.ascontiguousarray(small.transpose(2, 0, 1)))[None].to(device)
                return network.logits(batch)[0].sigmoid().float().cpu().numpy()
        finally:
            network.train(training)

    def scores(self, image: Array, *, cell: int, root: int) -> list[Array]:
        """Scores of all nodes, cells first and roots last, by the errors that the scorer expects."""
        network = self.bundle.network
        assert isinstance(network, Scorer)
        shape = (int(image.shape[0]), int(image.shape[1]))
        return share_scores(self.shares(image), network.stride, shape=shape, cell=cell, root=root, q=self.q)


def scorer_of(bundle: Bundle) -> LeafScorer | None:
    """What cuts the forests of a model that brings its own scorer; None where its criterion has a name."""
    if bundle.scorer is None:
        return None
    return LeafScorer(bundle.scorer, scorer_q(bundle.spec.model))


def scorer_q(model: ModelConfig) -> int:
    """Output side of a model's leaves, by which a scorer places them."""
    return model.q or 2 * model.patch


def load_scorer(folder: str | Path) -> Bundle:
    """A trained scorer; InputError where there is another model, or none."""
    bundle = load_model(folder)
    if not isinstance(bundle.network, Scorer):
        hint = "train one with model.name=scorer"
        raise InputError(folder, f"holds the model {bundle.spec.model.name}, no scorer", hint)
    return bundle


def require_same_view(scorer: ModelSpec, model: ModelSpec, path: str | Path) -> None:
    """InputError unless a scorer was trained on images as a model sees them."""
    for name in ("downscale", "mpp", "level", "intensity_window"):
        own, other = getattr(scorer, name), getattr(model, name)
        if own != other:
            what = f"this scorer was trained at {name} {own}, the model sees images at {other}"
            raise InputError(path, what, f"train the scorer with data.{name}={other}")
    if scorer.model.channels != model.model.channels:
        what = f"this scorer reads {scorer.model.channels} channels, the images have {model.model.channels}"
        raise InputError(path, what, "train a scorer on these images")
