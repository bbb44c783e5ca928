"""Random forests while learning, several trees at prediction: fixed tree, fresh trees and uniform grid side by side."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from patchforest.bench.contender import Contender
from patchforest.bench.contenders import contenders_of, equal_side
from patchforest.bench.kind import Kind
from patchforest.bench.note import Note, NoteTable, mean_of, mean_sd
from patchforest.bench.plot import dot_chart
from patchforest.bench.quality import by_contender, plain
from patchforest.bench.run import Row
from patchforest.bench.settings import Settings
from patchforest.bench.training import LAST, Trained, make_contender, picked, precision_of, train
from patchforest.train.config import RunConfig, load_config

MINUTES = 1.0
SETS = ("glas", "glomeruli")
NETWORKS = ("SHF", "APF-UNETR")
FIXED, FRESH, UNIFORM = "fixed tree", "fresh trees", "uniform grid"
TREES = 4
SEAM_CASES, TRAINING_CASES = 6, 8
"""Validation images whose seams are measured, and training images that are scored."""


def plan(settings: Settings) -> list[Contender]:
    """Seed by seed: every network with a fixed tree, fresh trees and a uniform grid of equally many leaves."""
    made = []
    for seed in settings.seeds:
        for name in settings.sets:
            networks = contenders_of(load_config(settings.recipe(name), settings.changes))
            every = {}
            for network in NETWORKS:
                changes = (*networks[network], settings.budget(MINUTES), *LAST)
                whole = make_contender("randomness", name, network, changes, seed, settings)
                config = load_config(whole.recipe, whole.changes)
                for arm, trees in arms(config).items():
                    title = f"{network}, {arm}"
                    every[title] = replace(whole, name=title, changes=(*whole.changes, *trees))
            made += [every[title] for title in picked(dict.fromkeys(every, ()), settings)]
    return made


def arms(config: RunConfig) -> dict[str, tuple[str, ...]]:
    """Changes of a training by arm: all read as many leaves as the window has in a uniform grid, whose side is the
    smallest that needs no more than the budget.
    """
    side = equal_side(config)
    height, width = config.data.window_shape
    budget = f"forest.budget={-(-height // side) * -(-width // side)}"
    return {
        FIXED: (budget, "forest.fresh=false"),
        FRESH: (budget, "forest.fresh=true"),
        UNIFORM: (f"forest.uniform={side}", "forest.fresh=true"),
    }


def work(contender: Contender, folder: Path) -> dict[str, Any]:
    """Train; score validation images through one tree and through several, and training images; measure seams."""
    from patchforest.data.layout import find_cases
    from patchforest.train.fit import split

    trained = train(contender, folder)
    training, _ = split(find_cases(contender.data, layout=trained.config.data.layout), trained.config)
    some = np.unique(np.linspace(0, len(training) - 1, TRAINING_CASES).round().astype(int))
    random = trained.config.forest is not None and trained.config.forest.uniform is None
    scores = {1: _score(trained, trained.validation, folder / "scores", 1)}
    if random:
        scores[TREES] = _score(trained, trained.validation, folder / "scores_trees", TREES)
    learned = _score(trained, [training[k] for k in some], folder / "scores_training", 1)
    return {
        "Dice": scores[1]["Dice"],
        "BoundaryF2": scores[1]["BoundaryF2"],
        "Dice_trees": scores[TREES]["Dice"] if random else None,
        "BoundaryF2_trees": scores[TREES]["BoundaryF2"] if random else None,
        "Dice_training": learned["Dice"],
        "tokens": scores[1]["tokens"],
        **_seams(trained, trained.validation[:SEAM_CASES], TREES if random else 1),
        **trained.numbers,
    }


def _score(trained: Trained, cases: Sequence[Any], out: Path, trees: int) -> dict[str, float]:
    """Means over full-size images of a prediction through so many trees."""
    from patchforest.train.evaluate import evaluate

    config = trained.config
    evaluate(
        trained.bundle,
        cases,
        out,
        label_map=config.data.labels,
        scale=config.data.scale,
        precision=precision_of(config, trained.bundle),
        trees=trees,
    )
    summary = json.loads((out / "summary.json").read_text(encoding="utf-8"))
    if summary["failed"]:
        raise RuntimeError(f"could not be scored: {next(iter(summary['failed'].values()))}")
    return summary["foreground_mean"]


def _seams(trained: Trained, cases: Sequence[Any], trees: int) -> dict[str, float | None]:
    """Jumps at the borders of the fixed forest and inside its leaves, through one tree and several; and how many of
    its leaves a random tree shares.
    """
    from patchforest.bench.seams import find_seams
    from patchforest.infer.predict import predict

    found: dict[int, list[Any]] = {1: [], trees: []}
    kept = []
    for number, case in enumerate(cases):
        forest = None
        for count in found:
            precision = precision_of(trained.config, trained.bundle)
            seen = predict(
                trained.bundle, case.image, probabilities=True, trees=count, window="whole", precision=precision
            )
            forest = seen.forest if forest is None else forest
            assert forest is not None
            assert seen.probability is not None
            rng = np.random.default_rng([number, 7])
            reach = trained.config.data.downscale
            found[count].append(find_seams(seen.probability, forest, rng=rng, reach=reach))
        kept.append(_kept(trained, case) if trees > 1 else 1.0)
    several = found[trees] if trees > 1 else []
    return {
        "seam": float(np.mean([s.excess for s in found[1]])),
        "border": float(np.mean([s.border for s in found[1]])),
        "inside": float(np.mean([s.inside for s in found[1]])),
        "seam_trees": float(np.mean([s.excess for s in several])) if several else None,
        "kept_leaves": float(np.mean(kept)),
    }


def _kept(trained: Trained, case: Any) -> float:
    """Share of the fixed tree's leaves that the random ones of a prediction have as well."""
    from patchforest.infer.scorer import scorer_of
    from patchforest.infer.working import WorkingImage
    from patchforest.io.open import open_image
    from patchforest.tree.cut import cut_forest
    from patchforest.values import Region

    bundle = trained.bundle
    working, policy = WorkingImage(open_image(case.image), bundle.spec, case.image), bundle.spec.forest
    assert policy is not None
    pixels = working.read(Region((0, 0), working.frame))
    rngs = [np.random.default_rng(t) if t else None for t in range(TREES)]
    cut = [cut_forest(pixels, policy, rng=rng, criterion=scorer_of(bundle)) for rng in rngs]
    fixed, *others = (set(zip(*f.origin.T.tolist(), f.size.tolist())) for f in cut)
    return float(np.mean([len(fixed & other) / len(fixed) for other in others]))


def note(rows: Sequence[Row], settings: Settings) -> Note:
    """A table and a picture for every set, and the order of the three arms."""
    budget = settings.budget(MINUTES).removeprefix("train.max_").replace("=", ": ").replace("_", " ")
    lines = (
        f"Every arm trains the same network for the same budget ({budget}), on as many tokens. Fixed tree: the forest "
        "follows from the window's pixels alone. Fresh trees: blur and thresholds of the detail map are drawn for "
        "every sample. Uniform grid: equal leaves. Windows and their augmentation are drawn afresh in all of them, so "
        "that even a fixed tree is fixed only as far as the window is the same.",
        f"Full-size masks of the last weights. Dice, 1 and {TREES} trees: of the fixed tree, and of the mean over it "
        f"and {TREES - 1} random ones. Training Dice: of {TRAINING_CASES} training images; the gap is its lead over "
        "validation Dice, which grows as a model learns its cases by heart.",
        "Seam: mean absolute jump of the probability across borders of the fixed forest's leaves, less that between "
        "pixels as far apart at equally many random places inside the same leaves; 0 for a prediction that does not "
        "know its forest. Shared: leaves of the fixed tree that a random tree of the same image has as well; at 100 % "
        "nothing is random.",
        "Published ordering (SHF on ImageNet, ViT-B): a single fixed tree 77.3, plain ViT 82.2, fresh trees 82.7.",
    )
    names = list(dict.fromkeys(r.contender.set for r in rows))
    return Note(
        title="Random forests while learning, several trees at prediction",
        lines=lines,
        tables=(*(_table(n, [r for r in rows if r.contender.set == n]) for n in names), _orders(rows)),
        charts={n: _chart(n, [r for r in rows if r.contender.set == n]) for n in names},
        numbers=[plain(row) for row in rows],
    )


def _table(name: str, rows: Sequence[Row]) -> NoteTable:
    header = (
        "network, arm", "Dice, 1 tree", f"Dice, {TREES} trees", "each seed", "boundary F", f"{TREES} trees",
        "training Dice", "gap", "seam, 1 tree", f"{TREES} trees", "inside", "shared", "tokens", "steps",
    )  # fmt: skip
    lines = []
    for model, mine in by_contender(rows).items():
        got = {key: [r.result[key] for r in mine] for key in mine[0].result}
        gaps = [learned - seen for learned, seen in zip(got["Dice_training"], got["Dice"])]
        lines.append(
            (
                model,
                mean_sd(got["Dice"]),
                mean_sd(got["Dice_trees"]),
                " ".join(f"{v:.3f}" for v in got["Dice"]),
                mean_of(got["BoundaryF2"], 3),
                mean_of(got["BoundaryF2_trees"], 3),
                mean_sd(got["Dice_training"]),
                mean_sd(gaps),
                mean_sd(got["seam"], 4),
                mean_sd(got["seam_trees"], 4),
                mean_of(got["inside"], 4),
                f"{100 * np.mean(got['kept_leaves']):.0f} %",
                mean_of(got["tokens"], 0),
                mean_of(got["steps"], 0),
            )
        )
    return NoteTable(name, header, tuple(lines))


def _orders(rows: Sequence[Row]) -> NoteTable:
    """For every set and network with all arms: differences of mean Dice, and which arm is last."""
    lines = []
    for name in dict.fromkeys(r.contender.set for r in rows):
        for network in NETWORKS:
            dice = {
                arm: [
                    r.result["Dice"] for r in rows if (r.contender.set, r.contender.name) == (name, f"{network}, {arm}")
                ]
                for arm in (FIXED, FRESH, UNIFORM)
            }
            if not all(dice.values()):
                continue
            mean = {arm: float(np.mean(values)) for arm, values in dice.items()}
            spread = max(float(np.std(v, ddof=1)) if len(v) > 1 else 0.0 for v in dice.values())
            lines.append(
                (
                    f"{name}, {network}",
                    f"{mean[FRESH] - mean[FIXED]:+.3f}",
                    f"{mean[UNIFORM] - mean[FIXED]:+.3f}",
                    f"{spread:.3f}",
                    min(mean, key=lambda arm: mean[arm]),
                )
            )
    header = ("set, network", "fresh less fixed", "uniform less fixed", "largest sd over seeds", "last")
    return NoteTable("Order, Dice of one tree", header, tuple(lines))


def _chart(name: str, rows: Sequence[Row]) -> str:
    dots: dict[str, list[float]] = {}
    for model, mine in by_contender(rows).items():
        dots[model] = [r.result["Dice"] for r in mine]
        several = [r.result["Dice_trees"] for r in mine if r.result["Dice_trees"] is not None]
        if several:
            dots[f"{model}, {TREES} at once"] = several
    return dot_chart(f"{name}: Dice of every seed", dots, x_label="Dice")


KIND = Kind(
    title="fixed tree, fresh trees and uniform grid at equal tokens; one tree and several at prediction",
    options=("sets", "contenders", "seeds", "cpu_minutes", "minutes", "steps", "recipes", "changes"),
    plan=plan,
    work=work,
    note=note,
    sets=SETS,
)
