"""Sub-volumes are a function of (seed, epoch, index), hold what they say, and batch as images do."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from patchforest.data.augment import Augment
from patchforest.data.layout import Case
from patchforest.data.samples import Sample, collate, init_worker
from patchforest.data.volumes import (
    LabelledVolume,
    VolumeSamples,
    check_volume_case,
    crop_volume,
    factors_of,
    load_volume,
    vary,
)
from patchforest.errors import InputError
from patchforest.values import ForestPolicy
from tests.data.volumes import make_volumes

POLICY = ForestPolicy(budget=25, cell=4, criterion="gradient")
PLAIN = Augment(colour=0, tone=0, noise=0)
SHAPES = ((12, 30, 34), (20, 24, 24))


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> tuple[Case, ...]:
    return make_volumes(tmp_path_factory.mktemp("volumes"), SHAPES)


def samples(cases: tuple[Case, ...], **change: Any) -> VolumeSamples:
    settings: dict[str, Any] = {"policy": POLICY, "window": (8, 16, 16), "samples_per_epoch": 10, "seed": 3}
    return VolumeSamples(cases, **{**settings, "augment": Augment(), "num_classes": 3, **change})


def same(a: Sample, b: Sample) -> bool:
    assert a.forest is not None
    assert b.forest is not None
    leaves = np.array_equal(a.forest.origin, b.forest.origin) and np.array_equal(a.forest.size, b.forest.size)
    what = np.array_equal(a.image, b.image) and np.array_equal(a.label, b.label)
    return leaves and what and (a.id, a.origin, a.frame) == (b.id, b.origin, b.frame)


def test_a_sample_is_a_function_of_seed_epoch_and_index(cases: tuple[Case, ...]) -> None:
    first, again = samples(cases), samples(cases, cache_bytes=0)
    wanted = [first[i] for i in range(10)]
    assert all(same(wanted[i], again[i]) for i in reversed(range(10)))
    assert all(same(a, b) for a, b in zip(wanted, pickle.loads(pickle.dumps(first))))
    first.set_epoch(1)
    assert not any(same(a, first[i]) for i, a in enumerate(wanted))
    assert not same(wanted[0], samples(cases, seed=4)[0])
    assert sorted(s.id for s in wanted) == ["v0"] * 5 + ["v1"] * 5
    with pytest.raises(IndexError):
        first[10]
    with pytest.raises(ValueError, match="epoch"):
        first.set_epoch(-1)


def test_workers_change_nothing(cases: tuple[Case, ...]) -> None:
    data = samples(cases)
    loader = DataLoader(data, batch_size=5, num_workers=2, collate_fn=collate, worker_init_fn=init_worker)
    for got, wanted in zip(loader, ([data[i] for i in range(5)], [data[i] for i in range(5, 10)])):
        assert torch.equal(got.image, collate(wanted).image)
        assert got.image.shape == (5, 1, 8, 16, 16)
        assert got.label.shape == (5, 8, 16, 16)
        assert got.place.tolist() == [[*s.origin, *s.frame] for s in wanted]


def test_image_label_and_forest_belong_together(cases: tuple[Case, ...]) -> None:
    data = samples(cases, augment=PLAIN, samples_per_epoch=30)
    for sample in (data[i] for i in range(30)):
        assert np.array_equal(np.rint(sample.image[0] * 255) // 80, sample.label)
        assert sample.forest is not None
        assert sample.forest.shape == (8, 16, 16)
        assert len(sample.forest) == 25
    stored = np.load(cases[1].image)
    still = samples(cases[1:], augment=None)[0]
    box = tuple(slice(o, o + w) for o, w in zip(still.origin, (8, 16, 16)))
    assert np.array_equal(np.rint(still.image[0] * 255).astype(np.uint8), stored[box])


def test_windows_beyond_the_volume_are_reflected_and_ignored(cases: tuple[Case, ...]) -> None:
    sample = samples(cases[:1], window=(16, 40, 16), augment=None)[0]
    assert (sample.label[12:] == -1).all()
    assert (sample.label[:, 30:] == -1).all()
    assert (sample.label[:12, :30] >= 0).all()
    assert np.array_equal(sample.image[0, 12:], sample.image[0, 10:6:-1])
    flat = LabelledVolume(np.ones((1, 3, 3, 1), np.float32), np.ones((1, 3, 3), np.uint8), (1, 1, 1))
    image, label = crop_volume(flat, (0, 0, 0), (4, 3, 5))
    assert image.shape == (4, 3, 5, 1)
    assert (image == 1).all()
    assert (label >= 0).sum() == 9


def test_foreground_share(cases: tuple[Case, ...], tmp_path: Path) -> None:
    label = np.zeros((16, 60, 60), np.uint8)
    label[3, 40, 50] = 1
    label[:, :6, :6] = 2
    np.save(tmp_path / "i.npy", label)
    np.save(tmp_path / "m.npy", label)
    case = (Case("rare", tmp_path / "i.npy", tmp_path / "m.npy"),)
    for share, low, high in ((0.0, 0, 0.2), (1.0, 0.25, 0.75)):
        data = samples(case, foreground=share, samples_per_epoch=80, policy=None, augment=None)
        held = [data[i].label for i in range(80)]
        assert low <= np.mean([(h == 1).any() for h in held]) <= high
        if share == 1.0:
            assert all((h > 0).any() for h in held)


def test_mirrors_and_turns_are_those_asked_for(rng: np.random.Generator) -> None:
    label = rng.integers(0, 3, (3, 4, 4)).astype(np.int16)
    image = (label[..., None] / 2).astype(np.float32)
    seen = set()
    for _ in range(200):
        moved, also = vary(image, label, rng, PLAIN, mirror=(2,))
        assert np.array_equal(moved[..., 0] * 2, also)
        assert np.array_equal(np.sort(also[0].ravel()), np.sort(label[0].ravel()))  # planes stay in order
        seen.add(also.tobytes())
    assert len(seen) == 8  # the square's symmetries
    assert {vary(image, label, rng, Augment(turn=0), mirror=(0,))[1].tobytes() for _ in range(40)} == {
        label.tobytes(), label[::-1].tobytes()
    }  # fmt: skip
    long = np.zeros((2, 3, 6, 1), np.float32), np.zeros((2, 3, 6), np.int16)
    assert all(vary(*long, rng, PLAIN)[0].shape == (2, 3, 6, 1) for _ in range(20))
    toned = [vary(image, label, rng, Augment(flip=0, turn=0, colour=1, noise=1)) for _ in range(5)]
    assert all(np.array_equal(t[1], label) and t[0].min() >= 0 and t[0].max() <= 1 for t in toned)
    assert len({t[0].tobytes() for t in toned}) == 5


def test_the_working_grid(cases: tuple[Case, ...]) -> None:
    volume = load_volume(cases[0], downscale=(1, 2, 2))
    assert volume.image.shape == (12, 15, 17, 1)
    assert volume.label.shape == (12, 15, 17)
    assert volume.nbytes == volume.image.nbytes + volume.label.nbytes
    sample = samples(cases[:1], downscale=(1, 2, 2))[0]
    assert sample.frame == (12, 15, 17)

    class Scan:
        spacing: tuple[float, float, float] | None = (2.0, 1.0, 1.0)

    scan: Any = Scan()
    assert factors_of(scan, downscale=(1, 1, 1), spacing=(2.0, 2.0, 2.0)) == (1, 2, 2)
    scan.spacing = None
    with pytest.raises(InputError, match="how large its voxels are"):
        factors_of(scan, downscale=(1, 1, 1), spacing=(2.0, 2.0, 2.0))


def test_bad_cases_are_named(cases: tuple[Case, ...], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has no mask"):
        samples((Case("x", cases[0].image, None),))
    with pytest.raises(InputError, match="has no mask"):
        check_volume_case(Case("x", cases[0].image, None))
    with pytest.raises(InputError, match="has 1 channels"):
        check_volume_case(cases[0], channels=2)
    with pytest.raises(InputError):
        check_volume_case(Case("x", cases[0].image, cases[1].label))
    with pytest.raises(InputError, match="voxels"):
        check_volume_case(cases[0], spacing=(1.0, 1.0, 1.0))
    check_volume_case(cases[0], channels=1, num_classes=3)
    np.save(tmp_path / "hu.npy", np.load(cases[0].image).astype(np.int16) - 100)
    hounsfield = Case("hu", tmp_path / "hu.npy", cases[0].label)
    with pytest.raises(InputError, match="intensity_window"):
        load_volume(hounsfield)
    assert load_volume(hounsfield, intensity_window=(-100, 155)).image.max() <= 1
    for change in ({"window": (8, 16)}, {"window": (0, 4, 4)}, {"samples_per_epoch": 0}, {"seed": -1}):
        with pytest.raises(ValueError, match="window must"):
            samples(cases, **change)
    with pytest.raises(ValueError, match="mirror"):
        samples(cases, mirror=(3,))
    with pytest.raises(ValueError, match="no cases"):
        samples(())
