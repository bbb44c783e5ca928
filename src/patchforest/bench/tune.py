"""The same effort for everybody: each contender tries the same learning rates, on a split of the training cases."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from patchforest.bench.run import Row, run_all
from patchforest.bench.settings import Settings
from patchforest.bench.training import RATES, make_contender
from patchforest.data.layout import find_cases
from patchforest.data.splits import split_cases
from patchforest.io.atomic import write_json, write_text
from patchforest.train.config import RunConfig, load_config
from patchforest.train.fit import split

SEED, MINUTES, FOLDS = 100, 0.5, 4


@dataclass(frozen=True)
class Entry:
    """A contender to tune: what its set is called, the recipe's name, its own name, its changes of the recipe."""

    label: str
    recipe: str
    model: str
    changes: tuple[str, ...]


def tune(kind: str, entries: Sequence[Entry], settings: Settings, tell: Callable[[str], None]) -> None:
    """Train every entry with each of ``settings.rates`` and write the best ones to ``learning_rates.json``.

    Scores are of cases held out from the training cases, so that no validation case is looked at. The rates of other
    sets and contenders that are in the file already stay. A set of a single training case is said and left out.
    """
    if not settings.rates:
        raise ValueError("give learning rates to try, e.g. --rates 1e-3,3e-3")
    parts, notes, plan = {}, {}, []
    for label, name in dict.fromkeys((e.label, e.recipe) for e in entries):
        parts[label], notes[label] = inner_split(load_config(settings.recipe(name), settings.changes), name, settings)
        tell(f"{label}: learning rates are chosen on {notes[label]}")
    for entry in entries:
        for rate in settings.rates if parts[entry.label] else ():
            changes = (
                *entry.changes,
                settings.budget(MINUTES),
                "train.validate_cases=0",
                *parts[entry.label],
                f"train.lr={rate}",
            )
            made = make_contender(kind, entry.recipe, entry.model, changes, SEED, settings, label=entry.label)
            plan.append((rate, made))
    rows = run_all([c for _, c in plan], settings.out, jobs=settings.jobs, tell=tell)
    found = pick([(rate, row) for (rate, _), row in zip(plan, rows)])
    path = settings.out / RATES
    before: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    merged: dict[str, Any] = {"rates": before.get("rates", {}), "scores": before.get("scores", {})}
    for (name, model), (best, scores) in found.items():
        merged["rates"].setdefault(name, {})[model] = best
        merged["scores"].setdefault(name, {})[model] = scores
        tell(f"{name}, {model}: {best:g} of " + ", ".join(f"{r} → Dice {d:.3f}" for r, d in scores.items()))
    merged["chosen_on"] = {**before.get("chosen_on", {}), **notes}
    merged["command"] = settings.command(kind)
    write_json(path, merged)


def pick(rows: list[tuple[float, Row]]) -> dict[tuple[str, str], tuple[float, dict[str, float]]]:
    """(set, contender) → the rate of the best Dice, and the Dice of every rate by its text; failed rows count not."""
    scores: dict[tuple[str, str], dict[float, float]] = {}
    for rate, row in rows:
        if not row.failed:
            scores.setdefault((row.contender.set, row.contender.name), {})[rate] = row.result["Dice"]
    return {
        who: (max(sorted(tried), key=lambda r: tried[r]), {f"{r:g}": d for r, d in tried.items()})
        for who, tried in scores.items()
    }


def inner_split(recipe: RunConfig, name: str, settings: Settings) -> tuple[tuple[str, ...], str]:
    """Changes of a recipe so that it trains and validates on its training cases alone, and what that is in words.

    No changes where there is a single training case.
    """
    from patchforest.bench.sets import data_of

    found = find_cases(data_of(name, settings.data, settings.out), layout=recipe.data.layout)
    training, _ = split(found, recipe)
    groups = {c.group or c.id for c in training}
    if len(groups) < 2:
        return (), "nothing: it has one training case, so that its recipe's rate stays"
    folds = min(FOLDS, max(2, len(groups) // 2))
    plain = replace(found, cases=tuple(replace(c, split=None) for c in training), layout="paired")
    inner, held = split_cases(plain, fold=0, folds=folds, seed=SEED)
    lists = {"train": inner, "validation": held}
    for part, cases in lists.items():
        write_text(_list(settings.out, name, part), "".join(f"{c.id}\n" for c in cases))
    changes = tuple(f"data.{part}={json.dumps(str(_list(settings.out, name, part).resolve()))}" for part in lists)
    return changes, f"{len(held)} of its {len(training)} training cases, held out"


def _list(out: Path, name: str, part: str) -> Path:
    return out / "tune" / name / f"{part}.txt"
