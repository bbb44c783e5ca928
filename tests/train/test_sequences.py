"""A model sees the same through prepared items as through the image; runs on them leave, resume and refuse alike."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from patchforest.data.layout import Case
from patchforest.data.manifest import read_manifest
from patchforest.data.prepare_item import cut_item
from patchforest.data.prepared import PrepareSettings, decode_item, encode_item
from patchforest.data.sequences import as_sequence, collate_sequences, mirror
from patchforest.errors import InputError
from patchforest.io.write import write_mask
from patchforest.models.build import build_model
from patchforest.models.bundle import load_model
from patchforest.models.config import ModelConfig
from patchforest.models.trunk import PatchBatch
from patchforest.nn.raster import ForestBatch
from patchforest.train.checkpoint import checkpoints
from patchforest.train.fit import Preempted, fit
from patchforest.train.losses import segmentation_loss, token_loss
from patchforest.train.metrics import confusion_matrix
from patchforest.train.sequences import network_input
from patchforest.train.validate import SequenceValidator, token_confusion
from patchforest.values import Array, ForestPolicy
from tests.train.prepared_runs import prepared, token_config, token_settings
from tests.train.runs import config, make_data, weights


@pytest.fixture(scope="module")
def folder(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small data set, prepared."""
    return prepared(data, tmp_path_factory.mktemp("folder") / "out")


@pytest.fixture(scope="module")
def done(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An undisturbed run on it."""
    return fit(token_config(), folder, tmp_path_factory.mktemp("runs") / "done", quiet=True)


CASES = [(1, 8, 16, (53, 91)), (3, 8, 4, (64, 40)), (1, 4, 8, (37, 70)), (4, 16, 16, (70, 33))]


def one(rng: np.random.Generator, outputs: int, cell: int, q: int, shape: tuple[int, int]) -> tuple:
    """A random image, its label and forest, the same through a prepared item, and a model of random weights."""
    classes = ("background", *"abc"[: max(outputs - 1, 1)])
    policy = ForestPolicy(criterion="random", cell=cell, budget=60)
    settings = PrepareSettings(policy, classes, channels=3, patch=8, q=q)
    image = rng.integers(0, 256, (*shape, 3), np.uint8)
    label = rng.integers(0, len(classes), shape).astype(np.uint8)
    item = decode_item(encode_item(cut_item(Case("x", Path(), Path()), settings, 0, image, label, {})))
    torch.manual_seed(int(rng.integers(1000)))
    model = build_model(
        ModelConfig(name="shf", stem=(), width=16, depth=1, heads=2, classes=outputs, cell=cell, q=q)
    ).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return image, label, item, model


@pytest.mark.parametrize(("outputs", "cell", "q", "shape"), CASES)
def test_loss_and_gradients_are_those_of_the_raster(
    rng: np.random.Generator, outputs: int, cell: int, q: int, shape: tuple[int, int]
) -> None:
    image, label, item, model = one(rng, outputs, cell, q, shape)
    pixels = torch.from_numpy(image.transpose(2, 0, 1) / np.float32(255))[None].float()
    losses, gradients = [], []
    raster = model.output(pixels, ForestBatch.stack([item.forest]))
    losses.append(segmentation_loss(raster, torch.from_numpy(label.astype(np.int64))[None]))
    batch = collate_sequences([as_sequence(item)])
    losses.append(token_loss(model.output(*network_input(batch)), batch.shares))
    for loss in losses:
        model.zero_grad()
        loss.backward()
        gradients.append(torch.cat([p.grad.ravel() for p in model.parameters() if p.grad is not None]))
    assert losses[1].item() == pytest.approx(losses[0].item(), abs=1e-6)
    torch.testing.assert_close(gradients[1], gradients[0], atol=1e-6, rtol=1e-3)


@pytest.mark.parametrize(("outputs", "cell", "q", "shape"), CASES)
def test_counts_are_those_of_painted_pixels(
    rng: np.random.Generator, outputs: int, cell: int, q: int, shape: tuple[int, int]
) -> None:
    _, label, item, model = one(rng, outputs, cell, q, shape)
    batch = collate_sequences([as_sequence(item)])
    with torch.inference_mode():
        output = model.output(*network_input(batch))
        painted = output.raster(shape, "nearest")[0]
    mask: Array = ((painted[0] > 0) if outputs == 1 else painted.argmax(0)).numpy().astype(np.uint8)
    classes = max(outputs, 2)
    assert len(np.unique(mask)) > 1
    np.testing.assert_array_equal(token_confusion(output, batch.shares), confusion_matrix(mask, label, classes))


def test_a_batch_of_several_sizes_is_each_alone(rng: np.random.Generator) -> None:
    items = [one(rng, 1, 8, 16, shape) for shape in ((53, 91), (130, 40), (64, 64))]
    model = items[0][3]
    sequences = [mirror(as_sequence(i[2]), False, k == 1) for k, i in enumerate(items)]
    with torch.inference_mode():
        together = model.output(*network_input(collate_sequences(sequences))).logits
        for row, sequence in enumerate(sequences):
            alone = model.output(*network_input(collate_sequences([sequence]))).logits[0]
            torch.testing.assert_close(together[row, : len(alone)], alone, atol=1e-5, rtol=1e-4)


def test_a_mirrored_sequence_stands_where_the_mirrored_image_does(rng: np.random.Generator) -> None:
    item = one(rng, 1, 8, 16, (64, 96))[2]
    sequence = mirror(as_sequence(item), False, True)
    _, forest = network_input(collate_sequences([sequence]))
    centre = forest.center_BLn[0] + forest.place_B4[0, :2]
    origin, size = item.forest.origin, item.forest.size
    wanted = {(r + s / 2, 96 - c - s / 2) for (r, c), s in zip(origin.tolist(), size.tolist())}
    assert {tuple(v) for v in centre.tolist()} == wanted


def test_the_network_refuses_what_it_cannot_read(rng: np.random.Generator) -> None:
    _, _, item, model = one(rng, 1, 8, 16, (64, 64))
    patches, forest = network_input(collate_sequences([as_sequence(item)]))
    with pytest.raises(ValueError, match=r"patches must be \(B, L, C, p, p\)"):
        model.output(PatchBatch(patches.patches_BLCpp[:, :, :1]), forest)
    stemmed = build_model(ModelConfig(name="shf", stem=(4,), width=16, depth=1, heads=2))
    with pytest.raises(ValueError, match="stem of this model reads an image"):
        stemmed.output(patches, forest)
    output = model.output(patches, forest)
    with pytest.raises(ValueError, match=r"label shares must be"):
        token_loss(output, torch.zeros(1, len(item.forest), 3, 16, 16))


def test_a_run_on_items_leaves_what_one_on_images_does(done: Path, folder: Path) -> None:
    names = {p.name for p in done.iterdir()}
    assert {"config.yaml", "split.json", "best", "last", "checkpoints", "metrics.csv", "done.json"} <= names
    bundle = load_model(done)
    assert (bundle.spec.model.channels, bundle.spec.model.stem, bundle.spec.window) == (3, (), 32)
    assert json.loads((done / "done.json").read_text())["best_dice"] >= 0
    split = json.loads((done / "split.json").read_text())
    assert split["prepared"] == read_manifest(folder).sha256
    validator = SequenceValidator(read_manifest(folder), read_manifest(folder).cases[:2])
    scores = validator(bundle.network)
    assert scores is not None
    assert scores.cases == 2
    assert SequenceValidator(read_manifest(folder), [], stop=lambda: True)(bundle.network) is None


def test_no_image_is_decoded(folder: Path, done: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*args: object, **options: object) -> None:
        raise AssertionError("an image was opened")

    for place in (
        "data.load.open_image",
        "train.inputs.open_image",
        "infer.predict.open_image",
        "data.load.read_label",
    ):
        monkeypatch.setattr(f"patchforest.{place}", forbidden)
    run = fit(token_config(num_workers=2), folder, tmp_path / "run", quiet=True)
    assert weights(run) == weights(done)


def test_a_stopped_run_resumes_to_the_same_weights(
    folder: Path, done: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from patchforest.train.recorder import StopRequest

    run = tmp_path / "run"
    monkeypatch.setattr(StopRequest, "__call__", lambda self: len(checkpoints(run / "checkpoints")) >= 2)
    with pytest.raises(Preempted):
        fit(token_config(), folder, run, quiet=True)
    monkeypatch.undo()
    fit(token_config(), folder, run, quiet=True)
    assert weights(run) == weights(done)


def test_it_learns_and_all_folds_are_those_of_the_images(data: Path, folder: Path, tmp_path: Path) -> None:
    run = fit(token_config(max_steps=80, lr=5e-3, checkpoint_steps=None), folder, tmp_path / "run", quiet=True)
    assert json.loads((run / "done.json").read_text())["best_dice"] > 0.6
    images = fit(config(max_steps=1), data, tmp_path / "images", quiet=True)
    splits = [json.loads((r / "split.json").read_text()) for r in (run, images)]
    assert all(splits[0][side] == splits[1][side] for side in ("train", "validation"))


def test_images_and_items_do_not_follow_one_another_in_a_run(data: Path, folder: Path, done: Path) -> None:
    with pytest.raises(InputError, match="prepared items → images"):
        fit(token_config(), data, done, quiet=True)
    with pytest.raises(InputError, match=r"train\.lr"):
        fit(token_config(lr=0.5), folder, done, quiet=True)


def test_bad_folders_are_refused_before_the_first_step(folder: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    items = sorted((copy / "items").iterdir())
    os.truncate(items[2], items[2].stat().st_size - 3)
    with pytest.raises(InputError, match=rf"{items[2].name}.*damaged.*prepare"):
        fit(token_config(), copy, tmp_path / "run", quiet=True)
    (copy / "prepared.json").unlink()
    with pytest.raises(InputError, match="is not finished"):
        fit(token_config(), copy, tmp_path / "run", quiet=True)
    raw = token_settings()
    raw["forest"] |= {"budget": 20}
    from patchforest.train.config import parse_config

    with pytest.raises(InputError, match=r"forest\.budget: 16 → 20"):
        fit(parse_config(raw), folder, tmp_path / "run", quiet=True)
    assert not (tmp_path / "run" / "config.yaml").exists()


def test_failed_cases_are_left_out_aloud(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = make_data(tmp_path / "data")
    write_mask(data / "masks" / "case1.png", np.full((56, 72), 9, np.uint8))
    folder = prepared(data, tmp_path / "out")
    run = fit(token_config(max_steps=2), folder, tmp_path / "run")
    told = capsys.readouterr().err
    assert "1 cases that could not be prepared are left out" in told
    split = json.loads((run / "split.json").read_text())
    assert "case1" in split["train"] + split["validation"]
    prepared_cases = read_manifest(folder).cases
    assert [c.case.id for c in prepared_cases if c.failed is not None] == ["case1"]
    assert replace(prepared_cases[0], failed="x").failed == "x"
