"""A scorer learns the errors of painted leaves, is judged by its forests, and cuts those of another run."""

from __future__ import annotations

import csv
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from patchforest.data.layout import find_cases
from patchforest.errors import InputError
from patchforest.infer.predict import predict
from patchforest.infer.scorer import LeafScorer, load_scorer
from patchforest.models.bundle import fingerprint, load_model, save_model
from patchforest.models.scorer import BLOCKS, WrongShares
from patchforest.train.config import parse_config
from patchforest.train.fit import Preempted, fit
from patchforest.train.scorer import CeilingValidator, judge, scorer_loss, wrong_shares
from patchforest.train.task import SegmentationTask
from patchforest.tree.ceiling import label_ceiling
from patchforest.tree.cut import cut_forest
from tests.infer.test_scorer import scorer_bundle
from tests.train.runs import settings, weights


def raw(**train: Any) -> dict[str, Any]:
    """A scorer's run on ``decoys``."""
    out = settings(**train)
    out["data"] = {"window": 64, "folds": 3}
    out["model"] = {"name": "scorer", "stem": [4, 8, 8], "downscale": 2, "q": 4}
    out["forest"] = {"budget": 7, "cell": 4, "criterion": "gradient"}
    return out


@pytest.fixture(scope="module")
def decoys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six images of faint labelled discs among bright squares that are not."""
    rng, folder = np.random.default_rng(0), tmp_path_factory.mktemp("decoys")
    for name in ("images", "masks"):
        (folder / name).mkdir()
    for number in range(6):
        image, mask = rng.normal(90, 4, (128, 128, 3)), np.zeros((128, 128), np.uint8)
        for _ in range(3):
            row, column = rng.integers(16, 112, 2)
            mask[np.hypot(*(np.indices(mask.shape) - [[[row]], [[column]]])) < rng.integers(6, 12)] = 1
            row, column = rng.integers(0, 112, 2)
            image[row : row + 16, column : column + 16] += 60
        image[..., 0] += 25 * mask
        cv2.imwrite(str(folder / "images" / f"case{number}.png"), image.clip(0, 255).astype(np.uint8))
        cv2.imwrite(str(folder / "masks" / f"case{number}.png"), mask)
    return folder


@pytest.fixture(scope="module")
def trained(decoys: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    before = torch.get_num_threads()
    settings = parse_config(raw(max_steps=80, batch=4))
    run = fit(settings, decoys, tmp_path_factory.mktemp("scorers") / "scorer", quiet=True)
    torch.set_num_threads(before)
    return run


@pytest.mark.parametrize(("shape", "classes"), [((64, 128), 2), ((50, 75), 3)])
@pytest.mark.parametrize("stride", [8, 16])
def test_shares_are_those_of_painted_blocks(shape: tuple[int, int], classes: int, stride: int) -> None:
    rng = np.random.default_rng(stride)
    label = np.repeat(np.repeat(rng.integers(0, classes, (16, 32)), 4, 0), 4, 1)[: shape[0], : shape[1]]
    label[rng.random(shape) < 0.2] = 0
    label[rng.random(shape) < 0.1] = -1
    shares, known = wrong_shares(torch.from_numpy(label)[None], classes, stride)
    grid = tuple(-(-s // stride) for s in shape)
    assert shares.shape == (1, len(BLOCKS), *grid)
    for number, block in enumerate(BLOCKS):
        wrong = np.zeros(shape)
        for row in range(0, shape[0], block):
            for column in range(0, shape[1], block):
                here = slice(row, row + block), slice(column, column + block)
                held = [(label[here] == k).sum() for k in range(classes)]
                wrong[here] = (label[here] != int(np.argmax(held))) & (label[here] >= 0)
        for row, column in np.ndindex(grid):
            here = slice(row * stride, (row + 1) * stride), slice(column * stride, (column + 1) * stride)
            count = (label[here] >= 0).sum()
            assert float(known[0, 0, row, column]) == pytest.approx(count / stride**2)
            assert float(shares[0, number, row, column]) == pytest.approx(wrong[here].sum() / max(count, 1), abs=1e-6)


def test_the_loss_is_least_at_the_mean_share() -> None:
    labels = torch.zeros(2, 64, 64, dtype=torch.int64)
    labels[0, :9, :13] = 1
    mean = wrong_shares(labels, 2, 8)[0].mean(0, keepdim=True).clamp(1e-6, 1 - 1e-6)
    logits = torch.logit(mean).requires_grad_()
    both = WrongShares(logits.expand(2, -1, -1, -1), 8)
    scorer_loss(both, labels, 2).backward()
    assert logits.grad is not None
    assert float(logits.grad.abs().max()) < 1e-6


def test_unknown_pixels_teach_nothing() -> None:
    labels = torch.randint(0, 2, (1, 64, 64))
    labels[:, :, 32:] = -1
    logits = torch.full((1, len(BLOCKS), 8, 8), 3.0, requires_grad=True)
    scorer_loss(WrongShares(logits, 8), labels, 2).backward()
    assert logits.grad is not None
    assert logits.grad[..., :4].abs().min() > 0
    assert not logits.grad[..., 4:].any()
    assert float(scorer_loss(WrongShares(logits.detach(), 8), torch.full_like(labels, -1), 2)) == 0


def test_a_run_learns_to_look_where_the_label_is(trained: Path, decoys: Path) -> None:
    with open(trained / "metrics.csv", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["ceiling"]]
    assert len(rows) == 2
    assert float(rows[-1]["ceiling"]) > 0.5
    spec = load_model(trained).spec
    assert spec.forest is not None
    assert spec.forest.criterion == "gradient"
    validator = CeilingValidator(find_cases(decoys).cases, spec, None)
    found = validator(load_model(trained).network)
    assert found is not None
    assert found.cases == 6
    assert found.ceiling > found.edges + 0.02
    judged = judge(load_model(trained), find_cases(decoys).cases[0])
    assert judged.ceiling == label_ceiling(judged.label, judged.forest, 4, num_classes=2)


def test_it_cuts_the_forests_of_another_run(trained: Path, data: Path, tmp_path: Path) -> None:
    model = settings(max_steps=4)
    model["forest"] |= {"criterion": "scorer", "scorer": str(trained)}
    for number, workers in enumerate((0, 2)):
        model["train"]["num_workers"] = workers
        fit(parse_config(model), data, tmp_path / str(number), quiet=True)
    same = [(tmp_path / n / "last" / "model.safetensors").read_bytes() for n in "01"]
    assert same[0] == same[1]
    bundle = load_model(tmp_path / "0")
    image = np.random.default_rng(0).integers(0, 256, (56, 72, 3)).astype(np.uint8)
    said = predict(bundle, image, window="whole")
    assert bundle.spec.forest is not None
    scorer = LeafScorer(load_scorer(trained), 16)
    wanted = cut_forest(image.astype(np.float32) / 255, bundle.spec.forest, criterion=scorer)
    assert said.forest is not None
    assert np.array_equal(said.forest.origin, wanted.origin)


@pytest.mark.parametrize("becomes", ["absent", "another"])
def test_a_resumed_run_goes_on_by_its_own_copy(
    becomes: str, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, place = scorer_bundle(), tmp_path / "scorer"
    save_model(place, first.network, first.spec)
    raw = settings(max_steps=6)
    raw["forest"] |= {"criterion": "scorer", "scorer": str(place)}
    fit(parse_config(raw), data, tmp_path / "whole", quiet=True)
    made_step = SegmentationTask.made_step

    def interrupted(task: SegmentationTask) -> None:
        made_step(task)
        if task.budget.steps == 1:  # before the first validation
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(SegmentationTask, "made_step", interrupted)
    with pytest.raises(Preempted):
        fit(parse_config(raw), data, tmp_path / "run", quiet=True)
    monkeypatch.undo()
    assert not (tmp_path / "run" / "last").exists()
    shutil.rmtree(place)
    if becomes == "another":
        other = scorer_bundle(seed=1)
        save_model(place, other.network, other.spec)
    fit(parse_config(raw), data, tmp_path / "run", quiet=True)
    assert weights(tmp_path / "run") == weights(tmp_path / "whole")
    assert fingerprint(load_model(tmp_path / "run" / "last")) == fingerprint(load_model(tmp_path / "whole" / "last"))


def test_what_cannot_be_is_said(trained: Path, data: Path, tmp_path: Path) -> None:
    def refused(change: dict[str, dict[str, Any]], match: str, base: dict[str, Any] | None = None) -> None:
        tried = base or raw(max_steps=1)
        for section, values in change.items():
            tried[section] = {**tried.get(section, {}), **values} if values else None
        with pytest.raises(InputError, match=match):
            fit(parse_config(tried), data, tmp_path / "run", quiet=True)

    by_scorer = {"criterion": "scorer", "scorer": str(trained)}
    refused({"forest": {}}, "judged by the forests")
    refused({"forest": by_scorer}, "reads no forest of another one")
    refused({"forest": {"criterion": "scorer"}}, "set both or neither")
    refused({"forest": {"scorer": str(trained)}}, "set both or neither")
    masks = settings(max_steps=1)
    refused({"forest": by_scorer, "data": {"downscale": 2}}, r"trained at downscale 1", masks)
    refused({"forest": {"criterion": "scorer", "scorer": str(tmp_path / "no")}}, "no such folder", settings())
