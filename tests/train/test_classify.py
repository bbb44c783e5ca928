"""Runs on images that have one class each: what they leave, that they learn and resume, and what they refuse."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from patchforest.data.augment import Augment
from patchforest.data.images import ImageSamples
from patchforest.data.layout import find_cases
from patchforest.data.samples import collate
from patchforest.data.sequences import collate_sequences
from patchforest.errors import InputError
from patchforest.io.write import write_image
from patchforest.models.build import build_model
from patchforest.models.bundle import load_model, load_spec
from patchforest.nn.raster import ForestBatch
from patchforest.train.checkpoint import checkpoints
from patchforest.train.class_metrics import class_scores
from patchforest.train.classify import (
    ClassificationTask,
    ClassValidator,
    classify_case,
    image_samples,
    leaf_samples,
    targets_of,
)
from patchforest.train.config import RunConfig, config_dict, load_config, parse_config
from patchforest.train.fit import fit, resolve
from tests.train.class_runs import class_config, class_settings, make_images
from tests.train.runs import make_data, settings, weights

_STILL = Augment(flip=0.0, turn=0.0, affine=0.0, colour=0.0, tone=0.0, noise=0.0, blur=0.0)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of twelve images in two classes."""
    return make_images(tmp_path_factory.mktemp("shapes") / "data")


@pytest.mark.parametrize("model", ["apf_vit", "vit", "hipt"])
def test_a_run_of_every_model(model: str, images: Path, tmp_path: Path) -> None:
    run = fit(class_config(model, ema=0.9), images, tmp_path / "run", quiet=True)
    spec = load_model(run).spec
    assert (spec.classes, spec.model.classes, spec.of_images, spec.outputs) == (("bar", "disc"), 2, True, 2)
    assert (spec.forest is None) == (model != "apf_vit")
    assert spec.model.window == ((56, 72) if model == "vit" else None)
    assert load_spec(run) == spec
    with open(run / "metrics.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    scored = [r for r in rows if r["accuracy"]]
    assert [int(r["step"]) for r in scored] == [6, 12]
    assert all(0 <= float(r[k]) <= 1 for r in scored for k in ("accuracy", "balanced_accuracy", "auc"))
    done = json.loads((run / "done.json").read_text())
    assert done["best_balanced_accuracy"] == max(float(r["balanced_accuracy"]) for r in scored)
    sides = json.loads((run / "split.json").read_text())
    patients = [{int(name[4:]) // 2 for name in sides[side]} for side in ("train", "validation")]
    assert not patients[0] & patients[1]


def test_stopped_it_ends_with_the_same_weights(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fit(class_config(), images, tmp_path / "whole", quiet=True)
    real = ClassificationTask.made_step

    def made_step(self: ClassificationTask) -> None:
        if self.budget.steps == 7:
            raise RuntimeError("power cut")
        real(self)

    monkeypatch.setattr(ClassificationTask, "made_step", made_step)
    with pytest.raises(RuntimeError, match="power cut"):
        fit(class_config(), images, tmp_path / "cut", quiet=True)
    assert checkpoints(tmp_path / "cut" / "checkpoints")
    monkeypatch.undo()
    fit(class_config(), images, tmp_path / "cut", quiet=True)
    assert weights(tmp_path / "cut") == weights(tmp_path / "whole")


def test_the_loss_is_the_cross_entropy_of_the_batch(images: Path) -> None:
    config, samples = prepared(images)
    torch.manual_seed(0)
    task = ClassificationTask(build_model(config.model), config.train, samples)
    batch = collate([samples[k] for k in range(4)])
    logits = task.network(batch.image, ForestBatch.stack(batch.forests, place=batch.place))
    wanted = -logits.log_softmax(1)[torch.arange(4), batch.label].mean()
    torch.testing.assert_close(task._loss(batch), wanted)
    torch.testing.assert_close(wanted, F.cross_entropy(logits, batch.label))


def prepared(images: Path) -> tuple[RunConfig, ImageSamples]:
    """Resolved settings and samples of the small data set."""
    config, cases = class_config(), find_cases(images, require_labels=False)
    targets = targets_of(config.data, cases)
    config = resolve(config, replace(cases, classes=targets.classes), 3)
    return config, image_samples(config, cases.cases, targets, samples_per_epoch=24)


def test_it_learns_and_is_scored_as_it_answers(images: Path, tmp_path: Path) -> None:
    run = fit(class_config(max_steps=90, lr=5e-3, checkpoint_steps=None), images, tmp_path / "run", quiet=True)
    bundle, config = load_model(run / "last"), load_config(run / "config.yaml")
    cases = find_cases(images, require_labels=False)
    targets = targets_of(config.data, cases)
    sides = json.loads((run / "split.json").read_text())
    chosen = [c for c in cases.cases if c.id in sides["validation"]]
    found = ClassValidator(chosen, bundle.spec, targets)(bundle.network)
    assert found is not None
    said = np.stack([classify_case(bundle, c).probability for c in chosen])
    assert found.scores == class_scores(said, np.array([targets.numbers[c.id] for c in chosen]))
    assert found.score > 0.7
    assert "balanced accuracy" in found.line
    assert ClassValidator(chosen, bundle.spec, targets, stop=lambda: True)(bundle.network) is None
    assert ClassValidator([], bundle.spec, targets)(bundle.network) is None
    assert len(ClassValidator(chosen, bundle.spec, targets, limit=2).cases) == 2


def test_what_does_not_fit_ends_in_one_line(images: Path, tmp_path: Path) -> None:
    def refuse(match: str, folder: Path = images, **sections: dict) -> None:
        raw = class_settings(max_steps=1)
        for name, values in sections.items():
            raw[name] = {**raw[name], **values}
        with pytest.raises(InputError, match=match) as caught:
            fit(parse_config(raw), folder, tmp_path / "run", quiet=True)
        assert "\n" not in str(caught.value)

    refuse("makes masks.*one of apf_vit, vit, hipt", model={"name": "shf"})
    refuse("not colour; name it by data.target", data={"target": "colour"})
    refuse("absent.csv: cannot be read", data={"targets": "absent.csv"})
    refuse("names the class bar; data.classes are disc, ring", data={"classes": ["disc", "ring"]})
    refuse("crop of patch", model={"name": "hipt", "crop": 20})
    more = make_images(tmp_path / "more")
    write_image(more / "images" / "stray.png", np.zeros((9, 9, 3), np.uint8))
    refuse("gives no patient_id for stray", more)
    (more / "shapes.csv").write_text((more / "shapes.csv").read_text().replace(",patient_id,", ",age,"))
    refuse("gives no shape for stray", more)
    write_image(more / "images" / "stray.png", np.zeros((9, 9, 1), np.uint8))
    (more / "shapes.csv").write_text((more / "shapes.csv").read_text() + "stray,7,bar\n")
    refuse(r"stray\.png: has 1 channels", more)
    raw = class_settings(max_steps=1)
    raw["volume"] = {"window": [8, 8, 8]}
    with pytest.raises(InputError, match=r"data\.targets is for images"):
        parse_config(raw)


def test_without_targets_a_model_of_classes_is_refused(tmp_path: Path) -> None:
    raw = settings(max_steps=1)
    raw["model"]["name"] = "apf_vit"
    with pytest.raises(InputError, match=r"makes no masks.*data\.targets"):
        fit(parse_config(raw), make_data(tmp_path / "data", count=3), tmp_path / "run", quiet=True)


def gathered(**train: Any) -> dict[str, Any]:
    """Settings of a run on leaves that are gathered once."""
    raw = class_settings(**train)
    raw["data"]["gather_once"], raw["forest"]["fresh"] = True, False
    return raw


def test_leaves_gathered_once_give_the_loss_of_the_image(images: Path) -> None:
    cases = find_cases(images, require_labels=False)
    config = parse_config(gathered())
    targets = targets_of(config.data, cases)
    config = replace(resolve(config, replace(cases, classes=targets.classes), 3), augment=_STILL)
    torch.manual_seed(0)
    network = build_model(config.model)
    whole, leaves = (make(config, cases.cases, targets, samples_per_epoch=12) for make in (image_samples, leaf_samples))
    by_image = ClassificationTask(network, config.train, whole)
    by_leaves = ClassificationTask(network, config.train, leaves)
    by_leaves.network = network
    for k in range(4):
        assert whole[k].id == leaves[k].id
        one, other = by_image._loss(collate([whole[k]])), by_leaves._loss(collate_sequences([leaves[k]]))
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


def test_a_run_on_leaves_gathered_once(images: Path, tmp_path: Path) -> None:
    raw = gathered(max_steps=120, lr=5e-3, checkpoint_steps=None)
    run = fit(parse_config(raw), images, tmp_path / "run", quiet=True)
    with open(run / "metrics.csv", newline="") as file:
        rows = [r for r in csv.DictReader(file) if r["accuracy"]]
    assert float(rows[-1]["accuracy"]) > 0.7
    for change, match in (
        ({"forest": {"fresh": True}}, r"fixed forests.*forest\.fresh=false"),
        ({"model": {"stem": [4]}}, r"read leaves alone.*model\.stem"),
        ({"model": {"name": "vit"}}, "read leaves alone"),
    ):
        other = gathered()
        for section, values in change.items():
            other[section] |= values
        with pytest.raises(InputError, match=match):
            fit(parse_config(other), images, tmp_path / "other", quiet=True)
    raw["augment"] = {"noise": 0.5}
    with pytest.warns(UserWarning, match=r"no effect.*augment\.noise"):
        fit(parse_config({**raw, "train": class_settings(max_steps=1)["train"]}), images, tmp_path / "idle", quiet=True)


def test_settings_come_back(images: Path) -> None:
    config = class_config()
    assert parse_config(config_dict(config)) == config
