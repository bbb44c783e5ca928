"""Scores from predictions: what they say of known masks, of doubt, and of leaves of other sides than the prediction."""

from __future__ import annotations

import numpy as np
import pytest

from patchforest.tree.ceiling import label_ceiling
from patchforest.tree.forest import build_forest
from patchforest.tree.label_error import label_errors, split_scores, sums
from patchforest.tree.refine import share_scores, uncertainty_scores
from tests.tree.test_label_error import smooth_mask


def test_sure_probabilities_at_full_resolution_give_the_errors_of_the_mask() -> None:
    mask = smooth_mask(np.random.default_rng(0), (40, 56))
    found = uncertainty_scores(mask[None].astype(float), 1, shape=mask.shape, cell=4, root=32, q=2)
    errors = label_errors(mask, cell=4, root=32, q=2)
    for side, score, error in zip((4, 8, 16, 32), found, errors, strict=True):
        assert score.dtype == np.float32
        np.testing.assert_allclose(score, error * (mask == 1).sum() * min(1.0, side / 2 / 2), atol=1e-3)


def test_by_hand_doubt_counts_by_area_and_less_in_finer_blocks() -> None:
    doubt = np.zeros((1, 4, 4))
    doubt[0, 0, 0] = 0.25  # one pixel of 8 x 8
    cells, middle, roots = uncertainty_scores(doubt, 8, shape=(32, 32), cell=8, root=32, q=1)
    expected = 64 * 0.25
    assert cells[0, 0] == pytest.approx(expected / 2)  # blocks of 8 are half of 2 x 8
    assert middle[0, 0] == pytest.approx(expected)
    assert roots[0, 0] == pytest.approx(expected)
    assert cells.sum() == pytest.approx(cells[0, 0])
    assert middle.sum() == pytest.approx(middle[0, 0])


def test_two_classes_are_one_probability_and_its_complement() -> None:
    p = np.random.default_rng(1).random((1, 6, 5))
    one = uncertainty_scores(p, 8, shape=(47, 40), cell=4, root=32, q=4)
    two = uncertainty_scores(np.concatenate([1 - p, p]), 8, shape=(47, 40), cell=4, root=32, q=4)
    for a, b in zip(one, two, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)


def test_probabilities_coarser_than_cells_are_spread_over_them() -> None:
    p = np.random.default_rng(2).random((1, 3, 4))
    scores = uncertainty_scores(p, 16, shape=(41, 60), cell=4, root=32, q=2)
    assert [s.shape for s in scores] == [(11, 15), (6, 8), (3, 4), (2, 2)]
    expected = np.minimum(p[0], 1 - p[0]) * (4 / 2 / 32) * 16
    np.testing.assert_allclose(scores[0][:8:4, :12:4], expected[:2, :3], rtol=1e-5)
    assert scores[0][9, 0] == pytest.approx(scores[0][10, 0])  # the last rows share what the image has of theirs


def test_leaves_as_fine_as_their_answers_score_nothing() -> None:
    p = np.full((1, 4, 4), 0.5)
    scores = uncertainty_scores(p, 8, shape=(32, 32), cell=8, root=32, q=16)
    assert not scores[0].any()
    assert not scores[1].any()
    assert scores[2].all()


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_blurred_mask_beats_a_uniform_forest() -> None:
    mask = (np.hypot(*(np.indices((128, 128)) - [[[40]], [[70]]])) < 20).astype(np.int16)
    blurred = sums(mask.astype(float), 4) / 16
    scores = uncertainty_scores(blurred[None] * 0.8, 4, shape=mask.shape, cell=8, root=64, q=4)
    forest = build_forest(scores, shape=mask.shape, cell=8, root=64, budget=64)
    grid = build_forest(np.ones((16, 16)), shape=mask.shape, cell=8, root=64, uniform=16)
    assert label_ceiling(mask, forest, 4) > label_ceiling(mask, grid, 4)


def test_true_shares_give_the_scores_of_the_mask() -> None:
    mask = smooth_mask(np.random.default_rng(4), (44, 64))
    known = np.ones(mask.shape)
    shares = []
    for block in (2, 4, 8, 16):
        held, area = sums(mask.astype(float), block), sums(known, block)
        less = np.where(held > area - held, 0, 1)  # the class that the block does not show
        lost = np.repeat(np.repeat(less, block, 0), block, 1)[: mask.shape[0], : mask.shape[1]] == mask
        shares.append(sums(lost.astype(float), 8) / sums(known, 8))
    found = share_scores(np.stack(shares), 8, shape=mask.shape, cell=4, root=32, q=2)
    errors = [e * (mask == 1).sum() for e in label_errors(mask, cell=4, root=32, q=2)]
    coarse = [np.zeros_like(errors[0]), *errors[1:]]
    cells = sums(shares[0] * sums(known, 8), 1)
    coarse[0] = np.repeat(np.repeat(cells / 4, 2, 0), 2, 1)[:11, :16].astype(np.float32)  # even within 8 x 8
    for a, b in zip(found, split_scores(coarse), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-3)


def test_longer_blocks_than_the_scorer_knows_are_as_wrong_as_its_longest() -> None:
    shares = np.random.default_rng(5).random((2, 4, 4)) * [[[0.1]], [[0.4]]]
    short = share_scores(shares, 8, shape=(32, 32), cell=8, root=32, q=1)
    longer = share_scores(
        np.concatenate([shares, shares[1:], shares[1:], shares[1:]]), 8, shape=(32, 32), cell=8, root=32, q=1
    )
    for a, b in zip(short, longer, strict=True):
        np.testing.assert_array_equal(a, b)


def test_what_does_not_fit_is_said() -> None:
    p = np.zeros((1, 4, 4))
    with pytest.raises(ValueError, match=r"must be \(K, 5, 4\); got \(1, 4, 4\)"):
        uncertainty_scores(p, 8, shape=(33, 32), cell=8, root=32)
    with pytest.raises(ValueError, match=r"lie in \[0, 1\]"):
        uncertainty_scores(p - 0.1, 8, shape=(32, 32), cell=8, root=32)
    with pytest.raises(ValueError, match="stride must be cell"):
        uncertainty_scores(p, 12, shape=(48, 48), cell=8, root=32)
    with pytest.raises(ValueError, match=r"must be \(S, 5, 4\)"):
        share_scores(p, 8, shape=(33, 32), cell=8, root=32)
    with pytest.raises(ValueError, match="finite and not negative"):
        share_scores(p - 1, 8, shape=(32, 32), cell=8, root=32)
