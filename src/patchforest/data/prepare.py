"""Images to sequences of patches on disk, on all cores or many machines: nothing lost, half done or done twice.

The state of a job is its files. Every item proves by its checksum that it is whole; the manifest is written last. A
job that was killed at any moment is started again by the same command, keeps what verifies, and ends with the very
files an undisturbed job would have written.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any

from patchforest.data.cluster import work_on_cluster
from patchforest.data.layout import CaseList
from patchforest.data.manifest import ITEMS, MANIFEST, PARTS, SETTINGS, enter_folder, finish
from patchforest.data.pool import Lost, work_in_processes
from patchforest.data.prepare_item import ItemTask, Outcome, failure, prepare_item
from patchforest.data.prepared import PrepareSettings
from patchforest.data.tables import read_text
from patchforest.errors import InputError
from patchforest.io.atomic import remove_leftovers, write_text
from patchforest.io.lock import is_held, locked

LOCK = ".lock-"
_ALL = (1, 1)
_SAMPLE = 10
"""After so many cases the space that all will need is judged."""


@dataclass(frozen=True)
class JobOptions:
    """How to do a job; none of these changes what it writes.

    Attributes
    ----------
    workers : processes at a time; None: one a core.
    part : (i, n): only the i-th of every n cases, i from 1; for arrays of jobs on a cluster.
    cluster : address of a Dask scheduler, or ``local``; None: processes of this machine.
    max_failures : so many failed cases are borne, one more ends the job; None: ``max_share`` of them, at least one.
    timeout : seconds for one case.
    """

    workers: int | None = None
    part: tuple[int, int] = _ALL
    cluster: str | None = None
    max_failures: int | None = None
    max_share: float = 0.1
    timeout: float = 600.0

    def __post_init__(self) -> None:
        if not 1 <= self.part[0] <= self.part[1]:
            raise ValueError(f"a part is i of n with 1 <= i <= n; got {self.part[0]} of {self.part[1]}")
        if (self.workers is not None and self.workers < 1) or self.timeout <= 0:
            raise ValueError(f"workers must be at least 1, timeout above 0; got {self.workers}, {self.timeout}")
        if (self.max_failures is not None and self.max_failures < 0) or not 0 <= self.max_share <= 1:
            raise ValueError("max_failures must not be negative, max_share lie between 0 and 1")

    def most_failures(self, cases: int) -> int:
        """Failed cases that are borne among so many."""
        if self.max_failures is not None:
            return self.max_failures
        return max(int(self.max_share * cases), 1) if self.max_share > 0 else 0


@dataclass(frozen=True)
class Summary:
    """What became of the cases of a job (or part), by id: done now, kept, or failed with the reason in one line.

    ``complete``: the manifest is written; False when stopped, or while other parts are missing. ``notes`` are warnings.
    """

    done: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()
    failed: dict[str, str] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)
    complete: bool = False
    stopped: bool = False
    seconds: float = 0.0


def prepare(
    found: CaseList,
    out: str | Path,
    settings: PrepareSettings,
    *,
    variants: int = 1,
    options: JobOptions | None = None,
    files: Sequence[str] = (),
    stop: Callable[[], bool] = lambda: False,
    tell: Callable[[str], None] = lambda line: None,
    progress: Callable[[float, str], None] = lambda share, values: None,
) -> Summary:
    """Write the items of every case, and their manifest, into ``out``; what is there and whole is kept.

    The bytes written depend on the inputs and settings alone, not on workers, parts, order or interruptions.

    Parameters
    ----------
    found : the cases; each needs a mask.
    variants : items a case: the fixed forest and ``variants`` − 1 random ones.
    files : small text files of the data set (lists, groups) that are copied along, relative to its root.
    stop : asked several times a second; once True the workers are ended and the summary says ``stopped``.
    tell : receives a line for each failure.
    progress : receives the share that is done and a few words.

    Raises
    ------
    InputError : no cases, a folder of other settings, another job at work there, or too many failures.
    OSError : the disk is full.
    """
    out, chosen, start = Path(out), options or JobOptions(), time.monotonic()
    if variants < 1:
        raise ValueError(f"variants must be at least 1; got {variants}")
    mine = found.cases[chosen.part[0] - 1 :: chosen.part[1]]
    enter_folder(out, settings)
    with _only_one(out, chosen.part, tell):
        for folder in (out, out / ITEMS, out / PARTS):
            remove_leftovers(folder)
        lists = _copy_along(found.root, out, files)
        (out / ITEMS).mkdir(exist_ok=True)
        tasks = [ItemTask(case, variants, settings, out / ITEMS) for case in mine]
        entries, summary = _work(tasks, chosen, found.root, stop, tell, progress, out)
        complete = False
        if not summary.stopped:
            with locked(out / f"{LOCK}manifest", wait=True):
                complete = finish(out, found, settings, variants, entries, chosen.part, lists)
    return replace(summary, complete=complete, seconds=time.monotonic() - start)


def _work(
    tasks: list[ItemTask],
    options: JobOptions,
    source: Path,
    stop: Callable[[], bool],
    tell: Callable[[str], None],
    progress: Callable[[float, str], None],
    out: Path,
) -> tuple[dict[str, dict[str, Any]], Summary]:
    """Entries of the manifest by case, in the order of the tasks, and what became of each."""
    outcomes: dict[str, Outcome] = {}
    failures, limit, start = 0, options.most_failures(len(tasks)), time.monotonic()
    results = _results(tasks, options, stop)
    try:
        for task, answer in results:
            outcome = _outcome(task, answer)
            outcomes[task.case.id] = outcome
            if outcome.failed is not None:
                failures += 1
                number = f" (process {answer.process})" if isinstance(answer, Lost) and answer.process else ""
                tell(f"failed: {task.case.id}: {outcome.failed}{number}")
            if failures > limit:
                what = f"{failures} of {len(outcomes)} cases failed, the last: {outcome.failed}"
                raise InputError(source, what, "is its disk there? else raise --max-failures; what is done is kept")
            if len(outcomes) == min(_SAMPLE, len(tasks)):
                _compare_space(list(outcomes.values()), len(tasks), out, tell)
            speed = len(outcomes) / max(time.monotonic() - start, 1e-9)
            words = f"{len(outcomes)} of {len(tasks)}, {speed:.1f} a second, {failures} failed"
            progress(len(outcomes) / len(tasks), words)
    finally:
        results.close()
        for folder in (out, out / ITEMS):
            remove_leftovers(folder)
    stopped = len(outcomes) < len(tasks)
    ordered = {task.case.id: outcomes[task.case.id] for task in tasks if task.case.id in outcomes}
    return {name: o.entry for name, o in ordered.items()}, Summary(
        done=tuple(n for n, o in ordered.items() if o.failed is None and not o.kept),
        kept=tuple(n for n, o in ordered.items() if o.kept),
        failed={n: o.failed for n, o in ordered.items() if o.failed is not None},
        notes={n: o.notes[0] for n, o in ordered.items() if o.notes},
        stopped=stopped,
    )


def _compare_space(seen: list[Outcome], cases: int, out: Path, tell: Callable[[str], None]) -> None:
    """A line where the rest of the items will hardly fit on the disk, judged by the first few."""
    sizes = [sum(f["bytes"] for f in o.entry["files"]) for o in seen if o.failed is None and not o.kept]
    needed, free = sum(sizes) / max(len(sizes), 1) * (cases - len(seen)), shutil.disk_usage(out).free
    if needed > free:
        tell(f"the items to come will need about {needed / 2**30:.1f} GiB, {free / 2**30:.1f} GiB are free")


def _results(tasks: list[ItemTask], options: JobOptions, stop: Callable[[], bool]) -> Any:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    workers = options.workers or cores
    if options.cluster is not None:
        return work_on_cluster(
            prepare_item, tasks, address=options.cluster, workers=workers, timeout=options.timeout, stop=stop
        )
    return work_in_processes(
        prepare_item, tasks, workers=min(workers, max(len(tasks), 1)), timeout=options.timeout, stop=stop
    )


def _outcome(task: ItemTask, answer: Outcome | Lost) -> Outcome:
    """The outcome; that of a lost process without its number, so that the manifest of the same job is the same."""
    if not isinstance(answer, Lost):
        return answer
    return failure(f"{task.case.image}: {answer.reason}; if the file is good, give it more memory or --timeout")


def _copy_along(root: Path, out: Path, files: Sequence[str]) -> dict[str, str]:
    """The data set's own lists under the same names, and their SHA-256; others are found by their path."""
    copied = {}
    for name in files:
        parts = PurePosixPath(name).parts
        inside = not PurePosixPath(name).is_absolute() and ".." not in parts
        taken = bool(parts) and parts[0] in (SETTINGS, MANIFEST, ITEMS, PARTS)
        if inside and not taken and (root / name).is_file():
            text = read_text(root / name)
            if not ((out / name).is_file() and (out / name).read_text(encoding="utf-8") == text):
                write_text(out / name, text)
            copied[name] = hashlib.sha256((out / name).read_bytes()).hexdigest()
    return copied


@contextmanager
def _only_one(out: Path, part: tuple[int, int], tell: Callable[[str], None]) -> Iterator[None]:
    """This part of the job is mine; InputError where another process is at it, or at parts of another number."""
    with locked(out / f"{LOCK}{part[0]}-of-{part[1]}", wait=False, tell=tell):
        for other in out.glob(f"{LOCK}*-of-*"):
            if other.name.rpartition("-of-")[2] != str(part[1]) and is_held(other):
                what = f"another job is at work here, on part {other.name.removeprefix(LOCK).replace('-of-', ' of ')}"
                raise InputError(out, what, "wait for it, or use the same number of parts")
        yield
