"""Evaluation: figures that can be recomputed, bad cases listed, files that other tools read."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from patchforest.data.layout import find_cases
from patchforest.data.load import load_case
from patchforest.infer.predict import Prediction, predict
from patchforest.train import metrics
from patchforest.train.evaluate import evaluate
from tests.infer.fakes import Bright, fake


def test_scores_files_and_means(data: Path, tmp_path: Path) -> None:
    lines: list[str] = []
    cases, bundle = find_cases(data).cases, fake(Bright())
    result = evaluate(bundle, cases, tmp_path, tell=lines.append)
    assert len(lines) == len(result.cases) == 6
    expected = []
    for case, score in zip(cases, result.cases):
        picture = load_case(case, num_classes=2)
        mask = predict(bundle, picture.image).mask
        assert score.classes == metrics.score_case(mask, picture.label, 2)
        assert score.ceiling == 1.0
        expected.append(score.classes[1].dice)
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["mean"]["1"]["Dice"] == pytest.approx(np.mean(expected))
    assert summary["foreground_mean"]["Dice"] == pytest.approx(result.dice)
    assert list(summary["mean"]) == ["1"]
    first = summary["metric_per_case"][0]
    assert Path(first["reference_file"]).name == "case0.png"
    counts = first["metrics"]["1"]
    assert counts["TP"] + counts["FP"] == counts["n_pred"]
    assert counts["TP"] + counts["FN"] == counts["n_ref"]
    assert counts["TP"] + counts["FP"] + counts["FN"] + counts["TN"] == 56 * 72
    assert counts["Dice"] == pytest.approx(2 * counts["TP"] / (counts["n_pred"] + counts["n_ref"]))
    pooled = [m["metrics"]["1"] for m in summary["metric_per_case"]]
    sums = {k: sum(p[k] for p in pooled) for k in ("TP", "n_pred", "n_ref")}
    assert summary["mean"]["1"]["Dice_pooled"] == pytest.approx(2 * sums["TP"] / (sums["n_pred"] + sums["n_ref"]))
    with open(tmp_path / "cases.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [r["case"] for r in rows] == [c.id for c in cases]
    assert [float(r["dice"]) for r in rows] == pytest.approx(expected, abs=1e-6)


def test_bad_cases_are_listed_and_the_rest_goes_on(data: Path, tmp_path: Path) -> None:
    broken = tmp_path / "data"
    shutil.copytree(data, broken)
    (broken / "images" / "case1.png").write_bytes(b"")
    cv2.imwrite(str(broken / "masks" / "case2.png"), np.zeros((5, 5), np.uint8))
    cv2.imwrite(str(broken / "masks" / "case3.png"), np.full((56, 72), 7, np.uint8))
    result = evaluate(fake(Bright()), find_cases(broken).cases, tmp_path / "out")
    assert [c.id for c in result.cases] == ["case0", "case4", "case5"]
    assert sorted(result.failed) == ["case1", "case2", "case3"]
    assert all(name in text and "\n" not in text for name, text in result.failed.items())
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["failed"] == result.failed
    assert summary["num_cases"] == 3
    healed = evaluate(fake(Bright()), find_cases(broken).cases[3:4], tmp_path / "out", label_map={7: 1, 0: 0})
    assert healed.failed == {}


def test_absent_classes_are_told_apart(data: Path, tmp_path: Path) -> None:
    result = evaluate(fake(Bright(), classes=3), find_cases(data).cases[:2], tmp_path)
    summary = json.loads((tmp_path / "summary.json").read_text())
    absent = summary["mean"]["2"]
    assert (absent["Dice"], absent["empty"], absent["Dice_present"], absent["HD95"]) == (1.0, 2, None, None)
    assert result.cases[0].classes[2].empty


def test_a_trained_run_with_options(finished: Path, data: Path, tmp_path: Path) -> None:
    result = evaluate(finished, find_cases(data).cases[:2], tmp_path, trees=2, window=32)
    assert all(c.tokens > 2 * 16 for c in result.cases)
    assert all(c.ceiling is not None and c.ceiling >= c.dice - 0.02 for c in result.cases)


def test_every_option_reaches_the_prediction(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen, asked = [], {"trees": 2, "flips": True, "window": 40, "precision": "bf16", "tissue": False}

    def recorded(*given: Any, **options: Any) -> Prediction:
        seen.append(options)
        return predict(*given, **options)

    monkeypatch.setattr("patchforest.train.scoring.predict", recorded)
    evaluate(fake(Bright()), find_cases(data).cases[:1], tmp_path, **asked)  # type: ignore[arg-type]
    assert seen == [asked]


def test_a_misspelt_option_is_an_error_before_any_case(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="tree"):
        evaluate(fake(Bright()), [], tmp_path, tree=2)  # type: ignore[call-arg]


def test_nothing_scored_is_no_crash(tmp_path: Path) -> None:
    result = evaluate(fake(Bright()), [], tmp_path)
    assert result.dice is None
    assert json.loads((tmp_path / "summary.json").read_text())["foreground_mean"]["Dice"] is None
