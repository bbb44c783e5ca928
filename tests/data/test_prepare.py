"""Jobs: the same files whatever happens to them, bad images listed, nothing done twice, by any number of processes."""

from __future__ import annotations

import errno
import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from patchforest.data import prepare as module
from patchforest.data.layout import CaseList, find_cases
from patchforest.data.manifest import read_manifest, verify_prepared
from patchforest.data.prepare import JobOptions, Summary, prepare
from patchforest.data.prepare_item import ItemTask, Outcome, prepare_item
from patchforest.errors import InputError
from tests.data.prepared_data import SETTINGS, contents, make_images, times

REPO = Path(__file__).resolve().parents[2]
BAD = ("case003", "case011")


@pytest.fixture(scope="module")
def twenty(tmp_path_factory: pytest.TempPathFactory) -> CaseList:
    """Twenty cases, two of them bad."""
    folder = tmp_path_factory.mktemp("twenty") / "data"
    return find_cases(make_images(folder, 20, bad=[3, 11]))


@pytest.fixture(scope="module")
def whole(twenty: CaseList, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All of them prepared by one undisturbed process."""
    out = tmp_path_factory.mktemp("whole") / "out"
    summary = prepare(twenty, out, SETTINGS, options=JobOptions(workers=1))
    assert tuple(summary.failed) == BAD
    assert len(summary.done) == 18
    assert summary.complete
    return out


def here(tasks: list[ItemTask], **options: object) -> object:
    """In place of the processes: the same work in this one."""
    stop = options["stop"]
    for task in tasks:
        if stop():  # type: ignore[operator]
            return
        yield task, prepare_item(task)


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs need no other process, so that they are quick and can be tampered with."""
    monkeypatch.setattr(module, "work_in_processes", lambda work, tasks, **options: here(tasks, **options))


def test_two_workers_write_the_bytes_of_one(twenty: CaseList, whole: Path, tmp_path: Path) -> None:
    prepare(twenty, tmp_path, SETTINGS, options=JobOptions(workers=2))
    assert contents(tmp_path) == contents(whole)
    assert verify_prepared(tmp_path, twenty.cases) == []


@pytest.mark.usefixtures("in_process")
def test_a_rerun_does_nothing_but_the_failed(twenty: CaseList, whole: Path, tmp_path: Path) -> None:
    before = times(whole)
    told: list[str] = []
    again = prepare(twenty, whole, SETTINGS, tell=told.append)
    assert times(whole) == before
    assert (again.done, len(again.kept), tuple(again.failed), again.complete) == ((), 18, BAD, True)
    assert [line.split(": ")[1] for line in told] == list(BAD)
    assert "truncated PNG" in told[0]


@pytest.mark.usefixtures("in_process")
def test_a_mended_image_is_all_that_is_done(tmp_path: Path) -> None:
    found = find_cases(make_images(tmp_path / "data", 4, bad=[1]))
    prepare(found, tmp_path / "out", SETTINGS)
    before = times(tmp_path / "out")
    good = make_images(tmp_path / "good", 4) / "images" / "case001.png"
    found.cases[1].image.write_bytes(good.read_bytes())
    summary = prepare(found, tmp_path / "out", SETTINGS)
    assert (summary.done, len(summary.kept), summary.failed) == (("case001",), 3, {})
    after = times(tmp_path / "out")
    assert {n for n in after if after[n] != before.get(n)} == {"prepared.json", *(after.keys() - before.keys())}
    assert len(after) == len(before) + 1
    assert all(c.failed is None for c in read_manifest(tmp_path / "out").cases)


@pytest.mark.usefixtures("in_process")
def test_parts_make_the_whole_in_any_order(twenty: CaseList, whole: Path, tmp_path: Path) -> None:
    parts = [(2, 3), (3, 3), (1, 3)]
    for number, part in enumerate(parts):
        summary = prepare(twenty, tmp_path, SETTINGS, options=JobOptions(part=part))
        assert summary.complete == (number == 2)
        assert (tmp_path / "prepared.json").exists() == (number == 2)
    assert contents(tmp_path) == contents(whole)
    again = prepare(twenty, tmp_path, SETTINGS, options=JobOptions(part=(1, 3)))
    assert again.complete
    assert contents(tmp_path) == contents(whole)
    assert not list(tmp_path.glob(".*"))


@pytest.mark.usefixtures("in_process")
def test_more_parts_than_cases_are_no_fault(tmp_path: Path) -> None:
    found = find_cases(make_images(tmp_path / "data", 2))
    done = [prepare(found, tmp_path / "out", SETTINGS, options=JobOptions(part=(i, 4))).complete for i in (1, 2, 3, 4)]
    assert done == [False, True, True, True]


@pytest.mark.usefixtures("in_process")
def test_more_variants_are_added_to_what_is_there(tmp_path: Path) -> None:
    found = find_cases(make_images(tmp_path / "data", 2))
    prepare(found, tmp_path / "out", SETTINGS)
    before = times(tmp_path / "out" / "items")
    prepare(found, tmp_path / "out", SETTINGS, variants=3)
    after = times(tmp_path / "out" / "items")
    assert len(after) == 6
    assert {n: t for n, t in after.items() if n in before} == before
    assert read_manifest(tmp_path / "out").variants == 3


def command(data: Path, out: Path, recipe: Path) -> list[str]:
    options = ["--recipe", recipe, "--data", data, "--out", out, "--workers", "2"]
    return [sys.executable, "-m", "patchforest", "--quiet", "prepare", *map(str, options)]


def recipe_of(folder: Path) -> Path:
    """The recipe of ``SETTINGS``."""
    path = folder / "recipe.yaml"
    path.write_text(
        "data: {window: 64, classes: [background, disc]}\nforest: {budget: 32, criterion: gradient}\n"
        "model: {name: shf, stem: []}\n"
    )
    return path


def test_killed_at_random_moments_it_ends_with_the_same_files(twenty: CaseList, whole: Path, tmp_path: Path) -> None:
    """The full number of kills is in benchmarks/prepare_kills.py."""
    out, dice, kills = tmp_path / "out", random.Random(2), 0
    for attempt in range(5):
        process = subprocess.Popen(command(twenty.root, out, recipe_of(tmp_path)), start_new_session=True)
        deadline = time.monotonic() + 20
        while not list(out.glob("items/*")) and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.005)
        try:
            process.wait(timeout=dice.uniform(0.0, 0.1))
        except subprocess.TimeoutExpired:
            if attempt % 2:
                os.killpg(process.pid, signal.SIGKILL)
            else:
                process.kill()
            process.wait()
            kills += 1
        else:
            assert process.returncode == 4
    assert kills >= 2
    assert subprocess.run(command(twenty.root, out, recipe_of(tmp_path)), stderr=subprocess.DEVNULL).returncode == 4
    assert contents(out) == contents(whole)


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> CaseList:
    """So many cases that a job on them can be caught."""
    return find_cases(make_images(tmp_path_factory.mktemp("many") / "data", 50, side=250))


def running(group: int) -> list[int]:
    """Processes of a group that are no zombies."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, number = path.read_text().rpartition(")")[2].split()[:3]
        except OSError:
            continue
        if int(number) == group and state != "Z":
            found.append(int(path.parent.name))
    return found


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 75), (signal.SIGINT, 130)])
def test_a_signal_stops_it_and_its_workers(number: int, code: int, many: CaseList, tmp_path: Path) -> None:
    found, out = many, tmp_path / "out"
    process = subprocess.Popen(
        command(found.root, out, recipe_of(tmp_path)), start_new_session=True, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 20
    while not list(out.glob("items/*")) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    os.killpg(process.pid, number)
    _, told = process.communicate(timeout=10)
    assert process.returncode == code, told
    assert told.splitlines()[-1] == "warning: stopped; the same command goes on from here"
    assert not (out / "prepared.json").exists()
    assert not list(out.rglob(".*"))
    while running(process.pid):
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.usefixtures("in_process")
def test_too_many_failures_end_it_early(tmp_path: Path) -> None:
    found = find_cases(make_images(tmp_path / "data", 20, bad=range(2, 20)))
    told: list[str] = []
    with pytest.raises(InputError, match=r"3 of 5 cases failed.*is its disk there.*max-failures"):
        prepare(found, tmp_path / "out", SETTINGS, tell=told.append)
    assert len(told) == 3
    assert len(list((tmp_path / "out" / "items").iterdir())) == 2
    summary = prepare(found, tmp_path / "out", SETTINGS, options=JobOptions(max_failures=18))
    assert len(summary.failed) == 18
    assert len(summary.kept) == 2
    with pytest.raises(InputError, match="1 of 3 cases failed"):
        prepare(found, tmp_path / "strict", SETTINGS, options=JobOptions(max_failures=0))


def test_limits_of_failures() -> None:
    assert [JobOptions().most_failures(n) for n in (1, 9, 20, 500)] == [1, 1, 2, 50]
    assert JobOptions(max_failures=0).most_failures(500) == 0
    assert JobOptions(max_share=1.0).most_failures(7) == 7
    for bad in ({"part": (0, 2)}, {"part": (3, 2)}, {"workers": 0}, {"timeout": 0.0}, {"max_failures": -1}):
        with pytest.raises(ValueError, match=r"must|part is i of n"):
            JobOptions(**bad)  # type: ignore[arg-type]


def test_a_lost_process_is_one_failed_case(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = find_cases(make_images(tmp_path / "data", 3))
    answers = [Outcome({"inputs": {}, "files": [{"variant": 0, "file": "x", "bytes": 1, "sha256": "0"}]})] * 3
    answers[1] = module.Lost("the process that worked on it was ended by SIGKILL", 4711)  # type: ignore[call-overload]
    monkeypatch.setattr(module, "work_in_processes", lambda work, tasks, **o: (pair for pair in zip(tasks, answers)))
    told: list[str] = []
    summary = prepare(found, tmp_path / "out", SETTINGS, tell=told.append)
    assert list(summary.failed) == ["case001"]
    assert "process 4711" in told[0]
    assert "4711" not in (tmp_path / "out" / "prepared.json").read_text()
    assert "ended by SIGKILL" in str(read_manifest(tmp_path / "out").cases[1].failed)


def test_a_full_disk_ends_the_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(work: object, tasks: list[ItemTask], **options: object) -> object:
        yield tasks[0], prepare_item(tasks[0])
        raise OSError(errno.ENOSPC, "disk full (0 bytes free)", str(tasks[1].folder))

    monkeypatch.setattr(module, "work_in_processes", full)
    found = find_cases(make_images(tmp_path / "data", 3))
    with pytest.raises(OSError, match="disk full"):
        prepare(found, tmp_path / "out", SETTINGS)
    assert len(list((tmp_path / "out" / "items").iterdir())) == 1
    assert not list((tmp_path / "out").rglob(".*"))


@pytest.mark.usefixtures("in_process")
def test_a_disk_that_will_be_too_small_is_said_early(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found, told = find_cases(make_images(tmp_path / "data", 14)), list[str]()
    for free in (10**9, 0):
        monkeypatch.setattr(module.shutil, "disk_usage", lambda _, free=free: SimpleNamespace(free=free))
        prepare(found, tmp_path / str(free), SETTINGS, tell=told.append)
    assert told == ["the items to come will need about 0.0 GiB, 0.0 GiB are free"]


@pytest.mark.usefixtures("in_process")
def test_two_jobs_on_one_folder_are_refused(tmp_path: Path) -> None:
    found = find_cases(make_images(tmp_path / "data", 2))

    def again(options: JobOptions) -> Summary:
        return prepare(found, tmp_path / "out", SETTINGS, options=options)

    seen: list[str] = []

    def meanwhile(share: float, values: str) -> None:
        for part in ((1, 2), (1, 1), (2, 3)):
            try:
                again(JobOptions(part=part))
            except InputError as error:
                seen.append(str(error))

    prepare(found, tmp_path / "out", SETTINGS, options=JobOptions(part=(1, 2)), progress=meanwhile)
    assert "another process is at this very job" in seen[0]
    assert all("another job is at work here, on part 1 of 2" in line for line in seen[1:3])
    assert again(JobOptions(part=(2, 2))).complete
    (tmp_path / "out" / ".lock-1-of-1").touch()  # left by a killed job
    assert again(JobOptions()).complete
    assert not list((tmp_path / "out").glob(".*"))


@pytest.mark.usefixtures("in_process")
def test_leftovers_of_killed_writers_are_removed_and_lists_come_along(tmp_path: Path) -> None:
    found = find_cases(make_images(tmp_path / "data", 2))
    (tmp_path / "data" / "held.txt").write_text("case001\n")
    out = tmp_path / "out"
    prepare(found, out, SETTINGS)
    for folder in (out, out / "items"):
        (folder / ".patchforest-0123.safetensors").write_bytes(b"half")
    prepare(found, out, SETTINGS, files=["held.txt", "absent.txt", "../outside.txt", "items/x"])
    assert (out / "held.txt").read_text() == "case001\n"
    assert not list(out.rglob(".patchforest-*"))
    assert sorted(p.name for p in out.iterdir()) == ["held.txt", "items", "prepared.json", "settings.json"]


@pytest.mark.usefixtures("in_process")
def test_a_stop_leaves_no_manifest_and_the_rest_is_done_later(twenty: CaseList, whole: Path, tmp_path: Path) -> None:
    shares: list[float] = []
    summary = prepare(
        twenty, tmp_path, SETTINGS, stop=lambda: len(shares) >= 5, progress=lambda share, _: shares.append(share)
    )
    assert summary.stopped
    assert not summary.complete
    assert len(summary.done) + len(summary.failed) == 5
    assert shares == [0.05, 0.1, 0.15, 0.2, 0.25]
    assert not (tmp_path / "prepared.json").exists()
    assert prepare(twenty, tmp_path, SETTINGS).complete
    assert contents(tmp_path) == contents(whole)


@pytest.mark.usefixtures("in_process")
def test_odd_names_are_no_paths(tmp_path: Path) -> None:
    data = make_images(tmp_path / "data", 2)
    rows = ["id,image,label", '"a b\u00e9/-x","images/case000.png","masks/case000.png"']
    rows.append('"A B\u00e9/-x","images/case001.png","masks/case001.png"')
    (data / "cases.csv").write_text("\n".join(rows))
    found = find_cases(data / "cases.csv")
    summary = prepare(found, tmp_path / "out", replace(SETTINGS, seed=1))
    assert summary.done == ("a b\u00e9/-x", "A B\u00e9/-x")
    assert len(list((tmp_path / "out" / "items").iterdir())) == 2
    assert json.loads((tmp_path / "out" / "prepared.json").read_text())["cases"][0]["id"] == "a b\u00e9/-x"
