"""Scoring a model of classes on a data set, end to end: find the images and their classes, score, write a report."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from patchforest.data.layout import find_cases
from patchforest.errors import InputError
from patchforest.io.scale import Scale
from patchforest.models.bundle import load_model
from patchforest.report.environment import describe_environment
from patchforest.report.evaluation import choose_cases, trained_config
from patchforest.report.html import Section, Table, write_report
from patchforest.train.classify import targets_of
from patchforest.train.config import DataConfig
from patchforest.train.evaluate_classes import ClassEvaluation, evaluate_classes
from patchforest.train.scoring import scale_of_model

CLASS_HEADER = ("class", "images", "told right", "share")
CASE_HEADER = ("image", "class", "told", "probability", "tokens", "seconds")


def evaluate_class_run(
    run: Path,
    data: Path,
    out: Path,
    *,
    split: Path | None = None,
    layout: str = "auto",
    targets: str | None = None,
    target: str | None = None,
    scale: Scale | None = None,
    device: str = "cpu",
    report: bool = True,
    trees: int = 1,
    flips: bool = False,
    precision: str = "fp32",
    tell: Callable[[str], None] | None = None,
) -> ClassEvaluation:
    """The scores of a trained model of classes on a data set; ``out`` gets summary.json, cases.csv and report.html.

    Parameters
    ----------
    targets, target : table of the classes and its column; None: as in training.
    trees, flips, precision : see ``infer.classify.classify``.
    others : of ``report.evaluation.evaluate_run``.

    Raises
    ------
    InputError : as ``evaluate_run``; no table, or one that lacks an image.
    """
    bundle, config = load_model(run, device), trained_config(run)
    trained = DataConfig() if config is None else config.data
    settings = replace(
        trained,
        targets=targets or trained.targets,
        target=target or trained.target,
        classes=bundle.spec.classes,
    )
    if settings.targets is None:
        raise InputError(run, "does not say where the classes of the images stand", "give --targets and --target")
    found = find_cases(data, layout=layout, require_labels=False)
    cases = choose_cases(found.cases, run, data, split, tell)
    known = targets_of(settings, replace(found, cases=tuple(replace(c, split=None) for c in cases)))
    seen_at = scale or (config.data.scale if config is not None else scale_of_model(bundle))
    result = evaluate_classes(
        bundle, cases, known, out, scale=seen_at, trees=trees, flips=flips, precision=precision, tell=tell
    )
    if report and result.cases:
        title = f"patchforest: {run.resolve().name} on {data.resolve().name}"
        write_report(out / "report.html", title=title, sections=[_scores(result), *class_sections(result)])
    return result


def score_line(result: ClassEvaluation) -> str:
    """Accuracy, AUC, tokens and seconds in one line."""
    scores = result.scores
    if scores is None:
        return "no image was scored"
    auc = "undefined" if scores.auc is None else f"{scores.auc:.4f}"
    count = len(result.cases)
    tokens, seconds = sum(c.tokens for c in result.cases) / count, sum(c.seconds for c in result.cases) / count
    return (
        f"accuracy {scores.accuracy:.4f}, balanced {scores.balanced_accuracy:.4f}, AUC {auc}; per image {tokens:,.0f} "
        f"tokens, {seconds:.2f} s"
    )


def class_rows(result: ClassEvaluation) -> list[list[str]]:
    """Cells of ``CLASS_HEADER``: a row for every class."""
    scores = result.scores
    confusion: Sequence[Sequence[int]] = () if scores is None else scores.confusion
    rows = []
    for k, row in enumerate(confusion):
        share = "–" if not sum(row) else f"{row[k] / sum(row):.4f}"
        rows.append([result.classes[k], str(sum(row)), str(row[k]), share])
    return rows


def class_sections(result: ClassEvaluation) -> list[Section]:
    """Tables for a report: the confusion matrix, and every image."""
    scores = result.scores
    assert scores is not None
    confusion = [[name, *map(str, row)] for name, row in zip(result.classes, scores.confusion)]
    names = result.classes
    cases = [
        [c.id, names[c.truth], names[c.told], f"{c.probability[c.told]:.3f}", f"{c.tokens:,}", f"{c.seconds:.2f}"]
        for c in result.cases
    ]
    failed = [[name, f"failed: {reason}", "", "", "", ""] for name, reason in result.failed.items()]
    return [
        Section(
            title="Told class by true class",
            text="A row a true class, a column a told one.",
            table=Table(["", *names], confusion),
        ),
        Section(title="Images", table=Table(CASE_HEADER, cases + failed)),
    ]


def _scores(result: ClassEvaluation) -> Section:
    text = f"{score_line(result)}. {describe_environment().line}."
    return Section(title="Scores", text=text, table=Table(CLASS_HEADER, class_rows(result)))
