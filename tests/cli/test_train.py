"""``train``: a run folder with a report, resuming by the same command, settings printed without data."""

from pathlib import Path

import pytest
import yaml

from tests.cli.conftest import Run
from tests.cli.test_bad_inputs import make_pairs, train_tiny


def test_a_run_is_trained_reported_and_left_alone_when_finished(run: Run, tmp_path: Path) -> None:
    data, out = make_pairs(tmp_path / "my data"), tmp_path / "my run"
    ended = train_tiny(run, data, out)
    assert ended.code == 0, ended.err
    assert not ended.errors
    for name in ("config.yaml", "metrics.csv", "best/model.safetensors", "last/config.json"):
        assert (out / name).is_file(), name
    page = (out / "report.html").read_text(encoding="utf-8")
    assert page.count("data:image/") >= 10  # two validation cases of five pictures
    assert "<svg" in page
    assert "model.width" in page
    before = (out / "best" / "model.safetensors").read_bytes()
    again = train_tiny(run, data, out)
    assert again.code == 0, again.err
    assert (out / "best" / "model.safetensors").read_bytes() == before
    refused = train_tiny(run, data, out, "--no-resume")
    assert refused.code == 3
    assert "my run" in refused.errors[0]


def test_settings_are_printed_resolved_without_data(run: Run, tmp_path: Path) -> None:
    recipe = tmp_path / "r.yaml"
    recipe.write_text("forest: {budget: 64}\ntrain: {max_steps: 5}\n")
    ended = run("train", "--recipe", recipe, "--set", "train.lr=2e-3", "--set", "forest.uniform=16", "--print-config")
    assert ended.code == 0, ended.err
    printed = yaml.safe_load(ended.out)
    assert printed["train"]["lr"] == 2e-3
    assert printed["forest"]["uniform"] == 16
    assert printed["forest"]["budget"] is None
    recipe.write_text(ended.out)  # what is printed is itself a recipe
    assert run("train", "--recipe", recipe, "--print-config").out == ended.out


@pytest.mark.parametrize(("given", "missing"), [("--data", "--out"), ("--out", "--data")])
def test_data_and_out_are_needed(run: Run, tmp_path: Path, given: str, missing: str) -> None:
    ended = run("train", given, tmp_path, "--set", "train.max_steps=1")
    assert ended.code == 2
    assert missing in ended.errors[0]
