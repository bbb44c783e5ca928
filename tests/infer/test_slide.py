"""Predictions in parts on disk: the same mask as in memory, after any interruption, within a memory."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from patchforest.errors import InputError
from patchforest.infer import slide
from patchforest.infer.predict import predict
from patchforest.infer.slide import predict_slide
from patchforest.infer.windows import cover, held_bytes, plan_grid
from patchforest.io.array import ArraySource
from patchforest.io.scale import Scale, at_scale
from patchforest.models.bundle import Bundle
from patchforest.values import Array
from tests.infer.fakes import Bright, Constant, FixedWindow, fake, tiny
from tests.infer.test_predict import scene


def joined(parts: slide.Parts) -> Array:
    return np.concatenate(list(parts.masks()))


@pytest.mark.parametrize("shape", [(150, 170), (1, 90), (97, 40), (31, 33)])
@pytest.mark.parametrize("downscale", [1, 3])
@pytest.mark.parametrize("classes", [2, 4])
def test_equal_to_the_prediction_in_memory(
    tmp_path: Path, shape: tuple[int, int], downscale: int, classes: int
) -> None:
    bundle = tiny("shf", downscale=downscale, classes=classes)
    image, _ = scene(shape)
    whole = predict(bundle, image, window=32, probabilities=True, flips=True)
    parts = predict_slide(
        bundle, ArraySource(image), tmp_path / "parts", window=32, probabilities=True, flips=True, tissue=False
    )
    assert np.array_equal(joined(parts), whole.mask)
    assert whole.probability is not None
    shares = np.concatenate(list(parts.probabilities())).transpose(2, 0, 1)
    assert np.array_equal(shares, np.rint(whole.probability * 255))
    assert parts.tokens == whole.tokens
    assert parts.shape == shape
    parts.remove()
    assert not (tmp_path / "parts").exists()


@pytest.mark.parametrize("downscale", [1, 2, 3])
def test_goes_on_after_every_part_and_gives_the_same(tmp_path: Path, downscale: int) -> None:
    bundle = tiny("shf", downscale=downscale)
    image, _ = scene((110, 60))
    options = {"window": 14, "tissue": False, "probabilities": True}
    whole = predict_slide(bundle, ArraySource(image), tmp_path / "whole", **options)  # type: ignore[arg-type]
    assert whole.number > 3
    for cut in range(whole.number):
        folder = tmp_path / f"cut-{cut}"
        calls = 0

        def stop(share: float, cut: int = cut) -> None:
            nonlocal calls
            calls += 1
            if calls > cut:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            predict_slide(bundle, ArraySource(image), folder, progress=stop, **options)  # type: ignore[arg-type]
        assert len(list(folder.glob("part-*"))) == cut + 1
        again = predict_slide(bundle, ArraySource(image), folder, **options)  # type: ignore[arg-type]
        assert np.array_equal(joined(again), joined(whole))
        shares = [np.concatenate(list(p.probabilities())) for p in (again, whole)]
        assert np.array_equal(*shares)
        assert calls == cut + 1


def test_damaged_and_foreign_parts_are_done_again(tmp_path: Path) -> None:
    bundle, folder = fake(Bright()), tmp_path / "parts"
    image, mask = scene((120, 64))

    def run(**options: object) -> Array:
        source = ArraySource(image)
        return joined(predict_slide(bundle, source, folder, window=32, tissue=False, **options))  # type: ignore[arg-type]

    assert np.array_equal(run(), mask)
    second = folder / "part-000001.npz"
    second.write_bytes(second.read_bytes()[:-40])
    assert np.array_equal(run(), mask)
    before = second.stat().st_mtime_ns
    assert np.array_equal(run(mark={"job": 2}), mask)
    assert second.stat().st_mtime_ns != before
    flipped = bytearray(second.read_bytes())
    flipped[len(flipped) // 3] ^= 255
    parts = predict_slide(bundle, ArraySource(image), folder, window=32, tissue=False, mark={"job": 2})
    second.write_bytes(flipped)
    with pytest.raises(InputError, match="delete it and run the same command again"):
        joined(parts)


def test_a_constant_model_leaves_no_seam_whatever_the_windows(tmp_path: Path) -> None:
    image, _ = scene((150, 170))
    for number, (logits, window, downscale) in enumerate(
        [((0.0,), 32, 1), ((0.3,), 37, 2), ((0.1, 0.5, 0.4), 29, 1), ((0.2, 0.2, 0.2), 64, 3)]
    ):
        bundle = fake(Constant(*logits), classes=max(len(logits), 2), downscale=downscale)
        result = predict(bundle, image, probabilities=True, window=window)
        assert result.probability is not None
        assert np.ptp(result.probability, axis=(1, 2)).max() == 0
        parts = predict_slide(
            bundle, ArraySource(image), tmp_path / str(number), window=window, tissue=False, probabilities=True
        )
        assert np.ptp(joined(parts)) == 0
        assert all(np.ptp(p, axis=(0, 1)).max() == 0 for p in parts.probabilities())


def slide_with_tissue(shape: tuple[int, int] = (400, 600)) -> tuple[Array, tuple[slice, slice]]:
    rng = np.random.default_rng(0)
    image = rng.integers(240, 246, (*shape, 3)).astype(np.uint8)
    box = (slice(120, 220), slice(330, 470))
    image[box] = np.array([180, 90, 150]) + rng.integers(-8, 8, (100, 140, 3))
    return image, box


def test_windows_without_tissue_are_background_and_cost_nothing(tmp_path: Path) -> None:
    image, box = slide_with_tissue()
    bundle = fake(Constant(2.0))
    everywhere = predict_slide(bundle, ArraySource(image), tmp_path / "all", window=48, tissue=False)
    assert joined(everywhere).all()
    some = predict_slide(bundle, ArraySource(image), tmp_path / "some", window=48, tissue=True)
    mask = joined(some)
    assert mask[box].all()
    assert 0.05 < mask.mean() < 0.35
    assert some.status == "done"


def test_a_slide_without_tissue_has_an_empty_mask(tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(240, 244, (200, 300, 3)).astype(np.uint8)
    parts = predict_slide(fake(Constant(2.0)), ArraySource(image), tmp_path / "p", window=48, tissue=True)
    assert parts.status == "no-tissue"
    assert not joined(parts).any()
    assert joined(parts).shape == (200, 300)
    three = fake(Constant(0.0, 1.0, 0.0), classes=3)
    assert not joined(predict_slide(three, ArraySource(image), tmp_path / "q", window=48, tissue=True)).any()


def test_memory_decides_between_the_whole_and_windows() -> None:
    frame = (1000, 1000)
    assert plan_grid(frame, "auto", 256, 1, memory=2 << 30).side == frame
    assert plan_grid(frame, "auto", 256, 1, memory=200 << 20).side == (256, 256)
    assert plan_grid(frame, "auto", (128, 256), 1, memory=200 << 20).side == (128, 256)
    with pytest.raises(InputError, match=r"big\.svs: needs about .* MB at a time.*--memory"):
        plan_grid((50_000, 4_000_000), "auto", 512, 1, memory=1 << 30, path="big.svs")
    assert held_bytes(cover((65536, 65536), "auto", 512), 1) < 2 << 30


def test_a_fixed_window_is_all_that_its_network_sees(tmp_path: Path) -> None:
    frame = (1000, 1000)
    assert plan_grid(frame, "auto", 256, 1, fixed=True).side == (256, 256)
    assert plan_grid(frame, "auto", (128, 2000), 1, fixed=True).side == (128, 1000)
    assert plan_grid(frame, "whole", 256, 1, fixed=True).side == frame
    network = FixedWindow()
    image = np.random.default_rng(0).integers(0, 256, (30, 150, 3), dtype=np.uint8)
    predict_slide(fake(network, window=48), ArraySource(image), tmp_path / "parts")
    assert network.shapes == {(48, 48)}


class WithScale(ArraySource):
    """An array with microns per pixel."""

    def __init__(self, pixels: Array, mpp: float | None) -> None:
        super().__init__(pixels)
        self.mpp = mpp


@pytest.mark.parametrize("mpp", [0.25, 0.31, 0.5, 1.0])
def test_a_model_of_a_scale_finds_things_at_their_place(mpp: float) -> None:
    """Trained at 0.5 microns per pixel: a square of 40 x 60 microns is found where it is at any scale of the file."""
    bundle = fake(Bright(), mpp=0.5)
    image = np.full((round(100 / mpp), round(120 / mpp), 3), 30, np.uint8)
    rows, columns = (slice(round(a / mpp), round((a + s) / mpp)) for a, s in ((20, 40), (40, 60)))
    image[rows, columns] = 230
    if mpp > 0.5:
        with pytest.warns(UserWarning, match="nothing finer"):
            result = predict(bundle, WithScale(image, mpp), window=64)
    else:
        result = predict(bundle, WithScale(image, mpp), window=64)
    truth = np.zeros(image.shape[:2], np.uint8)
    truth[rows, columns] = 1
    wrong = result.mask != truth
    assert result.mask.shape == truth.shape
    border = np.ones_like(wrong)
    border[rows.start + 2 : rows.stop - 2, columns.start + 2 : columns.stop - 2] = False
    outer = np.zeros_like(wrong)
    outer[rows.start - 2 : rows.stop + 2, columns.start - 2 : columns.stop + 2] = True
    assert not (wrong & ~(border & outer)).any()  # wrong within two pixels of the edge at most
    with pytest.raises(InputError, match="--input-mpp"):
        predict(bundle, WithScale(image, None))


def test_other_settings_begin_anew(tmp_path: Path) -> None:
    image, mask = scene((120, 64))

    def stop(share: float) -> None:
        raise KeyboardInterrupt

    folder, source = tmp_path / "parts", ArraySource(image)
    with pytest.raises(KeyboardInterrupt):
        predict_slide(fake(Constant(3.0)), source, folder, window=32, tissue=False, progress=stop)
    other = predict_slide(fake(Bright()), source, folder, window=32, tissue=False)  # another model, no mark
    assert np.array_equal(joined(other), mask)


def test_answers_that_are_no_numbers_fail(tmp_path: Path) -> None:
    image, _ = scene((40, 40))
    with pytest.raises(InputError, match=r"a\.svs: the model's answer is not finite"):
        predict_slide(fake(Constant(float("nan"))), ArraySource(image), tmp_path / "p", path="a.svs")


@pytest.mark.parametrize("classes", [256, 300])
def test_many_classes_keep_their_numbers(tmp_path: Path, classes: int) -> None:
    logits = np.zeros(classes)
    logits[classes - 1] = 9.0
    bundle, image = fake(Constant(*logits), classes=classes), scene((40, 50))[0]
    assert (predict(bundle, image).mask == classes - 1).all()
    assert (joined(predict_slide(bundle, ArraySource(image), tmp_path / "p", window=32)) == classes - 1).all()


def test_a_coarse_view_of_a_fine_file_is_seen_at_the_models_scale() -> None:
    """Stripes of 1 micron at 0.25 microns per pixel, a model at 0.5, a mask at 4: no blur is enlarged for the model."""
    image = np.full((128, 128, 3), 20, np.uint8)
    image[:, 64:] = np.where(np.arange(64)[None, :, None] % 8 < 4, 255, 20)
    seen: list[float] = []

    class Looks(Bright):
        def forward(self, image, forest):  # type: ignore[no-untyped-def]
            seen.append(float(image.max() - image.min()))
            return super().forward(image, forest)

    view = at_scale(WithScale(image, 0.25), Scale(mpp=4.0))
    mask = predict(fake(Looks(), mpp=0.5), view).mask
    assert mask.shape == (8, 8)
    assert max(seen) > 0.9


def test_trained_on_tissue_means_predicted_on_tissue(tmp_path: Path) -> None:
    image, box = slide_with_tissue()
    bundle = fake(Constant(2.0))
    bundle = Bundle(network=bundle.network, spec=replace(bundle.spec, tissue=True, window=48))
    one = predict(bundle, image, window=48)
    parts = predict_slide(bundle, ArraySource(image), tmp_path / "p", window=48)
    assert np.array_equal(one.mask, joined(parts))
    assert one.mask[box].all()
    assert not one.mask.all()
    assert predict(bundle, image, window=48, tissue=False).mask.all()
