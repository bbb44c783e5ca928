"""Forest pictures: every leaf has its frame, on small and on large images."""

import numpy as np
import pytest

from patchforest.report.forest_picture import draw_forest, draw_windows
from patchforest.report.palette import level_colours
from patchforest.tree.forest import build_forest
from patchforest.values import Forest, Region


def _forest(shape: tuple[int, int], budget: int = 40) -> Forest:
    detail = np.zeros(tuple(-(-s // 8) for s in shape), np.float32)
    detail[0, 0] = 9
    detail += np.random.default_rng(3).random(detail.shape).astype(np.float32)
    return build_forest(detail, shape=shape, cell=8, budget=budget)


def test_the_top_left_corner_of_every_leaf_is_drawn_in_its_colour() -> None:
    forest = _forest((512, 768))
    picture = draw_forest(np.zeros((512, 768), np.uint8), forest, opacity=1.0)
    assert picture.shape == (512, 768, 3)
    finest = forest.level == forest.level.max()
    rows, columns = forest.origin[finest].T
    colour = level_colours(forest.depth)[forest.level.max()]
    large = forest.size[finest][0] >= 10
    for row, column in zip(rows, columns):
        seen = picture[row, column].astype(int)
        assert np.abs(seen - colour * (1.0 if large else 0.8)).max() <= 60
        assert seen.max() > 100


def test_inside_of_leaves_shows_the_image() -> None:
    forest = _forest((512, 768), budget=6)
    picture = draw_forest(np.full((512, 768, 3), 80, np.uint8), forest, dim=1.0)
    centre = (forest.origin + forest.size[:, None] // 2)[0]
    assert picture[tuple(centre)].tolist() == [80, 80, 80]


def test_lines_stay_visible_on_eight_megapixels() -> None:
    shape = (2336, 3504)
    picture = draw_forest(
        np.zeros(shape, np.uint8), build_forest(np.ones((292, 438)), shape=shape, uniform=64, root=1024)
    )
    assert max(picture.shape) == 1600
    lit = picture.max(axis=2) > 100
    side = 64 * 1600 / 3504
    assert abs(lit.mean() - (2 / side - 1 / side**2)) < 0.01  # one-pixel frames, none lost


def test_tiny_images_are_enlarged() -> None:
    forest = build_forest(np.ones((3, 4)), shape=(20, 30), cell=8, uniform=8, root=16)
    assert draw_forest(np.zeros((20, 30), np.uint8), forest).shape == (320, 480, 3)


def test_wrong_forests_are_refused() -> None:
    with pytest.raises(ValueError, match="cut for"):
        draw_forest(np.zeros((8, 8)), _forest((64, 64)))
    volume = build_forest(np.ones((2, 2, 2)), shape=(16, 16, 16), uniform=8)
    with pytest.raises(ValueError, match="2-D"):
        draw_forest(np.zeros((16, 16, 16)), volume)


def test_windows_are_drawn_in_place_and_the_first_wins_where_they_overlap() -> None:
    grid = build_forest(np.ones((8, 8)), shape=(64, 64), uniform=64, root=64)
    fine = build_forest(np.ones((8, 8)), shape=(64, 64), uniform=8, root=64)
    image = np.full((480, 640), 50, np.uint8)
    picture = draw_windows(
        image, [(Region((100, 100), (64, 64)), grid), (Region((100, 140), (64, 64)), fine)], dim=1.0, opacity=1.0
    )
    changed = (picture != 50).any(axis=2)
    assert changed[100, 100:204].all()
    assert changed[101:164, 101:164].sum() == 0  # the coarse window came first: no fine frames inside it
    assert changed[108, 164:204].all()
    changed[100:164, 100:204] = False
    assert not changed.any()
    assert not (draw_windows(image, [(Region((0, 0), (480, 640)), None)], dim=1.0) != 50).any()
