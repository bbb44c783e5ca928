"""Same quality, less time (the papers' Table II): when an adaptive model reaches the best Dice of the uniform one.

Both are the same network with patches of the same side p; the uniform one reads a plain grid of them, the adaptive one
a sixteenth of that many leaves, whose smallest side is p.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from patchforest.bench.contender import Contender
from patchforest.bench.contenders import PAPER, downscaled
from patchforest.bench.kind import Kind
from patchforest.bench.note import Note, NoteTable, geometric_mean, mean_of
from patchforest.bench.quality import by_contender, plain, rates_of
from patchforest.bench.ratio import Ratio, ratios_of
from patchforest.bench.run import Row
from patchforest.bench.sets import data_of
from patchforest.bench.settings import Settings
from patchforest.bench.training import (
    Trained,
    make_contender,
    peak_mib,
    picked,
    seconds_to_predict,
    train,
    tuned,
)
from patchforest.bench.tune import Entry, tune
from patchforest.report.curves import line_chart, read_metrics
from patchforest.train.config import RunConfig, load_config

MINUTES, CASES, BATCH = 3.0, 3, 2
SETS, SIZES, FULL_SIZES = ("glas", "glomeruli", "hrf", "landslide"), (512,), (512, 1024)
GRID, FULL_GRID, FEWER = 64, 128, 16
"""Patches along a side of the uniform grid (small form, full form), and how many times fewer leaves there are."""

NUM_VALIDATIONS = 20
"""In the training of every contender, whatever its share of the budget."""

UNIFORM, HALF, UNETR = "uniform", "uniform, 1/2 of the time", "UNETR"
ADAPTIVE, SHORT = "adaptive", "adaptive, 1/8 of the time"
OPTIONAL = (HALF,)
"""Contenders that run only where they are asked for by name."""

LONG_OF = {SHORT: ADAPTIVE, HALF: UNIFORM}
"""The contender of the whole budget that it is otherwise like: its tuned learning rate is taken over."""

SHORTER = {SHORT: 0.125, HALF: 0.5}
"""Share of the budget, where it is not all: the learning rate then falls in that much less time."""

PARTS = ("input", "encoder", "rest")
HEADER = (
    "row", "model", "tokens", "training s/image", *PARTS, "prediction s/image", "peak MiB", "images", "best Dice",
    "s to uniform's best",
)  # fmt: skip
RATIOS = ("row", "model", "time to that Dice", "training s/image", "prediction s/image", "tokens")


def entries(settings: Settings) -> list[Entry]:
    """All contenders of every set and size that its images fill, without budget and seed."""
    found = []
    for name in settings.sets:
        side, recipe = _shorter_side(settings, name), load_config(settings.recipe(name), settings.changes)
        for size in settings.sizes or (FULL_SIZES if settings.full else SIZES):
            if side < size:
                continue
            chosen = picked(_contenders(recipe, size, side // size, full=settings.full), settings)
            if not settings.contenders:
                without = OPTIONAL if settings.full else (*OPTIONAL, UNETR)
                chosen = {model: changes for model, changes in chosen.items() if model not in without}
            found += [Entry(f"{name} {size}", name, model, changes) for model, changes in chosen.items()]
    return found


def plan(settings: Settings) -> list[Contender]:
    """Row by row, so that whatever is finished when a bench is stopped can be compared."""
    return [
        make_contender("speed", e.recipe, e.model, (*e.changes, *_schedule(settings, e)), seed, settings, label=e.label)
        for seed in settings.seeds
        for e in entries(settings)
    ]


def work(contender: Contender, folder: Path) -> dict[str, Any]:
    """Train with validations on the way: Dice against seconds of training, and what an image costs, in parts."""
    from patchforest.bench.parts import time_parts

    done = train(contender, folder)
    _, columns = read_metrics(done.run / "metrics.csv")
    predicted = seconds_to_predict(done)
    return {
        **done.numbers,
        "curve": columns.get("dice", []),
        "all_foreground": all_foreground(done),
        "tokens": tokens_of(done.config),
        "training": done.numbers["train_seconds"] / done.numbers["images"],
        "prediction": predicted,
        "peak_mib": peak_mib(),
        **time_parts(done.config, Path(contender.data)),
    }


def tokens_of(config: RunConfig) -> int:
    """Tokens of a training window: leaves, or patches of a model on a regular grid."""
    if config.forest is not None and config.forest.budget is not None:
        return config.forest.budget
    side = config.model.patch if config.forest is None else config.forest.uniform
    assert side is not None
    height, width = config.data.window_shape
    return -(-height // side) * -(-width // side)


def all_foreground(done: Trained) -> float | None:
    """Mean Dice over the validation cases of calling every pixel foreground; None with more than two classes."""
    from patchforest.data.load import load_case

    assert done.config.data.classes is not None
    if len(done.config.data.classes) != 2:
        return None
    shares = [(load_case(case, label_map=done.config.data.labels).label > 0).mean() for case in done.validation]
    return float(np.mean([2 * share / (1 + share) for share in shares]))


def note(rows: Sequence[Row], settings: Settings) -> Note:
    """What every model costs, how many times less that is than the uniform one's, and Dice against time."""
    ratios = ratios_of(rows, UNIFORM, same=(HALF,))
    labels = list(dict.fromkeys(r.contender.set for r in rows))
    budget = settings.budget(MINUTES).removeprefix("train.max_").replace("_", " ").replace("=", ": ")
    lines = (
        f"Budget of each: {budget} of training (data pipeline and forests count, validations do not); batch {BATCH}; "
        "one network a row, of patches of one side; images are averaged so that the shorter side is no less than the "
        "size, and sets of smaller images are left out. Tokens: of a training window. Input, encoder and rest (stem, "
        "gathering, readout, loss): seconds an image of a training step, timed apart after the training. Seconds of "
        "training are on the budget's clock; those of parts and prediction CPU seconds of a process, on a GPU wall "
        "seconds.",
        f"Dice: of full-size masks of {CASES} validation images, at {NUM_VALIDATIONS} moments of every training. Time "
        "to that Dice: seconds of training until the first validation that is at or above the best of the uniform "
        "model of the same row and seed, nothing interpolated. The uniform model's own time to it is the earliest at "
        "which it was there on the whole schedule or, where that ran, on half of it, on which the learning rate falls "
        "sooner.",
        "Ratios: how many times less than the uniform model, geometric means over seeds and then over rows. A model "
        "that was never there counts with an upper bound, the uniform model's time over all that it was trained "
        "itself, but no more than 1: it saves nothing. Every mean with a bound in it is marked <. Rows whose uniform "
        "model did no better than calling everything foreground do not count for time to Dice.",
        rates_of(rows, settings, LONG_OF),
    )
    return Note(
        title="Same quality, less time",
        lines=lines,
        tables=(_costs(labels, rows, ratios), _ratio_table(labels, ratios)),
        charts={label.replace(" ", "-"): _chart(label, rows) for label in labels},
        numbers=[plain(row) for row in rows],
    )


def _contenders(recipe: RunConfig, size: int, downscale: int, *, full: bool) -> dict[str, tuple[str, ...]]:
    grid = FULL_GRID if full else GRID
    patch = size // grid
    if size % grid or patch & (patch - 1):
        raise ValueError(f"sizes must be {grid} times a power of two, e.g. {grid * 8}; got {size}")
    stem = [16, 32, 64, 128][: min(patch.bit_length() - 1, 4)]
    base = (
        *(PAPER if full else ()),
        *downscaled(recipe, downscale),
        f"data.window={size}",
        f"model.patch={patch}",
        f"model.stem={stem}",
        f"train.batch={BATCH}",
        f"train.validate_cases={CASES}",
    )
    leaves = (*base, f"forest.cell={patch}", f"forest.budget={grid**2 // FEWER}")
    squares = (*base, f"forest.cell={patch}", f"forest.uniform={patch}")
    return {
        UNIFORM: squares,
        HALF: squares,
        ADAPTIVE: leaves,
        SHORT: leaves,
        UNETR: (*base, "model.name=unetr", "model.features=16"),
    }


def _shorter_side(settings: Settings, name: str) -> int:
    """Of the first image of a set, in pixels."""
    from patchforest.data.layout import find_cases
    from patchforest.io.open import open_image

    recipe = load_config(settings.recipe(name), settings.changes)
    case = find_cases(data_of(name, settings.data, settings.out), layout=recipe.data.layout).cases[0]
    return min(open_image(case.image).shape[:2])


def _schedule(settings: Settings, entry: Entry) -> tuple[str, ...]:
    return (
        settings.budget(MINUTES, share=SHORTER.get(entry.model, 1.0)),
        f"train.validate_every={1 / NUM_VALIDATIONS}",
        *tuned(settings, entry.label, LONG_OF.get(entry.model, entry.model)),
    )


def _costs(labels: Sequence[str], rows: Sequence[Row], ratios: Sequence[Ratio]) -> NoteTable:
    lines = []
    for label in labels:
        for model, mine in by_contender([r for r in rows if r.contender.set == label]).items():
            got = {key: [r.result[key] for r in mine] for key in mine[0].result}
            best = [max((d for _, d in r.result["curve"]), default=None) for r in mine]
            reached = [r.seconds for r in ratios if (r.label, r.name) == (label, model)]
            floor = got["all_foreground"][0]
            lines.append(
                (
                    label if floor is None else f"{label} (all foreground: {floor:.3f})",
                    model,
                    f"{got['tokens'][0]:,}",
                    *(mean_of(got[part], 3) for part in ("training", *PARTS, "prediction")),
                    f"{max(got['peak_mib']):,.0f}",
                    mean_of(got["images"], 0),
                    mean_of(best, 3),
                    _seeds(reached),
                )
            )
    return NoteTable("What it costs", HEADER, tuple(lines))


def _ratio_table(labels: Sequence[str], ratios: Sequence[Ratio]) -> NoteTable:
    lines = []
    for name in dict.fromkeys(r.name for r in ratios):
        every: list[list[float]] = [[], [], [], []]
        bounds = 0
        for label in labels:
            mine = [r for r in ratios if (r.label, r.name) == (label, name)]
            if not mine:
                continue
            times = [r.time for r in mine if r.time is not None and r.counts]
            reached = sum(r.seconds is not None for r in mine if r.counts)
            bounds += reached < len(times)
            means = [[r.training for r in mine], [r.prediction for r in mine], [r.tokens for r in mine]]
            for place, values in zip(every, [times, *means]):
                place += [geometric_mean(values)] if values else []
            how = f"{reached} of {len(times)} seeds" if reached else "not reached"
            text = f"{_times(times, reached < len(times))} ({how})" if times else "the uniform model learned nothing"
            lines.append((label, name, text, *(_times(m) for m in means)))
        rows = f"{bounds} of {len(every[0])} rows a bound" if bounds else f"{len(every[0])} rows"
        first = f"{_times(every[0], bounds > 0)} ({rows})"
        lines.append(("**geometric mean**", name, first, *(_times(values) for values in every[1:])))
    return NoteTable("How many times less than the uniform model", RATIOS, tuple(lines))


def _times(values: Sequence[float], bound: bool = False) -> str:
    """Their geometric mean; a dash for none."""
    return f"{'< ' if bound else ''}{geometric_mean(values):.1f} ×" if values else "–"


def _seeds(reached: Sequence[float | None]) -> str:
    if not reached or all(r is None for r in reached):
        return "not reached"
    short = sum(r is None for r in reached)
    return mean_of(reached, 1) + (f" ({short} of {len(reached)} seeds never)" if short else "")


def _chart(label: str, rows: Sequence[Row]) -> str:
    mine = [r for r in rows if r.contender.set == label]
    several = len({r.contender.seed for r in mine}) > 1
    lines = {f"{r.contender.name}{f' ({r.contender.seed})' if several else ''}": r.result["curve"] for r in mine}
    return line_chart(f"{label}: validation Dice", lines, x_label="seconds of training")


def _tune(settings: Settings, tell: Callable[[str], None]) -> None:
    tune("speed", [e for e in entries(settings) if e.model not in LONG_OF], settings, tell)


KIND = Kind(
    title="same quality, less time: when the uniform small-patch model's best Dice is reached",
    options=(
        "sets", "sizes", "contenders", "seeds", "cpu_minutes", "minutes", "steps", "recipes", "rates", "tune", "full",
        "changes",
    ),
    plan=plan,
    work=work,
    note=note,
    tune=_tune,
    sets=SETS,
)  # fmt: skip
