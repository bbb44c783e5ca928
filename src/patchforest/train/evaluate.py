"""Scores of a trained model on labelled cases, what they cost and what was possible: summary.json and cases.csv."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from patchforest.data.layout import Case
from patchforest.data.load import LabelMap
from patchforest.errors import InputError
from patchforest.infer.options import PredictOptions
from patchforest.io.atomic import write_json, write_text
from patchforest.io.scale import Scale
from patchforest.models.bundle import Bundle, load_model
from patchforest.train.ceiling import OutputGrid, model_ceiling, output_grid
from patchforest.train.metrics import ClassScore, dice_of, score_case, score_counts
from patchforest.train.scoring import scale_of_model, score_picture
from patchforest.values import Array

Numbers = dict[str, float | int | None]


@dataclass(frozen=True, eq=False)
class CaseScore:
    """Scores of one case.

    Attributes
    ----------
    classes : in class order, background first.
    confusion : (K, K) pixels by true and predicted class.
    ceiling : best Dice that the model's forest and output grid allow; None where it cannot be said.
    tokens : leaves read; 0 for models on pixels.
    seconds : from pixels to mask.
    """

    id: str
    classes: tuple[ClassScore, ...]
    confusion: Array
    ceiling: float | None
    tokens: int
    seconds: float

    @property
    def dice(self) -> float:
        """Mean over the foreground classes, empty-both = 1."""
        return float(np.mean([s.dice for s in self.classes[1:]]))


@dataclass(frozen=True)
class Evaluation:
    """Scores of the cases that could be scored, and why others could not, by id; ``classes`` has the names."""

    classes: tuple[str, ...]
    cases: tuple[CaseScore, ...]
    failed: dict[str, str] = field(default_factory=dict)

    @property
    def dice(self) -> float | None:
        """Mean Dice over cases and foreground classes."""
        return float(np.mean([c.dice for c in self.cases])) if self.cases else None

    @property
    def ceiling(self) -> float | None:
        """Mean label ceiling over the cases that have one."""
        return _mean(c.ceiling for c in self.cases)


def evaluate(
    model: Bundle | str | Path,
    cases: Sequence[Case],
    out: str | Path,
    *,
    label_map: LabelMap | None = None,
    scale: Scale | None = None,
    trees: int = 1,
    flips: bool = False,
    window: str | int = "auto",
    precision: str = "fp32",
    tissue: bool | None = None,
    tell: Callable[[str], None] | None = None,
) -> Evaluation:
    """Score a model on cases at full resolution and write ``out/summary.json`` and ``out/cases.csv``.

    Cases that cannot be read or scored are listed and the rest goes on. ``summary.json`` follows nnU-Net's
    (``metric_per_case``, ``mean``, ``foreground_mean``) and adds boundary F at 2 px, HD95, ceilings, tokens, seconds,
    pooled Dice and the number of empty pairs that count as 1.

    Parameters
    ----------
    label_map : stored value → class number, as in training (``DataConfig.labels``).
    scale : see the cases, and compare their masks, at this scale; None: at the model's.
    trees, flips, window, precision, tissue : see ``infer.predict.predict``.
    tell : receives one line of text a case.
    """
    bundle = load_model(Path(model)) if isinstance(model, str | Path) else model
    options = PredictOptions(trees=trees, flips=flips, window=window, precision=precision, tissue=tissue)
    grid = None if bundle.spec.volume is not None else output_grid(bundle)
    scored, failed = [], {}
    for number, case in enumerate(cases, 1):
        try:
            score = _score(bundle, case, grid, label_map, scale or scale_of_model(bundle), options)
        except (InputError, OSError, MemoryError) as error:
            failed[case.id] = str(error) or type(error).__name__
            line = f"failed: {failed[case.id]}"
        else:
            scored.append(score)
            ceiling = "" if score.ceiling is None else f" of at most {score.ceiling:.4f}"
            line = f"Dice {score.dice:.4f}{ceiling}, {score.tokens} tokens, {score.seconds:.2f} s"
        if tell is not None:
            tell(f"[{number}/{len(cases)}] {case.id}: {line}")
    result = Evaluation(bundle.spec.classes, tuple(scored), failed)
    files = {c.id: c for c in cases}
    write_json(Path(out) / "summary.json", summarise(result, files))
    write_text(Path(out) / "cases.csv", _table(result))
    return result


def summarise(result: Evaluation, files: Mapping[str, Case]) -> dict[str, Any]:
    """The content of ``summary.json``: class numbers as keys, foreground classes only, absent values None."""
    numbers = range(1, len(result.classes))
    means = {str(k): _class_mean(result, k) for k in numbers}
    keys = ("Dice", "IoU", "BoundaryF2", "HD95", "Dice_pooled", "Dice_present")
    return {
        "foreground_mean": {
            **{key: _mean(m[key] for m in means.values()) for key in keys},
            "ceiling": result.ceiling,
            "tokens": _mean(c.tokens for c in result.cases),
            "seconds": _mean(c.seconds for c in result.cases),
        },
        "mean": means,
        "classes": {str(k): name for k, name in enumerate(result.classes)},
        "num_cases": len(result.cases),
        "failed": result.failed,
        "metric_per_case": [
            {
                "id": c.id,
                "image_file": str(files[c.id].image),
                "reference_file": str(files[c.id].label),
                "metrics": {str(k): _class_numbers(c, k) for k in numbers},
                "Dice": c.dice,
                "ceiling": c.ceiling,
                "tokens": c.tokens,
                "seconds": c.seconds,
            }
            for c in result.cases
        ],
    }


def _score(
    bundle: Bundle,
    case: Case,
    grid: OutputGrid | None,
    label_map: LabelMap | None,
    scale: Scale,
    options: PredictOptions,
) -> CaseScore:
    classes = len(bundle.spec.classes)
    if grid is None:
        from patchforest.train.volume_scores import score_volume_case

        return score_volume_case(bundle, case, label_map, options)
    scored = score_picture(bundle, case, label_map=label_map, scale=scale, options=options)
    scores, ceiling = score_counts(scored.confusion), None
    if not scored.shown:
        scores = score_case(scored.prediction.mask, scored.picture.label, classes)
        ceiling = model_ceiling(scored.prediction, scored.picture.label, grid, classes)
    return CaseScore(case.id, scores, scored.confusion, ceiling, scored.tokens, scored.seconds)


def _class_numbers(case: CaseScore, k: int) -> Numbers:
    score, both = case.classes[k], int(case.confusion[k, k])
    true, predicted = int(case.confusion[k].sum()), int(case.confusion[:, k].sum())
    counts = {"TP": both, "FP": predicted - both, "FN": true - both, "n_pred": predicted, "n_ref": true}
    counts["TN"] = int(case.confusion.sum()) - predicted - true + both
    return {
        "Dice": score.dice,
        "IoU": score.iou,
        "BoundaryF2": score.boundary_f,
        "HD95": score.hd95,
        "empty": score.empty,
        **counts,
    }


def _class_mean(result: Evaluation, k: int) -> Numbers:
    scores = [c.classes[k] for c in result.cases]
    pooled = sum((c.confusion for c in result.cases), np.zeros((len(result.classes),) * 2, np.int64))
    return {
        "Dice": _mean(s.dice for s in scores),
        "IoU": _mean(s.iou for s in scores),
        "BoundaryF2": _mean(s.boundary_f for s in scores),
        "HD95": _mean(s.hd95 for s in scores),
        "Dice_present": _mean(s.dice for s in scores if not s.empty),
        "Dice_pooled": float(dice_of(pooled)[k]) if scores else None,
        "cases": len(scores),
        "empty": sum(s.empty for s in scores),
        "cases_with_HD95": sum(s.hd95 is not None for s in scores),
    }


def _table(result: Evaluation) -> str:
    """One row a case and foreground class."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    head = ["case", "class", "name", "dice", "iou", "boundary_f2", "hd95", "empty", "ceiling", "tokens", "seconds"]
    writer.writerow(head)
    for c in result.cases:
        for k, name in enumerate(result.classes[1:], 1):
            s = c.classes[k]
            scores = [_cell(v) for v in (s.dice, s.iou, s.boundary_f, s.hd95)]
            writer.writerow([c.id, k, name, *scores, int(s.empty), _cell(c.ceiling), c.tokens, f"{c.seconds:.3f}"])
    return text.getvalue()


def _cell(value: float | None) -> str:
    return "" if value is None else f"{value:.6f}"


def _mean(values: Any) -> float | None:
    """Mean of the values that are not None; None without any."""
    known = [float(v) for v in values if v is not None]
    return float(np.mean(known)) if known else None
