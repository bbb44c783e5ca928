"""``components``: the table, the files, the options, exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.cli.conftest import Run


def write_mask(path: Path, mask: list[list[int]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.array(mask, np.uint8)).save(path)
    return path


MASK = [[1, 1, 0, 2], [0, 0, 1, 2], [1, 1, 0, 0]]


def test_components_are_counted_listed_and_drawn(run: Run, tmp_path: Path) -> None:
    mask, out = write_mask(tmp_path / "a b.png", MASK), tmp_path / "out"
    ended = run("components", mask, "--out", out, "--labels", "--class", "1=stone", "--mpp", 0.5)
    assert ended.code == 0, ended.err
    for word in ("stone", "components", "median", "D90", "um", "1 mask measured"):
        assert word in ended.out
    assert sorted(p.name for p in out.iterdir()) == ["components.csv", "labels.tif", "sizes.png", "summary.json"]
    assert (out / "components.csv").read_text().count("\n") == 4
    assert np.asarray(Image.open(out / "labels.tif")).tolist() == [[1, 1, 0, 0], [0, 0, 2, 0], [3, 3, 0, 0]]
    (stone,) = json.loads((out / "summary.json").read_text())["total"]["classes"]
    assert (stone["name"], stone["count"], stone["area"]) == ("stone", 3, {"unit": "um2", "total": 1.25})


def test_connectivity_and_the_least_size(run: Run, tmp_path: Path) -> None:
    mask = write_mask(tmp_path / "a.png", MASK)
    for options, count, dropped in (([], 4, 0), (["--connectivity", 8], 2, 0), (["--min-size", 2], 3, 1)):
        ended = run("components", mask, "--out", tmp_path / "out", *options)
        assert ended.code == 0, ended.err
        classes = json.loads((tmp_path / "out" / "summary.json").read_text())["total"]["classes"]
        assert sum(c["count"] for c in classes) == count
        assert sum(c["dropped_as_too_small"] for c in classes) == dropped


def test_one_bad_mask_does_not_stop_the_rest(run: Run, tmp_path: Path) -> None:
    write_mask(tmp_path / "in" / "good.png", MASK)
    (tmp_path / "in" / "bad.png").write_text("<html>not found</html>")
    ended = run("components", tmp_path / "in", "--out", tmp_path / "out")
    assert ended.code == 4
    assert len(ended.errors) == 1
    assert "bad.png" in ended.errors[0]
    assert (tmp_path / "out" / "good" / "components.csv").is_file()
    assert "1 mask measured" in ended.out
    only_bad = run("components", tmp_path / "in" / "bad.png", "--out", tmp_path / "out2")
    assert only_bad.code == 3
    assert len(only_bad.errors) == 1


def test_volumes_and_options_without_effect(run: Run, tmp_path: Path) -> None:
    np.save(tmp_path / "v.npy", np.array([MASK] * 3, np.uint8).repeat(2, axis=2))
    ended = run("components", tmp_path / "v.npy", "--out", tmp_path / "out", "--spacing", 1, 0.5, 0.5, "--mpp", 3)
    assert ended.code == 0, ended.err
    assert "mm" in ended.out
    assert "--mpp has no effect" in ended.err
    mask = write_mask(tmp_path / "a.png", MASK)
    ended = run("components", mask, "--out", tmp_path / "out", "--spacing", 1, 1, 1)
    assert "--spacing has no effect" in ended.err


@pytest.mark.parametrize(
    "wrong",
    [
        ["--connectivity=5"],
        ["--class=0"],
        ["--class=stone"],
        ["--class=1="],
        ["--class=70000"],
        ["--min-size=0"],
        ["--mpp=0"],
        ["--mpp=nan"],
        ["--spacing", "1", "-1", "1"],
    ],
)
def test_wrong_usage_is_said_in_a_line(run: Run, tmp_path: Path, wrong: list[str]) -> None:
    ended = run("components", write_mask(tmp_path / "a.png", MASK), "--out", tmp_path / "out", *wrong)
    assert ended.code == 2
    assert wrong[0].split("=")[0] in ended.errors[0]
    assert not (tmp_path / "out").exists()


def test_missing_masks(run: Run, tmp_path: Path) -> None:
    ended = run("components", tmp_path / "nope.png", "--out", tmp_path / "out")
    assert ended.code == 3
    assert "nope.png" in ended.errors[0]
    assert run("components", write_mask(tmp_path / "a.png", MASK)).code == 2
