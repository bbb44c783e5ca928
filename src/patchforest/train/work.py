"""Samples, task and validator of every kind of work: masks of images, of prepared items and of volumes, and classes."""

from __future__ import annotations

from collections.abc import Callable

import torch

from patchforest.data.samples import WindowSamples
from patchforest.data.sequences import SequenceSamples
from patchforest.infer.scorer import LeafScorer, scorer_q
from patchforest.models.build import MODELS, build_model, scores_leaves
from patchforest.models.bundle import Bundle, ModelSpec
from patchforest.models.pretrained import load_backbone
from patchforest.train.classify import ClassificationTask, ClassValidator, image_samples, leaf_samples
from patchforest.train.config import RunConfig
from patchforest.train.parts import Parts
from patchforest.train.recorder import Validator
from patchforest.train.scorer import CeilingValidator, ScorerTask
from patchforest.train.task import SegmentationTask, TrainingTask
from patchforest.train.validate import ImageValidator, SequenceValidator
from patchforest.train.volumes import VolumeValidator, volume_samples

ENDLESS = 1 << 62  # a run is one epoch: a window follows from its number in the run alone


def make_validator(
    config: RunConfig, spec: ModelSpec, parts: Parts, stop: Callable[[], bool], scorer: Bundle | None = None
) -> Validator:
    """What scores the network on the validation cases; ``scorer`` cuts its forests where their policy wants one."""
    limit, precision = config.train.validate_cases, config.train.precision
    if parts.prepared is not None:
        cases = parts.prepared.of(parts.validation)
        return SequenceValidator(parts.prepared, cases, limit=limit, precision=precision, stop=stop)
    labels = config.data.labels
    if parts.targets is not None:
        return ClassValidator(
            parts.validation,
            spec,
            parts.targets,
            scale=config.data.scale,
            limit=limit,
            precision=precision,
            stop=stop,
            scorer=scorer,
        )
    if config.volume is not None:
        return VolumeValidator(parts.validation, spec, labels, limit=limit, precision=precision, stop=stop)
    if scores_leaves(MODELS[spec.model.name]):
        return CeilingValidator(parts.validation, spec, labels, scale=config.data.scale, limit=limit, stop=stop)
    return ImageValidator(
        parts.validation,
        spec,
        labels,
        scale=config.data.scale,
        limit=limit,
        precision=precision,
        stop=stop,
        scorer=scorer,
    )


def make_task(config: RunConfig, parts: Parts, scorer: Bundle | None = None, *, fresh: bool = True) -> TrainingTask:
    """The network with its data: initialised by the seed and, where the run is ``fresh``, by pretrained weights.

    ``scorer`` cuts the forests where their policy wants one.
    """
    c = config.data
    assert c.classes is not None
    torch.manual_seed(config.train.seed)
    network = build_model(config.model)
    cutter = None if scorer is None else LeafScorer(scorer, scorer_q(config.model))
    if fresh and config.train.weights is not None:
        load_backbone(network, config.model, config.train.weights)
    if parts.prepared is not None:
        sequences = SequenceSamples(
            parts.prepared,
            parts.prepared.of(parts.training),
            samples_per_epoch=ENDLESS,
            seed=config.train.seed,
            augment=config.augment,
            cache_bytes=(2 << 30) if c.cache else 0,
        )
        return SegmentationTask(network, config.train, sequences)
    if parts.targets is not None and c.gather_once:
        leaves = leaf_samples(config, parts.training, parts.targets, samples_per_epoch=ENDLESS)
        return ClassificationTask(network, config.train, leaves)
    if parts.targets is not None:
        images = image_samples(config, parts.training, parts.targets, samples_per_epoch=ENDLESS, scorer=cutter)
        return ClassificationTask(network, config.train, images)
    if config.volume is not None:
        mirror = config.augment.mirror
        volumes = volume_samples(config, parts.training, config.volume, samples_per_epoch=ENDLESS, mirror=mirror)
        return SegmentationTask(network, config.train, volumes)
    is_scorer = scores_leaves(network)
    samples = WindowSamples(
        parts.training,
        policy=None if is_scorer else config.forest,
        scorer=cutter,
        window=c.window,
        samples_per_epoch=ENDLESS,
        seed=config.train.seed,
        augment=config.augment,
        label_map=c.labels,
        num_classes=len(c.classes),
        intensity_window=c.intensity_window,
        downscale=c.downscale,
        scale=c.scale,
        tissue=c.tissue,
        names=c.classes,
        foreground=c.foreground,
        cache=c.cache,
    )
    if is_scorer:
        return ScorerTask(network, config.train, samples, classes=len(c.classes))
    return SegmentationTask(network, config.train, samples)
