"""Organs in CT (the papers' Table IV): slices trained one by one and put back together, and an octree model beside."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

from patchforest.bench.contender import Contender
from patchforest.bench.contenders import PAPER
from patchforest.bench.kind import Kind
from patchforest.bench.note import Note, NoteTable, mean_of, mean_sd
from patchforest.bench.plot import dot_chart
from patchforest.bench.quality import by_contender, plain, rates_of
from patchforest.bench.run import Row
from patchforest.bench.settings import Settings
from patchforest.bench.training import LAST, make_contender, picked, train_and_score, tuned
from patchforest.bench.tune import Entry, tune

MINUTES, SET, PATCH, WINDOW = 2.0, "ct_organs", 4, 96
HEADER = (
    "contender",
    "Dice",
    "each seed",
    "surface F",
    "ceiling",
    "tokens",
    "s/volume",
    "peak MiB",
    "parameters",
    "steps",
)
SLICES = ("volume.axes=[0]", f"data.window={WINDOW}", "model.embedding=place", "model.q=null")


def contenders(settings: Settings) -> dict[str, tuple[str, ...]]:
    """Changes of the recipe of volumes: models of slices with patches of 4, U-Nets, and the recipe's own octrees."""
    vit = PAPER if settings.full else ()
    features = (64, 48) if settings.full else (16, 12)
    small = (*SLICES, f"model.patch={PATCH}")
    leaves = (WINDOW // PATCH) ** 2 // 4
    forest = (f"forest.cell={PATCH}", "forest.root=null", f"forest.budget={leaves}", "model.stem=[16,32]")
    return {
        "U-Net": (*SLICES, "model.name=unet", f"model.width={64 if settings.full else 16}", "model.depth=4"),
        "UNETR": (*small, *vit, "model.name=unetr", "model.features=16"),
        "TransUNet": (*SLICES, *vit, "model.name=transunet", f"model.features={features[0]}"),
        "Swin UNETR": (*SLICES, "model.name=swin_unetr", f"model.features={features[1]}"),
        "APF-UNETR": (*small, *vit, *forest, "model.name=apf_unetr"),
        "SHF, octree": vit,
    }


def plan(settings: Settings) -> list[Contender]:
    """Seed by seed."""
    every = []
    for seed in settings.seeds:
        for e in entries(settings):
            changes = (*e.changes, settings.budget(MINUTES), *LAST, *tuned(settings, SET, e.model))
            every.append(make_contender("organs", SET, e.model, changes, seed, settings))
    return every


def entries(settings: Settings) -> list[Entry]:
    """The contenders that were asked for, each with its changes of the recipe, and its lists wherever they lie."""
    lists = tuple(
        f"data.{part}={json.dumps(str((settings.recipes / f'ct_{part}.txt').resolve()))}"
        for part in ("train", "validation")
    )
    return [Entry(SET, SET, n, (*c, *lists)) for n, c in picked(contenders(settings), settings).items()]


def note(rows: Sequence[Row], settings: Settings) -> Note:
    """One table of means, one of every organ."""
    budget = settings.budget(MINUTES).removeprefix("train.max_").replace("_", " ").replace("=", ": ")
    lines = (
        f"Budget of each: {budget} of training. One torso trains, a chest of another scanner validates; labels are "
        "those of a network, not of a hand. What this can show is how the contenders compare, not how good they are.",
        "Masks of the last weights, slices put back together, at the stored voxels. Dice: mean ± sd over seeds of the "
        "mean over organs. Surface F: within two columns' widths. Seconds: CPU seconds (on a GPU: seconds) from voxels "
        "to mask.",
        rates_of(rows, settings),
    )
    dice = {name: [r.result["Dice"] for r in mine] for name, mine in by_contender(rows).items()}
    return Note(
        title="Organs in CT",
        lines=lines,
        tables=(_means(rows), _organs(rows)),
        charts={"dice": dot_chart("Organs in CT: Dice of every seed", dice, x_label="Dice")},
        numbers=[plain(row) for row in rows],
    )


def _means(rows: Sequence[Row]) -> NoteTable:
    lines = []
    for name, mine in by_contender(rows).items():
        got = {key: [r.result[key] for r in mine] for key in mine[0].result}
        lines.append(
            (
                name,
                mean_sd(got["Dice"]),
                " ".join(f"{v:.3f}" for v in got["Dice"]),
                mean_of(got["BoundaryF2"], 3),
                mean_of(got["ceiling"], 3),
                mean_of(got["tokens"], 0) if any(got["tokens"]) else "–",
                mean_of(got["predict_seconds"], 1),
                f"{max(got['peak_mib']):,.0f}",
                f"{got['parameters'][0] / 1e6:.2f} M",
                mean_of(got["steps"], 0),
            )
        )
    return NoteTable("Means over organs", HEADER, tuple(lines))


def _organs(rows: Sequence[Row]) -> NoteTable:
    organs = tuple(rows[0].result["per_class"])
    lines = [
        (name, *(mean_sd(r.result["per_class"][organ] for r in mine) for organ in organs))
        for name, mine in by_contender(rows).items()
    ]
    return NoteTable("Dice of every organ", ("contender", *organs), tuple(lines))


def _tune(settings: Settings, tell: Callable[[str], None]) -> None:
    tune("organs", entries(settings), settings, tell)


KIND = Kind(
    title="organs in CT: slices put back together, and octrees",
    options=("contenders", "seeds", "cpu_minutes", "minutes", "steps", "recipes", "rates", "tune", "full", "changes"),
    plan=plan,
    work=train_and_score,
    note=note,
    tune=_tune,
)
