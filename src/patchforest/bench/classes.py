"""Classes of images (the papers' Table V): ViT, HIPT and APF-ViT after the same training budget.

``needle`` is generated: large images whose class a few small marks tell. ``haystack`` is the same task with marks, and
evidence, all over the image, where adaptive patches have nothing to gain. ``glas_grades`` are real: benign and
malignant glands, few patients.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from patchforest.bench.contender import Contender
from patchforest.bench.kind import Kind
from patchforest.bench.note import Note, NoteTable, mean_of, mean_sd
from patchforest.bench.plot import dot_chart
from patchforest.bench.quality import by_contender, plain
from patchforest.bench.run import Row
from patchforest.bench.settings import Settings
from patchforest.bench.training import LAST, make_contender, picked, read_rates, train_and_score, tuned
from patchforest.bench.tune import Entry, tune
from patchforest.data.needle import write_needle
from patchforest.train.config import RunConfig, load_config

MINUTES = 1.0
SETS = ("needle", "haystack", "glas_grades")
MARKS = {"needle": (4, (6, 10)), "haystack": (60, (90, 110))}
"""Generated sets: marks of evidence, and smallest and largest number of others. Both follow the recipe ``needle``."""
COUNT, SIDE, SEED = 160, 1024, 0
"""Images of a generated set, their side, and the seed of the first."""
MOST = 1024
"""Tokens of a ViT: its patches are as small as that allows."""
HEADER = (
    "contender", "AUC", "each seed", "accuracy", "cross-entropy", "tokens", "s/image", "peak MiB", "parameters",
    "images seen", "lr",
)  # fmt: skip
OPTIONAL = ("APF-ViT, by area", "APF-ViT, attention", "ViT, attention", "APF-ViT, uniform grid")
"""Contenders that run only where they are asked for by name."""


def contenders_of(recipe: RunConfig) -> dict[str, tuple[str, ...]]:
    """Changes of a recipe for every contender; the recipe itself is APF-ViT.

    ViT: the smallest patch, a power of two, with at most ``MOST`` tokens. Down-scaled: the recipe's patch, on images
    down-scaled until it has no more tokens than that. HIPT: patches half as large as ViT's, crops of 8 × 8 patches,
    regions of 4 × 4 crops. The uniform grid has APF-ViT's patch and as many leaves as it, or the next fewer.
    """
    height, width = recipe.data.window_shape
    assert recipe.forest is not None
    assert recipe.forest.budget is not None

    def tokens(side: int) -> int:
        return -(-height // side) * -(-width // side)

    patch = next(p for p in (1 << k for k in range(2, 20)) if tokens(p) <= MOST)
    down = next(d for d in (1 << k for k in range(20)) if tokens(recipe.model.patch * d) <= MOST)
    side = next(s for s in (recipe.forest.cell << k for k in range(20)) if tokens(s) <= recipe.forest.budget)
    pixels = ("data.gather_once=false",)
    small = (
        f"data.downscale={recipe.data.downscale * down}",
        f"data.window=[{-(-height // down)}, {-(-width // down)}]",
    )
    fine = patch // 2
    return {
        "APF-ViT": (),
        "ViT": (*pixels, "model.name=vit", f"model.patch={patch}"),
        "ViT, down-scaled": (*pixels, "model.name=vit", *small),
        "HIPT": (
            *pixels,
            "model.name=hipt",
            f"model.patch={fine}",
            f"model.crop={8 * fine}",
            f"model.region={32 * fine}",
        ),
        "APF-ViT, by area": ("model.pooling=area",),
        "APF-ViT, attention": ("model.pooling=attention",),
        "ViT, attention": (*pixels, "model.name=vit", f"model.patch={patch}", "model.pooling=attention"),
        "APF-ViT, uniform grid": (f"forest.uniform={side}",),
    }


def entries(settings: Settings, name: str) -> dict[str, tuple[str, ...]]:
    """The contenders of a set that were asked for, each with its changes of the recipe."""
    recipe = load_config(settings.recipe(recipe_of(name)), (*_sized(settings, name), *settings.changes))
    known = contenders_of(recipe)
    chosen = picked(known, settings)
    wanted = chosen if settings.contenders else {n: c for n, c in chosen.items() if n not in OPTIONAL}
    return {model: (*_sized(settings, name), *changes) for model, changes in wanted.items()}


def recipe_of(name: str) -> str:
    """The recipe of a set: generated ones share one."""
    return "needle" if name in MARKS else name


def made(name: str, settings: Settings) -> Path | None:
    """The folder of a generated set, which is written first where it is not there; None for sets of real images."""
    if name not in MARKS:
        return None
    side, (evidence, distractors) = _side(settings), MARKS[name]
    folder = settings.out / "data" / f"{name}-{side}"
    return write_needle(folder, COUNT, side, seed=SEED, evidence=evidence, distractors=distractors)


def plan(settings: Settings) -> list[Contender]:
    """Seed by seed and set by set."""
    return [
        make_contender(
            "classes",
            recipe_of(name),
            model,
            (*changes, settings.budget(MINUTES), *LAST, *tuned(settings, name, model)),
            seed,
            settings,
            label=name,
            data=made(name, settings),
        )
        for seed in settings.seeds
        for name in settings.sets
        for model, changes in entries(settings, name).items()
    ]


def work(contender: Contender, folder: Path) -> dict[str, Any]:
    """One training and its scores."""
    return train_and_score(contender, folder)


def note(rows: Sequence[Row], settings: Settings) -> Note:
    """A table and a picture for every set."""
    budget = settings.budget(MINUTES).removeprefix("train.max_").replace("=", ": ").replace("_", " ")
    rates = read_rates(settings.out)
    lines = (
        f"Every contender trains for the same budget ({budget}; data pipeline and forests count, validation does not) "
        "from one recipe a set: the same width, depth, optimiser and symmetries.",
        "Scores of the last weights on the validation images: nothing was chosen on them. Mean ± sd over seeds. "
        "Tokens: of an image. Seconds: CPU seconds (on a GPU: seconds) from pixels in memory to probabilities. Peak: "
        "memory of training, which holds the images, and prediction. Images seen: in training, repetitions included.",
        f"Generated sets: {COUNT} images of {_side(settings)}² pixels, a quarter of them for validation. An AUC of "
        "0.5 is chance.",
        "Learning rates: " + ("tuned, see learning_rates.json." if rates else "the recipe's for all, not tuned."),
    )
    names = list(dict.fromkeys(r.contender.set for r in rows))
    return Note(
        title="Classes of images",
        lines=lines,
        tables=tuple(_table(name, [r for r in rows if r.contender.set == name]) for name in names),
        charts={name: _chart(name, [r for r in rows if r.contender.set == name]) for name in names},
        numbers=[plain(row) for row in rows],
    )


def _table(name: str, rows: Sequence[Row]) -> NoteTable:
    lines = []
    for model, mine in by_contender(rows).items():
        got = {key: [r.result[key] for r in mine] for key in mine[0].result}
        lines.append(
            (
                model,
                mean_sd(got["AUC"]),
                " ".join("–" if v is None else f"{v:.3f}" for v in got["AUC"]),
                mean_sd(got["accuracy"]),
                mean_of(got["cross_entropy"], 3),
                mean_of(got["tokens"], 0),
                mean_of(got["predict_seconds"], 3),
                f"{max(got['peak_mib']):,.0f}",
                f"{got['parameters'][0] / 1e6:.2f} M",
                mean_of(got["images"], 0),
                " ".join(dict.fromkeys(f"{v:g}" for v in got["lr"])),
            )
        )
    return NoteTable(f"{name} ({len(rows[0].result['per_case'])} validation images)", HEADER, tuple(lines))


def _chart(name: str, rows: Sequence[Row]) -> str:
    found = by_contender(rows).items()
    values = {model: [r.result["AUC"] for r in mine if r.result["AUC"] is not None] for model, mine in found}
    return dot_chart(f"{name}: AUC of every seed", values, x_label="AUC")


def _side(settings: Settings) -> int:
    return settings.sizes[0] if settings.sizes else SIDE


def _sized(settings: Settings, name: str) -> tuple[str, ...]:
    """The window of a generated set: its whole images."""
    return (f"data.window={_side(settings)}",) if name in MARKS else ()


def _tune(settings: Settings, tell: Callable[[str], None]) -> None:
    data = {name: made(name, settings) for name in settings.sets}
    every = [Entry(n, recipe_of(n), m, c, data[n]) for n in settings.sets for m, c in entries(settings, n).items()]
    tune("classes", every, settings, tell)


KIND = Kind(
    title="classes of images: ViT, HIPT and APF-ViT after the same training budget",
    options=(
        "sets", "contenders", "sizes", "seeds", "cpu_minutes", "minutes", "steps", "recipes", "rates", "tune",
        "changes",
    ),
    plan=plan,
    work=work,
    note=note,
    tune=_tune,
    sets=SETS,
)  # fmt: skip
