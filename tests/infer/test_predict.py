"""Prediction: exact sizes, no seams, right places, honest errors."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from patchforest.errors import InputError
from patchforest.infer.predict import predict
from patchforest.infer.working import shrink
from patchforest.io.write import write_image
from patchforest.models.build import build_model
from patchforest.models.bundle import Bundle, ModelSpec, save_model
from patchforest.models.config import ModelConfig
from patchforest.tree.forest import FlatGround
from patchforest.values import Array, ForestPolicy
from tests.infer.fakes import Bright, Constant, FixedWindow, fake, tiny


def scene(shape: tuple[int, int], seed: int = 0) -> tuple[Array, Array]:
    """An image whose bright blocks are the foreground, and that foreground."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 2, tuple(-(-s // 8) for s in shape)).astype(np.uint8)
    mask = np.kron(coarse, np.ones((8, 8), np.uint8))[: shape[0], : shape[1]]
    image = np.where(mask[..., None], 220, 40).repeat(3, 2) + rng.integers(0, 20, (*shape, 3))
    return image.astype(np.uint8), mask


@pytest.mark.parametrize("name", ["shf", "apf_unetr", "unet"])
def test_mask_has_the_images_size_for_every_side(name: str) -> None:
    bundle = tiny(name)
    for side in range(1, 71):
        for shape in {(side, side), (1, side), (side, 71 - side)}:
            mask = predict(bundle, scene(shape)[0]).mask
            assert mask.shape == shape
            assert mask.dtype == np.uint8


@pytest.mark.parametrize("options", [{"window": 24}, {"window": 24, "flips": True}, {"trees": 2}])
def test_mask_has_the_images_size_with_windows_and_averages(options: dict) -> None:
    for downscale in (1, 2, 3):
        bundle = tiny("shf", downscale=downscale, classes=3)
        for shape in ((1, 1), (5, 70), (53, 47), (97, 30)):
            result = predict(bundle, scene(shape)[0], probabilities=True, **options)
            assert result.mask.shape == shape
            assert result.probability is not None
            assert result.probability.shape == (3, *shape)
            assert np.allclose(result.probability.sum(0), 1, atol=1e-5)


@pytest.mark.parametrize("options", [{}, {"window": 32}, {"window": 32, "flips": True}, {"window": "whole"}])
@pytest.mark.parametrize("forest", [False, True])
def test_a_pixelwise_model_finds_exactly_what_is_there(options: dict, forest: bool) -> None:
    for shape in ((64, 64), (70, 131), (33, 200)):
        image, mask = scene(shape)
        assert np.array_equal(predict(fake(Bright(), forest=forest), image, **options).mask, mask)


@pytest.mark.parametrize("shape", [(48, 64), (20, 30), (1, 1), (40, 200), (49, 64), (150, 130)])
@pytest.mark.parametrize("options", [{}, {"flips": True}])
def test_a_fixed_window_is_all_that_its_network_sees(shape: tuple[int, int], options: dict) -> None:
    network = FixedWindow()
    image, mask = scene(shape)
    result = predict(fake(network, window=(48, 64)), image, **options)
    assert network.shapes == {(48, 64)}
    assert np.array_equal(result.mask, mask)


def test_windows_other_than_its_own_are_for_those_who_ask() -> None:
    network = FixedWindow()
    image, mask = scene((150, 130))
    assert np.array_equal(predict(fake(network), image, window="whole").mask, mask)
    assert network.shapes == {(150, 130)}
    assert predict(fake(network), image, window=70).windows[0][0].shape == (70, 70)


def test_windows_equal_the_whole_for_a_pixelwise_model() -> None:
    image, _ = scene((101, 140))
    bundle = fake(Bright(gain=3.0))
    whole = predict(bundle, image, probabilities=True, window="whole").probability
    parts = predict(bundle, image, probabilities=True, window=40).probability
    assert whole is not None
    assert parts is not None
    assert np.abs(whole - parts).max() < 1e-6


def test_a_constant_model_leaves_no_seam() -> None:
    image, _ = scene((150, 170))
    for logits in ((0.3,), (-0.2,), (0.1, 0.5, 0.4)):
        result = predict(fake(Constant(*logits), classes=max(len(logits), 2)), image, probabilities=True, window=32)
        assert result.probability is not None
        assert np.ptp(result.mask) == 0
        assert np.ptp(result.probability, axis=(1, 2)).max() < 1e-6


@pytest.mark.parametrize("downscale", [2, 3, 4])
def test_downscaling_keeps_objects_in_place(downscale: int) -> None:
    image = np.full((97, 121, 3), 30, np.uint8)
    image[24:48, 36:84] = 230  # divisible by 2, 3 and 4
    mask = predict(fake(Bright(), downscale=downscale), image).mask
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    assert (rows[0], rows[-1] + 1, columns[0], columns[-1] + 1) == (24, 48, 36, 84)


def test_network_is_told_where_its_window_lies() -> None:
    network = Bright()
    result = predict(fake(network, forest=True), scene((80, 100))[0], window=64)
    frames = [[float(v) for v in (*region.origin, 80, 100)] for region, _ in result.windows]
    assert network.places == frames
    assert len(frames) == 4


def test_forest_and_tokens_are_those_of_the_image() -> None:
    bundle = tiny("shf", downscale=2)
    image, _ = scene((100, 90))
    whole = predict(bundle, image, window="whole")
    assert whole.forest is not None
    assert whole.forest.shape == (100, 90)
    assert int(whole.forest.area.sum()) == 100 * 90
    assert whole.tokens == len(whole.forest)
    assert predict(bundle, image, trees=3, window="whole").tokens > 2 * whole.tokens
    small = predict(bundle, image[:9, :7])
    assert small.forest is not None
    assert int(small.forest.area.sum()) == 63
    assert predict(bundle, image, window=32).forest is None
    assert predict(tiny("unet"), image).tokens == 0


def test_same_input_same_answer_and_mode_restored() -> None:
    bundle = tiny("apf_unetr")
    bundle.network.train()
    image, _ = scene((60, 75))
    one, two = (predict(bundle, image, trees=2, flips=True, probabilities=True) for _ in range(2))
    assert np.array_equal(one.probability, two.probability)  # type: ignore[arg-type]
    assert bundle.network.training
    assert not torch.is_inference_mode_enabled()
    assert all(p.grad is None for p in bundle.network.parameters())


def test_flips_average_the_mirror_images() -> None:
    image, _ = scene((64, 64))
    bundle = tiny("unet")
    straight = predict(bundle, image, flips=True, probabilities=True).probability
    turned = predict(bundle, image[::-1, ::-1], flips=True, probabilities=True).probability
    assert straight is not None
    assert turned is not None
    assert np.allclose(straight, turned[:, ::-1, ::-1], atol=1e-6)


def test_from_files_and_folders(tmp_path: Path) -> None:
    bundle = tiny("shf")
    image, _ = scene((40, 60))
    save_model(tmp_path / "model", bundle.network, bundle.spec)
    write_image(tmp_path / "image.png", image)
    result = predict(tmp_path / "model", tmp_path / "image.png")
    assert np.array_equal(result.mask, predict(bundle, image).mask)


def test_sixteen_bit_equals_eight_bit() -> None:
    image, _ = scene((64, 64))
    wide = image.astype(np.uint16) * 257
    bundle = fake(Bright(gain=3.0))
    a = predict(bundle, image, probabilities=True).probability
    b = predict(bundle, wide, probabilities=True).probability
    assert np.allclose(a, b, atol=1e-5)  # type: ignore[arg-type]


def test_bad_input_names_the_file_and_the_remedy(tmp_path: Path) -> None:
    bundle = tiny("unet")
    grey = tmp_path / "grey.png"
    cv2.imwrite(str(grey), np.zeros((8, 8), np.uint8))
    with pytest.raises(InputError, match=r"grey\.png: has 1 channels, the model was trained on 3"):
        predict(bundle, grey)
    with pytest.raises(InputError, match="range"):
        predict(bundle, np.full((8, 8, 3), 700.0, np.float32))
    with pytest.raises(InputError, match=r"\(0, 4, 3\)"):
        predict(bundle, np.zeros((0, 4, 3), np.uint8))
    with pytest.raises(ValueError, match="fp8"):
        predict(bundle, np.zeros((8, 8, 3), np.uint8), precision="fp8")
    with pytest.raises(ValueError, match="trees"):
        predict(bundle, np.zeros((8, 8, 3), np.uint8), trees=0)


def test_shrink_is_the_exact_mean_of_blocks(rng: np.random.Generator) -> None:
    image = rng.random((7, 10, 2), dtype=np.float32)
    small = shrink(image, 3)
    assert small.shape == (3, 4, 2)
    assert np.allclose(small[1, 2], image[3:6, 6:9].mean((0, 1)), atol=1e-6)
    edged = np.pad(image, ((0, 2), (0, 2), (0, 0)), mode="edge")
    assert np.allclose(small[2, 3], edged[6:9, 9:12].mean((0, 1)), atol=1e-6)


def test_a_full_memory_is_said_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = tiny("shf")

    def full(*_: object) -> None:
        raise RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(bundle.network, "forward", full)
    with pytest.raises(MemoryError, match="set a window"):
        predict(bundle, scene((64, 64))[0])


def test_windows_of_flat_ground_are_not_warned_of(recwarn: pytest.WarningsRecorder) -> None:
    flat = np.full((200, 200, 3), 128, np.uint8)
    flat[:20, :20] = scene((20, 20))[0]
    predict(tiny("shf"), flat, window=40)
    assert not recwarn.list
    predict(tiny("shf"), flat, window="whole")
    assert any(issubclass(w.category, FlatGround) for w in recwarn.list)


@pytest.mark.parametrize("look", ["leaves", "stem"])
def test_of_two_looks_the_last_forest_is_shown_and_all_leaves_that_were_read_count(look: str) -> None:
    config = ModelConfig(
        name="refined", look=look, readout="token", growth=4, width=16, depth=2, heads=2, patch=4, cell=8, stem=(4,)
    )
    policy = ForestPolicy(criterion="gradient", budget=16, window=128)
    spec = ModelSpec(config, policy, ("background", "thing"), window=128)
    bundle = Bundle(build_model(config).eval(), spec)
    image = np.random.default_rng(0).integers(0, 256, (128, 128, 3), np.uint8)
    prediction = predict(bundle, image)
    assert prediction.forest is not None
    assert 61 <= len(prediction.forest) <= 64
    first = prediction.tokens - len(prediction.forest)
    assert 16 - 3 <= first <= 16 if look == "leaves" else first == 0
