"""Workers that die or hang cost one task each; none outlives its main process; each has one thread and no PyTorch."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from patchforest.data import pool
from patchforest.data.pool import Lost, work_in_processes

REPO = Path(__file__).resolve().parents[2]


def odd_jobs(task: str | int) -> object:
    """What the tests let the workers do."""
    if task == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if task == "leave":
        os._exit(7)
    if task == "hang":
        time.sleep(60)
    if task == "full":
        raise OSError(errno.ENOSPC, "no room", "out/file")
    if task == "where":
        time.sleep(0.05)
        return os.getpid()
    if task == "see":
        return os.environ["OMP_NUM_THREADS"], sorted({"torch", "lightning"} & set(sys.modules))
    if isinstance(task, str) and task.startswith("write "):
        Path(task.removeprefix("write ")).write_text(str(os.getpid()))
        time.sleep(60)
    return task


def run(tasks: list, **options: object) -> list[tuple]:
    settings = {"workers": 2, "timeout": 30.0, **options}
    return list(work_in_processes(odd_jobs, tasks, **settings))  # type: ignore[arg-type]


def alive(pid: int) -> bool:
    """Whether a process runs (a zombie does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_every_task_has_its_result() -> None:
    assert sorted(run(list(range(9)))) == [(k, k) for k in range(9)]
    assert run([]) == []


def test_the_lost_are_named_and_the_rest_goes_on() -> None:
    start = time.monotonic()
    got = dict(run([1, "die", 2, "hang", 3, "leave", 4], timeout=2.0))
    assert time.monotonic() - start < 12
    assert {k: v for k, v in got.items() if isinstance(k, int)} == {k: k for k in (1, 2, 3, 4)}
    assert got["die"].reason == "the process that worked on it was ended by SIGKILL"
    assert got["die"].process > 0
    assert "exit code 7" in got["leave"].reason
    assert got["hang"].reason == "took longer than 2 seconds and was stopped"
    assert all(isinstance(got[k], Lost) for k in ("die", "leave", "hang"))


def test_workers_are_used_again_and_gone_at_the_end() -> None:
    got = run(["where"] * 12)
    pids = {pid for _, pid in got}
    assert 1 <= len(pids) <= 2
    assert os.getpid() not in pids
    assert not any(alive(pid) for pid in pids)


def test_each_has_one_thread_and_no_torch() -> None:
    before = os.environ.get("OMP_NUM_THREADS")
    code = "from tests.data.test_pool import run; print(run(['see'])[0][1])"
    done = subprocess.run([sys.executable, "-c", code], cwd=REPO, capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "('1', [])", done.stderr
    assert os.environ.get("OMP_NUM_THREADS") == before


def test_a_full_disk_ends_the_job_and_its_workers() -> None:
    with pytest.raises(OSError, match="no room") as caught:
        run(["full", "hang", 1, 2])
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, "out/file")


def test_a_stop_ends_it_at_once() -> None:
    asked = threading.Event()
    threading.Timer(1.0, asked.set).start()
    start = time.monotonic()
    assert run(["hang"] * 3, stop=asked.is_set) == []
    assert time.monotonic() - start < 5


def test_workers_end_when_their_main_process_is_killed(tmp_path: Path) -> None:
    tasks = [f"write {tmp_path / name}" for name in "ab"]
    code = f"from tests.data.test_pool import run; run({tasks})"
    main = subprocess.Popen([sys.executable, "-c", code], cwd=REPO)
    deadline = time.monotonic() + 20
    while len(list(tmp_path.iterdir())) < 2 or not all(p.read_text() for p in tmp_path.iterdir()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    main.kill()
    main.wait()
    pids = [int(p.read_text()) for p in tmp_path.iterdir()]
    while any(alive(pid) for pid in pids):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_worker_that_dies_in_the_middle_of_a_long_answer_is_lost() -> None:
    def cut_short() -> None:
        raise OSError("got end of file during message")  # what a connection raises then

    process = SimpleNamespace(join=lambda seconds: None, exitcode=-9, pid=123)
    worker = SimpleNamespace(
        connection=SimpleNamespace(recv=cut_short), process=process, task="x", since=0.0, end=lambda: None
    )
    answer = pool._answer(worker)  # type: ignore[arg-type]
    assert isinstance(answer, pool.Lost)
    assert "SIGKILL" in str(answer)
