"""report.html of a training run: curves, what it cost, and some validation cases as its best model sees them."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from patchforest.data.layout import Case, find_cases
from patchforest.errors import InputError
from patchforest.infer.predict import Prediction
from patchforest.models.build import scores_leaves
from patchforest.models.bundle import Bundle, load_model
from patchforest.report.case_view import case_section
from patchforest.report.class_evaluation import CLASS_HEADER, class_rows, class_sections, score_line
from patchforest.report.curves import draw_curves
from patchforest.report.environment import describe_environment
from patchforest.report.html import Section, Table, write_report
from patchforest.report.scorer_sections import scorer_sections
from patchforest.train.classify import targets_of
from patchforest.train.config import RunConfig, config_dict, load_config
from patchforest.train.evaluate_classes import evaluate_classes
from patchforest.train.metrics import dice_of
from patchforest.train.scoring import score_picture
from patchforest.values import Array


def report_run(run: Path, data: Path, *, num_cases: int = 3) -> Path:
    """Writes ``run/report.html`` and returns its path; shows ``num_cases`` validation cases, evenly spread.

    Raises
    ------
    InputError : no whole run there, or the data set is not the one it was trained on.
    """
    config = load_config(run / "config.yaml")
    bundle = load_model(run)
    if bundle.spec.of_images:
        return _report_classes(run, data, config, bundle)
    if scores_leaves(bundle.network):
        cases = _spread(_validation_cases(run, data, config), num_cases)
        return _write(run, config, scorer_sections(bundle, cases, config))
    shown = _spread(_validation_cases(run, data, config), num_cases)
    sections, rows = [], []
    for case in shown:
        scored = score_picture(bundle, case, label_map=config.data.labels, scale=config.data.scale)
        score = float(dice_of(scored.confusion)[1:].mean())
        pixels, *cost = cost_cells(scored.prediction)
        if scored.shown:
            pixels = f"{scored.confusion.sum() / 1e6:,.0f} million, shown: {scored.shown}"
        rows.append([case.id, pixels, *cost, f"{score:.4f}"])
        sections.append(_case(case, scored.picture.image, scored.picture.label, scored.prediction, bundle, score))
    summary = Section(
        title="Validation cases",
        text=f"{len(shown)} of the validation cases, by the best model of the run. {describe_environment().line}.",
        table=Table(["case", "pixels", "tokens", "seconds", "Dice"], rows),
    )
    return _write(run, config, [summary, *sections])


def _report_classes(run: Path, data: Path, config: RunConfig, bundle: Bundle) -> Path:
    """The same of a model of classes: how it tells all validation images."""
    found = find_cases(data, layout=config.data.layout, require_labels=False)
    cases = _validation_cases(run, data, config)
    targets = targets_of(config.data, replace(found, cases=tuple(cases)))
    with tempfile.TemporaryDirectory(prefix="patchforest-") as folder:
        result = evaluate_classes(bundle, cases, targets, folder, scale=config.data.scale)
    if not result.cases:
        raise InputError(data, "holds no validation image that can be read", next(iter(result.failed.values())))
    text = f"{score_line(result)}, by the best model of the run. {describe_environment().line}."
    summary = Section(title="Validation images", text=text, table=Table(CLASS_HEADER, class_rows(result)))
    return _write(run, config, [summary, *class_sections(result)])


def _write(run: Path, config: RunConfig, sections: Sequence[Section]) -> Path:
    curves = Section(title="Training", charts=draw_curves({"run": run / "metrics.csv"}))
    settings = Section(title="Settings", table=Table(["setting", "value"], _settings(config)))
    title = f"patchforest: {run.resolve().name}"
    return write_report(run / "report.html", title=title, sections=[*sections, curves, settings])


def cost_cells(prediction: Prediction) -> list[str]:
    """Cells of a cost table: image size, tokens read, seconds taken."""
    height, width = prediction.mask.shape
    return [f"{height} × {width}", f"{prediction.tokens:,}", f"{prediction.seconds:.2f}"]


def _validation_cases(run: Path, data: Path, config: RunConfig) -> list[Case]:
    found = find_cases(data, layout=config.data.layout, require_labels=config.data.targets is None)
    by_id = {case.id: case for case in found.cases}
    path = run / "split.json"
    try:
        wanted = json.loads(path.read_text(encoding="utf-8"))["validation"]
    except (OSError, ValueError, KeyError, TypeError):
        raise InputError(path, "is missing or broken", "give the run folder of `patchforest train`") from None
    absent = [name for name in wanted if name not in by_id]
    if absent:
        raise InputError(data, f"lacks validation case {absent[0]!r} of this run", "give the data it was trained on")
    return [by_id[name] for name in wanted]


def _spread(cases: Sequence[Case], number: int) -> list[Case]:
    """At most ``number`` cases, evenly spread over the list."""
    places = np.linspace(0, len(cases) - 1, min(number, len(cases))).round().astype(int)
    return [cases[i] for i in places]


def _case(case: Case, image: Array, truth: Array, prediction: Prediction, bundle: Bundle, score: float) -> Section:
    return case_section(
        case.id,
        image,
        truth,
        {"": prediction},
        classes=bundle.spec.classes,
        text=f"Dice {score:.4f}, {prediction.tokens:,} tokens, {prediction.seconds:.2f} s",
        window=bundle.spec.intensity_window,
    )


def _settings(config: RunConfig) -> list[list[str]]:
    """(path of a setting, value) of every setting that is set."""
    rows = []
    for section, values in config_dict(config).items():
        for name, value in (values or {}).items():
            if value is not None:
                rows.append([f"{section}.{name}", json.dumps(value, ensure_ascii=False)])
    return rows
