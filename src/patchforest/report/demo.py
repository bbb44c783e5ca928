"""The demonstration: simulated road cores, two models that differ in nothing but where their tokens lie, one report.

It shows what happened in that run, whichever model comes out ahead: nothing is chosen after the fact.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from patchforest.data.layout import Case, find_cases
from patchforest.data.load import load_case
from patchforest.data.roadcore import ROADCORE_CLASSES
from patchforest.data.synthetic import write_dataset
from patchforest.infer.predict import predict
from patchforest.models.bundle import Bundle, load_model
from patchforest.models.config import ModelConfig
from patchforest.report.case_view import case_section
from patchforest.report.curves import draw_curves
from patchforest.report.environment import describe_environment
from patchforest.report.html import Section, Table, write_report
from patchforest.train.config import DataConfig, RunConfig, TrainConfig
from patchforest.train.evaluate import Evaluation, evaluate
from patchforest.train.fit import fit
from patchforest.values import ForestPolicy

Tell = Callable[[str], None]

MINUTES = 0.75
HEADER = ("model", "image", "tokens", "seconds per image", "Dice", "label ceiling")


@dataclass(frozen=True)
class DemoSize:
    """How much the demonstration does; the defaults take about three minutes on two cores.

    Attributes
    ----------
    train : number and side of the training slices; one of them validates.
    tests : (number, side) of the unseen slices, one entry a size.
    window : side of the training windows; ``leaf``: side of the uniform twin's leaves, which sets the tokens of both.
    """

    train: tuple[int, int] = (5, 1024)
    tests: tuple[tuple[int, int], ...] = ((2, 1024), (1, 2048))
    window: int = 256
    leaf: int = 32
    batch: int = 4
    width: int = 64


@dataclass(frozen=True)
class DemoRow:
    """One model on the unseen slices of one size: means over the slices."""

    model: str
    image: str
    tokens: float
    seconds: float
    dice: float
    ceiling: float | None

    def cells(self) -> list[str]:
        """The row as text, in the order of ``HEADER``."""
        ceiling = "–" if self.ceiling is None else f"{self.ceiling:.4f}"
        return [self.model, self.image, f"{self.tokens:,.0f}", f"{self.seconds:.2f}", f"{self.dice:.4f}", ceiling]


@dataclass(frozen=True)
class DemoResult:
    """The table and the report of one demonstration."""

    rows: tuple[DemoRow, ...]
    report: Path


def demo_configs(minutes: float, size: DemoSize) -> dict[str, RunConfig]:
    """The settings of the twins by name: the same in everything but the forest; equal tokens, equal training time."""
    tokens = (size.window // size.leaf) ** 2
    adaptive = RunConfig(
        data=DataConfig(window=size.window, folds=size.train[0]),
        forest=ForestPolicy(budget=tokens, window=size.window),
        model=ModelConfig(width=size.width, depth=4, heads=4, stem=(8, 16, 32)),
        train=TrainConfig(max_minutes=minutes, batch=size.batch, validate_every=0.5, lr=2e-3),
    )
    uniform = replace(adaptive, forest=ForestPolicy(uniform=size.leaf, window=size.window))
    return {"adaptive": adaptive, "uniform": uniform}


def run_demo(
    out: Path, *, minutes: float = MINUTES, size: DemoSize | None = None, tell: Tell = print, quiet: bool = False
) -> DemoResult:
    """Makes the data, trains both twins for ``minutes`` each, segments unseen slices, and writes ``out/report.html``.

    ``tell`` receives a line a step; ``quiet`` keeps the training itself from showing progress on stderr.
    Finished parts are kept: the same command with the same settings goes on where it stopped.

    Raises
    ------
    InputError : ``out`` holds something else, or a run of other settings.
    """
    size = size or DemoSize()
    count, side = size.train
    tell(f"1/3 simulating road cores: {count} slices of {side}² to learn from, " + _listed(size.tests) + " unseen")
    train = write_dataset(out / "data" / "train", "roadcore", count, (side, side), 0)
    unseen = {
        f"{side}²": find_cases(
            write_dataset(out / "data" / f"unseen-{side}", "roadcore", number, (side, side), 1)
        ).cases
        for number, side in size.tests
    }
    configs = demo_configs(minutes, size)
    for name, config in configs.items():
        tell(f"2/3 training the {name} model for {60 * minutes:.0f} s")
        fit(config, train, out / name, quiet=quiet)
    tell("3/3 segmenting the unseen slices")
    bundles = {name: load_model(out / name) for name in configs}
    results = {
        (name, image): evaluate(bundle, cases, out / name / f"unseen {image}", window="whole")
        for name, bundle in bundles.items()
        for image, cases in unseen.items()
    }
    rows = tuple(_row(name, image, result) for (name, image), result in results.items())
    report = write_report(
        out / "report.html",
        title="patchforest demo: road cores in simulated X-ray slices",
        sections=[
            _summary(rows, configs, minutes),
            _per_class(results),
            Section(title="Training", charts=draw_curves({name: out / name / "metrics.csv" for name in configs})),
            _view(*next(iter(unseen.items())), bundles),
        ],
    )
    return DemoResult(rows, report)


def _row(model: str, image: str, result: Evaluation) -> DemoRow:
    tokens, seconds = (float(np.mean([getattr(c, n) for c in result.cases])) for n in ("tokens", "seconds"))
    assert result.dice is not None
    return DemoRow(model, image, tokens, seconds, result.dice, result.ceiling)


def _summary(rows: tuple[DemoRow, ...], configs: dict[str, RunConfig], minutes: float) -> Section:
    budget = configs["adaptive"].forest
    assert budget is not None
    text = (
        "Two models, alike in everything but the forest: the adaptive one puts small leaves where there are edges, the "
        f"uniform one lies on a grid. They trained on windows of {budget.window}² pixels with {budget.budget} tokens "
        f"each, for {60 * minutes:.0f} seconds a model, validation not counted. The slices below were in neither's "
        "training data. Dice is the mean over stone, void, crack and asphalt; the label ceiling is the best Dice that "
        "forest and output grid allow.\n"
        f"The figures are those of this run, whichever model they favour. {describe_environment().line}."
    )
    return Section(title="What came out", text=text, table=Table(HEADER, [row.cells() for row in rows]))


def _per_class(results: dict[tuple[str, str], Evaluation]) -> Section:
    rows = []
    for (name, image), result in results.items():
        means = [np.mean([case.classes[k].dice for case in result.cases]) for k in range(1, len(ROADCORE_CLASSES))]
        rows.append([name, image, *(f"{mean:.4f}" for mean in means)])
    return Section(title="Dice by class", table=Table(("model", "image", *ROADCORE_CLASSES[1:]), rows))


def _view(image: str, cases: Sequence[Case], bundles: dict[str, Bundle]) -> Section:
    picture = load_case(cases[0], num_classes=len(ROADCORE_CLASSES))
    predictions = {name: predict(bundle, picture.image, window="whole") for name, bundle in bundles.items()}
    title = f"An unseen slice of {image} pixels"
    return case_section(title, picture.image, picture.label, predictions, classes=ROADCORE_CLASSES)


def _listed(tests: tuple[tuple[int, int], ...]) -> str:
    return " and ".join(f"{number} of {side}²" for number, side in tests)
