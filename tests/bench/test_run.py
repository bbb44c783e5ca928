"""The queue: rows on disk at once, nothing done twice, failures tried again, processes that end with the bench."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

from patchforest.bench import run as queue
from patchforest.bench.contender import Contender
from patchforest.bench.run import ROWS, read_rows, run_all
from patchforest.errors import InputError

SCRIPT = """
import json, pathlib, sys, time
job = json.load(sys.stdin)
folder = pathlib.Path(sys.argv[1]).parents[3]
with open(folder / "done.txt", "a") as file:
    file.write(job["name"] + "\\n")
if "sleep" in job["name"]:
    time.sleep(40)
    with open(folder / "done.txt", "a") as file:
        file.write("woke\\n")
if "bad" in job["name"] and not (folder / "mended").exists():
    raise SystemExit("it is broken")
print("chatter")
print(json.dumps({"Dice": job["seed"] / 10}))
"""


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that imports nothing."""
    monkeypatch.setattr(queue, "worker_command", lambda folder: [sys.executable, "-c", SCRIPT, str(folder.absolute())])


def job(name: str, seed: int = 0) -> Contender:
    return Contender("quality", "set", name, seed=seed)


def done(out: Path) -> list[str]:
    return sorted((out / "done.txt").read_text().split())


def test_rows_come_in_the_order_asked_for(tmp_path: Path) -> None:
    jobs = [job("a", 1), job("b", 2), job("c", 3)]
    told: list[str] = []
    rows = run_all(jobs, tmp_path, jobs=2, tell=told.append)
    assert [r.contender for r in rows] == jobs
    assert [r.result["Dice"] for r in rows] == [0.1, 0.2, 0.3]
    assert all(r.result["wall_seconds"] > 0 for r in rows)
    assert sorted(line.split("] ")[1] for line in told)[0].startswith("set, a, seed 1: Dice 0.1")
    assert not list(tmp_path.rglob("*.lock"))


def test_what_is_finished_is_not_done_again_and_what_failed_is(tmp_path: Path) -> None:
    first = run_all([job("a"), job("bad")], tmp_path)
    assert [bool(r.failed) for r in first] == [False, True]
    assert first[1].failed == "exit code 1: it is broken"
    assert (job("bad").folder(tmp_path) / "log.txt").read_text() == "it is broken\n"
    (tmp_path / "mended").touch()
    told: list[str] = []
    rows = run_all([job("new"), job("a"), job("bad")], tmp_path, tell=told.append)
    assert not any(r.failed for r in rows)
    assert told[0] == "1 of 3 were finished before"
    assert done(tmp_path) == ["a", "bad", "bad", "new"]
    assert len((tmp_path / ROWS).read_text().splitlines()) == 3


def test_torn_and_foreign_lines_are_left_out(tmp_path: Path) -> None:
    run_all([job("a"), job("b")], tmp_path)
    whole = (tmp_path / ROWS).read_text()
    (tmp_path / ROWS).write_text(whole[:-30] + '\n{"other": 1}\n[]\n')
    assert [r.contender.name for r in read_rows(tmp_path).values()] == ["a"]
    run_all([job("a"), job("b")], tmp_path)
    assert done(tmp_path) == ["a", "b", "b"]


def test_an_answer_that_is_no_json_is_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue, "worker_command", lambda folder: [sys.executable, "-c", "print('hm')"])
    assert run_all([job("a")], tmp_path)[0].failed == "exit code 0: it said nothing"


def test_two_benches_do_not_share_a_folder(tmp_path: Path) -> None:
    from patchforest.io.lock import locked

    with locked(tmp_path / ".bench.lock", wait=False), pytest.raises(InputError, match="another process"):
        run_all([job("a")], tmp_path)


def test_sigterm_ends_its_processes_and_a_rerun_goes_on(tmp_path: Path) -> None:

    def stop() -> None:
        deadline = time.monotonic() + 30
        while not (tmp_path / "done.txt").exists() or "sleep" not in (tmp_path / "done.txt").read_text():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=stop)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        run_all([job("a"), job("sleep")], tmp_path)
    thread.join()
    assert [r.contender.name for r in read_rows(tmp_path).values() if not r.failed] == ["a"]
    rows = run_all([job("a"), job("b")], tmp_path)
    assert [r.contender.name for r in rows] == ["a", "b"]
    assert done(tmp_path) == ["a", "b", "sleep"]


def test_threads_are_those_of_the_contender(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = (
        "import os, json; print(json.dumps({'n': [os.environ[k] for k in ('OMP_NUM_THREADS', 'NUMBA_NUM_THREADS')]}))"
    )
    monkeypatch.setattr(queue, "worker_command", lambda folder: [sys.executable, "-c", script])
    (row,) = run_all([Contender("quality", "set", "a", threads=3)], tmp_path)
    assert row.result["n"] == ["3", "3"]
    assert json.loads((tmp_path / ROWS).read_text())["contender"]["threads"] == 3
