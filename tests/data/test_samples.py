"""Samples are a function of (seed, epoch, index), hold what they say, and batch without loss."""

from __future__ import annotations

import pickle
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from patchforest.data.augment import Augment
from patchforest.data.layout import Case
from patchforest.data.load import Picture
from patchforest.data.samples import Batch, Sample, WindowSamples, collate, crop, init_worker
from patchforest.errors import InputError
from patchforest.io.write import write_image, write_mask
from patchforest.values import ForestPolicy

pytestmark = pytest.mark.filterwarnings("ignore:the detail map ran out")  # flat blocks on purpose
POLICY = ForestPolicy(budget=16, cell=4)


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> tuple[Case, ...]:
    """Three pictures whose red channel is 100 x class; class 2 is one rare pixel block."""
    root, rng = tmp_path_factory.mktemp("set"), np.random.default_rng(0)
    out = []
    for k, shape in enumerate([(70, 90), (64, 64), (24, 100)]):
        label = np.zeros(shape, np.uint8)
        label[5:15, 8:20] = 1
        if k == 0:
            label[60:62, 80:82] = 2
        image = rng.integers(0, 256, (*shape, 3), dtype=np.uint8)
        image[..., 0] = 100 * label
        write_image(root / f"i{k}.png", image)
        write_mask(root / f"m{k}.png", label)
        out.append(Case(f"c{k}", root / f"i{k}.png", root / f"m{k}.png"))
    return tuple(out)


def samples(cases: tuple[Case, ...], **change: object) -> WindowSamples:
    settings: dict[str, object] = {
        "policy": POLICY, "window": 32, "samples_per_epoch": 12, "seed": 5, "augment": Augment(), "num_classes": 3,
    }  # fmt: skip
    return WindowSamples(cases, **{**settings, **change})  # type: ignore[arg-type]


def same(a: Sample, b: Sample) -> bool:
    forests = a.forest is b.forest is None or (
        a.forest is not None and b.forest is not None
        and np.array_equal(a.forest.origin, b.forest.origin) and np.array_equal(a.forest.size, b.forest.size)
    )  # fmt: skip
    where = (a.id, a.origin, a.frame) == (b.id, b.origin, b.frame)
    return bool(forests and where and np.array_equal(a.image, b.image) and np.array_equal(a.label, b.label))


def test_shapes_dtypes_and_ranges(cases: tuple[Case, ...]) -> None:
    data = samples(cases)
    assert len(data) == 12
    for sample in (data[k] for k in range(12)):
        assert sample.image.shape == (3, 32, 32)
        assert sample.image.dtype == np.float32
        assert 0 <= sample.image.min() <= sample.image.max() <= 1
        assert sample.label.shape == (32, 32)
        assert sample.label.dtype == np.int16
        assert set(np.unique(sample.label)) <= {-1, 0, 1, 2}
        assert sample.forest is not None
        assert sample.forest.shape == (32, 32)
        assert len(sample.forest) == 16
    with pytest.raises(IndexError):
        data[12]
    assert samples(cases, policy=None)[0].forest is None


def test_windows_are_cut_where_they_say(cases: tuple[Case, ...]) -> None:
    data = samples(cases, augment=None, foreground=0.0, policy=None)
    for sample in (data[k] for k in range(12)):
        number = int(sample.id[1])
        whole = data._load(number).picture
        assert sample.frame == whole.label.shape
        r, c = sample.origin
        part = whole.label[r : r + 32, c : c + 32]
        inside = sample.label[: part.shape[0], : part.shape[1]]
        assert np.array_equal(inside, part)
        assert (sample.label >= 0).sum() == part.size  # what is beyond the image is ignored
        pixels = whole.image[r : r + 32, c : c + 32].transpose(2, 0, 1) / 255
        assert np.allclose(sample.image[:, : part.shape[0], : part.shape[1]], pixels, atol=1e-6)


def test_stream_is_the_same_for_any_number_of_workers(cases: tuple[Case, ...]) -> None:
    cv2.GaussianBlur(np.zeros((1500, 1500), np.float32), (0, 0), 3)  # starts OpenCV's threads, which a fork loses
    streams = []
    for workers in (0, 1, 2):
        data = samples(cases)
        loader = DataLoader(
            data, batch_size=3, num_workers=workers, collate_fn=collate, worker_init_fn=init_worker,
            persistent_workers=workers > 0, timeout=30 if workers else 0,
        )  # fmt: skip
        epochs = []
        for epoch in (0, 1):
            data.set_epoch(epoch)
            epochs += list(loader)
        streams.append(epochs)
    for other in streams[1:]:
        for a, b in zip(streams[0], other, strict=True):
            assert torch.equal(a.image, b.image)
            assert torch.equal(a.label, b.label)
            assert torch.equal(a.place, b.place)
            assert all(np.array_equal(f.origin, g.origin) for f, g in zip(a.forests, b.forests, strict=True))
    assert not torch.equal(streams[0][0].image, streams[0][4].image)  # the second epoch is another


def test_order_of_access_cache_and_copies_change_nothing(cases: tuple[Case, ...]) -> None:
    first = samples(cases)
    forward = [first[k] for k in range(12)]
    uncached, copied = samples(cases, cache=False), pickle.loads(pickle.dumps(first))
    small = samples(cases, cache_bytes=70 * 90 * 4)
    for k in reversed(range(12)):
        assert same(forward[k], uncached[k])
        assert same(forward[k], copied[k])
        assert same(forward[k], small[k])
    assert len(first._held) == 3
    assert not uncached._held
    assert small._held_bytes <= 70 * 90 * 4
    assert not pickle.loads(pickle.dumps(first))._held


def test_seeds_epochs_and_indices_differ(cases: tuple[Case, ...]) -> None:
    data, other = samples(cases), samples(cases, seed=6)
    seen = {data[k].image.tobytes() for k in range(12)} | {other[k].image.tobytes() for k in range(12)}
    data.set_epoch(1)
    seen |= {data[k].image.tobytes() for k in range(12)}
    assert len(seen) == 36
    data.set_epoch(0)
    assert same(data[3], samples(cases)[3])


def test_cases_are_drawn_equally_often(cases: tuple[Case, ...]) -> None:
    data = samples(cases, policy=None, augment=None)
    assert sorted(data[k].id for k in range(12)) == sorted(["c0", "c1", "c2"] * 4)


def test_rare_classes_are_found_by_foreground_windows(cases: tuple[Case, ...]) -> None:
    def share(foreground: float, wanted: int) -> float:
        data = samples(cases[:1], samples_per_epoch=60, foreground=foreground, policy=None, augment=None)
        return float(np.mean([(data[k].label == wanted).any() for k in range(60)]))

    assert 0.35 < share(1.0, 2) < 0.75  # one of two classes
    assert share(1.0, 1) + share(1.0, 2) >= 1
    assert share(0.0, 2) < 0.3


def test_fixed_and_fresh_forests(cases: tuple[Case, ...]) -> None:
    def forests(fresh: bool) -> set[bytes]:
        data = samples(cases[1:2], policy=ForestPolicy(budget=13, cell=4, fresh=fresh), window=64, augment=None)
        return {data[k].forest.origin.tobytes() for k in range(12)}  # type: ignore[union-attr]

    assert len(forests(False)) == 1  # the window is the whole picture
    assert len(forests(True)) > 1


def test_augmented_labels_go_with_their_pixels(cases: tuple[Case, ...]) -> None:
    off = Augment(colour=0, tone=0, noise=0, blur=0, affine=0.5)
    data = samples(cases, augment=off, policy=None)
    for sample in (data[k] for k in range(12)):
        known = sample.label >= 0
        close = np.abs(sample.image[0] - sample.label * (100 / 255))[known] < 0.2
        assert close.mean() > 0.9
        assert known.mean() > 0.5


def test_window_of_other_dtypes_and_downscale(tmp_path: Path) -> None:
    image = (np.arange(64 * 64).reshape(64, 64) % 4096).astype(np.uint16)
    write_image(tmp_path / "i.tif", image)
    write_mask(tmp_path / "m.png", np.zeros((64, 64), np.uint8))
    case = (Case("c", tmp_path / "i.tif", tmp_path / "m.png"),)
    data = samples(case, window=64, augment=None, intensity_window=(0, 4096))
    assert np.allclose(data[0].image[0], image / 4096, atol=1e-6)
    half = samples(case, window=32, augment=None, intensity_window=(0, 4096), downscale=2)[0]
    assert half.frame == (32, 32)
    assert np.allclose(half.image[0], image.reshape(32, 2, 32, 2).mean((1, 3)) / 4096, atol=2e-4)
    assert samples(case, augment=Augment())[0].image.max() <= 4095 / 65535 + 0.5


def test_crop_reflects_and_ignores_beyond_the_edges(rng: np.random.Generator) -> None:
    picture = Picture(rng.integers(0, 256, (5, 9, 1), dtype=np.uint8), np.ones((5, 9), np.uint8))
    image, label = crop(picture, (-3, 4), (10, 10))
    assert image.shape == (10, 10, 1)
    assert (label == 1).sum() == 25
    assert np.array_equal(image[3:8, :5], picture.image[:, 4:])
    assert np.array_equal(image[2, :5], picture.image[1, 4:])  # mirrored about the edge pixel
    assert (label[:3] == -1).all()


def test_collate_and_moving(cases: tuple[Case, ...]) -> None:
    data = samples(cases)
    batch = collate([data[0], data[1]])
    assert isinstance(batch, Batch)
    assert len(batch) == 2
    assert batch.image.shape == (2, 3, 32, 32)
    assert batch.label.dtype == torch.int64
    assert batch.place.tolist() == [[*s.origin, *s.frame] for s in (data[0], data[1])]
    assert batch.ids == (data[0].id, data[1].id)
    assert batch.forests is not None
    assert len(batch.forests) == 2
    assert batch.to("cpu").image.equal(batch.image)
    assert collate([samples(cases, policy=None)[0]]).forests is None
    with pytest.raises(ValueError, match="one shape"):
        collate([data[0], samples(cases, window=16)[1]])
    with pytest.raises(ValueError, match="forest"):
        collate([data[0], samples(cases, policy=None)[1]])


def test_wrong_arguments_and_cases_say_why(cases: tuple[Case, ...]) -> None:
    with pytest.raises(InputError, match="no mask"):
        samples((Case("x", Path("x.png"), None),))
    with pytest.raises(ValueError, match="no cases"):
        samples(())
    for wrong in ({"window": 0}, {"foreground": 1.5}, {"seed": -1}, {"downscale": 0}):
        with pytest.raises(ValueError, match="at least 1"):
            samples(cases, **wrong)
    with pytest.raises(ValueError, match="counts from 0"):
        samples(cases).set_epoch(-1)
