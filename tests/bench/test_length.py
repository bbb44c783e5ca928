"""Tokens against leaf side: published slopes, uniform grids, limits, and one set from images to note."""

import math
from itertools import pairwise

import cv2
import numpy as np
import pytest

from patchforest.bench import length
from patchforest.bench.run import Row
from patchforest.bench.settings import Settings


def picture(side=256, seed=0):
    """Discs on a flat field, with edges in some places and none in most."""
    rng = np.random.default_rng(seed)
    image = np.full((side, side, 3), 200, np.uint8)
    for _ in range(8):
        centre = tuple(int(v) for v in rng.integers(20, side - 20, 2))
        cv2.circle(image, centre, int(rng.integers(6, 30)), rng.integers(0, 120, 3).tolist(), -1)
    return image


def test_slopes_of_the_published_points():
    overall, steps = length.slopes([(n, side) for _, n, side in length.PUBLISHED])
    assert overall == pytest.approx(1.41, abs=0.005)
    assert steps == pytest.approx((1.12, 1.94), abs=0.005)


def test_slope_of_uniform_grids_is_two():
    overall, steps = length.slopes([(4096.0, 8.0), (1024.0, 16.0), (256.0, 32.0)])
    assert overall == pytest.approx(2)
    assert steps == pytest.approx((2, 2))


def test_slope_of_equal_sides_is_unknown():
    assert math.isnan(length.slopes([(5.0, 8.0), (5.0, 8.0)])[0])
    assert math.isnan(length.slopes([(5.0, 8.0)])[0])


def test_lengths_fall_and_sides_grow_with_the_threshold_and_budgets_are_kept():
    found = length.lengths(picture())
    for rule in ("canny", "edges"):
        mine = [(v, n, side) for name, v, n, side in found if name == rule]
        assert [v for v, _, _ in mine] == list(length.THRESHOLDS)
        assert all(a[1] >= b[1] and a[2] <= b[2] for a, b in pairwise(mine))
    assert mine[0][1] > mine[-1][1]
    spent = [(v, n) for name, v, n, _ in found if name == "budget"]
    assert all(n <= v for v, n in spent)
    assert spent[0] == (64.0, 64)


def test_no_threshold_would_split_the_smallest_cells():
    assert min(length.THRESHOLDS) >= length.CELL**2


def test_squared_keeps_the_mean_and_channels():
    image = np.random.default_rng(1).integers(0, 255, (96, 192, 3), np.uint8)
    small = length.squared(image, 32)
    assert small.shape == (32, 32, 3)
    assert small.mean((0, 1)) == pytest.approx(image.mean((0, 1)), abs=1)
    assert length.squared(image[..., :1], 32).shape == (32, 32, 1)


def test_means_over_images_setting_by_setting():
    one, two = (
        [("canny", 20.0, 10, 8.0), ("canny", 50.0, 4, 16.0)],
        [("canny", 20.0, 20, 12.0), ("canny", 50.0, 4, 16.0)],
    )
    first, second = length.means([one, two])
    assert (first.setting, first.length, first.side) == (20.0, 15, 10)
    assert first.length_sd == pytest.approx(math.sqrt(50))
    assert second.length_sd == 0
    assert length.means([]) == []


def test_one_set_from_images_to_note(tmp_path):
    for k, side in enumerate((160, 160, 64)):
        path = tmp_path / "data" / "discs" / "images" / f"{k}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), picture(side, k) if side > 100 else np.zeros((side, side, 3), np.uint8))
    settings = Settings(tmp_path / "data", tmp_path / "out", sets=("discs",), sizes=(128,))
    contenders = length.plan(settings)
    assert [c.name for c in contenders] == ["128"]
    rows = [Row(c, length.work(c, tmp_path)) for c in contenders]
    assert rows[0].result["images"] == 2
    assert rows[0].result["left_out"] == 1
    note = length.note(rows, settings)
    assert len(note.tables[0].rows) == len(length.THRESHOLDS) + len(length.BUDGETS)
    assert note.tables[-1].rows[0][2:4] == ("1.41", "1.12 1.94")
    assert note.charts["128"].startswith("<svg")
    assert {c.name for c in length.plan(Settings(tmp_path / "data", tmp_path, sets=("discs",)))} == {
        "512",
        "1024",
        "native",
    }
