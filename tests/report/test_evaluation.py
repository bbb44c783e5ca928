"""Evaluation end to end: files, tables, the cases shown, and the label map of the run."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from patchforest.errors import InputError
from patchforest.infer.options import PredictOptions
from patchforest.report.evaluation import CASE_HEADER, CLASS_HEADER, case_rows, class_rows, cost_line, evaluate_run
from patchforest.train.evaluate import CaseScore, Evaluation
from patchforest.train.metrics import ClassScore


def _score(dice: float, hd95: float | None = 3.0) -> ClassScore:
    return ClassScore(dice=dice, iou=dice / 2, boundary_f=dice / 4, hd95=hd95, empty=hd95 is None)


def _evaluation() -> Evaluation:
    confusion = np.zeros((3, 3), np.int64)
    cases = (
        CaseScore("one", (_score(1), _score(0.4), _score(0.8)), confusion, 0.9, 100, 1.0),
        CaseScore("two", (_score(1), _score(0.6), _score(1.0, None)), confusion, None, 300, 3.0),
    )
    return Evaluation(("background", "stone", "void"), cases, {"three": "three.png: is empty; copy it again"})


def test_means_by_class_leave_out_what_is_absent() -> None:
    assert class_rows(_evaluation()) == [
        ["stone", "0.5000", "0.2500", "0.1250", "3.0", "0"],
        ["void", "0.9000", "0.4500", "0.2250", "3.0", "1"],
        ["mean", "0.7000", "0.3500", "0.1750", "3.0", "1"],
    ]
    assert all(len(row) == len(CLASS_HEADER) for row in class_rows(_evaluation()))


def test_a_score_of_zero_counts() -> None:
    confusion = np.zeros((2, 2), np.int64)
    cases = tuple(CaseScore(n, (_score(1), _score(d)), confusion, 0.0, 0, 1.0) for n, d in (("a", 0.0), ("b", 0.5)))
    result = Evaluation(("background", "stone"), cases)
    assert class_rows(result)[0][1] == "0.2500"
    assert case_rows(result)[0][2] == "0.0000"


def test_cases_and_costs_in_words() -> None:
    rows = case_rows(_evaluation())
    assert rows[0] == ["one", "0.6000", "0.9000", "100", "1.00"]
    assert rows[1][2] == "–"
    assert rows[2][:2] == ["three", "failed: three.png: is empty; copy it again"]
    assert all(len(row) == len(CASE_HEADER) for row in rows)
    assert cost_line(_evaluation()) == (
        "mean Dice 0.7000 of at most 0.9000 (label ceiling); per image 200 tokens, 2.00 s"
    )


def test_a_run_is_scored_with_its_own_label_map(tiny_run: Path, pairs: Path, tmp_path: Path) -> None:
    for model in (tiny_run, tiny_run / "best"):
        result = evaluate_run(model, pairs, tmp_path / model.name)
        assert [case.id for case in result.cases] == list("abcd")
        assert not result.failed
        assert json.loads((tmp_path / model.name / "summary.json").read_text())["num_cases"] == 4
    page = (tmp_path / "best" / "report.html").read_text(encoding="utf-8")
    assert page.count("data:image/") == 15  # best, median and worst


def test_a_list_a_window_and_no_report(tiny_run: Path, pairs: Path, tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("c\na\n")
    told: list[str] = []
    result = evaluate_run(
        tiny_run,
        pairs,
        tmp_path / "out",
        split=tmp_path / "list.txt",
        report=False,
        tell=told.append,
        options=PredictOptions(window=32),
    )
    assert [case.id for case in result.cases] == ["c", "a"]
    learned = len({"c", "a"} & set(json.loads((tiny_run / "split.json").read_text())["train"]))
    assert len(told) == 2 + (learned > 0)
    assert not learned or told[0].startswith(f"{learned} of these 2 cases were in training")
    assert not (tmp_path / "out" / "report.html").exists()
    (tmp_path / "list.txt").write_text("c\nnope\n")
    with pytest.raises(InputError, match="nope"):
        evaluate_run(tiny_run, pairs, tmp_path / "out", split=tmp_path / "list.txt")


@pytest.mark.parametrize("part", ["validation", "train"])
def test_a_part_of_the_run_by_its_name(tiny_run: Path, pairs: Path, tmp_path: Path, part: str) -> None:
    told: list[str] = []
    result = evaluate_run(
        tiny_run,
        pairs,
        tmp_path / "out",
        split=Path(part),
        report=False,
        tell=told.append,
        options=PredictOptions(window=32),
    )
    assert [case.id for case in result.cases] == json.loads((tiny_run / "split.json").read_text())[part]
    assert any("were in training" in line for line in told) == (part == "train")
    bare = shutil.copytree(tiny_run / "best", tmp_path / "model")
    with pytest.raises(InputError, match=part):
        evaluate_run(bare, pairs, tmp_path / "out", split=Path(part))


def test_broken_cases_are_listed_and_the_rest_scored(tiny_run: Path, pairs: Path, tmp_path: Path) -> None:
    data = shutil.copytree(pairs, tmp_path / "data")
    (data / "masks" / "b.png").write_bytes(b"")
    result = evaluate_run(tiny_run, data, tmp_path / "out")
    assert [case.id for case in result.cases] == ["a", "c", "d"]
    assert "b.png" in result.failed["b"]
    assert "failed: " in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")


def test_a_bare_model_needs_a_label_map_for_0_255(tiny_run: Path, pairs: Path, tmp_path: Path) -> None:
    model = shutil.copytree(tiny_run / "best", tmp_path / "model")
    assert len(evaluate_run(model, pairs, tmp_path / "x", report=False).failed) == 4
    assert not evaluate_run(model, pairs, tmp_path / "y", report=False, label_map={255: 1}).failed
