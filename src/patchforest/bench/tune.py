"""The same effort for everybody: each contender tries the same learning rates, on a split of the training cases."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from patchforest.bench.run import Row, run_all
from patchforest.bench.settings import Settings
from patchforest.bench.training import RATES, headline, make_contender
from patchforest.data.layout import find_cases
from patchforest.data.splits import split_cases
from patchforest.io.atomic import write_json, write_text
from patchforest.train.config import RunConfig, load_config
from patchforest.train.fit import split

KIND = "tune"
"""Of contenders that only try a learning rate, of whatever bench; ``bench.kinds.work_of`` has their work."""

SEED, MINUTES, FOLDS = 100, 0.5, 4


@dataclass(frozen=True)
class Entry:
    """A contender to tune: what its set is called, the recipe's name, its own name, its changes of the recipe.

    ``data`` is its data where they are not the recipe's.
    """

    label: str
    recipe: str
    model: str
    changes: tuple[str, ...]
    data: Path | None = None


def tune(kind: str, entries: Sequence[Entry], settings: Settings, tell: Callable[[str], None]) -> None:
    """Train every entry with each of ``settings.rates`` and write the best ones to ``learning_rates.json``.

    Scores are of cases held out from the training cases, so that no validation case is looked at. The rates of other
    sets and contenders that are in the file already stay. A set of a single training image is said and left out.
    """
    if not settings.rates:
        raise ValueError("give learning rates to try, e.g. --rates 1e-3,3e-3")
    splits: dict[str, InnerSplit] = {}
    plan = []
    for entry in entries:
        if entry.label not in splits:
            recipe = load_config(settings.recipe(entry.recipe), (*entry.changes, *settings.changes))
            splits[entry.label] = inner_split(recipe, entry.recipe, settings, data=entry.data)
            tell(f"{entry.label}: learning rates are chosen on {splits[entry.label].words}")
        split = splits[entry.label]
        for rate in settings.rates if split.changes else ():
            changes = (*entry.changes, settings.budget(MINUTES), "train.validate_cases=0", *split.changes)
            changes = (*changes, f"train.lr={rate}")
            made = make_contender(
                KIND,
                entry.recipe,
                entry.model,
                changes,
                SEED,
                settings,
                label=entry.label,
                data=split.data or entry.data,
            )
            plan.append((rate, made))
    rows = run_all([c for _, c in plan], settings.out, jobs=settings.jobs, tell=tell)
    found = pick([(rate, row) for (rate, _), row in zip(plan, rows)])
    path = settings.out / RATES
    before: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    merged: dict[str, Any] = {"rates": before.get("rates", {}), "scores": before.get("scores", {})}
    for (name, model), (best, scores) in found.items():
        merged["rates"].setdefault(name, {})[model] = best
        merged["scores"].setdefault(name, {})[model] = scores
        tell(f"{name}, {model}: {best:g} of " + ", ".join(f"{r} → {d:.3f}" for r, d in scores.items()))
    merged["chosen_on"] = {**before.get("chosen_on", {}), **{label: s.words for label, s in splits.items()}}
    merged["command"] = settings.command(kind)
    write_json(path, merged)


def pick(rows: list[tuple[float, Row]]) -> dict[tuple[str, str], tuple[float, dict[str, float]]]:
    """(set, contender) → the rate of the best score, and that of every rate by its text; failed rows count not.

    Scores are Dice, or the AUC of classes.
    """
    scores: dict[tuple[str, str], dict[float, float]] = {}
    for rate, row in rows:
        if not row.failed:
            scores.setdefault((row.contender.set, row.contender.name), {})[rate] = headline(row.result)[1]
    return {
        who: (max(sorted(tried), key=lambda r: tried[r]), {f"{r:g}": d for r, d in tried.items()})
        for who, tried in scores.items()
    }


@dataclass(frozen=True)
class InnerSplit:
    """A division of training cases: changes of the recipe for it (none: it cannot be), other data, and it in words."""

    changes: tuple[str, ...]
    words: str
    data: Path | None = None


def inner_split(recipe: RunConfig, name: str, settings: Settings, *, data: Path | None = None) -> InnerSplit:
    """A split of the training cases of a recipe alone, by their groups; a single volume is divided along its planes.

    ``data`` are its data where they are not the recipe's.
    """
    from patchforest.bench.sets import cut_volume, data_of

    folder = data or data_of(name, settings.data, settings.out)
    found = find_cases(folder, layout=recipe.data.layout, require_labels=recipe.data.targets is None)
    training, _ = split(found, recipe)
    folder = settings.out / "tune" / (name if data is None else data.name)
    groups = {c.group or c.id for c in training}
    if len(groups) == 1 and recipe.volume is None:
        return InnerSplit((), "nothing: it has one training case, so that its recipe's rate stays")
    if len(groups) == 1:
        half = cut_volume(training[0], folder)
        return InnerSplit(_lists(folder), "the upper third of its one training volume, held out", half)
    folds = min(FOLDS, max(2, len(groups) // 2))
    plain = replace(found, cases=tuple(replace(c, split=None) for c in training), layout="paired")
    inner, held = split_cases(plain, fold=0, folds=folds, seed=SEED)
    for part, cases in (("train", inner), ("validation", held)):
        write_text(folder / f"{part}.txt", "".join(f"{c.id}\n" for c in cases))
    return InnerSplit(_lists(folder), f"{len(held)} of its {len(training)} training cases, held out")


def _lists(folder: Path) -> tuple[str, ...]:
    """The two lists of a folder as changes of a recipe."""
    return tuple(
        f"data.{part}={json.dumps(str((folder / f'{part}.txt').resolve()))}" for part in ("train", "validation")
    )
