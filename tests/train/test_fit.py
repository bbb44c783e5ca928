"""Whole runs: what they leave, that they resume exactly after any death, and what they refuse."""

from __future__ import annotations

import csv
import json
import os
import signal
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import yaml

from patchforest.errors import InputError
from patchforest.io.write import write_mask
from patchforest.models.bundle import load_model
from patchforest.train import fit as fit_module
from patchforest.train.checkpoint import checkpoint_path, checkpoints, load_checkpoint
from patchforest.train.config import load_config, parse_config
from patchforest.train.fit import Preempted, fit
from tests.train.runs import config, make_data, settings, start, weights


def metrics(run: Path) -> list[dict[str, str]]:
    """Rows of a run's metrics.csv."""
    with open(run / "metrics.csv", newline="") as file:
        return list(csv.DictReader(file))


def timeless(run: Path) -> list[dict[str, str]]:
    """The same without what the clock says."""
    return [{k: v for k, v in row.items() if "seconds" not in k} for row in metrics(run)]


def test_a_run_leaves_what_it_promises(finished: Path, data: Path) -> None:
    names = {p.name for p in finished.iterdir()}
    assert {"config.yaml", "split.json", "best", "last", "checkpoints", "metrics.csv", "done.json"} <= names
    resolved = load_config(finished / "config.yaml")
    assert (resolved.model.channels, resolved.model.classes, resolved.model.cell) == (3, 1, 8)
    assert resolved.data.classes == ("background", "foreground")
    assert resolved.forest is not None
    assert resolved.forest.window == 32
    rows = metrics(finished)
    assert [int(r["step"]) for r in rows if r["dice"]] == [12, 24]
    assert float(rows[-1]["lr"]) < float(rows[10]["lr"]) * 0.05
    assert all(np.isfinite(float(r["loss"])) for r in rows if r["loss"])
    done = json.loads((finished / "done.json").read_text())
    assert done["steps"] == 24
    assert done["best_dice"] == max(float(r["dice"]) for r in rows if r["dice"])
    assert len(checkpoints(finished / "checkpoints")) == 2
    split = json.loads((finished / "split.json").read_text())
    assert sorted(split["train"] + split["validation"]) == [f"case{i}" for i in range(6)]
    assert load_model(finished).spec.window == 32
    assert list((finished / "tensorboard").glob("events*"))
    assert not list(finished.rglob(".patchforest-*"))


def test_a_finished_run_is_left_alone(finished: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {p: p.stat().st_mtime_ns for p in finished.rglob("*")}
    assert fit(config(), data, finished) == finished
    assert "finished already" in capsys.readouterr().err
    assert {p: p.stat().st_mtime_ns for p in before} == before


def test_same_seed_same_weights_whatever_the_workers(finished: Path, data: Path, tmp_path: Path) -> None:
    fit(config(num_workers=2), data, tmp_path / "two", quiet=True)
    assert weights(tmp_path / "two") == weights(finished)
    fit(config(seed=1), data, tmp_path / "other", quiet=True)
    assert weights(tmp_path / "other") != weights(finished)


@pytest.mark.parametrize("train", [{}, {"accumulate": 2, "ema": 0.9, "max_steps": 12}])
def test_killed_at_random_moments_it_ends_with_the_same_weights(train: dict, data: Path, tmp_path: Path) -> None:
    raw, rng = settings(**train), np.random.default_rng(7)
    fit(parse_config(raw), data, tmp_path / "whole", quiet=True)
    run, kills, resumed = tmp_path / "killed", 0, 0
    for attempt in range(40):
        process = start(raw, data, run, pace=0.05)
        before, deadline = checkpoints(run / "checkpoints"), time.monotonic() + 30
        while attempt % 4 and checkpoints(run / "checkpoints") == before and process.exitcode is None:
            assert time.monotonic() < deadline
            time.sleep(0.002)  # three of four kills come after a new checkpoint, the fourth at any moment
        process.join(timeout=float(rng.uniform(0.0, 0.25) if attempt % 4 else rng.uniform(0.0, 1.5)))
        if process.exitcode is None:
            process.kill()
            process.join()
            kills += 1
            resumed += bool(checkpoints(run / "checkpoints"))
        else:
            assert process.exitcode == 0
        if (run / "done.json").exists():
            break
    assert kills >= 1
    assert resumed >= 1, "no kill came after the first checkpoint; lengthen the run"
    assert weights(run) == weights(tmp_path / "whole")
    assert weights(run, "best") == weights(tmp_path / "whole", "best")
    assert not list((run / "checkpoints").glob(".patchforest-*"))
    assert timeless(run) == timeless(tmp_path / "whole")


def test_sigterm_saves_and_exits_75(data: Path, finished: Path, tmp_path: Path) -> None:
    raw, run, stopped = settings(checkpoint_steps=1000), tmp_path / "run", 0
    for delay in (0.2, 0.4, 0.6, 0.8, 1.0, 30, 30):
        before, deadline = set((run / "tensorboard").glob("events*")), time.monotonic() + 20
        process = start(raw, data, run, pace=0.1)
        while set((run / "tensorboard").glob("events*")) == before and process.exitcode is None:
            assert time.monotonic() < deadline
            time.sleep(0.02)  # it has begun; what comes before is not worth saving
        process.join(timeout=delay)
        if process.exitcode is None:
            assert process.pid is not None
            os.kill(process.pid, signal.SIGTERM)
            process.join(timeout=20)
            assert process.exitcode in (75, 0)
            assert process.exitcode == 0 or checkpoints(run / "checkpoints")
            stopped += process.exitcode == 75
        if (run / "done.json").exists():
            break
    assert stopped >= 1
    assert weights(run) == weights(finished)


def test_a_stop_during_validation_is_heard(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from patchforest.train import validate

    real, seen = validate.score_picture, []

    def predict(*args: object, **options: object) -> object:
        seen.append(1)
        if len(seen) == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return real(*args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(validate, "score_picture", predict)
    before = signal.getsignal(signal.SIGTERM)
    run = tmp_path / "run"
    with pytest.raises(Preempted) as stop:
        fit(config(validate_cases=2), data, run, quiet=True)
    assert stop.value.code == 75
    assert signal.getsignal(signal.SIGTERM) == before
    assert checkpoints(run / "checkpoints")[0] == checkpoint_path(run / "checkpoints", 12)
    fit(config(validate_cases=2), data, run, quiet=True)
    assert [int(r["step"]) for r in metrics(run) if r["dice"]] == [12, 24]


def test_a_broken_checkpoint_falls_back_and_says_so(
    data: Path, finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    monkeypatch.setattr(fit_module.Preempted, "__init__", lambda self: SystemExit.__init__(self, 75))
    from patchforest.train.recorder import StopRequest

    def install(self: StopRequest) -> None:
        self.signal = None

    monkeypatch.setattr(StopRequest, "install", install)
    monkeypatch.setattr(StopRequest, "__call__", lambda self: len(checkpoints(run / "checkpoints")) >= 2)
    with pytest.raises(Preempted):
        fit(config(), data, run, quiet=True)
    monkeypatch.undo()
    newest, _ = checkpoints(run / "checkpoints")
    os.truncate(newest, newest.stat().st_size - 7)
    fit(config(), data, run)
    told = capsys.readouterr().err
    assert "skipped a broken checkpoint" in told
    assert newest.name in told
    assert "resuming" in told
    assert weights(run) == weights(finished)
    for path in (run / "done.json", *checkpoints(run / "checkpoints")):
        os.truncate(path, 3) if path.suffix == ".safetensors" else path.unlink()
    with pytest.raises(InputError, match="holds no whole checkpoint"):
        fit(config(), data, run, quiet=True)


def test_other_settings_or_cases_are_refused_by_name(finished: Path, data: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"train\.lr: 0\.003 → 0\.1.*same settings"):
        fit(config(lr=0.1), data, finished, quiet=True)
    with pytest.raises(InputError, match="holds a run already"):
        fit(config(), data, finished, resume=False, quiet=True)
    more = make_data(tmp_path / "more", count=7)
    with pytest.raises(InputError, match=r"cases: \d → \d"):
        fit(config(), more, finished, quiet=True)


def test_a_time_budget_ends_with_the_time_and_a_learning_rate_of_zero(data: Path, tmp_path: Path) -> None:
    run = fit(
        config(max_cpu_minutes=0.02, validate_every=1.0, checkpoint_steps=None), data, tmp_path / "run", quiet=True
    )
    done = json.loads((run / "done.json").read_text())
    assert 1.2 <= done["train_seconds"] < 2.5
    assert checkpoints(run / "checkpoints") == [checkpoint_path(run / "checkpoints", done["steps"])]
    rows = metrics(run)
    assert float(rows[-1]["progress"]) == 1.0
    assert float(rows[-1]["lr"]) < 0.1 * max(float(r["lr"]) for r in rows)


@pytest.mark.parametrize(
    "change",
    [
        {"name": "unet", "width": 4, "depth": 2},
        {"name": "apf_unetr"},
        {"name": "unetr", "patch": 4, "features": 4},
        {"name": "transunet", "features": 4},
    ],
)
def test_other_models_and_more_classes(change: dict, tmp_path: Path) -> None:
    data = make_data(tmp_path / "data", classes=3)
    raw = settings(max_steps=3, precision="bf16")
    raw["model"] |= change
    raw["data"] |= {"classes": ["rest", "one", "two"], "downscale": 2}
    run = fit(parse_config(raw), data, tmp_path / "run", quiet=True)
    bundle = load_model(run)
    assert (bundle.spec.model.classes, bundle.spec.downscale) == (3, 2)
    assert (bundle.spec.forest is None) == (change["name"] != "apf_unetr")
    assert bundle.spec.model.window == ((32, 32) if change["name"] in ("unetr", "transunet") else None)
    assert "dice_two" in metrics(run)[0]


def test_settings_that_do_not_fit_end_in_one_line(data: Path, tmp_path: Path) -> None:
    def refuse(match: str, **sections: dict | None) -> None:
        raw = settings(max_steps=1)
        for name, values in sections.items():
            raw[name] = None if values is None else {**(raw[name] or {}), **values}
        with pytest.raises(InputError, match=match):
            fit(parse_config(raw), data, tmp_path / "run", quiet=True)

    refuse("reads a forest.*forest.budget", forest=None)
    refuse("unknown model 'vgg'", model={"name": "vgg"})
    refuse("makes no masks", model={"name": "apf_vit"})
    refuse("fp16, which needs a GPU", train={"precision": "fp16", "device": "cpu"})
    refuse("forest: unknown criterion 'foo'.*edges", forest={"criterion": "foo"})
    refuse("forest: root must be", forest={"root": 24})
    refuse("too few for 9 folds", data={"folds": 9})
    refuse("absent.txt", data={"validation": "absent.txt"})


def test_lists_and_groups_of_the_data_folder_are_found(tmp_path: Path) -> None:
    data = make_data(tmp_path / "data")
    (data / "held.txt").write_text("case1\ncase4\n")
    raw = settings(max_steps=1)
    raw["data"]["validation"] = "held.txt"
    run = fit(parse_config(raw), data, tmp_path / "run", quiet=True)
    assert json.loads((run / "split.json").read_text())["validation"] == ["case1", "case4"]


def test_a_disk_too_small_is_refused_before_training(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fit_module.shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(OSError, match="the run needs about 1 MiB, 0 MiB are free") as error:
        fit(config(), data, tmp_path / "run", quiet=True)
    assert error.value.errno == 28


def test_checkpoints_hold_no_secrets_of_lightning(finished: Path) -> None:
    state = load_checkpoint(checkpoints(finished / "checkpoints")[0])
    assert "loops" not in state
    assert state["patchforest"]["steps"] == 24
    assert yaml.safe_load((finished / "config.yaml").read_text())["train"]["max_steps"] == 24


@pytest.mark.parametrize(
    ("often", "kept"),
    [({"checkpoint_steps": 3}, [6, 3]), ({"checkpoint_steps": None, "checkpoint_minutes": 1e-9}, [7, 6])],
)
def test_a_crash_loses_no_more_than_the_interval(
    often: dict, kept: list[int], data: Path, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from patchforest.train.task import SegmentationTask

    real, run = SegmentationTask.made_step, tmp_path / "run"

    def made_step(self: SegmentationTask) -> None:
        if self.budget.steps == 7:
            raise RuntimeError("power cut")
        real(self)

    monkeypatch.setattr(SegmentationTask, "made_step", made_step)
    with pytest.raises(RuntimeError, match="power cut"):
        fit(config(**often), data, run, quiet=True)
    assert checkpoints(run / "checkpoints") == [checkpoint_path(run / "checkpoints", step) for step in kept]
    monkeypatch.undo()
    fit(config(**often), data, run, quiet=True)
    assert weights(run) == weights(finished)


def test_every_bad_mask_is_found_before_the_first_step(tmp_path: Path) -> None:
    folder = make_data(tmp_path / "data")
    for name in ("case1", "case4"):
        write_mask(folder / "masks" / f"{name}.png", np.full((56, 72), 9, np.uint8))
    with pytest.raises(InputError, match=r"case1\.png.*9.*1 more cases") as caught:
        fit(config(max_steps=2), folder, tmp_path / "run", quiet=True)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run" / "config.yaml").exists()
