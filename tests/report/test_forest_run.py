"""The forest command's work: the counts it prints and the picture it writes."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from patchforest.report.forest_run import draw_forest_of, summarise_forest
from patchforest.tree.forest import build_forest
from patchforest.values import ForestPolicy


def test_counts_by_hand() -> None:
    detail = np.zeros((4, 4), np.float32)
    detail[0, 0] = 1
    summary = summarise_forest(build_forest(detail, shape=(32, 32), cell=8, budget=7))
    assert [(n.level, n.size, n.leaves, n.area) for n in summary.levels] == [(1, 16, 3, 0.75), (2, 8, 4, 0.25)]
    assert (summary.tokens, summary.uniform_tokens, summary.smallest) == (7, 16, 8)
    assert summary.fewer == pytest.approx(16 / 7)
    assert summary.attention_ratio == pytest.approx((16 / 7) ** 2)


def test_areas_add_up_on_odd_sizes(rng: np.random.Generator) -> None:
    forest = build_forest(rng.random((9, 13)).astype(np.float32), shape=(70, 101), cell=8, budget=60)
    summary = summarise_forest(forest)
    assert sum(n.leaves for n in summary.levels) == summary.tokens == len(forest)
    assert sum(n.area for n in summary.levels) == pytest.approx(1.0)


@pytest.mark.parametrize(
    "policy",
    [
        ForestPolicy(budget=100),
        ForestPolicy(threshold=20.0, criterion="canny"),
        ForestPolicy(uniform=16),
        ForestPolicy(budget=50, criterion="variance"),
    ],
)
def test_the_picture_is_written_and_every_step_timed(
    tmp_path: Path, policy: ForestPolicy, rng: np.random.Generator
) -> None:
    from patchforest.tree.cut import cut_forest

    image = np.kron(rng.integers(0, 256, (9, 12)), np.ones((20, 21))).astype(np.uint8)
    cv2.imwrite(str(tmp_path / "in.png"), image)
    run = draw_forest_of(tmp_path / "in.png", policy, out=tmp_path / "a b.png")
    drawn = np.asarray(cv2.imread(str(tmp_path / "a b.png")))
    assert drawn.shape == (180, 252, 3)
    assert {"read", "forest", "draw", "write"} <= set(run.seconds)
    assert ("detail map" in run.seconds) == (policy.uniform is None)
    np.testing.assert_array_equal(run.forest.origin, cut_forest(image[:, :, None], policy).origin)


def test_a_budget_below_the_number_of_roots_is_refused(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "in.png"), np.zeros((128, 128), np.uint8))
    with pytest.raises(ValueError, match="16"):
        draw_forest_of(tmp_path / "in.png", ForestPolicy(budget=5, root=32), out=tmp_path / "out.png")
    assert not (tmp_path / "out.png").exists()
