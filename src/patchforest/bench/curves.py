"""Training curves and their stability (APF figure 4), of the runs that other benches left in the same folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from patchforest.bench.contender import Contender
from patchforest.bench.kind import Kind
from patchforest.bench.note import Note, NoteTable, mean_sd
from patchforest.bench.quality import by_contender
from patchforest.bench.run import Row, read_rows
from patchforest.bench.settings import Settings
from patchforest.bench.tune import KIND as TUNE
from patchforest.bench.tune import SEED as TUNE_SEED
from patchforest.errors import InputError
from patchforest.report.curves import Points, line_chart, read_metrics

PLACES = 60
"""Points of a drawn curve."""
FEWEST = 6
"""Points of a run from which on its stability is told."""


@dataclass(frozen=True)
class Band:
    """Curves of several seeds as one: at each time their mean, lowest and highest value."""

    time: tuple[float, ...]
    mean: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]


def plan(settings: Settings) -> list[Contender]:
    """One for every bench and set, with the keys of the finished trainings in ``settings.out`` that are wanted.

    Of the same bench, set, contender and seed the last counts; tries of learning rates are no such trainings.

    Raises
    ------
    InputError : there is none.
    """
    found: dict[str, dict[tuple[str, int], str]] = {}
    for row in read_rows(settings.out).values():
        c = row.contender
        wanted = c.set in (settings.sets or (c.set,)) and c.name in (settings.contenders or (c.name,))
        tried = c.kind == TUNE or c.seed == TUNE_SEED
        if wanted and not tried and not row.failed and _metrics(c, settings.out).is_file():
            found.setdefault(f"{c.kind}, {c.set}", {})[c.name, c.seed] = c.key
    if not found:
        hint = "run e.g. `patchforest bench quality` with the same --out first"
        raise InputError(settings.out, "holds no finished trainings of these sets and contenders", hint)
    data = str(settings.out.resolve())
    return [Contender("curves", name, "all runs", tuple(runs.values()), data=data) for name, runs in found.items()]


def work(contender: Contender, folder: Path) -> dict[str, Any]:
    """Of every run, points of validation Dice and of loss over seconds of training, and how much each jumps about."""
    out = Path(contender.data)
    rows, runs = read_rows(out), []
    for key in contender.changes:
        c = rows[key].contender
        time, columns = read_metrics(_metrics(c, out))
        dice, loss = columns.get("dice", []), columns.get("loss", [])
        numbers = {
            "time": time,
            "dice": dice,
            "loss": loss,
            "dice_stability": stability(dice),
            "loss_stability": stability(loss),
            "best": max((v for _, v in dice), default=None),
            "last": dice[-1][1] if dice else None,
        }
        runs.append({"contender": c.name, "seed": c.seed, **numbers})
    return {"runs": runs}


def _metrics(contender: Contender, out: Path) -> Path:
    return contender.folder(out) / "run" / "metrics.csv"


def stability(points: Points) -> float | None:
    """Standard deviation of the differences from one point to the next in the second half: 0 for a smooth course.

    A steady climb or fall counts nothing. None below ``FEWEST`` points.
    """
    if len(points) < FEWEST:
        return None
    values = np.array([value for _, value in points])
    return float(np.std(np.diff(values[len(values) // 2 - 1 :])))


def band_of(runs: Sequence[Points], places: int = PLACES) -> Band:
    """The curves of several seeds at even times over the span that all of them cover, linear between their points.

    Raises
    ------
    ValueError : no runs, or one without points.
    """
    if not runs or not all(runs):
        raise ValueError("a band needs at least one run, and points of every run")
    first, last = max(r[0][0] for r in runs), min(r[-1][0] for r in runs)
    time = np.linspace(first, max(last, first), places if last > first else 1)
    values = np.array([np.interp(time, [at for at, _ in run], [value for _, value in run]) for run in runs])
    return Band(
        tuple(time.tolist()),
        tuple(values.mean(0).tolist()),
        tuple(values.min(0).tolist()),
        tuple(values.max(0).tolist()),
    )


def note(rows: Sequence[Row], settings: Settings) -> Note:
    """A table of stability and a picture of Dice, where it was followed, and of the loss, for every set."""
    lines = (
        "Validation Dice and training loss over seconds of training, as `metrics.csv` of the runs has them (a row of "
        "loss is the mean since the row before). Pictures: mean over seeds, shaded from the lowest to the "
        "highest seed, over the time that all seeds cover.",
        "Jumps: standard deviation of the differences from one point to the next in the second half of a run, mean "
        f"± sd over seeds; smaller is more stable. A dash: fewer than {FEWEST} points. How often there is one differs "
        "between benches, so compare within one.",
    )
    names = list(dict.fromkeys(r.contender.set for r in rows))
    tables, charts = [], {}
    for name in names:
        mine = by_contender(_runs(name, rows))
        tables.append(_table(name, mine))
        for column, title in (("dice", "validation Dice"), ("loss", "training loss")):
            chart = _chart(f"{name}: {title}", {n: [r.result[column] for r in same] for n, same in mine.items()})
            if chart is not None:
                charts[f"{name.replace(', ', '-').replace(' ', '_')}-{column}"] = chart
    return Note(
        title="Training curves and their stability",
        lines=lines,
        tables=tuple(tables),
        charts=charts,
        numbers=[{"set": r.contender.set, **run} for r in rows for run in r.result["runs"]],
    )


def _runs(name: str, rows: Sequence[Row]) -> list[Row]:
    """Every run of a bench and set as a row of its own."""
    runs = [run for row in rows if row.contender.set == name for run in row.result["runs"]]
    return [Row(Contender("curves", name, run["contender"], seed=run["seed"]), run) for run in runs]


def _table(name: str, rows: Mapping[str, Sequence[Row]]) -> NoteTable:
    lines = []
    for model, mine in rows.items():
        got = {key: [r.result[key] for r in mine] for key in mine[0].result}
        lines.append(
            (
                model,
                str(len(mine)),
                mean_sd(got["best"]),
                mean_sd(got["last"]),
                mean_sd(got["dice_stability"], 4),
                mean_sd(got["loss_stability"], 4),
            )
        )
    return NoteTable(
        name, ("contender", "seeds", "best Dice", "last Dice", "jumps of Dice", "jumps of loss"), tuple(lines)
    )


def _chart(title: str, runs: Mapping[str, Sequence[Points]]) -> str | None:
    """A line and a band for every contender whose runs all have points; None where none has more than one."""
    bands = {n: band_of(r) for n, r in runs.items() if all(len(points) > 1 for points in r)}
    if not bands:
        return None
    return line_chart(
        title,
        {n: list(zip(b.time, b.mean)) for n, b in bands.items()},
        x_label="seconds of training",
        bands={n: list(zip(b.time, b.low, b.high)) for n, b in bands.items()},
    )


KIND = Kind(
    title="training curves of the runs in OUT and how much they jump about (APF figure 4)",
    options=("sets", "contenders"),
    plan=plan,
    work=work,
    note=note,
)
