"""Scores of a trained model of classes on its validation images, and what an answer costs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from patchforest.bench.training import Trained, clock_of, peak_mib, precision_of

TIMED = 3
"""Images whose prediction is timed, after one that is not."""


def score_classes(trained: Trained, folder: Path) -> dict[str, Any]:
    """Accuracy, AUC and costs of the last weights, as plain numbers by name.

    ``predict_seconds`` are from pixels in memory to probabilities of an image: CPU seconds, on a GPU seconds.
    """
    from patchforest.train.classify import targets_of
    from patchforest.train.evaluate_classes import evaluate_classes

    config, bundle = trained.config, trained.bundle
    targets = targets_of(config.data, trained.cases)
    result = evaluate_classes(
        bundle,
        trained.validation,
        targets,
        folder / "scores",
        scale=config.data.scale,
        precision=precision_of(config, bundle),
    )
    if result.failed:
        raise RuntimeError(f"could not be scored: {next(iter(result.failed.values()))}")
    summary = json.loads((folder / "scores" / "summary.json").read_text(encoding="utf-8"))
    names = ("accuracy", "balanced_accuracy", "cross_entropy", "confusion", "tokens")
    return {
        "AUC": summary["auc"],
        **{name: summary[name] for name in names},
        "predict_seconds": seconds_to_classify(trained),
        "per_case": {c["id"]: c["probability"][c["class"]] for c in summary["metric_per_case"]},
        "peak_mib": peak_mib(),
        **trained.numbers,
    }


def seconds_to_classify(trained: Trained) -> float:
    """From pixels in memory to probabilities, the mean of a few validation images."""
    from patchforest.infer.classify import classify
    from patchforest.io.array import ArraySource
    from patchforest.io.open import open_image
    from patchforest.io.scale import at_scale

    precision = precision_of(trained.config, trained.bundle)
    clock = clock_of(next(trained.bundle.network.parameters()).device.type)
    seconds = []
    for case in trained.validation[: TIMED + 1]:
        view = at_scale(open_image(case.image), trained.config.data.scale, case.image)
        pixels = ArraySource(view.read(), case.image, mpp=view.mpp)
        start = clock()
        classify(trained.bundle, pixels, precision=precision)
        seconds.append(clock() - start)
    return float(np.mean(seconds[1:] or seconds))
