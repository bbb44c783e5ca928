"""A run on images that have one class each: what ``fit`` asks for in place of masks: targets, task and validation."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from patchforest.data.augment import Augment
from patchforest.data.images import ImageSamples
from patchforest.data.layout import Case, CaseList
from patchforest.data.leaves import LeafSamples
from patchforest.data.sequences import SequenceBatch
from patchforest.data.targets import Targets, read_targets
from patchforest.errors import InputError
from patchforest.infer.classify import ClassPrediction, classify
from patchforest.io.open import open_image
from patchforest.io.scale import AS_STORED, Scale, at_scale
from patchforest.models.bundle import Bundle, ModelSpec
from patchforest.train.class_metrics import ClassScores, class_scores
from patchforest.train.config import DataConfig, RunConfig
from patchforest.train.sequences import network_input
from patchforest.train.task import TrainingTask
from patchforest.train.validate import evenly
from patchforest.values import NodeScorer

_NEED_PIXELS = ("affine", "gamma", "noise", "blur")


def targets_of(data: DataConfig, cases: CaseList) -> Targets:
    """The classes of a data set's images, from the table that the settings name: in the data folder, or where it says.

    Test cases need no row.
    """
    assert data.targets is not None
    inside = cases.root / data.targets
    path = inside if inside.exists() else Path(data.targets)
    known = [c for c in cases.cases if c.split != "test"]
    return read_targets(path, data.target, known, classes=data.classes)


def image_samples(
    config: RunConfig,
    cases: Sequence[Case],
    targets: Targets,
    *,
    samples_per_epoch: int,
    scorer: NodeScorer | None = None,
) -> ImageSamples:
    """Training samples of a resolved configuration; ``scorer`` cuts the forests where their policy wants one."""
    c = config.data
    return ImageSamples(
        cases,
        targets.numbers,
        policy=config.forest,
        scorer=scorer,
        window=c.window,
        samples_per_epoch=samples_per_epoch,
        seed=config.train.seed,
        augment=config.augment,
        intensity_window=c.intensity_window,
        downscale=c.downscale,
        scale=c.scale,
        cache_bytes=(2 << 30) if c.cache else 0,
    )


def leaf_samples(config: RunConfig, cases: Sequence[Case], targets: Targets, *, samples_per_epoch: int) -> LeafSamples:
    """Training samples of a resolved configuration that gathers once."""
    c = config.data
    assert config.forest is not None
    return LeafSamples(
        cases,
        targets.numbers,
        policy=config.forest,
        patch=config.model.patch,
        samples_per_epoch=samples_per_epoch,
        seed=config.train.seed,
        augment=config.augment,
        intensity_window=c.intensity_window,
        downscale=c.downscale,
        scale=c.scale,
        cache_bytes=(2 << 30) if c.cache else 0,
    )


def check_gather_once(config: RunConfig, network: nn.Module) -> None:
    """InputError where ``data.gather_once`` does not fit the network or its forests; warns of what has no effect."""
    if not config.data.gather_once:
        return
    if config.data.targets is None or not getattr(network, "reads_leaves", False):
        hint = "set model.name=apf_vit and model.stem=[], or data.gather_once=false"
        raise InputError("configuration", "data.gather_once is for models of classes that read leaves alone", hint)
    if config.forest is not None and (config.forest.fresh or config.forest.scorer is not None):
        what = "data.gather_once cuts fixed forests, without a scorer"
        raise InputError("configuration", what, "set forest.fresh=false and an image criterion, e.g. edges")
    default = Augment()
    idle = [f"augment.{n}" for n in _NEED_PIXELS if getattr(config.augment, n) not in (0, getattr(default, n))]
    if idle:
        warnings.warn(f"no effect on leaves that are gathered once: {', '.join(idle)}", UserWarning, stacklevel=2)


class ClassificationTask(TrainingTask):
    """A network of classes in training; the loss is the mean cross-entropy of the batch."""

    def _loss(self, batch: Any) -> Tensor:
        if not isinstance(batch, SequenceBatch):
            return F.cross_entropy(self.network(batch.image, self._stacked(batch)).float(), batch.label)
        assert isinstance(self.samples, LeafSamples)
        leaves, forest = network_input(batch)
        label = torch.tensor([self.samples.numbers[i] for i in batch.ids], device=batch.patches.device)
        return F.cross_entropy(self.network(leaves, forest).float(), label)


@dataclass(frozen=True)
class ClassValidation:
    """Scores over the validation images; see ``train.class_metrics``."""

    scores: ClassScores
    cases: int
    seconds: float

    @property
    def score(self) -> float:
        """What the best model has most of: the balanced accuracy."""
        return self.scores.balanced_accuracy

    def values(self) -> tuple[float | None, ...]:
        """In the order of ``ClassValidator.columns``."""
        s = self.scores
        return s.balanced_accuracy, s.accuracy, s.auc, s.cross_entropy

    @property
    def line(self) -> str:
        """For a line of progress."""
        auc = "" if self.scores.auc is None else f", AUC {self.scores.auc:.4f}"
        told = f"accuracy {self.scores.accuracy:.4f}{auc}"
        return f"balanced accuracy {self.score:.4f} ({told}, {self.cases} images, {self.seconds:.0f} s)"


class ClassValidator:
    """Scores a network on a fixed choice of images, each seen as a whole; call it with the network.

    Parameters as of ``train.validate.ImageValidator``.
    """

    word = "balanced accuracy"

    def __init__(
        self,
        cases: Sequence[Case],
        spec: ModelSpec,
        targets: Targets,
        *,
        scale: Scale = AS_STORED,
        limit: int | None = None,
        precision: str = "fp32",
        stop: Callable[[], bool] = lambda: False,
        scorer: Bundle | None = None,
    ) -> None:
        self.cases = tuple(cases[i] for i in evenly(len(cases), limit))
        self._scorer = scorer
        self._spec, self._targets, self._precision, self._stop = spec, targets, precision, stop
        self._scale = scale

    def columns(self, classes: Sequence[str]) -> list[str]:
        """Of metrics.csv; the first is ``ClassValidation.score``."""
        return ["balanced_accuracy", "accuracy", "auc", "cross_entropy"]

    def __call__(self, network: nn.Module) -> ClassValidation | None:
        """The scores, or None when stopped on the way or without cases."""
        start, said = time.perf_counter(), []
        bundle = Bundle(network=network, spec=self._spec, scorer=self._scorer)
        for case in self.cases:
            if self._stop():
                return None
            said.append(classify_case(bundle, case, scale=self._scale, precision=self._precision).probability)
        if not said:
            return None
        truth = np.array([self._targets.numbers[c.id] for c in self.cases])
        return ClassValidation(class_scores(np.stack(said), truth), len(said), time.perf_counter() - start)


def classify_case(
    bundle: Bundle,
    case: Case,
    *,
    scale: Scale = AS_STORED,
    trees: int = 1,
    flips: bool = False,
    precision: str = "fp32",
) -> ClassPrediction:
    """The answer to a case at a scale, see ``infer.classify.classify``; faults name its file."""
    try:
        image = at_scale(open_image(case.image), scale, case.image)
        return classify(bundle, image, trees=trees, flips=flips, precision=precision)
    except InputError as error:
        raise InputError(case.image, error.what, error.hint) from None
