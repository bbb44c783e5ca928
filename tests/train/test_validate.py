"""Validation is a user's prediction scored against the truth; its cases are a fixed, even choice."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from patchforest.data.layout import find_cases
from patchforest.data.load import load_case
from patchforest.infer.predict import predict
from patchforest.train.metrics import dice
from patchforest.train.validate import ImageValidator
from tests.infer.fakes import Bright, Constant, fake


def test_scores_are_those_of_predict(data: Path) -> None:
    cases, bundle = find_cases(data).cases, fake(Bright())
    result = ImageValidator(cases, bundle.spec, None)(bundle.network)
    assert result is not None
    pictures = [load_case(c, num_classes=2) for c in cases]
    scores = [dice(predict(bundle, p.image).mask, p.label, 2) for p in pictures]
    assert result.dice == pytest.approx(np.mean(scores, axis=0)[1])
    assert result.per_class == pytest.approx(np.mean(scores, axis=0))
    assert (result.cases, result.empty) == (6, 0)
    assert 0.3 < result.dice < 1


def test_empty_pairs_are_counted(data: Path) -> None:
    bundle = fake(Constant(9.0, 0.0, 0.0), classes=3)
    result = ImageValidator(find_cases(data).cases, bundle.spec, None)(bundle.network)
    assert result is not None
    assert result.empty == 6  # class 2 is in no case and never predicted
    assert result.per_class[1:] == (0.0, 1.0)


def test_a_limit_takes_an_even_choice_and_none_means_no_validation(data: Path) -> None:
    cases, bundle = find_cases(data).cases, fake(Bright())
    chosen = ImageValidator(cases, bundle.spec, None, limit=3).cases
    assert [c.id for c in chosen] == ["case0", "case2", "case5"]
    assert len(ImageValidator(cases, bundle.spec, None, limit=99).cases) == 6
    assert ImageValidator(cases, bundle.spec, None, limit=0)(bundle.network) is None


def test_a_stop_abandons_it(data: Path) -> None:
    asked: list[int] = []

    def stop() -> bool:
        asked.append(1)
        return len(asked) > 2

    bundle = fake(Bright())
    assert ImageValidator(find_cases(data).cases, bundle.spec, None, stop=stop)(bundle.network) is None
    assert len(asked) == 3


def test_an_absent_background_is_no_empty_pair(tmp_path: Path) -> None:
    for name, picture in (("images", np.full((9, 9, 3), 230)), ("masks", np.ones((9, 9)))):
        (tmp_path / name).mkdir()
        cv2.imwrite(str(tmp_path / name / "full.png"), picture.astype(np.uint8))
    bundle = fake(Bright())
    result = ImageValidator(find_cases(tmp_path).cases, bundle.spec, None)(bundle.network)
    assert result is not None
    assert (result.dice, result.empty) == (1.0, 0)
