"""Samples of whole images: a function of seed, epoch and index, with the class of their image."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest

from patchforest.data import images
from patchforest.data.augment import Augment
from patchforest.data.images import ImageSamples, load_image
from patchforest.data.layout import Case, find_cases
from patchforest.data.load import shrink_image
from patchforest.data.samples import collate
from patchforest.errors import InputError
from patchforest.io.open import open_image
from patchforest.io.write import write_image
from patchforest.values import ForestPolicy

POLICY = ForestPolicy(budget=16, criterion="gradient")
NUMBERS = {f"i{k}": k % 3 for k in range(5)}


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> tuple[Case, ...]:
    """Five pictures of several sizes without masks."""
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(1)
    for k in range(5):
        pixels = rng.integers(0, 256, (40 + 12 * k, 64, 3), dtype=np.uint8)
        write_image(folder / "images" / f"i{k}.png", pixels)
    return find_cases(folder, require_labels=False).cases


def samples(cases: tuple[Case, ...], **changes: Any) -> ImageSamples:
    """Ten of windows of 48 × 32 pixels."""
    settings: dict[str, Any] = {"policy": POLICY, "window": (48, 32), "samples_per_epoch": 10, "seed": 7}
    return ImageSamples(cases, NUMBERS, **{**settings, **changes})


def test_samples_are_of_their_class_and_their_place(cases: tuple[Case, ...]) -> None:
    found = samples(cases)
    seen = [found[k] for k in range(10)]
    assert sorted(s.id for s in seen) == sorted([*NUMBERS] * 2)
    pictures = {c.id: open_image(c.image).read() for c in cases}
    for s in seen:
        assert s.image.shape == (3, 48, 32)
        assert int(s.label) == NUMBERS[s.id]
        assert s.forest is not None
        assert s.forest.shape == (48, 32)
        whole = np.pad(pictures[s.id], ((0, 48), (0, 0), (0, 0)), mode="reflect")
        part = whole[s.origin[0] : s.origin[0] + 48, s.origin[1] : s.origin[1] + 32]
        np.testing.assert_allclose(s.image, part.transpose(2, 0, 1) / 255, atol=1e-6)
    assert len({s.origin for s in seen}) > 4


def test_a_batch_has_a_class_an_image(cases: tuple[Case, ...]) -> None:
    batch = collate([samples(cases)[k] for k in range(3)])
    assert batch.label.shape == (3,)
    assert batch.label.tolist() == [NUMBERS[i] for i in batch.ids]


def test_a_sample_is_a_function_of_seed_epoch_and_index(cases: tuple[Case, ...]) -> None:
    first, second = (samples(cases, augment=Augment()) for _ in range(2))
    for k in (9, 0, 4):
        assert np.array_equal(first[k].image, second[k].image)
    again = pickle.loads(pickle.dumps(first))
    assert np.array_equal(first[4].image, again[4].image)
    before = first[4].image
    first.set_epoch(1)
    assert not np.array_equal(first[4].image, before)
    assert not np.array_equal(samples(cases, augment=Augment(), seed=8)[4].image, before)


def test_down_scaled_images_and_no_forest(cases: tuple[Case, ...]) -> None:
    sample = samples(cases, downscale=3, window=(13, 21), policy=None)[0]
    case = next(c for c in cases if c.id == sample.id)
    assert sample.forest is None
    small = shrink_image(open_image(case.image).read(), 3)
    assert sample.frame == small.shape[:2]
    row, column = sample.origin
    np.testing.assert_allclose(
        sample.image, small[row : row + 13, column : column + 21].transpose(2, 0, 1) / 255, atol=1e-6
    )


def test_reading_in_strips_changes_nothing(cases: tuple[Case, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    whole = load_image(cases[4], downscale=3)
    monkeypatch.setattr(images, "_STRIP", 64 * 7)
    assert np.array_equal(load_image(cases[4], downscale=3), whole)


def test_images_too_large_to_be_seen_at_once(cases: tuple[Case, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "LARGE", 1000)
    with pytest.raises(InputError, match=r"88 × 64 pixels.*data\.downscale"):
        load_image(cases[4])
    assert load_image(cases[4], downscale=3).size < 3000


def test_memory_is_bounded(cases: tuple[Case, ...]) -> None:
    found = samples(cases, cache_bytes=20_000)
    for k in range(10):
        assert found[k].id
    assert 0 < found._held_bytes <= 20_000


def test_wrong_settings(cases: tuple[Case, ...]) -> None:
    with pytest.raises(ValueError, match="no cases"):
        samples(())
    with pytest.raises(ValueError, match="at least 1"):
        samples(cases, window=0)
    with pytest.raises(IndexError):
        samples(cases)[10]
    with pytest.raises(ValueError, match="counts from 0"):
        samples(cases).set_epoch(-1)
