"""A queue of contenders over several processes; what is finished is on disk at once and never done again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from patchforest.bench.contender import Contender
from patchforest.io.atomic import write_text
from patchforest.io.lock import locked

ROWS = "runs.jsonl"


@dataclass(frozen=True)
class Row:
    """What came of a contender: the numbers of ``result``, or the last line of what went wrong."""

    contender: Contender
    result: dict[str, Any]
    failed: str = ""


def run_all(
    contenders: Sequence[Contender],
    out: Path,
    *,
    jobs: int = 1,
    tell: Callable[[str], None] = lambda line: None,
) -> list[Row]:
    """A row for every contender, in their order; those that ``out/runs.jsonl`` holds already are not run again.

    Each runs in a process of its own; a failed one is a row that says so, is tried again the next time, and does not
    stop the others.

    Raises
    ------
    InputError : another process is at work in ``out``.
    """
    out.mkdir(parents=True, exist_ok=True)
    with locked(out / ".bench.lock", wait=False), _stoppable():
        rows = read_rows(out)
        waiting = [c for c in contenders if c.key not in rows or rows[c.key].failed]
        if len(waiting) < len(contenders):
            tell(f"{len(contenders) - len(waiting)} of {len(contenders)} were finished before")
        for number, row in enumerate(_finish(waiting, out, jobs), 1):
            rows[row.contender.key] = row
            _write(out, rows)
            tell(f"[{number}/{len(waiting)}] {row.contender.title}: {_line(row)}")
        return [rows[c.key] for c in contenders]


def read_rows(out: Path) -> dict[str, Row]:
    """The rows of ``out/runs.jsonl`` by the keys of their contenders; lines that are not whole are left out."""
    try:
        lines = (out / ROWS).read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return {}
    rows = {}
    for line in lines:
        try:
            raw = json.loads(line)
            contender = Contender.from_json(json.dumps(raw["contender"]))
            rows[contender.key] = Row(contender, raw["result"], raw["failed"])
        except (ValueError, KeyError, TypeError):
            continue
    return rows


def _write(out: Path, rows: dict[str, Row]) -> None:
    lines = [
        json.dumps({"contender": json.loads(r.contender.to_json()), "result": r.result, "failed": r.failed})
        for r in rows.values()
    ]
    write_text(out / ROWS, "\n".join(lines) + "\n")


def _finish(contenders: Sequence[Contender], out: Path, jobs: int) -> Iterator[Row]:
    """Rows as they come; processes end with this one, however it ends."""
    running: set[subprocess.Popen[str]] = set()
    pool = ThreadPoolExecutor(jobs)
    try:
        for done in as_completed([pool.submit(_work, c, out, running) for c in contenders]):
            yield done.result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        for process in list(running):
            process.terminate()
        pool.shutdown(wait=True)


def _work(contender: Contender, out: Path, running: set[subprocess.Popen[str]]) -> Row:
    folder, count = contender.folder(out), str(contender.threads)
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    environment = {**os.environ, **dict.fromkeys(names, count)}
    start = time.perf_counter()
    process = subprocess.Popen(
        worker_command(folder),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )
    running.add(process)
    try:
        said, log = process.communicate(contender.to_json())
    finally:
        running.discard(process)
    write_text(folder / "log.txt", log)
    try:
        result = json.loads(said.strip().splitlines()[-1]) if process.returncode == 0 else None
    except (ValueError, IndexError):
        result = None
    if result is None:
        last = next((line for line in reversed(log.splitlines()) if line.strip()), "it said nothing")
        return Row(contender, {}, f"exit code {process.returncode}: {last.strip()}")
    return Row(contender, {**result, "wall_seconds": time.perf_counter() - start})


def worker_command(folder: Path) -> list[str]:
    """The command that does the work of a contender, which it reads from stdin, in its folder."""
    return [sys.executable, "-m", "patchforest.bench.worker", str(folder.absolute()), str(os.getpid())]


def _line(row: Row) -> str:
    if row.failed:
        return f"failed, {row.failed}"
    numbers = (f"{k} {v:.4g}" for k, v in row.result.items() if isinstance(v, int | float))
    return ", ".join(list(numbers)[:4])


@contextmanager
def _stoppable() -> Iterator[None]:
    """SIGTERM ends the block as Ctrl-C does, so that processes are ended; a rerun goes on from there."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    try:
        before = signal.signal(signal.SIGTERM, stop)
    except ValueError:  # not in the main thread
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
