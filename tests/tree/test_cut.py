"""One call from pixels to forest is the two calls it stands for."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from patchforest.tree.cut import cut_forest
from patchforest.tree.detail import detail_map, variance_pyramid
from patchforest.tree.forest import build_forest
from patchforest.values import ForestPolicy
from tests.tree import reference
from tests.tree.test_detail import scene


@pytest.mark.parametrize("criterion", ["edges", "canny", "gradient", "uniform", "random"])
@pytest.mark.parametrize("shape", [(256, 256), (200, 133), (20, 256)])
def test_budget(criterion: str, shape: tuple[int, int]) -> None:
    image = scene(256)[: shape[0], : shape[1]]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        forest = cut_forest(image, ForestPolicy(criterion=criterion, budget=90))
        expected = build_forest(detail_map(image, 8, criterion=criterion), shape=shape, cell=8, budget=90)
    assert reference.table(forest) == reference.table(expected)


def test_threshold_depth_root_and_cell() -> None:
    image = scene(256)[:200]
    policy = ForestPolicy(criterion="gradient", threshold=1e4, cell=4, root=64, max_depth=3)
    expected = build_forest(
        detail_map(image, 4, criterion="gradient"), shape=(200, 256), cell=4, threshold=1e4, root=64, max_depth=3
    )
    forest = cut_forest(image, policy)
    assert reference.table(forest) == reference.table(expected)
    assert 16 < len(forest) < 64**2
    assert forest.level.max() == 3


def test_depth_is_a_limit() -> None:
    image = scene(256)
    free, limited = (cut_forest(image, ForestPolicy(criterion="gradient", budget=200, max_depth=d)) for d in (None, 3))
    assert free.level.max() > 3
    assert limited.level.max() == 3


def test_uniform_whatever_the_shape() -> None:
    for shape in ((64, 64), (61, 45), (5, 7), (1, 300)):
        forest = cut_forest(np.zeros((*shape, 3), np.uint8), ForestPolicy(uniform=16))
        assert (forest.size == 16).all()
        assert len(forest) == -(-shape[0] // 16) * -(-shape[1] // 16)


def test_variance_brings_its_own_pyramid() -> None:
    """Squared error also between cells: a step on a cell's border is invisible inside cells but not to the pyramid."""
    image = np.full((64, 64), 40, np.uint8)
    image[:, 40:] = 200  # a multiple of the cell
    forest = cut_forest(image, ForestPolicy(criterion="variance", threshold=1.0))
    expected = build_forest(variance_pyramid(image, 8, 64), shape=(64, 64), cell=8, threshold=1.0)
    assert reference.table(forest) == reference.table(expected)
    assert forest.size.min() == 8
    assert (forest.size[forest.origin[:, 1] == 40] == 8).all()


def test_the_budget_follows_the_pixels() -> None:
    policy = ForestPolicy(criterion="random", budget=256, window=256)
    assert len(cut_forest(np.zeros((256, 256), np.uint8), policy)) == 256
    assert 510 <= len(cut_forest(np.zeros((512, 256), np.uint8), policy)) <= 512
    assert 62 <= len(cut_forest(np.zeros((128, 128), np.uint8), policy)) <= 64
    assert len(cut_forest(np.zeros((1, 1), np.uint8), policy)) == 1


def test_every_side_from_1_to_70_has_a_forest() -> None:
    """Also where the budget would be below the number of roots (acceptance 4 rests on this)."""
    image = scene(96)
    for policy in (ForestPolicy(budget=16, window=512), ForestPolicy(budget=64), ForestPolicy(uniform=16)):
        for side in range(1, 71):
            for part in (image[:side, :70], image[:70, :side]):
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", UserWarning)
                    forest = cut_forest(part, policy)
                assert int(forest.area.sum()) == part.shape[0] * part.shape[1]


def test_a_generator_makes_a_fresh_forest() -> None:
    image = scene(256)
    policy = ForestPolicy(budget=90)
    fixed = reference.table(cut_forest(image, policy))
    assert fixed == reference.table(cut_forest(image, policy))
    drawn = [tuple(reference.table(cut_forest(image, policy, rng=np.random.default_rng(s)))) for s in range(12)]
    assert len(set(drawn)) >= 4
    assert drawn[0] == tuple(reference.table(cut_forest(image, policy, rng=np.random.default_rng(0))))


def test_scores_of_ones_own_take_the_place_of_the_criterion() -> None:
    image, score = scene(128), np.zeros((128, 128), np.float32)
    score[100, 20] = 1.0
    forest = cut_forest(image, ForestPolicy(threshold=0.5), criterion=score)
    assert reference.split_set(forest) == {(0, (0, 0)), (1, (64, 0)), (2, (96, 0)), (3, (96, 16))}
    again = cut_forest(image, ForestPolicy(threshold=0.5), criterion=lambda _: score)
    assert reference.table(again) == reference.table(forest)


def test_window_reaches_the_detail() -> None:
    image = scene(128)
    forest = cut_forest(image, ForestPolicy(budget=40))
    shifted = image.astype(np.int16) * 10 - 1000
    assert reference.table(cut_forest(shifted, ForestPolicy(budget=40), window=(-1000, 1550))) == reference.table(
        forest
    )
    with pytest.raises(ValueError, match="window"):
        cut_forest(shifted, ForestPolicy(budget=40))


def test_volumes() -> None:
    volume = np.zeros((24, 40, 33), np.uint8)
    volume[:, 20:, :] = 200
    policy = ForestPolicy(criterion="gradient", cell=4, budget=100)
    forest = cut_forest(volume, policy, spatial=3)
    assert forest.ndim == 3
    assert 94 <= len(forest) <= 100
    assert int(forest.area.sum()) == volume.size
    touched = (forest.origin[:, 1] <= 20) & (forest.origin[:, 1] + forest.size > 20)
    assert forest.size[touched].mean() < forest.size[~touched].mean()


def test_equal_images_equal_forests_whatever_was_cut_between() -> None:
    image, policy = scene(128), ForestPolicy(budget=40)
    first = reference.table(cut_forest(image, policy))
    cut_forest(scene(128, seed=3), policy, rng=np.random.default_rng(1))
    assert reference.table(cut_forest(image.copy(), policy)) == first


class Corner:
    """A scorer that looks into the first corner, and remembers what it was given."""

    def __init__(self) -> None:
        self.seen: list[np.ndarray] = []

    def scores(self, image: np.ndarray, *, cell: int, root: int) -> list[np.ndarray]:
        self.seen.append(image)
        out, side = [], cell
        while side <= root:
            level = np.zeros([-(-s // side) for s in image.shape[:2]], np.float32)
            level[0, 0] = 1.0
            out.append(level)
            side *= 2
        return out


def test_a_scorer_in_place_of_a_criterion() -> None:
    policy = ForestPolicy(criterion="scorer", scorer="runs/scorer", budget=10, root=64)
    scorer, image = Corner(), scene(64)
    forest = cut_forest(image, policy, criterion=scorer)
    assert scorer.seen[0] is image
    assert sorted(forest.size.tolist()) == [8, 8, 8, 8, 16, 16, 16, 32, 32, 32]
    cut_forest(image, policy, criterion=scorer, window=(0, 510))
    assert scorer.seen[1].dtype == np.float32
    assert scorer.seen[1].max() <= 0.5
    with pytest.raises(ValueError, match="pass criterion="):
        cut_forest(image, policy)


def test_random_forests_of_a_scorer_differ_by_seed() -> None:
    class Noise(Corner):
        def scores(self, image: np.ndarray, *, cell: int, root: int) -> list[np.ndarray]:
            return [level * 0 + 1 for level in super().scores(image, cell=cell, root=root)]

    policy = ForestPolicy(criterion="scorer", scorer="runs/scorer", budget=40, root=64)
    one, same, other = (
        reference.table(cut_forest(scene(64), policy, criterion=Noise(), rng=np.random.default_rng(seed)))
        for seed in (0, 0, 1)
    )
    assert one == same
    assert one != other
