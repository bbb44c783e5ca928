"""A note of a bench: JSON with every number, Markdown with tables, SVG pictures; each file whole or absent."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

from patchforest.bench.settings import Settings
from patchforest.io.atomic import write_json, write_text
from patchforest.report.environment import describe_environment


@dataclass(frozen=True)
class NoteTable:
    """Rows of text below a header; the first column stands on the left."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Note:
    """What a bench found.

    Attributes
    ----------
    lines : paragraphs, which say what the numbers are.
    charts : SVG by a short name.
    numbers : everything behind the tables, as plain values.
    """

    title: str
    lines: tuple[str, ...]
    tables: tuple[NoteTable, ...]
    charts: dict[str, str] = field(default_factory=dict)
    numbers: Any = None


def without_places(value: Any) -> Any:
    """Plain values with the last two parts alone of every absolute path, bare or as in ``name="PATH"``."""
    if isinstance(value, dict):
        return {key: without_places(v) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return [without_places(v) for v in value]
    if not isinstance(value, str):
        return value
    return re.sub(r'^((?:[\w.]+=)?"?)/(?:[^"]*/)?([^/"]+/[^/"]+"?)$', r"\1\2", value)


def write_note(kind: str, note: Note, settings: Settings, failed: Sequence[str] = ()) -> Path:
    """Write ``KIND.json``, ``KIND-NAME.svg`` and ``KIND.md`` into ``settings.out``; returns the last.

    All state hardware, versions, date, command and what failed.
    """
    out, today, where = settings.out, date.today().isoformat(), describe_environment()
    command = settings.command(kind)
    for name, chart in note.charts.items():
        write_text(out / f"{kind}-{name}.svg", standalone(chart))
    circumstances = {
        "bench": kind,
        "date": today,
        "environment": where.line,
        "versions": where.versions,
        "command": command,
        "jobs": settings.jobs,
        "threads": settings.threads,
        "seeds": list(settings.seeds),
        "failed": list(failed),
    }
    write_json(out / f"{kind}.json", {**circumstances, "results": without_places(note.numbers)})
    text = [
        f"# {note.title}",
        "",
        f"{today}. {where.line}. {settings.jobs} at a time, {settings.threads} thread(s) each.",
    ]
    text += ["", f"Command: `{command}`."]
    for line in note.lines:
        text += ["", line]
    for table in note.tables:
        text += ["", f"## {table.title}", "", *markdown(table)]
    for name in note.charts:
        text += ["", f"![{name}]({kind}-{name}.svg)"]
    if failed:
        text += ["", "## Failed", "", *(f"- {line}" for line in failed)]
    write_text(out / f"{kind}.md", "\n".join(text) + "\n")
    return out / f"{kind}.md"


def markdown(table: NoteTable) -> list[str]:
    """The lines of a table."""
    lines = [f"| {' | '.join(table.header)} |", "|---" + "|---:" * (len(table.header) - 1) + "|"]
    return lines + [f"| {' | '.join(cell.replace('|', '/') for cell in row)} |" for row in table.rows]


def mean_sd(values: Iterable[float | None], digits: int = 3) -> str:
    """``mean ± sd`` over seeds (sd of a sample), the mean alone for one value, a dash for none."""
    known = [v for v in values if v is not None and math.isfinite(v)]
    if not known:
        return "–"
    spread = f" ± {np.std(known, ddof=1):.{digits}f}" if len(known) > 1 else ""
    return f"{np.mean(known):.{digits}f}{spread}"


def mean_of(values: Iterable[float | None], digits: int = 2) -> str:
    """The mean, a dash for none."""
    known = [v for v in values if v is not None and math.isfinite(v)]
    return f"{np.mean(known):,.{digits}f}" if known else "–"


def geometric_mean(values: Sequence[float]) -> float:
    """Of numbers above zero; NaN of none."""
    return math.exp(sum(map(math.log, values)) / len(values)) if values else math.nan


def standalone(chart: str) -> str:
    """An SVG element of ``report.curves`` as a file of its own: with its name space, colours and white paper."""
    opening, rest = chart.split(">", 1)
    return (
        f'{opening} xmlns="http://www.w3.org/2000/svg">{_STYLE}<rect width="100%" height="100%" fill="#fff"/>{rest}\n'
    )


_STYLE = (
    "<style>text{font:11px system-ui,sans-serif;fill:#5c6676}.title{font-size:13px;font-weight:600;fill:#1c2330}"
    ".grid{stroke:#dde2ea}</style>"
)
