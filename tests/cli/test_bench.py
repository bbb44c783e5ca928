"""``bench`` on the command line: what is refused before any work, and how failures end (whole: tests/bench)."""

from __future__ import annotations

from pathlib import Path

import pytest

from patchforest.bench import bench
from patchforest.bench.bench import Outcome
from patchforest.bench.settings import Settings
from tests.cli.conftest import Run


@pytest.mark.parametrize(("given", "word"), [
    (("nonsense",), "there is no bench 'nonsense'; there are quality"),
    (("quality", "--sizes", "512"), "--sizes has no effect on bench quality"),
    (("organs", "--sets", "glas"), "--sets has no effect on bench organs"),
    (("quality", "--seeds", "0,x"), "'x' is no whole number"),
    (("quality", "--rates", "fast"), "'fast' is no number"),
    (("quality", "--steps", "3", "--minutes", "1"), "give one of cpu_minutes, minutes and steps"),
    (("quality", "--seeds", ","), "give at least one seed"),
    (("quality", "--jobs", "0"), "--jobs"),
])  # fmt: skip
def test_wrong_usage(run: Run, tmp_path: Path, given: tuple[str, ...], word: str) -> None:
    ended = run("bench", *given, "--data", tmp_path, "--out", tmp_path / "out")
    assert ended.code == 2, ended.err
    assert word in ended.errors[0]
    assert not (tmp_path / "out").exists()


def test_recipes_and_data_that_are_not_there(run: Run, tmp_path: Path) -> None:
    ended = run(
        "bench", "quality", "--data", tmp_path, "--out", tmp_path / "out", "--recipes", tmp_path, "--sets", "glas"
    )
    assert ended.code == 3
    assert "there is no such recipe" in ended.errors[0]


def test_options_reach_the_bench_and_failures_its_exit_code(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Settings] = []
    note = tmp_path / "quality.md"
    note.write_text("# the note\n")

    def run_bench(kind: str, settings: Settings, *, tell: object) -> Outcome:
        seen.append(settings)
        return Outcome(note, ("a: no",) if settings.full else ())

    monkeypatch.setattr(bench, "run_bench", run_bench)
    command = (
        "bench",
        "quality",
        "--data",
        tmp_path,
        "--out",
        tmp_path / "out",
        "--sets",
        "glas, hrf",
        "--seeds",
        "3,4",
    )
    more = ("--contender", "SHF", "--cpu-minutes", "0.5", "--rates", "1e-3", "--set", "train.ema=0", "--jobs", "2")
    ended = run(*command, *more)
    assert ended.code == 0, ended.err
    assert "# the note" in ended.out
    (got,) = seen
    assert (got.sets, got.seeds, got.contenders, got.cpu_minutes) == (("glas", "hrf"), (3, 4), ("SHF",), 0.5)
    assert (got.rates, got.changes, got.jobs, got.threads, got.tune) == ((1e-3,), ("train.ema=0",), 2, 1, False)
    failed = run(*command, "--full")
    assert failed.code == 4
    assert failed.errors == ["error: a: no"]
