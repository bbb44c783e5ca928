"""One bench from its settings to its note; the same call goes on where it was stopped."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from patchforest.bench.kinds import KINDS
from patchforest.bench.note import write_note
from patchforest.bench.run import run_all
from patchforest.bench.settings import Settings


@dataclass(frozen=True)
class Outcome:
    """What a bench left: its note (None after tuning, or where everything failed) and what failed, one line each."""

    note: Path | None
    failed: tuple[str, ...] = ()


def run_bench(kind: str, settings: Settings, *, tell: Callable[[str], None] = lambda line: None) -> Outcome:
    """Run all contenders of a kind that are not finished yet, and write the note about all of them.

    Raises
    ------
    ValueError : an unknown kind, or settings that do not fit it.
    InputError : data or recipes that are not there, or another process at work in ``settings.out``.
    """
    if kind not in KINDS:
        raise ValueError(f"there is no bench {kind!r}; there are {', '.join(KINDS)}")
    chosen = KINDS[kind]
    settings = replace(settings, sets=settings.sets or chosen.sets)
    if settings.tune:
        if chosen.tune is None:
            raise ValueError(f"there is nothing to tune in bench {kind}")
        chosen.tune(settings, tell)
        return Outcome(None)
    contenders = chosen.plan(settings)
    if not contenders:
        raise ValueError(f"nothing to run in bench {kind}; give other sets or sizes")
    tell(f"{kind}: {len(contenders)} runs, {settings.jobs} at a time, {settings.threads} thread(s) each")
    rows = run_all(contenders, settings.out, jobs=settings.jobs, tell=tell)
    failed = tuple(f"{r.contender.title}: {r.failed}" for r in rows if r.failed)
    whole = [r for r in rows if not r.failed]
    if not whole:
        return Outcome(None, failed)
    return Outcome(write_note(kind, chosen.note(whole, settings), settings, failed), failed)
