"""A run on volumes: its parts fit each other, and a small model of either kind learns the balls."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from patchforest.data.layout import Case
from patchforest.data.samples import collate
from patchforest.data.slices import SliceSamples
from patchforest.data.volumes import VolumeSamples
from patchforest.errors import InputError
from patchforest.models.build import build_model
from patchforest.models.bundle import ModelSpec
from patchforest.models.config import VolumeSpec
from patchforest.train.config import RunConfig, parse_config
from patchforest.train.task import SegmentationTask
from patchforest.train.volumes import (
    VolumeValidator,
    check_volume_cases,
    resolved_volume_policy,
    volume_channels,
    volume_samples,
)
from patchforest.values import ForestPolicy
from tests.data.volumes import make_volumes

NAMES = ("background", "one", "two")


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> tuple[Case, ...]:
    return make_volumes(tmp_path_factory.mktemp("volumes"), ((8, 32, 32), (12, 30, 28)))


def config(**change: Any) -> RunConfig:
    base = parse_config(
        {
            "data": {"window": 16, "classes": list(NAMES)},
            "forest": {"budget": 32, "cell": 4, "criterion": "gradient"},
            "model": {"name": "shf", "channels": 1, "classes": 3, "width": 16, "depth": 1, "heads": 2, "patch": 4,
                      "cell": 4, "q": 4, "stem": [], "spatial": 3},
            "train": {"batch": 4, "lr": 1e-2, "max_steps": 100, "precision": "fp32"},
            "augment": {"affine": 0, "blur": 0},
        }
    )  # fmt: skip
    return replace(base, **change)


@pytest.mark.parametrize("axes", [(), (0,)])
def test_it_learns(cases: tuple[Case, ...], axes: tuple[int, ...]) -> None:
    settings, volume = config(), VolumeSpec(window=(8, 16, 16), axes=axes)
    if axes:
        settings = replace(settings, model=replace(settings.model, spatial=2))
    samples = volume_samples(settings, cases[:1], volume, samples_per_epoch=1 << 62)
    assert isinstance(samples, SliceSamples if axes else VolumeSamples)
    torch.manual_seed(0)
    task = SegmentationTask(build_model(settings.model), settings.train, samples)  # type: ignore[arg-type]
    spec = ModelSpec(settings.model, settings.forest, NAMES, window=16)
    validator = VolumeValidator(cases[1:], spec, None, grid=volume)
    before = validator(task.network)
    optimizer = task.configure_optimizers()
    batches = iter(task.train_dataloader())
    for _ in range(100):
        optimizer.zero_grad()
        loss = task._loss(next(batches))
        loss.backward()
        optimizer.step()
    after = validator(task.network)
    assert before is not None
    assert after is not None
    assert before.dice < 0.3
    assert after.dice > 0.7
    assert after.cases == 1
    assert len(after.per_class) == 3


def test_batches_are_those_of_the_task(cases: tuple[Case, ...]) -> None:
    samples = volume_samples(config(), cases, VolumeSpec(window=(8, 16, 16)), samples_per_epoch=9, mirror=(2,))
    assert isinstance(samples, VolumeSamples)
    assert samples.mirror == (2,)
    batch = collate([samples[0], samples[1]])
    assert batch.image.shape == (2, 1, 8, 16, 16)
    assert batch.place.shape == (2, 6)
    task = SegmentationTask(build_model(config().model), config().train, samples)  # type: ignore[arg-type]
    loss = task._loss(batch)
    loss.backward()
    assert torch.isfinite(loss)
    assert all(p.grad is not None for p in task.network.parameters())


def test_faults_are_found_before_the_first_step(cases: tuple[Case, ...], tmp_path: Path) -> None:
    assert volume_channels(cases[0]) == 1
    check_volume_cases(cases, config(), VolumeSpec())
    odd = Case("odd", cases[0].image, cases[1].label)
    with pytest.raises(InputError, match="1 more cases are bad too"):
        check_volume_cases([odd, cases[0], odd], config(), VolumeSpec())
    with pytest.raises(InputError, match="voxels"):
        check_volume_cases(cases[:1], config(), VolumeSpec(spacing=(1.0, 1.0, 1.0)))
    few = config(data=replace(config().data, classes=("a", "b")))
    with pytest.raises(InputError, match=r"m0\.npy"):
        check_volume_cases(cases, few, VolumeSpec())
    assert resolved_volume_policy(config(), VolumeSpec()) == config().forest
    assert resolved_volume_policy(config(forest=None), VolumeSpec()) is None
    with pytest.raises(InputError, match="forest: root"):
        resolved_volume_policy(config(forest=ForestPolicy(budget=9, cell=4, root=12)), VolumeSpec())


def test_validation_can_be_stopped_and_limited(cases: tuple[Case, ...]) -> None:
    spec = ModelSpec(config().model, config().forest, NAMES, window=16)
    network = build_model(config().model)
    assert VolumeValidator(cases, spec, None, stop=lambda: True)(network) is None
    assert VolumeValidator(cases, spec, None, limit=0)(network) is None
    one = VolumeValidator(cases, spec, None, limit=1)
    assert [c.id for c in one.cases] == ["v0"]
    result = one(network)
    assert result is not None
    assert np.isfinite(result.dice)
