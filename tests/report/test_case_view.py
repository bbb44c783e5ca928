"""A case's section shows what there is: no errors without a truth, no forest for a model without one."""

import numpy as np

from patchforest.infer.predict import Prediction
from patchforest.report.case_view import case_section, legend
from patchforest.report.palette import CONFUSED
from patchforest.tree.forest import build_forest
from patchforest.values import Region

SHAPE = (40, 56)
IMAGE = np.full((*SHAPE, 3), 90, np.uint8)
FOREST = build_forest(np.ones((5, 7)), shape=SHAPE, uniform=8)


def _prediction(*, forest: bool) -> Prediction:
    windows = ((Region((0, 0), SHAPE), FOREST if forest else None),)
    return Prediction(np.ones(SHAPE, np.uint8), None, windows, 35 if forest else 0, 0.1)


def test_two_models_side_by_side() -> None:
    truth = np.zeros(SHAPE, np.int16)
    models = {"adaptive": _prediction(forest=True), "U-Net": _prediction(forest=False)}
    section = case_section("case 1", IMAGE, truth, models, classes=["background", "gland"])
    assert [p.caption for p in section.pictures] == [
        "image",
        "truth",
        "adaptive: forest, 35 tokens",
        "adaptive: prediction",
        "adaptive: errors",
        "U-Net: prediction",
        "U-Net: errors",
    ]
    assert next(name for name, _ in section.legend) == "gland"


def test_without_a_truth_there_are_no_errors() -> None:
    section = case_section("c", IMAGE, None, {"": _prediction(forest=True)}, classes=["background", "gland"])
    assert [p.caption for p in section.pictures] == ["image", "forest, 35 tokens", "prediction"]
    assert len(section.legend) == 1


def test_the_legend_names_wrong_classes_only_where_there_are_several() -> None:
    assert CONFUSED not in [rgb for _, rgb in legend(["a", "b"], errors=True)]
    assert CONFUSED in [rgb for _, rgb in legend(["a", "b", "c"], errors=True)]
    assert len(legend([str(k) for k in range(100)], errors=False)) == 0
