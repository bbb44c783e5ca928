"""Evaluation of classes end to end: the scores, the report and the table of classes that counts."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from patchforest.data.layout import find_cases
from patchforest.data.targets import read_targets
from patchforest.errors import InputError
from patchforest.models.bundle import save_model
from patchforest.report.class_evaluation import (
    CASE_HEADER,
    CLASS_HEADER,
    class_rows,
    class_sections,
    evaluate_class_run,
    score_line,
)
from patchforest.train.evaluate_classes import ClassCase, ClassEvaluation, evaluate_classes
from tests.infer.test_classify import bundle
from tests.train.class_runs import make_images

NAMES = ("a", "b", "c")


def told(*cases: tuple[int, tuple[float, ...]], failed: dict[str, str] | None = None) -> ClassEvaluation:
    """Of images with these true classes and probabilities, 1,000 tokens more and half a second longer every time."""
    every = [ClassCase(f"i{k}", truth, p, 1000 * (k + 1), 0.5 * (k + 1)) for k, (truth, p) in enumerate(cases)]
    return ClassEvaluation(NAMES, tuple(every), failed or {})


THREE = told((0, (0.7, 0.2, 0.1)), (0, (0.1, 0.6, 0.3)), (1, (0.2, 0.5, 0.3)), failed={"i9": "i9.png: is empty"})


def test_rows_of_classes_by_hand() -> None:
    assert class_rows(THREE) == [["a", "2", "1", "0.5000"], ["b", "1", "1", "1.0000"], ["c", "0", "0", "–"]]
    assert all(len(row) == len(CLASS_HEADER) for row in class_rows(THREE))
    assert class_rows(told()) == []


def test_the_line_of_scores_by_hand() -> None:
    # AUC: of a and of b against the rest 1 of 2 pairs is in order; c is absent
    assert score_line(THREE) == ("accuracy 0.6667, balanced 0.7500, AUC 0.5000; per image 2,000 tokens, 1.00 s")
    assert "AUC undefined" in score_line(told((0, (0.7, 0.2, 0.1))))
    assert score_line(told()) == "no image was scored"


def test_tables_of_the_report_by_hand() -> None:
    matrix, images = (section.table for section in class_sections(THREE))
    assert matrix is not None
    assert images is not None
    assert matrix.header == ["", *NAMES]
    assert matrix.rows == [["a", "1", "1", "0"], ["b", "0", "1", "0"], ["c", "0", "0", "0"]]
    assert images.rows == [
        ["i0", "a", "a", "0.700", "1,000", "0.50"],
        ["i1", "a", "b", "0.600", "2,000", "1.00"],
        ["i2", "b", "b", "0.500", "3,000", "1.50"],
        ["i9", "failed: i9.png: is empty", "", "", "", ""],
    ]
    assert all(len(row) == len(CASE_HEADER) for row in images.rows)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Folder with data/ (four images; kinds.csv has their kinds b and c) and model/, which says of no table."""
    data = make_images(tmp_path / "data", count=4)
    table = (data / "shapes.csv").read_text().replace("disc", "b").replace("bar", "c").replace("shape", "kind")
    (data / "kinds.csv").write_text(table)
    model = bundle()
    save_model(tmp_path / "model", model.network, model.spec)
    return tmp_path


def test_a_run_is_scored_as_its_images_are(place: Path) -> None:
    asked = {"trees": 2, "flips": True, "precision": "bf16"}
    result = evaluate_class_run(
        place / "model",
        place / "data",
        place / "out",
        targets="kinds.csv",
        target="kind",
        **asked,  # type: ignore[arg-type]
    )
    cases = find_cases(place / "data", require_labels=False).cases
    targets = read_targets(place / "data" / "kinds.csv", "kind", cases, classes=NAMES)
    wanted = evaluate_classes(bundle(), cases, targets, place / "wanted", **asked)  # type: ignore[arg-type]
    assert [(c.id, c.truth, c.probability) for c in result.cases] == [
        (c.id, c.truth, c.probability) for c in wanted.cases
    ]
    assert json.loads((place / "out" / "summary.json").read_text())["accuracy"] == wanted.scores.accuracy  # type: ignore[union-attr]
    with open(place / "out" / "cases.csv", newline="") as file:
        assert [row["case"] for row in csv.DictReader(file)] == [c.id for c in cases]
    page = (place / "out" / "report.html").read_text(encoding="utf-8")
    assert all(words in page for words in ("model on data", "Told class by true class", score_line(result)))


def test_a_list_and_no_report(place: Path) -> None:
    (place / "list.txt").write_text("case03\ncase00\n")
    result = evaluate_class_run(
        place / "model", place / "data", place / "out", split=place / "list.txt", targets="kinds.csv", target="kind",
        report=False,
    )  # fmt: skip
    assert [c.id for c in result.cases] == ["case03", "case00"]
    assert not (place / "out" / "report.html").exists()


def test_what_is_refused(place: Path) -> None:
    with pytest.raises(InputError, match=r"does not say where the classes of the images stand.*--targets and --target"):
        evaluate_class_run(place / "model", place / "data", place / "out")
    with pytest.raises(InputError, match="not colour"):
        evaluate_class_run(place / "model", place / "data", place / "out", targets="kinds.csv", target="colour")
