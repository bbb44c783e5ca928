"""Classes of images by the commands: train, evaluate and predict, and what they say of options without effect."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import yaml

from tests.cli.conftest import Run
from tests.train.class_runs import class_settings, make_images


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with data/ and recipe.yaml."""
    folder = tmp_path_factory.mktemp("classes")
    make_images(folder / "data")
    (folder / "recipe.yaml").write_text(yaml.safe_dump(class_settings(max_steps=4, checkpoint_steps=None)))
    return folder


def test_from_a_table_to_probabilities(run: Run, place: Path) -> None:
    data, out = place / "data", place / "run"
    ended = run("train", "--recipe", place / "recipe.yaml", "--data", data, "--out", out)
    assert ended.code == 0, ended.err
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "Told class by true class" in page
    assert "<svg" in page
    assert "Validation AUC" in page

    scored = run("evaluate", out, "--data", data, "--split", "validation", "--out", place / "scores")
    assert scored.code == 0, scored.err
    assert "accuracy" in scored.out
    summary = json.loads((place / "scores" / "summary.json").read_text())
    assert summary["num_cases"] == len(json.loads((out / "split.json").read_text())["validation"])
    assert (place / "scores" / "report.html").is_file()
    other = place / "other.csv"
    other.write_text((data / "shapes.csv").read_text().replace("shape", "kind"))
    named = run(
        "evaluate", out / "best", "--data", data, "--out", place / "all", "--targets", other, "--target", "kind",
        "--window", "64", "--no-report",
    )  # fmt: skip
    assert named.code == 0, named.err
    assert "no effect" in named.err
    assert "were in training" in named.out + named.err
    refused = run("evaluate", out, "--data", data, "--out", place / "all", "--target", "colour")
    assert refused.code == 3
    assert "not colour" in refused.errors[0]

    told = run("predict", out, data / "images", "--out", place / "told", "--trees", 2, "--format", "png")
    assert told.code == 0, told.err
    assert "no effect" in told.err
    with open(place / "told" / "classes.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 12
    assert {r["class"] for r in rows} <= {"bar", "disc"}
    (data / "images" / "bad.png").write_bytes(b"")
    assert run("predict", out, data / "images", "--out", place / "told").code == 4
    (data / "images" / "bad.png").unlink()


def test_a_bare_model_needs_to_be_told_where_the_classes_stand(run: Run, place: Path, tmp_path: Path) -> None:
    from patchforest.models.bundle import save_model
    from tests.infer.test_classify import bundle

    model = bundle("vit")
    save_model(tmp_path / "model", model.network, model.spec)
    ended = run("evaluate", tmp_path / "model", "--data", place / "data", "--out", tmp_path / "out")
    assert ended.code == 3
    assert "--targets and --target" in ended.errors[0]
