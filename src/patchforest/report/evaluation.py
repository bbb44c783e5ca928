"""Scoring a model on a data set, end to end: find the cases, score them, show the best, the median and the worst."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np

from patchforest.data.layout import Case, find_cases, select_cases
from patchforest.data.load import LabelMap
from patchforest.data.tables import read_json
from patchforest.errors import InputError
from patchforest.infer.options import DEFAULTS, PredictOptions
from patchforest.io.scale import Scale
from patchforest.models.bundle import Bundle, load_model
from patchforest.report.case_view import case_section
from patchforest.report.environment import describe_environment
from patchforest.report.html import Section, Table, write_report
from patchforest.train.config import RunConfig, load_config
from patchforest.train.evaluate import Evaluation, evaluate
from patchforest.train.scoring import scale_of_model, score_picture

CLASS_HEADER = ("class", "Dice", "IoU", "boundary F, 2 px", "HD95, px", "empty in both")
CASE_HEADER = ("case", "Dice", "label ceiling", "tokens", "seconds")


def evaluate_run(
    run: Path,
    data: Path,
    out: Path,
    *,
    split: Path | None = None,
    layout: str = "auto",
    label_map: LabelMap | None = None,
    scale: Scale | None = None,
    device: str = "cpu",
    report: bool = True,
    tell: Callable[[str], None] | None = None,
    options: PredictOptions = DEFAULTS,
) -> Evaluation:
    """The scores of a trained model on a data set; ``out`` gets summary.json, cases.csv and (``report``) report.html.

    Parameters
    ----------
    run : run folder of ``train`` (its best model counts), or a model folder.
    split : text file of case ids, one a line; or the word ``validation`` or ``train``, the cases of that part of the
        run; None: every case with a mask, and a line says how many of them the model has learned from.
    label_map : stored value → class number; None: what the run was trained with, if it says.
    scale : see the cases, and compare their masks, at this scale; None: as in training.
    tell : receives a line of text a case.
    options : how the model looks at every case.

    Raises
    ------
    InputError : no model, no cases, or a list that names unknown ones.
    """
    bundle = load_model(run, device)
    config = trained_config(run)
    trained = None if config is None else config.data
    labels = label_map if label_map is not None or trained is None else trained.labels
    cases = choose_cases(find_cases(data, layout=layout).cases, run, data, split, tell)
    seen_at = scale or (scale_of_model(bundle) if trained is None else trained.scale)
    result = evaluate(
        bundle,
        cases,
        out,
        label_map=labels,
        scale=seen_at,
        trees=options.trees,
        flips=options.flips,
        window=options.window,
        precision=options.precision,
        tissue=options.tissue,
        tell=tell,
    )
    if report and result.cases:
        by_id = {case.id: case for case in cases}
        shown = [_view(by_id[name], bundle, labels, seen_at, options) for name in _telling(result)]
        title = f"patchforest: {run.resolve().name} on {data.resolve().name}"
        write_report(out / "report.html", title=title, sections=[_scores(result), *shown, _by_case(result)])
    return result


def choose_cases(
    cases: Sequence[Case], run: Path, data: Path, split: Path | None, tell: Callable[[str], None] | None
) -> Sequence[Case]:
    """The cases of a split, see ``evaluate_run``, and a line where some of them were in training."""
    parts = _parts(run)
    if split is not None and not split.exists() and str(split) in parts:
        known = {case.id: case for case in cases}
        cases = [known[name] for name in parts[str(split)] if name in known]
        if not cases:
            raise InputError(data, f"holds none of the run's {split} cases", "give the data folder it was trained on")
    elif split is not None:
        cases = select_cases(cases, split)
    seen = sum(case.id in parts.get("train", ()) for case in cases)
    if seen and tell is not None:
        tell(f"{seen} of these {len(cases)} cases were in training; --split validation scores the others")
    return cases


def trained_config(run: Path) -> RunConfig | None:
    """The settings of the run that a run folder, or the best/ or last/ in it, belongs to; None for a bare model."""
    for folder in (run, run.resolve().parent):
        if (folder / "config.yaml").is_file():
            return load_config(folder / "config.yaml")
    return None


def class_rows(result: Evaluation) -> list[list[str]]:
    """Cells of ``CLASS_HEADER``: a row for every foreground class, and their mean where there are several."""
    rows = []
    for k, name in list(enumerate(result.classes))[1:]:
        scores = [case.classes[k] for case in result.cases]
        means = [_mean(getattr(s, field) for s in scores) for field in ("dice", "iou", "boundary_f", "hd95")]
        rows.append((name, means, sum(s.empty for s in scores)))
    cells = [[name, *_numbers(means), str(empty)] for name, means, empty in rows]
    if len(rows) > 1:
        overall = [_mean(means[i] for _, means, _ in rows) for i in range(4)]
        cells.append(["mean", *_numbers(overall), str(sum(empty for *_, empty in rows))])
    return cells


def case_rows(result: Evaluation) -> list[list[str]]:
    """Cells of ``CASE_HEADER``, a row a case, then the failed ones with their reason."""
    rows = [[c.id, f"{c.dice:.4f}", _number(c.ceiling), f"{c.tokens:,}", f"{c.seconds:.2f}"] for c in result.cases]
    return rows + [[name, f"failed: {reason}", "", "", ""] for name, reason in result.failed.items()]


def cost_line(result: Evaluation) -> str:
    """Mean Dice beside its ceiling, tokens and seconds, in one line."""
    tokens, seconds = _mean(c.tokens for c in result.cases), _mean(c.seconds for c in result.cases)
    return (
        f"mean Dice {_number(result.dice)} of at most {_number(result.ceiling)} (label ceiling); per image "
        f"{tokens or 0:,.0f} tokens, {seconds or 0:.2f} s"
    )


def _scores(result: Evaluation) -> Section:
    text = f"{cost_line(result)}. {describe_environment().line}."
    return Section(title="Scores by class", text=text, table=Table(CLASS_HEADER, class_rows(result)))


def _by_case(result: Evaluation) -> Section:
    return Section(title="Scores by case", table=Table(CASE_HEADER, case_rows(result)))


def _parts(run: Path) -> dict[str, list[str]]:
    """Case ids of the training and validation part of a run; empty for a bare model."""
    for folder in (run, run.resolve().parent):
        if (folder / "split.json").is_file():
            return read_json(folder / "split.json")
    return {}


def _telling(result: Evaluation) -> list[str]:
    """Ids of the best, the median and the worst case by Dice (fewer where there are fewer cases)."""
    ranked = sorted(result.cases, key=lambda c: (-c.dice, c.id))
    places = np.unique(np.linspace(0, len(ranked) - 1, 3).round().astype(int))
    return [ranked[i].id for i in places]


def _view(case: Case, bundle: Bundle, labels: LabelMap | None, scale: Scale, options: PredictOptions) -> Section:
    window = bundle.spec.intensity_window
    scored = score_picture(bundle, case, label_map=labels, scale=scale, options=options)
    picture, prediction = scored.picture, scored.prediction
    text = f"{prediction.tokens:,} tokens, {prediction.seconds:.2f} s"
    text += f"; shown: {scored.shown}" if scored.shown else ""
    return case_section(
        case.id, picture.image, picture.label, {"": prediction}, classes=bundle.spec.classes, text=text, window=window
    )


def _mean(values: Iterable[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return float(np.mean(known)) if known else None


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"


def _numbers(means: Sequence[float | None]) -> list[str]:
    *scores, distance = means
    return [*map(_number, scores), "–" if distance is None else f"{distance:.1f}"]
