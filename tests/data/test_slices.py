"""Slices are the volume's own, along every axis; a volume is never divided by a split."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from patchforest.data.layout import Case, CaseList
from patchforest.data.slices import SliceSamples, slice_cases, slice_of, stacked
from patchforest.data.splits import split_cases
from patchforest.data.volumes import load_volume
from patchforest.values import ForestPolicy
from tests.data.volumes import make_volumes


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> tuple[Case, ...]:
    return make_volumes(tmp_path_factory.mktemp("volumes"), ((6, 24, 20), (4, 20, 22)))


def samples(cases: tuple[Case, ...], **change: Any) -> SliceSamples:
    settings: dict[str, Any] = {"axes": (0, 1), "policy": ForestPolicy(budget=12, cell=4, criterion="gradient")}
    return SliceSamples(cases, **{**settings, "window": 16, "samples_per_epoch": 60, "seed": 1, **change})


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_slices_put_together_are_the_volume(cases: tuple[Case, ...], axis: int) -> None:
    volume = load_volume(cases[0])
    slices = [slice_of(volume, axis, k) for k in range(volume.label.shape[axis])]
    assert np.array_equal(stacked([s.label for s in slices], axis), volume.label)
    assert np.array_equal(stacked([s.image[..., 0] for s in slices], axis), volume.image[..., 0])
    assert all(np.shares_memory(s.image, volume.image) for s in slices)


def test_ids_and_groups(cases: tuple[Case, ...]) -> None:
    found = slice_cases(cases[0], (6, 24, 20), (0, 2))
    assert [c.id for c in found[:2]] == ["v0/0/0", "v0/0/1"]
    assert found[-1].id == "v0/2/19"
    assert len(found) == 26
    assert {c.group for c in found} == {"v0"}
    every = CaseList((*found, *slice_cases(cases[1], (4, 20, 22))), None, "paired", Path())
    for fold in (0, 1):
        sides = split_cases(every, fold=fold, folds=2)
        assert [len({c.group for c in side}) for side in sides] == [1, 1]
    assert slice_cases(Case("a", Path(), None, group="patient"), (1, 1, 1))[0].group == "patient"


def test_samples_are_windows_of_slices_and_repeat(cases: tuple[Case, ...]) -> None:
    data = samples(cases)
    assert len(data.cases) == 6 + 24 + 4 + 20
    seen = [data[i] for i in range(54)]
    assert len({s.id for s in seen}) == 54
    volumes = {c.id: load_volume(c) for c in cases}
    for sample in seen:
        name, axis, k = sample.id.split("/")
        label = slice_of(volumes[name], int(axis), int(k)).label
        height, width = (min(16, n) for n in label.shape)
        row, column = sample.origin
        assert sample.frame == label.shape
        assert np.array_equal(sample.label[:height, :width], label[row : row + 16, column : column + 16])
        assert (sample.label[height:] == -1).all()
        assert sample.forest is not None
    again = pickle.loads(pickle.dumps(samples(cases, cache_bytes=0)))
    assert all(np.array_equal(again[i].image, seen[i].image) for i in (5, 2, 40))


def test_the_working_grid_and_window(cases: tuple[Case, ...]) -> None:
    data = samples(cases, axes=(0,), downscale=(2, 2, 2), intensity_window=(0, 200))
    assert len(data.cases) == 3 + 2
    assert data[0].frame in {(12, 10), (10, 11)}
    assert data[0].image.max() <= 1
