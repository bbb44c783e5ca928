"""Evaluation of classes: figures that can be recomputed from the files, and bad images listed."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from patchforest.data.layout import find_cases
from patchforest.data.targets import Targets, read_targets
from patchforest.errors import InputError
from patchforest.infer.classify import classify
from patchforest.train.class_metrics import class_scores
from patchforest.train.evaluate_classes import evaluate_classes
from tests.infer.test_classify import bundle
from tests.train.class_runs import make_images

NAMES = ("a", "b", "c")


def test_files_say_what_was_found(tmp_path: Path) -> None:
    data = make_images(tmp_path / "data", count=6)
    text = (data / "shapes.csv").read_text().replace("disc", "b").replace("bar", "c")
    (data / "shapes.csv").write_text(text)
    cases = find_cases(data, require_labels=False).cases
    cases[1].image.write_bytes(b"")
    targets = read_targets(data / "shapes.csv", "shape", cases, classes=NAMES)
    lines: list[str] = []
    result = evaluate_classes(bundle("vit"), cases, targets, tmp_path / "out", tell=lines.append)
    assert len(lines) == 6
    assert list(result.failed) == ["case01"]
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["failed"] == result.failed
    assert summary["num_cases"] == 5
    per_case = summary["metric_per_case"]
    probability = np.array([[c["probability"][n] for n in NAMES] for c in per_case])
    truth = np.array([NAMES.index(c["class"]) for c in per_case])
    wanted = class_scores(probability, truth)
    assert (summary["accuracy"], summary["auc"]) == (wanted.accuracy, wanted.auc)
    assert summary["confusion"] == [list(row) for row in wanted.confusion]
    assert [NAMES.index(c["told"]) for c in per_case] == list(probability.argmax(1))
    with open(tmp_path / "out" / "cases.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [r["case"] for r in rows] == [c["id"] for c in per_case]
    assert [int(r["right"]) for r in rows] == [int(c["told"] == c["class"]) for c in per_case]
    assert sum(float(rows[0][f"p_{n}"]) for n in NAMES) == pytest.approx(1, abs=1e-5)


def test_classes_must_be_the_models(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has the classes a, b, the model a, b, c"):
        evaluate_classes(bundle("vit"), [], Targets(("a", "b"), {}), tmp_path)
    with pytest.raises(TypeError, match="tree"):  # a misspelt setting is no silent one
        evaluate_classes(bundle("vit"), [], Targets(NAMES, {}), tmp_path, tree=2)  # type: ignore[call-arg]
    nothing = evaluate_classes(bundle("vit"), [], Targets(NAMES, {}), tmp_path)
    assert nothing.scores is None
    assert json.loads((tmp_path / "summary.json").read_text())["accuracy"] is None


def test_trees_flips_and_precision_are_those_of_the_answers(tmp_path: Path) -> None:
    data, model = make_images(tmp_path / "data", count=2), bundle()
    (data / "shapes.csv").write_text((data / "shapes.csv").read_text().replace("disc", "b").replace("bar", "c"))
    cases = find_cases(data, require_labels=False).cases
    targets = read_targets(data / "shapes.csv", "shape", cases, classes=NAMES)
    result = evaluate_classes(model, cases, targets, tmp_path / "out", trees=2, flips=True, precision="bf16")
    wanted = [classify(model, c.image, trees=2, flips=True, precision="bf16") for c in cases]
    assert [c.tokens for c in result.cases] == [w.tokens for w in wanted]
    np.testing.assert_array_equal([c.probability for c in result.cases], [w.probability for w in wanted])
    for less in ({"flips": True, "precision": "bf16"}, {"trees": 2, "precision": "bf16"}, {"trees": 2, "flips": True}):
        other = classify(model, cases[0].image, **less)  # type: ignore[arg-type]
        assert other.probability.tolist() != list(result.cases[0].probability)
