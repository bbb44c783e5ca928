"""Scores of a contender of classes, recomputed from single answers; what is timed, by a clock that counts answers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from patchforest.bench import class_scores
from patchforest.bench.class_scores import TIMED, score_classes, seconds_to_classify
from patchforest.bench.training import Trained
from patchforest.data.layout import find_cases
from patchforest.infer import classify as inference
from patchforest.infer.classify import classify
from patchforest.io.array import ArraySource
from patchforest.io.open import open_image
from tests.infer.test_classify import bundle
from tests.train.class_runs import class_config, make_images

NAMES = ("a", "b", "c")


@pytest.fixture
def trained(tmp_path: Path) -> Trained:
    """An untrained model of three classes, of which the images have b and c; the last six are those of validation."""
    data, config = make_images(tmp_path / "data", count=8), class_config()
    table = (data / "shapes.csv").read_text().replace("disc", "b").replace("bar", "c")
    (data / "shapes.csv").write_text(table)
    cases = find_cases(data, require_labels=False)
    config = replace(config, data=replace(config.data, target="shape", classes=NAMES))
    return Trained(config, bundle(), tmp_path, cases, cases.cases[2:], {"steps": 7})


def test_scores_are_those_of_single_answers(trained: Trained, tmp_path: Path) -> None:
    found = score_classes(trained, tmp_path)
    said = [classify(trained.bundle, case.image) for case in trained.validation]
    probability = np.array([one.probability for one in said])
    truth = np.array([NAMES.index("b" if k // 2 % 2 else "c") for k in range(2, 8)])  # as make_images draws
    right = probability.argmax(1) == truth
    assert found["accuracy"] == pytest.approx(right.mean())
    assert found["balanced_accuracy"] == pytest.approx(np.mean([right[truth == k].mean() for k in (1, 2)]))
    assert found["cross_entropy"] == pytest.approx(-np.log(probability[range(6), truth]).mean(), abs=1e-6)
    areas = []
    for k in (1, 2):
        inside, outside = probability[truth == k, k], probability[truth != k, k]
        areas.append(np.mean([(x > y) + (x == y) / 2 for x in inside for y in outside]))
    assert found["AUC"] == pytest.approx(np.mean(areas))
    assert np.array(found["confusion"]).sum() == 6
    assert found["tokens"] == np.mean([one.tokens for one in said])
    own = {case.id: float(p[k]) for case, p, k in zip(trained.validation, probability, truth)}
    assert found["per_case"] == pytest.approx(own)
    assert found["steps"] == 7  # what the training left
    assert found["predict_seconds"] > 0
    assert found["peak_mib"] > 0


def test_an_image_that_cannot_be_scored_ends_it(trained: Trained, tmp_path: Path) -> None:
    trained.validation[1].image.write_bytes(b"")
    with pytest.raises(RuntimeError, match=f"could not be scored: .*{trained.validation[1].id}"):
        score_classes(trained, tmp_path)


@pytest.mark.parametrize(("count", "seconds"), [(6, np.mean([2, 3, 4])), (2, 2.0), (1, 1.0)])
def test_the_first_image_warms_up_unless_it_is_alone(
    trained: Trained, monkeypatch: pytest.MonkeyPatch, count: int, seconds: float
) -> None:
    """The n-th answer takes n seconds, and nothing else takes any."""
    seen: list[np.ndarray] = []

    def answered(_: object, pixels: Any, *, precision: str) -> None:
        assert precision == trained.config.train.precision
        assert isinstance(pixels, ArraySource)  # in memory: no file is read while the clock runs
        seen.append(pixels.read())

    monkeypatch.setattr(inference, "classify", answered)
    monkeypatch.setattr(class_scores, "clock_of", lambda device: lambda: len(seen) * (len(seen) + 1) / 2)
    cases = trained.validation[:count]
    assert seconds_to_classify(replace(trained, validation=cases)) == seconds
    assert len(seen) == min(count, TIMED + 1)
    for case, pixels in zip(cases, seen):
        np.testing.assert_array_equal(pixels, open_image(case.image).read())


def test_images_are_classified_at_the_scale_of_the_data(trained: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    shapes = []
    monkeypatch.setattr(inference, "classify", lambda _, pixels, precision: shapes.append(pixels.shape[:2]))
    half = replace(trained.config.data, mpp=2.0, input_mpp=1.0)
    seconds_to_classify(replace(trained, config=replace(trained.config, data=half)))
    assert set(shapes) == {(28, 36)}
