"""The report of a run: curves, settings, and validation cases only."""

import json
import shutil
from pathlib import Path

import pytest

from patchforest.errors import InputError
from patchforest.report.run_report import report_run


def test_a_run_is_reported_with_its_validation_cases(tiny_run: Path, pairs: Path) -> None:
    page = report_run(tiny_run, pairs, num_cases=1).read_text(encoding="utf-8")
    validation = json.loads((tiny_run / "split.json").read_text())["validation"]
    shown = [name for name in "abcd" if f"<h2>{name}</h2>" in page]
    assert shown == validation[:1]
    assert page.count("data:image/") == 5  # image, truth, forest, prediction, errors
    assert page.count("<svg") == 3
    assert "train.max_steps" in page


def test_other_data_than_the_run_was_trained_on_is_refused(tiny_run: Path, pairs: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    for part in ("images", "masks"):
        (other / part).mkdir(parents=True)
        shutil.copy(pairs / part / "a.png", other / part / "z.png")
    with pytest.raises(InputError, match="lacks validation case"):
        report_run(tiny_run, other)


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path, pairs: Path) -> None:
    with pytest.raises(InputError, match=r"config\.yaml"):
        report_run(tmp_path, pairs)


def test_a_broken_split_is_refused(tiny_run: Path, pairs: Path, tmp_path: Path) -> None:
    run = shutil.copytree(tiny_run, tmp_path / "run")
    (run / "split.json").write_text("[]")
    with pytest.raises(InputError, match=r"split\.json"):
        report_run(run, pairs)
