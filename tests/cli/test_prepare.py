"""``prepare``: a folder of items, bad images listed with exit code 4, and wrong usage in one line."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from patchforest.cli import prepare as front
from patchforest.data.manifest import read_manifest
from patchforest.errors import InputError
from tests.cli.conftest import Ended, Run
from tests.data.prepared_data import make_images

SET = ("forest.budget=32", "forest.criterion=gradient", "data.window=64", "model.name=shf", "model.stem=[]")
SMALL = ("model.width=16", "model.depth=1", "model.heads=2", "train.max_steps=3", "train.validate_every=1.0")


def prepare(run: Run, data: Path, out: Path, *more: object) -> Ended:
    """``prepare`` with small settings."""
    options = [v for setting in SET for v in ("--set", setting)]
    return run("prepare", "--data", data, "--out", out, "--workers", 1, *options, *more)


def test_bad_images_are_listed_and_the_rest_is_trained_on(run: Run, tmp_path: Path) -> None:
    data, out = make_images(tmp_path / "my data", 8, bad=[3]), tmp_path / "out"
    ended = prepare(run, data, out)
    assert ended.code == 4
    assert len(ended.errors) == 1
    assert "images/case003.png: is a truncated PNG" in ended.errors[0]
    assert f"7 images prepared in {out}, 1 failed" in ended.out
    again = prepare(run, data, out, "--quiet")
    assert again.code == 4
    assert again.out == ""
    options = [v for setting in (*SET, *SMALL) for v in ("--set", setting)]
    trained = run("train", "--data", out, "--out", tmp_path / "run", *options)
    assert trained.code == 0, trained.err
    assert "no report.html: its pictures need the images" in trained.out
    assert "1 cases that could not be prepared are left out" in trained.err
    for verb in ("evaluate", "predict"):
        more = ("--data", out) if verb == "evaluate" else (out,)
        refused = run(verb, tmp_path / "run", *more, "--out", tmp_path / "no")
        assert refused.code == 3


def test_other_settings_and_pixel_models_are_refused(run: Run, tmp_path: Path) -> None:
    data, out = make_images(tmp_path / "data", 2), tmp_path / "out"
    assert prepare(run, data, out).code == 0
    other = prepare(run, data, out, "--set", "forest.budget=64")
    assert other.code == 3
    assert "forest.budget: 32 → 64" in other.errors[0]
    pixels = prepare(run, data, tmp_path / "b", "--set", "model.stem=[8]")
    assert pixels.code == 3
    assert "set model.name=shf and model.stem=[]" in pixels.errors[0]
    assert prepare(run, tmp_path / "absent", out).code == 3


def test_parts_and_limits(run: Run, tmp_path: Path) -> None:
    data, out = make_images(tmp_path / "data", 4, bad=[0, 2]), tmp_path / "out"
    first = prepare(run, data, out, "--shard", "1/2", "--max-failures", "100%")
    assert first.code == 3  # all of its images failed
    assert "other parts of the array are not finished" in first.out
    second = prepare(run, data, out, "--shard", "2/2")
    assert second.code == 0
    assert len(read_manifest(out).cases) == 4
    strict = prepare(run, data, tmp_path / "strict", "--max-failures", "0")
    assert strict.code == 3
    assert "raise --max-failures" in strict.errors[0]


@pytest.mark.parametrize(
    "options",
    [("--shard", "3/2"), ("--shard", "0/2"), ("--shard", "x"), ("--max-failures", "many"), ("--max-failures", "101%")],
)
def test_wrong_usage_is_2(run: Run, tmp_path: Path, options: tuple[str, str]) -> None:
    ended = prepare(run, tmp_path, tmp_path / "out", *options)
    assert ended.code == 2
    assert options[0] in ended.errors[0]


def test_a_full_disk_is_5_and_a_lacking_extra_is_named(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(error: Exception) -> Ended:
        def job(*args: object, **options: object) -> None:
            raise error

        monkeypatch.setattr("patchforest.train.prepare.prepare_run", job)
        return prepare(run, tmp_path, tmp_path / "out")

    full = fail(OSError(errno.ENOSPC, "disk full (0 bytes free)", "out/items/x"))
    assert full.code == 5
    assert "out/items/x: disk full" in full.errors[0]
    lacking = fail(ModuleNotFoundError("no module", name="distributed"))
    assert lacking.code == 3
    assert "pip install 'patchforest[cluster]'" in lacking.errors[0]


def test_options_become_a_job() -> None:
    options = front._options(3, "2/5", "local", "25%", 9.0)
    assert (options.workers, options.part, options.cluster, options.timeout) == (3, (2, 5), "local", 9.0)
    assert [front._options(None, "1/1", None, text, 1.0).most_failures(40) for text in ("25%", "7", "0", "0%")] == [
        10, 7, 0, 0,
    ]  # fmt: skip


def test_notes_are_said_once(run: Run, tmp_path: Path) -> None:
    import cv2
    import numpy as np

    data = make_images(tmp_path / "data", 3)
    for path in (data / "images").iterdir():
        cv2.imwrite(str(path), np.zeros_like(cv2.imread(str(path))))
    ended = prepare(run, data, tmp_path / "out")
    assert ended.code == 0
    warned = [line for line in ended.err.splitlines() if line.startswith("warning: ")]
    assert len(warned) == 1
    assert warned[0].startswith("warning: 3 images, e.g. case000: the detail map ran out")


def test_a_prepared_folder_is_no_data_set(tmp_path: Path, run: Run) -> None:
    from patchforest.data.layout import find_cases

    data = make_images(tmp_path / "data", 2)
    prepare(run, data, tmp_path / "out")
    with pytest.raises(InputError, match=r"holds prepared items, not images"):
        find_cases(tmp_path / "out")
