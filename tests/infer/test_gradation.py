"""Gradation: shares by number and by area from sizes one can add up by hand, over masks of one scale or several."""

import math

import numpy as np
import pytest

from patchforest.infer.components import components_of
from patchforest.infer.gradation import Sized, gradations, sized, summary_of


def of_sizes(*sizes: int, scale: tuple[float, ...] | None = None, shape: tuple[int, ...] = (100, 100)) -> Sized:
    return Sized(shape, scale, np.ones(len(sizes), np.uint16), np.array(sizes), np.zeros(len(sizes), bool), {})


def test_by_number_and_by_area() -> None:
    (grade,) = gradations([of_sizes(*[1] * 90, *[100] * 9, 9000, scale=(1.0, 1.0))], {1: "stone"})
    assert (grade.name, grade.unit, len(grade), grade.pixels) == ("stone", "um", 100, 9990)
    side = math.sqrt(4 / math.pi)
    assert grade.by_number(50) == pytest.approx(side)
    assert grade.mean == pytest.approx(side * (90 + 9 * 10 + math.sqrt(9000)) / 100)
    assert grade.by_measure(0.5) == pytest.approx(side)  # 0.9 % of the area is in single pixels
    assert grade.by_measure(0.9) == pytest.approx(side)
    assert grade.by_measure(0.91) == grade.by_measure(9.9) == pytest.approx(10 * side)  # 9.91 % with those of 100
    assert grade.by_measure(9.92) == pytest.approx(math.sqrt(9000) * side)
    assert grade.by_measure(50) == grade.by_measure(100) == pytest.approx(math.sqrt(9000) * side)


def test_masks_of_several_scales_are_weighed_in_microns() -> None:
    both = [of_sizes(4, scale=(1.0, 1.0)), of_sizes(4, scale=(0.5, 0.5))]
    (grade,) = gradations(both, {})
    assert grade.measure.tolist() == [1, 4]
    assert grade.unit == "um"
    (plain,) = gradations([*both, of_sizes(9)], {})
    assert plain.unit == "px"
    assert plain.measure.tolist() == [4, 4, 9]
    assert plain.of_pixels == 30000


def test_volumes_are_apart_from_images_and_their_lengths_are_millimetres() -> None:
    grades = gradations([of_sizes(8, scale=(0.5, 1.0, 2.0), shape=(4, 4, 4)), of_sizes(8)], {})
    assert [(g.ndim, g.unit) for g in grades] == [(2, "px"), (3, "mm")]
    assert grades[1].measure.tolist() == [8]
    assert grades[1].diameter[0] == pytest.approx((6 * 8 / math.pi) ** (1 / 3))


def test_what_was_dropped_and_what_touches_the_border_is_counted() -> None:
    mask = np.zeros((8, 8), np.uint8)
    mask[0, 0], mask[2:4, 2:4], mask[5:7, 5:8], mask[7, 0] = 1, 1, 1, 2
    kept = sized(components_of([mask], min_size=2), None)
    one, two = gradations([kept], {})
    assert (len(one), one.dropped, one.on_border, one.pixels, one.of_pixels) == (2, 1, 1, 10, 64)
    assert (len(two), two.dropped, two.mean, two.by_number(50), two.by_measure(50)) == (0, 1, None, None, None)
    first, second = summary_of([one, two])
    assert first["count"] == 2
    assert first["share"] == 10 / 64
    assert second["diameter"]["by_area"] == {"D10": None, "D50": None, "D90": None}  # type: ignore[index]
    assert gradations([], {}) == ()
