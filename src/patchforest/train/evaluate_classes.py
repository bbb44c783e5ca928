"""A trained model of classes on labelled images: how many it tells right, how well it ranks them, what it costs."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from patchforest.data.layout import Case
from patchforest.data.targets import Targets
from patchforest.errors import InputError
from patchforest.io.atomic import write_json, write_text
from patchforest.io.scale import AS_STORED, Scale
from patchforest.models.bundle import Bundle
from patchforest.train.class_metrics import ClassScores, class_scores
from patchforest.train.classify import classify_case


@dataclass(frozen=True)
class ClassCase:
    """One image: its true class number, the probabilities of all classes, tokens read and seconds taken."""

    id: str
    truth: int
    probability: tuple[float, ...]
    tokens: int
    seconds: float

    @property
    def told(self) -> int:
        """The most probable class."""
        return int(np.argmax(self.probability))


@dataclass(frozen=True)
class ClassEvaluation:
    """All images; ``failed`` holds the reason, one line, of each that could not be scored."""

    classes: tuple[str, ...]
    cases: tuple[ClassCase, ...]
    failed: Mapping[str, str]

    @property
    def scores(self) -> ClassScores | None:
        """Over all images; None without any."""
        if not self.cases:
            return None
        probability = np.array([c.probability for c in self.cases])
        return class_scores(probability, np.array([c.truth for c in self.cases]))


def evaluate_classes(
    bundle: Bundle,
    cases: Sequence[Case],
    targets: Targets,
    out: str | Path,
    *,
    scale: Scale = AS_STORED,
    trees: int = 1,
    flips: bool = False,
    precision: str = "fp32",
    tell: Callable[[str], None] | None = None,
) -> ClassEvaluation:
    """Score a model on images and write ``out/summary.json`` and ``out/cases.csv``.

    ``summary.json`` holds accuracy, balanced accuracy, AUC and cross-entropy over all images (``train.class_metrics``),
    the confusion matrix, mean tokens and seconds, and the probabilities of every image.

    Parameters
    ----------
    targets : with the classes of the model, in its order.
    trees, flips, precision : see ``infer.classify.classify``.
    tell : receives one line of text an image.

    Raises
    ------
    InputError : targets of other classes than the model's.
    """
    spec = bundle.spec
    if targets.classes != spec.classes:
        told = f"has the classes {', '.join(targets.classes)}, the model {', '.join(spec.classes)}"
        raise InputError("targets", told, "give the table and the column that it was trained on")
    scored: list[ClassCase] = []
    failed: dict[str, str] = {}
    for number, case in enumerate(cases, 1):
        try:
            said = classify_case(bundle, case, scale=scale, trees=trees, flips=flips, precision=precision)
        except (InputError, OSError, MemoryError) as error:
            failed[case.id] = str(error) or type(error).__name__
            line = f"failed: {failed[case.id]}"
        else:
            probability = tuple(float(p) for p in said.probability)
            one = ClassCase(case.id, targets.numbers[case.id], probability, said.tokens, said.seconds)
            scored.append(one)
            verdict = "right" if one.told == one.truth else f"wrong, it is {spec.classes[one.truth]}"
            line = f"{spec.classes[one.told]} ({probability[one.told]:.3f}), {verdict}; {one.tokens} tokens"
        if tell is not None:
            tell(f"[{number}/{len(cases)}] {case.id}: {line}")
    result = ClassEvaluation(spec.classes, tuple(scored), failed)
    files = {c.id: c for c in cases}
    write_json(Path(out) / "summary.json", summarise_classes(result, files))
    write_text(Path(out) / "cases.csv", _table(result))
    return result


def summarise_classes(result: ClassEvaluation, files: Mapping[str, Case]) -> dict[str, Any]:
    """The content of ``summary.json``; scores are None without images."""
    names = ("accuracy", "balanced_accuracy", "auc", "cross_entropy", "confusion")
    scores = dict.fromkeys(names) if result.scores is None else asdict(result.scores)
    return {
        **scores,
        "tokens": _mean([c.tokens for c in result.cases]),
        "seconds": _mean([c.seconds for c in result.cases]),
        "classes": list(result.classes),
        "num_cases": len(result.cases),
        "failed": dict(result.failed),
        "metric_per_case": [
            {
                "id": c.id,
                "image_file": str(files[c.id].image),
                "class": result.classes[c.truth],
                "told": result.classes[c.told],
                "probability": dict(zip(result.classes, c.probability)),
                "tokens": c.tokens,
                "seconds": c.seconds,
            }
            for c in result.cases
        ],
    }


def _table(result: ClassEvaluation) -> str:
    """One row an image."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["case", "class", "told", "right", *(f"p_{c}" for c in result.classes), "tokens", "seconds"])
    for c in result.cases:
        said = [f"{p:.6f}" for p in c.probability]
        names = [result.classes[c.truth], result.classes[c.told]]
        writer.writerow([c.id, *names, int(c.told == c.truth), *said, c.tokens, f"{c.seconds:.3f}"])
    return text.getvalue()


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None
