"""Same cost, better quality (the papers' Table III): Dice on full-size images after the same training budget."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from patchforest.bench.contender import Contender
from patchforest.bench.contenders import GROWTH, RATE_OF, SCORED, SCORER, SCORER_SHARE, contenders_of
from patchforest.bench.kind import Kind
from patchforest.bench.note import Note, NoteTable, mean_of, mean_sd
from patchforest.bench.plot import dot_chart
from patchforest.bench.run import Row
from patchforest.bench.settings import Settings
from patchforest.bench.training import LAST, make_contender, picked, read_rates, train_and_score, tuned
from patchforest.bench.tune import Entry, tune
from patchforest.train.config import load_config

MINUTES = 2.0
SETS = ("glas", "glomeruli", "hrf", "idrid", "landslide", "monuseg", "swiss_drone")
HEADER = (
    "contender", "Dice", "each seed", "boundary F", "ceiling", "tokens", "s/image", "peak MiB", "parameters", "steps",
    "lr",
)  # fmt: skip


def plan(settings: Settings) -> list[Contender]:
    """Seed by seed and set by set, so that whatever is finished when a bench is stopped can be compared."""
    return [
        make_contender(
            "quality",
            name,
            model,
            (
                *changes,
                settings.budget(MINUTES, share=1 - SCORER_SHARE if model == SCORED else 1.0),
                *LAST,
                *rate(settings, name, model),
            ),
            seed,
            settings,
            scorer=(*SCORER, settings.budget(MINUTES, share=SCORER_SHARE), *LAST) if model == SCORED else (),
        )
        for seed in settings.seeds
        for name in settings.sets
        for model, changes in entries(settings, name).items()
    ]


def entries(settings: Settings, name: str) -> dict[str, tuple[str, ...]]:
    """The contenders of a set that were asked for, each with its changes of the recipe.

    ``SHF, scorer`` is SHF; ``plan`` gives it the scorer that is trained first, which no other bench would.
    """
    known = contenders_of(load_config(settings.recipe(name), settings.changes), full=settings.full)
    return picked({**known, SCORED: known["SHF"]}, settings)


def rate(settings: Settings, name: str, model: str) -> tuple[str, ...]:
    """The learning rate of a contender as a change of the recipe: its own, or that of the one that it follows."""
    return tuned(settings, name, model) or tuned(settings, name, RATE_OF.get(model, model))


def note(rows: Sequence[Row], settings: Settings) -> Note:
    """A table and a picture for every set."""
    budget = settings.budget(MINUTES).removeprefix("train.max_").replace("=", ": ").replace("_", " ")
    lines = (
        f"Every contender trains for the same budget ({budget}; data pipeline and forests count, validation does not) "
        "from one recipe a set, whose window, batch, norm, surroundings and augmentation were chosen for APF-UNETR; "
        "each changes its model, and U-Nets scale and window too. Width and batch of U-Nets are not tuned.",
        "The uniform grid has as many tokens as APF-UNETR, or the next fewer. SHF has twice as many, of leaves from 16 "
        f"pixels on. Refined ones look first at a quarter of their tokens, and then at {GROWTH} leaves for each; "
        "refined by stem: half of the leaves lie where a first answer of the convolutions is unsure. "
        f"{SCORED}: {SCORER_SHARE:.0%} of the budget trains a scorer, which cuts the forests of an SHF that has the "
        "rest.",
        "Full-size masks of the last weights: nothing was chosen on the validation images. Dice: mean ± sd over seeds "
        "of the mean over images and classes. Boundary F: at 2 pixels. Ceiling: best Dice that forest and output grid "
        "allow. Tokens: of prediction, an image. Seconds: CPU seconds (on a GPU: seconds) from pixels to mask of the "
        "first validation image. Peak: memory of training and prediction.",
        rates_of(rows, settings, RATE_OF),
    )
    names = list(dict.fromkeys(r.contender.set for r in rows))
    return Note(
        title="Same cost, better quality",
        lines=lines,
        tables=tuple(_table(name, [r for r in rows if r.contender.set == name]) for name in names),
        charts={name: _chart(name, [r for r in rows if r.contender.set == name]) for name in names},
        numbers=[plain(row) for row in rows],
    )


def by_contender(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Rows by the contender's name, in their order; each list by seed."""
    found: dict[str, list[Row]] = {}
    for row in sorted(rows, key=lambda r: r.contender.seed):
        found.setdefault(row.contender.name, []).append(row)
    return {name: found[name] for name in dict.fromkeys(r.contender.name for r in rows)}


def rates_of(rows: Sequence[Row], settings: Settings, same: Mapping[str, str] | None = None) -> str:
    """Where learning rates of rows come from; ``same``: contenders that take the rate of another if not tuned."""
    rates = read_rates(settings.out)
    known = {f"{r.contender.set}, {r.contender.name}": r.contender for r in rows}
    without: list[str] = []
    taken: dict[str, str] = {}
    for title, c in known.items():
        tried, other = rates.get(c.set, {}), (same or {}).get(c.name, c.name)
        if c.name not in tried:
            without += [title] if other not in tried else []
            taken |= {c.name: other} if other in tried else {}
    if len(without) == len(known):
        return "Learning rates: the recipe's for all, not tuned."
    others = "".join(f" {name} has that of {other}." for name, other in taken.items())
    rest = f" These are not, and have the recipe's: {'; '.join(without)}." if without else ""
    return f"Learning rates: tuned, see learning_rates.json.{others}{rest}"


def plain(row: Row) -> dict[str, Any]:
    """A row for the JSON file, without the places of one machine."""
    c = row.contender
    return {
        "set": c.set,
        "contender": c.name,
        "seed": c.seed,
        "changes": list(c.changes),
        "scorer": list(c.scorer),
        **row.result,
    }


def _table(name: str, rows: Sequence[Row]) -> NoteTable:
    cases = len(rows[0].result["per_case"])
    lines = []
    for model, mine in by_contender(rows).items():
        got = {key: [r.result[key] for r in mine] for key in mine[0].result}
        predict = [r.result.get("predict_seconds", r.result["seconds"]) for r in mine]
        lines.append(
            (
                model,
                mean_sd(got["Dice"]),
                " ".join(f"{v:.3f}" for v in got["Dice"]),
                mean_of(got["BoundaryF2"], 3),
                mean_of(got["ceiling"], 3),
                mean_of(got["tokens"], 0) if any(got["tokens"]) else "–",
                mean_of(predict),
                f"{max(got['peak_mib']):,.0f}",
                f"{got['parameters'][0] / 1e6:.2f} M",
                mean_of(got["steps"], 0),
                " ".join(dict.fromkeys(f"{v:g}" for v in got["lr"])),
            )
        )
    return NoteTable(f"{name} ({cases} validation images)", HEADER, tuple(lines))


def _chart(name: str, rows: Sequence[Row]) -> str:
    dice = {model: [r.result["Dice"] for r in mine] for model, mine in by_contender(rows).items()}
    best = sorted(dice, key=lambda model: -float(np.mean(dice[model])))
    return dot_chart(f"{name}: Dice of every seed", {m: dice[m] for m in best}, x_label="Dice")


def _tune(settings: Settings, tell: Callable[[str], None]) -> None:
    every = [Entry(n, n, m, c) for n in settings.sets for m, c in entries(settings, n).items() if m != SCORED]
    tune("quality", every, settings, tell)


KIND = Kind(
    title="same cost, better quality: Dice after the same training budget",
    options=(
        "sets", "contenders", "seeds", "cpu_minutes", "minutes", "steps", "recipes", "rates", "tune", "full", "changes",
    ),
    plan=plan,
    work=train_and_score,
    note=note,
    tune=_tune,
    sets=SETS,
)  # fmt: skip
