"""Augmentation: labels go with their pixels, ranges hold, unknown stays unknown, the generator decides all."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from patchforest.data.augment import Augment, augment

OFF: dict[str, Any] = {"flip": 0.0, "turn": 0.0, "affine": 0.0, "colour": 0.0, "tone": 0.0, "noise": 0.0, "blur": 0.0}
ON: dict[str, Any] = dict.fromkeys(OFF, 1.0)


def window(
    rng: np.random.Generator, shape: tuple[int, int] = (48, 48), channels: int = 3
) -> tuple[np.ndarray, np.ndarray]:
    """A picture whose first channel tells the label of each pixel (50 x class)."""
    label = rng.integers(0, 4, (shape[0] // 8 + 1, shape[1] // 8 + 1)).repeat(8, 0).repeat(8, 1)[: shape[0], : shape[1]]
    image = rng.integers(0, 256, (*shape, channels), dtype=np.uint8)
    image[..., 0] = 50 * label
    return image, label.astype(np.int16)


@pytest.mark.parametrize("name", ["flip", "turn"])
@pytest.mark.parametrize("shape", [(48, 48), (40, 56)])
def test_turned_labels_go_with_their_pixels(rng: np.random.Generator, name: str, shape: tuple[int, int]) -> None:
    image, label = window(rng, shape)
    seen = set()
    for _ in range(100):
        out, moved = augment(image, label, rng, Augment(**{**OFF, name: 0.7}))
        assert out.shape == image.shape
        assert np.array_equal(out[..., 0], 50 * moved)
        seen.add(out.tobytes())
    assert len(seen) == {"turn": 4 if shape[0] == shape[1] else 2, "flip": 4}[name]


def test_warped_labels_go_with_their_pixels_and_outside_is_ignored(rng: np.random.Generator) -> None:
    image, label = window(rng, (64, 64))
    settings = Augment(**{**OFF, "affine": 1.0}, scale=(0.7, 0.7), rotation=0.0)
    out, moved = augment(image, label, rng, settings)
    assert (moved == -1).mean() == pytest.approx(1 - 0.7**2, abs=0.05)
    assert moved[32, 32] >= 0
    known = moved >= 0
    assert np.mean(np.abs(out[..., 0][known].astype(int) - 50 * moved[known]) < 25) > 0.85  # but for edges


def test_warped_labels_are_never_mixed(rng: np.random.Generator) -> None:
    label = (rng.random((64, 64)) < 0.5).astype(np.int16) * 3
    _, moved = augment(np.zeros((64, 64, 1), np.uint8), label, rng, Augment(**{**OFF, "affine": 1.0}))
    assert set(np.unique(moved)) <= {-1, 0, 3}


def test_scale_is_the_size_of_objects(rng: np.random.Generator) -> None:
    image, label = np.zeros((101, 101, 1), np.uint8), np.zeros((101, 101), np.int16)
    label[40:61, 40:61] = 1
    _, larger = augment(image, label, rng, Augment(**{**OFF, "affine": 1.0}, scale=(1.4, 1.4), rotation=0.0))
    assert (larger == 1).sum() == pytest.approx(21**2 * 1.4**2, rel=0.08)


def test_a_larger_source_leaves_nothing_unknown(rng: np.random.Generator) -> None:
    settings = Augment(**{**OFF, "affine": 1.0}, scale=(0.7, 1.4), rotation=0.0)
    assert settings.margin == pytest.approx(1 / 0.7)
    assert Augment(**OFF).margin == 1
    image, label = window(rng, (70, 70))
    for _ in range(10):
        out, moved = augment(image, label, rng, settings, size=48)
        assert out.shape == (48, 48, 3)
        assert (moved >= 0).all()
    out, moved = augment(image, label, rng, Augment(**OFF), size=48)
    assert np.array_equal(out, image[11:59, 11:59])
    assert np.array_equal(moved, label[11:59, 11:59])


@pytest.mark.parametrize("channels", [1, 3, 7])
def test_dtype_range_and_channels_are_kept(rng: np.random.Generator, channels: int) -> None:
    image, label = window(rng, channels=channels)
    settings = Augment(**ON, gain=0.5, offset=0.4, brightness=0.5, noise_std=0.3)
    for source in (image, image.astype(np.float32) / 255):
        for _ in range(6):
            out, moved = augment(source, label, rng, settings)
            assert out.shape == source.shape
            assert out.dtype == source.dtype
            assert moved.dtype == np.int16
            assert out.min() >= 0
            assert out.max() <= (255 if source.dtype == np.uint8 else 1)
            assert out.flags.c_contiguous
            assert moved.flags.c_contiguous


@pytest.mark.parametrize("name", ["colour", "tone"])
def test_bytes_and_floats_are_changed_alike(rng: np.random.Generator, name: str) -> None:
    image, label = window(rng)
    settings = Augment(**{**OFF, name: 1.0})
    for seed in range(5):
        bytes_, _ = augment(image, label, np.random.default_rng(seed), settings)
        floats, _ = augment(image.astype(np.float32) / 255, label, np.random.default_rng(seed), settings)
        assert np.abs(bytes_ / 255.0 - floats).max() < 0.6 / 255
        assert np.abs(bytes_.astype(int) - image).max() > 3


def test_noise_has_the_stated_size(rng: np.random.Generator) -> None:
    image, label = np.full((200, 200, 3), 128, np.uint8), np.zeros((200, 200), np.int16)
    sizes = [augment(image, label, rng, Augment(**{**OFF, "noise": 1.0}, noise_std=0.1))[0].std() for _ in range(40)]
    assert max(sizes) == pytest.approx(25.5, rel=0.15)
    assert min(sizes) < 5


def test_nothing_on_changes_nothing_and_inputs_are_never_written(rng: np.random.Generator) -> None:
    image, label = window(rng)
    label[3, 3] = -1
    out, moved = augment(image, label, rng, Augment(**OFF))
    assert np.array_equal(out, image)
    assert np.array_equal(moved, label)
    before = image.copy(), label.copy()
    for _ in range(5):
        augment(image, label, rng, Augment(**ON))
    assert np.array_equal(before[0], image)
    assert np.array_equal(before[1], label)


def test_the_generator_decides_all(rng: np.random.Generator) -> None:
    image, label = window(rng)
    results = [augment(image, label, np.random.default_rng(s)) for s in (1, 1, 2)]
    assert np.array_equal(results[0][0], results[1][0])
    assert np.array_equal(results[0][1], results[1][1])
    assert not np.array_equal(results[0][0], results[2][0])


def test_wrong_arguments_say_why(rng: np.random.Generator) -> None:
    image, label = window(rng)
    with pytest.raises(ValueError, match="uint8 or float32"):
        augment(image.astype(np.uint16), label, rng)
    with pytest.raises(ValueError, match=r"\(48, 48\); got \(40, 48\)"):
        augment(image, label[:40], rng)
    with pytest.raises(ValueError, match="fit the source"):
        augment(image, label, rng, size=64)
    with pytest.raises(ValueError, match="flip is a probability"):
        Augment(flip=1.5)
    with pytest.raises(ValueError, match="noise_std"):
        Augment(noise_std=-0.1)
    with pytest.raises(ValueError, match="scale"):
        Augment(scale=(1.2, 0.8))
