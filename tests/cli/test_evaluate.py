"""``evaluate``: the table, the files, the label map on the command line, exit codes."""

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Run
from tests.cli.test_bad_inputs import make_pairs


def test_scores_are_printed_and_written(run: Run, tiny_model: Path, tmp_path: Path) -> None:
    data = make_pairs(tmp_path / "my data")
    (tmp_path / "list.txt").write_text("case 1\ncase 3\n")
    ended = run("evaluate", tiny_model, "--data", data, "--split", tmp_path / "list.txt", "--out", tmp_path / "out")
    assert ended.code == 0, ended.err
    for word in ("Means over 2 cases", "gland", "boundary F", "HD95", "label ceiling", "tokens"):
        assert word in ended.out
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["num_cases"] == 2
    assert f"{summary['foreground_mean']['Dice']:.4f}" in ended.out
    assert (tmp_path / "out" / "cases.csv").read_text().count("\n") == 3
    assert (tmp_path / "out" / "report.html").is_file()


def test_a_broken_case_is_reported_and_all_broken_is_bad_input(run: Run, tiny_model: Path, tmp_path: Path) -> None:
    data = make_pairs(tmp_path / "data")
    (data / "masks" / "case 0.png").write_bytes(b"")
    command = ["evaluate", tiny_model, "--data", data, "--out", tmp_path / "out", "--no-report"]
    ended = run(*command)
    assert ended.code == 4
    assert len(ended.errors) == 1
    assert "case 0.png" in ended.errors[0]
    for path in (data / "masks").iterdir():
        path.write_bytes(b"")
    ended = run(*command)
    assert ended.code == 3
    assert len(ended.errors) == 4


@pytest.mark.parametrize("pair", ["255", "a=1", "255=x", "=1", "-3=1"])
def test_label_maps_are_checked(run: Run, tiny_model: Path, tmp_path: Path, pair: str) -> None:
    ended = run("evaluate", tiny_model, "--data", tmp_path, "--out", tmp_path / "out", f"--label-map={pair}")
    assert ended.code == 2
    assert "255=1" in ended.errors[0]


def test_a_label_map_is_used(run: Run, tiny_model: Path, tmp_path: Path) -> None:
    data = make_pairs(tmp_path / "data")
    command = ["evaluate", tiny_model, "--data", data, "--out", tmp_path / "out", "--no-report"]
    assert run(*command, "--label-map", "0=0", "--label-map", "other=1").code == 0
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["metric_per_case"][0]["metrics"]["1"]["n_ref"] == 25 * 32


def test_missing_data_lists_and_layouts(run: Run, tiny_model: Path, tmp_path: Path) -> None:
    data = make_pairs(tmp_path / "data")
    command = ["evaluate", tiny_model, "--out", tmp_path / "out"]
    assert run(*command, "--data", tmp_path / "nope").code == 3
    assert run(*command, "--data", data, "--split", tmp_path / "nope.txt").code == 3
    assert run(*command, "--data", data, "--layout", "drawer").code == 2
