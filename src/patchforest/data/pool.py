"""Processes that work on one item each: one that dies or hangs costs its item and its name is said; the rest goes on.

The standard pools wait for ever, or break as a whole, when a process is killed. Here the main process holds one pipe a
worker, knows what each is working on and since when, and replaces the lost. Workers are started by spawn and hold
nothing of the main process; they end when it does, however it ends.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any, Generic, TypeVar

Task = TypeVar("Task")
Result = TypeVar("Result")

_CONTEXT = multiprocessing.get_context("spawn")
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
_POLL = 0.2


@dataclass(frozen=True)
class Lost:
    """Why there is no result for a task, in a few words, and the number of the process that was at it."""

    reason: str
    process: int | None = None


_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


class _Worker(Generic[Task]):
    """A process and the task it is at."""

    def __init__(self, work: Callable[[Task], Any]) -> None:
        self.connection, theirs = _CONTEXT.Pipe()
        self.process = _CONTEXT.Process(target=_serve, args=(theirs, work), daemon=True)
        with _one_thread_each(), _signals_blocked():  # a child that is still importing must not answer Ctrl-C
            self.process.start()
        theirs.close()
        self.task: Task | None = None
        self.since = 0.0

    def give(self, task: Task) -> None:
        self.task, self.since = task, time.monotonic()
        self.connection.send(task)

    def end(self) -> None:
        """Gone when this returns."""
        self.process.kill()
        self.process.join()
        self.connection.close()


def work_in_processes(
    work: Callable[[Task], Result],
    tasks: Iterable[Task],
    *,
    workers: int,
    timeout: float,
    stop: Callable[[], bool] = lambda: False,
) -> Iterator[tuple[Task, Result | Lost]]:
    """(task, result) of every task, in the order in which they end; ``Lost`` in place of the results of lost processes.

    Parameters
    ----------
    work : a function that a new process can import. What it raises (OSError of a full disk) is raised here.
    workers : processes at a time.
    timeout : seconds for one task; a process that takes longer is killed.
    stop : asked several times a second; once True the processes are killed and the iteration ends.

    However the iteration ends, the processes are gone after it.
    """
    waiting = iter(tasks)
    crew: list[_Worker[Task]] = []
    try:
        while not stop():
            crew = _employ(crew, waiting, work, workers)
            if not crew:
                return
            watched = [w.connection for w in crew]
            for connection in wait(watched, timeout=_POLL):
                worker = crew[watched.index(connection)]  # type: ignore[arg-type]
                task, answer = worker.task, _answer(worker)
                assert task is not None
                if isinstance(answer, Lost) and stop():
                    return  # a signal to the whole group took it
                worker.task = None
                if isinstance(answer, OSError):
                    raise answer
                yield task, answer
            for worker in crew:
                if worker.task is not None and time.monotonic() - worker.since > timeout:
                    task, worker.task, number = worker.task, None, worker.process.pid
                    worker.end()
                    yield task, Lost(f"took longer than {timeout:g} seconds and was stopped", number)
    finally:
        for worker in crew:
            worker.end()


def _employ(
    crew: list[_Worker[Task]], waiting: Iterator[Task], work: Callable[[Task], Any], most: int
) -> list[_Worker[Task]]:
    """The workers that have a task, each idle or new one having been given the next; the others are ended."""
    busy = [w for w in crew if w.task is not None]
    idle = [w for w in crew if w.task is None and w.process.is_alive() and not w.connection.closed]
    for worker in crew:
        if worker.task is None and worker not in idle and not worker.connection.closed:
            worker.end()
    while len(busy) < most:
        task = next(waiting, None)
        if task is None:
            break
        worker = idle.pop() if idle else _Worker(work)
        try:
            worker.give(task)
        except ConnectionError:  # it died while idle: the task was never begun
            worker.end()
            worker = _Worker(work)
            worker.give(task)
        busy.append(worker)
    for worker in idle:
        worker.end()
    return busy


def _answer(worker: _Worker[Task]) -> Any:
    """What a worker sends, or ``Lost`` when it is dead; it is ended then."""
    try:
        return worker.connection.recv()
    except (EOFError, OSError):  # dead, perhaps in the middle of a long answer
        worker.process.join(5)
        code, number = worker.process.exitcode, worker.process.pid
        worker.end()
        name = signal.Signals(-code).name if code is not None and code < 0 else f"exit code {code}"
        return Lost(f"the process that worked on it was ended by {name}", number)


@contextmanager
def _signals_blocked() -> Iterator[None]:
    """Children started here begin with these signals held back, until they say that they ignore them."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _serve(connection: Connection, work: Callable[[Any], Any]) -> None:
    """The life of a worker: signals are the main process's business, and with the main process it ends."""
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    while True:
        try:
            task = connection.recv()
        except (EOFError, ConnectionError):
            return
        try:
            answer: Any = work(task)
        except OSError as error:
            answer = OSError(error.errno, error.strerror, error.filename)
        connection.send(answer)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """Processes started in this block have libraries that use one thread: they share the cores among themselves."""
    before = {name: os.environ.get(name) for name in _THREADS}
    os.environ.update(dict.fromkeys(_THREADS, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
