"""Volumes: exact sizes, no seams, right places, octrees and slices, honest errors."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from patchforest.errors import InputError
from patchforest.infer.predict import predict
from patchforest.infer.volume import cover_volume, predict_volume
from patchforest.io.volume_array import ArrayVolume
from patchforest.models.build import build_model
from patchforest.models.bundle import Bundle, ModelSpec
from patchforest.models.config import ModelConfig, VolumeSpec
from patchforest.nn.raster import ForestBatch
from patchforest.values import Array, ForestPolicy
from tests.infer.fakes import FixedWindow


class Bright(nn.Module):
    """Foreground where the first channel is above one half; remembers the places it was shown."""

    def __init__(self, gain: float = 50.0) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(gain))
        self.places: list[list[float]] = []

    def forward(self, image: Tensor, forest: ForestBatch | None) -> Tensor:
        if forest is not None:
            self.places += forest.place_B4.tolist()
            assert forest.shape == tuple(image.shape[2:])
        return (image[:, :1] - 0.5) * self.gain


class Constant(nn.Module):
    """The same logits everywhere."""

    def __init__(self, *logits: float) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.tensor(logits))

    def forward(self, image: Tensor, forest: ForestBatch | None) -> Tensor:
        shape = image.shape[2:]
        return self.logits.view(1, -1, *[1] * len(shape)).expand(len(image), -1, *shape)


def fake(network: nn.Module, *, spatial: int = 3, forest: bool = False, classes: int = 2) -> Bundle:
    """A bundle around a network for grey volumes."""
    policy = ForestPolicy(criterion="gradient", budget=60, cell=4) if forest else None
    config = ModelConfig(name="shf", channels=1, spatial=spatial, patch=4, cell=4, stem=())
    return Bundle(network, ModelSpec(config, policy, tuple(map(str, range(classes))), window=16))


def tiny(classes: int = 3, stem: tuple[int, ...] = (), spatial: int = 3) -> Bundle:
    """An untrained SHF of grey volumes or slices."""
    torch.manual_seed(0)
    outputs = 1 if classes == 2 else classes
    config = ModelConfig("shf", 1, outputs, width=16, depth=1, heads=2, patch=4, cell=4, stem=stem, spatial=spatial)
    bundle = fake(build_model(config).eval(), forest=True, classes=classes, spatial=spatial)
    return Bundle(bundle.network, replace(bundle.spec, model=config))


def scene(shape: tuple[int, int, int]) -> tuple[Array, Array]:
    """A grey volume whose bright blocks are the foreground, and that foreground."""
    rng = np.random.default_rng(1)
    coarse = rng.integers(0, 2, tuple(-(-s // 4) for s in shape)).astype(np.uint8)
    mask = np.kron(coarse, np.ones((4, 4, 4), np.uint8))[tuple(slice(0, s) for s in shape)]
    return (np.where(mask, 220, 40) + rng.integers(0, 20, shape)).astype(np.uint8), mask


def test_windows_cover_and_their_weights_leave_no_gap(rng: np.random.Generator) -> None:
    for _ in range(30):
        shape = tuple(int(s) for s in rng.integers(1, 40, 3))
        window = tuple(int(s) for s in rng.integers(1, 20, 3))
        regions, lines = cover_volume(shape, window, (8, 8, 8))
        total = np.zeros(shape)
        weight = np.einsum("i,j,k->ijk", *lines)
        for region in regions:
            assert region.shape == tuple(map(min, shape, window))
            total[tuple(slice(o, o + s) for o, s in zip(region.origin, region.shape))] += weight
        assert total.min() > 0
        for axis, (length, side) in enumerate(zip(shape, window)):
            starts = sorted({r.origin[axis] for r in regions})
            assert starts[0] == 0
            assert starts[-1] == max(0, length - side)
    assert len(cover_volume((16, 32, 32), "auto", (8, 16, 16))[0]) == 1
    assert len(cover_volume((16, 32, 33), "auto", (8, 16, 16))[0]) > 8
    assert len(cover_volume((16, 99, 99), "whole", (8, 8, 8))[0]) == 1
    for bad in ("all", 0, (4, 4), (4, 0, 4)):
        with pytest.raises(ValueError, match="window"):
            cover_volume((9, 9, 9), bad, (4, 4, 4))  # type: ignore[arg-type]


@pytest.mark.parametrize("options", [{}, {"window": (4, 9, 7)}, {"window": "whole", "flips": True}, {"trees": 2}])
@pytest.mark.parametrize("factors", [(1, 1, 1), (1, 2, 2), (3, 2, 1)])
def test_mask_has_the_volumes_size(options: dict, factors: tuple[int, int, int]) -> None:
    grid = VolumeSpec(window=(8, 16, 16), downscale=factors)
    for shape in ((1, 1, 1), (1, 13, 22), (9, 1, 17), (5, 24, 18)):
        result = predict_volume(tiny(), scene(shape)[0], probabilities=True, grid=grid, **options)
        assert result.mask.shape == shape
        assert result.mask.dtype == np.uint8
        assert result.probability is not None
        assert result.probability.shape == (3, *shape)
        assert result.probability.dtype == np.float32
        np.testing.assert_allclose(result.probability.sum(0), 1, atol=1e-5)
        assert np.array_equal(result.probability.argmax(0), result.mask)
        assert result.factors == factors
        assert result.tokens > 0


@pytest.mark.parametrize("window", ["whole", (8, 8, 8), (3, 10, 7), 6])
@pytest.mark.parametrize("forest", [False, True])
def test_a_voxelwise_model_finds_exactly_what_is_there(window: Any, forest: bool) -> None:
    for shape in ((12, 20, 16), (5, 9, 30)):
        volume, mask = scene(shape)
        bundle = fake(Bright(), forest=forest)
        assert np.array_equal(predict_volume(bundle, volume, window=window, flips=True).mask, mask)


@pytest.mark.parametrize("window", [(3, 7, 5), (6, 11, 9), 4, "whole"])
def test_a_constant_model_leaves_no_seam_at_all(window: Any) -> None:
    for factors in ((1, 1, 1), (1, 2, 3)):
        grid = VolumeSpec(downscale=factors)
        for logits in ((0.3,), (0.1, 0.5, 0.4)):
            bundle = fake(Constant(*logits), classes=max(len(logits), 2))
            result = predict_volume(bundle, scene((11, 23, 17))[0], window=window, probabilities=True, grid=grid)
            assert result.probability is not None
            spread = np.ptp(result.probability, axis=(1, 2, 3)).max()
            assert spread == 0 if factors == (1, 1, 1) else spread < 1e-6


def test_averaging_keeps_objects_in_place() -> None:
    volume = np.full((14, 37, 41), 30, np.uint8)
    volume[6:10, 12:24, 16:32] = 230  # divisible by the factors
    for factors in ((2, 3, 4), (1, 4, 2), (1, 1, 8)):
        grid = VolumeSpec(downscale=factors)
        mask = predict_volume(fake(Bright()), volume, grid=grid).mask
        for axis, (first, last) in enumerate(((6, 10), (12, 24), (16, 32))):  # corners are rounded off
            held = np.flatnonzero(mask.any(axis=tuple({0, 1, 2} - {axis})))
            assert (held[0], held[-1] + 1) == (first, last)


def test_spacing_decides_the_averaging() -> None:
    grid = VolumeSpec(spacing=(3.0, 3.0, 3.0))
    volume, _ = scene((8, 20, 20))
    source = ArrayVolume(volume, spacing=(3.0, 1.0, 1.4))
    assert predict_volume(fake(Bright()), source, grid=grid).factors == (1, 3, 2)
    with pytest.raises(InputError, match="how large its voxels are"):
        predict_volume(fake(Bright()), volume, grid=grid)


def test_network_is_told_where_its_window_lies() -> None:
    network = Bright()
    result = predict_volume(fake(network, forest=True), scene((8, 20, 24))[0], window=(8, 16, 16))
    assert network.places == [[*map(float, r.origin), 8, 20, 24] for r, _ in result.windows]
    assert len(network.places) == 4
    assert result.forest is None
    whole = predict_volume(fake(network, forest=True), scene((8, 20, 24))[0])
    assert whole.forest is not None
    assert int(whole.forest.area.sum()) == 8 * 20 * 24
    assert whole.tokens == len(whole.forest)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_slices_are_predicted_as_images_and_put_together(axis: int) -> None:
    bundle = tiny(spatial=2)
    volume, _ = scene((6, 20, 17))
    result = predict_volume(bundle, volume, axes=(axis,), probabilities=True)
    assert result.probability is not None
    for k in range(volume.shape[axis]):
        alone = predict(bundle, volume.take(k, axis), probabilities=True)
        np.testing.assert_allclose(result.probability.take(k, axis + 1), alone.probability, atol=1e-6)
    assert result.windows == ()
    assert result.tokens > 0


def test_slices_too_are_seen_in_the_fixed_window_of_a_network() -> None:
    network = FixedWindow()
    volume, mask = scene((5, 40, 12))
    bundle = fake(network, spatial=2)
    assert np.array_equal(predict_volume(bundle, volume, grid=VolumeSpec(axes=(0, 1))).mask, mask)
    assert network.shapes == {(16, 16)}


def test_axes_are_averaged() -> None:
    volume, mask = scene((9, 12, 10))
    alone = [predict_volume(tiny(spatial=2), volume, axes=(a,), probabilities=True).probability for a in range(3)]
    together = predict_volume(tiny(spatial=2), volume, axes=(0, 1, 2), probabilities=True).probability
    np.testing.assert_allclose(together, np.mean(alone, axis=0), atol=1e-6)
    bundle = fake(Bright(), spatial=2)
    grid = VolumeSpec(axes=(2, 0))
    assert np.array_equal(predict_volume(bundle, volume, grid=grid).mask, mask)
    wide = volume.astype(np.int16) * 10 - 1000
    bundle = Bundle(bundle.network, replace(bundle.spec, intensity_window=(-1000, 1550)))
    assert np.array_equal(predict_volume(bundle, wide, grid=grid).mask, mask)


def test_same_input_same_answer_and_many_classes() -> None:
    volume, _ = scene((7, 15, 14))
    bundle = tiny(stem=(4,))
    one, two = (predict_volume(bundle, volume, trees=2, flips=True, probabilities=True) for _ in range(2))
    assert np.array_equal(one.probability, two.probability)  # type: ignore[arg-type]
    logits = np.zeros(300)
    logits[299] = 9
    assert (predict_volume(fake(Constant(*logits), classes=300), volume).mask == 299).all()


def test_bad_input_is_named_with_its_remedy(tmp_path: Path) -> None:
    bundle = fake(Bright())
    with pytest.raises(InputError, match="has 2 channels, the model was trained on 1"):
        predict_volume(bundle, np.zeros((4, 4, 4, 2), np.uint8))
    with pytest.raises(InputError, match=r"has shape \(4, 4\)"):
        predict_volume(bundle, np.zeros((4, 4), np.uint8))
    with pytest.raises(InputError, match="range"):
        predict_volume(bundle, np.full((4, 4, 4), 700.0, np.float32))
    np.save(tmp_path / "v.npy", np.full((4, 4, 4), -700, np.int16))
    with pytest.raises(InputError, match=r"v\.npy"):
        predict_volume(bundle, tmp_path / "v.npy")
    for wrong in ({"trees": 0}, {"axes": (0,)}, {"window": "all"}, {"precision": "fp8"}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            predict_volume(bundle, np.zeros((4, 4, 4), np.uint8), **wrong)
    for wrong in ({"axes": (3,)}, {"axes": ()}, {"window": (2, 2, 2)}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            predict_volume(fake(Bright(), spatial=2), np.zeros((4, 4, 4), np.uint8), **wrong)


def test_a_full_memory_is_said_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = tiny()

    def full(*_: object) -> None:
        raise RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(bundle.network, "forward", full)
    with pytest.raises(MemoryError, match="smaller window"):
        predict_volume(bundle, scene((8, 8, 8))[0])
