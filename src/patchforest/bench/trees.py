"""Better trees, or where leaves are worth most: label ceilings of forests by image criteria, by what was learned, best.

No model of masks is scored here. The ceiling says what a forest's leaves allow at most, so it tells trees apart that a
short training cannot. The oracle cuts its forests from the true mask.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from patchforest.bench.contender import Contender
from patchforest.bench.kind import Kind
from patchforest.bench.note import Note, NoteTable
from patchforest.bench.quality import SETS, plain
from patchforest.bench.run import Row
from patchforest.bench.settings import Settings
from patchforest.bench.training import LAST, Trained, make_contender, picked, precision_of, train
from patchforest.values import Array

if TYPE_CHECKING:
    from patchforest.data.layout import Case
    from patchforest.train.config import RunConfig

Scores = Array | list[Array]
Method = Callable[[Array, Array, int, int], Scores]
"""(image, label, root, q) → detail of cells or scores of all nodes."""

MINUTES = 2.0
CELL = 8
QS = (8, 16)
LARGE = 1 << 22
"""Pixels from which an image gets the longer ones of the budgets."""
BUDGETS = ((256, 512, 1024), (1024, 4096, 8192))
STRIDE = 8
"""Pixels of an image for each of the probabilities from which a second forest is cut."""

CRITERIA = "image criteria"
EDGES, ORACLE = "edges", "oracle"
SCORER = (
    "model.name=scorer",
    "model.stem=[16,32,48,64,64]",
    "model.downscale=4",
    "model.surround=16",
    "model.norm=batch",
    "data.downscale=1",
    "data.window=512",
    "train.batch=4",
    "augment.affine=0.5",
)
CONTENDERS: dict[str, tuple[str, ...] | None] = {
    CRITERIA: None,
    "scorer": SCORER,
    "two looks": (),
}
"""Changes of the recipe by name; None: nothing is trained."""


def plan(settings: Settings) -> list[Contender]:
    """Set by set, so that whatever is finished when a bench is stopped can be compared."""
    every = []
    for seed in settings.seeds:
        for name in settings.sets:
            for model, changes in picked({n: c or () for n, c in CONTENDERS.items()}, settings).items():
                if model == CRITERIA and seed != settings.seeds[0]:
                    continue
                trained = () if model == CRITERIA else (*changes, settings.budget(MINUTES), *LAST)
                every.append(make_contender("trees", name, model, trained, seed, settings))
    return every


def work(contender: Contender, folder: Path) -> dict[str, Any]:
    """Ceilings of a contender's forests on every validation image, and what its scores cost."""
    from patchforest.data.layout import find_cases
    from patchforest.train.config import load_config
    from patchforest.train.fit import split

    if CONTENDERS[contender.name] is None:
        config = load_config(contender.recipe, contender.changes)
        cases = find_cases(contender.data, layout=config.data.layout)
        return measure(split(cases, config)[1], config, criteria(), classes=cases.classes)
    trained = train(contender, folder)
    if contender.name == "scorer":
        found = measure(trained.validation, trained.config, {contender.name: _by_scorer(trained)})
        return {**found, **trained.numbers}
    look = FirstLook(trained)
    found = measure(trained.validation, trained.config, {contender.name: look})
    first = dict(zip(found["cases"], look.tokens, strict=True))
    return {**found, "first_tokens": {contender.name: first}, **trained.numbers}


def criteria() -> dict[str, Method]:
    """Scores from the image by name, and the oracle's from the label."""
    from patchforest.tree.detail import detail_map, variance_pyramid
    from patchforest.tree.label_error import label_scores

    def of_image(name: str) -> Method:
        return lambda image, label, root, q: detail_map(image, CELL, criterion=name)

    return {
        "uniform": of_image("uniform"),
        "Canny 100, 200": of_image("canny"),
        EDGES: of_image("edges"),
        "gradient": of_image("gradient"),
        "squared error": lambda image, label, root, q: variance_pyramid(image, CELL, root),
        ORACLE: lambda image, label, root, q: label_scores(label, cell=CELL, root=root, q=q),
    }


def measure(
    cases: Sequence[Case],
    config: RunConfig,
    methods: Mapping[str, Method],
    *,
    classes: Sequence[str] | None = None,
) -> dict[str, Any]:
    """Label ceilings of full-size images by method, q, budget and case; CPU seconds of the first image's scores."""
    from patchforest.data.load import load_case
    from patchforest.train.prepare import resolved_classes
    from patchforest.tree.ceiling import label_ceiling
    from patchforest.tree.forest import build_forest, default_root

    count = len(resolved_classes(config.data, classes))
    ceilings: dict[str, Any] = {name: {str(q): {} for q in QS} for name in methods}
    seconds: dict[str, float] = {}
    for case in cases:
        picture = load_case(case, label_map=config.data.labels, num_classes=count)
        shape = (int(picture.shape[0]), int(picture.shape[1]))
        root = default_root(shape, CELL)
        for name, method in methods.items():
            for q in QS:
                start = time.process_time()
                scores = method(picture.image, picture.label, root, q)
                seconds.setdefault(name, time.process_time() - start)
                for budget in BUDGETS[shape[0] * shape[1] >= LARGE]:
                    with warnings.catch_warnings():
                        warnings.simplefilter("ignore", UserWarning)  # published Canny finds next to nothing in some
                        forest = build_forest(scores, shape=shape, cell=CELL, root=root, budget=budget)
                    ceiling = label_ceiling(picture.label, forest, q, num_classes=count)
                    ceilings[name][str(q)].setdefault(str(budget), {})[case.id] = ceiling
    return {"ceilings": ceilings, "score_seconds": seconds, "cases": [c.id for c in cases]}


def _by_scorer(trained: Trained) -> Method:
    from patchforest.infer.scorer import LeafScorer

    return lambda image, label, root, q: LeafScorer(trained.bundle, q).scores(image, cell=CELL, root=root)


class FirstLook:
    """Scores from the probabilities that a model of masks gives at first sight; it looks once an image.

    Attributes
    ----------
    tokens : that the model read of every image so far.
    """

    def __init__(self, trained: Trained) -> None:
        self._bundle, self._precision = trained.bundle, precision_of(trained.config, trained.bundle)
        self._seen: tuple[Array, Array] | None = None  # the last image and its probabilities
        self.tokens: list[int] = []

    def __call__(self, image: Array, label: Array, root: int, q: int) -> Scores:
        from patchforest.tree.refine import uncertainty_scores

        if self._seen is None or self._seen[0] is not image:
            self._seen = image, self._look(image)
        return uncertainty_scores(self._seen[1], STRIDE, shape=image.shape[:2], cell=CELL, root=root, q=q)

    def _look(self, image: Array) -> Array:
        from patchforest.infer.predict import predict
        from patchforest.infer.working import shrink

        said = predict(self._bundle, image, probabilities=True, precision=self._precision)
        assert said.probability is not None
        self.tokens.append(said.tokens)
        return np.moveaxis(shrink(np.moveaxis(said.probability, 0, -1), STRIDE), -1, 0)


def note(rows: Sequence[Row], settings: Settings) -> Note:
    """Two tables a set: ceilings, and the share that they close of what lies between edges and the oracle."""
    budget = settings.budget(MINUTES).removeprefix("train.max_").replace("=", ": ").replace("_", " ")
    lines = (
        "Label ceiling: the best Dice that any mask can have whose leaves answer on q × q values, by the best "
        "threshold, on full-size validation images that no training saw; mean over images (several classes: mean over "
        f"those present). Smallest leaf {CELL} pixels; as many tokens an image as the column says, or up to two fewer.",
        f"Scorers and models of two looks train for the same budget ({budget}; data pipeline and forests count) from "
        "the recipe of the set. Two looks: the recipe's model answers, and the second forest is cut from its "
        "probabilities. Oracle: from the true mask, for this q; nearly the best forest there is.",
        "Tokens that two looks read: of the first forests, one or, of large images, one a window, and of the second; "
        "mean over images. Image criteria and scorers read no tokens before those of the column. CPU "
        "s: for the scores of one image on one thread, pixels in memory.",
    )
    names = list(dict.fromkeys(r.contender.set for r in rows))
    tables = [t for name in names for t in _tables(name, [r for r in rows if r.contender.set == name])]
    return Note(
        title="Where leaves are worth most", lines=lines, tables=tuple(tables), numbers=[plain(r) for r in rows]
    )


def mean_ceilings(rows: Sequence[Row]) -> dict[str, dict[tuple[str, str], float]]:
    """Method → (q, budget) → ceiling, mean over images and seeds; the oracle last."""
    found: dict[str, dict[tuple[str, str], list[float]]] = {}
    for row in rows:
        for name, by_q in row.result["ceilings"].items():
            for q, by_budget in by_q.items():
                for tokens, by_case in by_budget.items():
                    mine = found.setdefault(name, {}).setdefault((q, tokens), [])
                    mine.append(float(np.mean(list(by_case.values()))))
    order = sorted(found, key=lambda name: name == ORACLE)
    return {name: {key: float(np.mean(v)) for key, v in found[name].items()} for name in order}


def tokens_read(rows: Sequence[Row]) -> dict[str, dict[tuple[str, str], float]]:
    """Of methods that look twice, (q, budget) → tokens of the first forest and the second, mean over images and seeds.

    The second forest has as many as its budget, or up to two fewer, which are not taken off.
    """
    found: dict[str, dict[tuple[str, str], list[float]]] = {}
    for row in rows:
        for name, first in row.result.get("first_tokens", {}).items():
            for q, by_budget in row.result["ceilings"][name].items():
                for tokens, by_case in by_budget.items():
                    mine = found.setdefault(name, {}).setdefault((q, tokens), [])
                    mine.append(float(np.mean([first[case] for case in by_case])) + int(tokens))
    return {name: {key: float(np.mean(v)) for key, v in by_key.items()} for name, by_key in found.items()}


def closed(ceilings: Mapping[str, Mapping[tuple[str, str], float]], name: str, key: tuple[str, str]) -> float | None:
    """Share of the way from edges to the oracle that a method goes; None where one is missing or there is no way."""
    if EDGES not in ceilings or ORACLE not in ceilings or key not in ceilings[name]:
        return None
    way = ceilings[ORACLE][key] - ceilings[EDGES][key]
    return (ceilings[name][key] - ceilings[EDGES][key]) / way if way > 1e-6 else None


def _tables(name: str, rows: Sequence[Row]) -> list[NoteTable]:
    ceilings = mean_ceilings(rows)
    keys = list(dict.fromkeys(key for by_key in ceilings.values() for key in by_key))
    seconds = {m: s for row in rows for m, s in row.result["score_seconds"].items()}
    columns = tuple(f"q {q}, {int(tokens):,}" for q, tokens in keys)
    values = tuple(
        (method, *(f"{by_key[k]:.4f}" if k in by_key else "–" for k in keys), f"{seconds[method]:.2f}")
        for method, by_key in ceilings.items()
    )
    shares = tuple(
        (method, *("–" if (share := closed(ceilings, method, k)) is None else f"{share:.0%}" for k in keys))
        for method in ceilings
        if method not in (EDGES, ORACLE)
    )
    number = len(rows[0].result["cases"])
    read = tuple(
        (f"{method}: tokens read", *(f"{by_key[k]:,.0f}" if k in by_key else "–" for k in keys))
        for method, by_key in tokens_read(rows).items()
    )
    timed = tuple((*line, "–") for line in read)
    return [
        NoteTable(f"{name}: ceiling ({number} validation images)", ("forest by", *columns, "CPU s"), values + timed),
        NoteTable(f"{name}: share of the way from edges to the oracle", ("forest by", *columns), shares + read),
    ]


KIND = Kind(
    title="better trees: label ceilings of forests by edges, by a scorer, by a second look, and of the best",
    options=("sets", "contenders", "seeds", "cpu_minutes", "minutes", "steps", "recipes", "changes"),
    plan=plan,
    work=work,
    note=note,
    sets=SETS,
)
