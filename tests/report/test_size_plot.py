"""The picture of sizes: a panel for counts and one for shares, in the colours of the classes, for anything there is."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from patchforest.infer.gradation import Sized, gradations
from patchforest.report.palette import class_colours
from patchforest.report.size_plot import draw_sizes, length_text, write_size_plot
from patchforest.values import Array


def of_sizes(value: int, sizes: Array, shape: tuple[int, ...] = (999, 999)) -> Sized:
    return Sized(shape, None, np.full(len(sizes), value), np.array(sizes), np.zeros(len(sizes), bool), {})


def has(picture: Array, value: int) -> int:
    """Pixels in the colour of a class."""
    return int((picture == class_colours(value + 1)[value]).all(axis=2).sum())


def test_each_class_is_drawn_in_both_panels(rng: np.random.Generator) -> None:
    grades = gradations([of_sizes(1, rng.integers(1, 9999, 500)), of_sizes(3, rng.integers(50, 99, 20))], {})
    picture = draw_sizes(grades)
    half = picture.shape[1] // 2
    for value in (1, 3):
        assert min(has(picture[:, :half], value), has(picture[:, half:], value)) > 300
    assert has(picture, 2) == 0


def test_the_share_rises_where_the_large_ones_are() -> None:
    """Nine tenths of the area in one component: the curve stays low up to its diameter."""
    picture = draw_sizes(gradations([of_sizes(1, np.array([10] * 10 + [900]))], {}))
    right = picture[:, picture.shape[1] // 2 :]
    heights = [np.flatnonzero((right[60:-70, x] == class_colours(2)[1]).all(axis=1)) for x in (300, 400, 500)]
    assert all(h.min() > 0.8 * (right.shape[0] - 130) for h in heights)


@pytest.mark.parametrize("sizes", [[1], [7, 7], [1, 10**12]])
def test_one_size_or_a_huge_range_can_be_drawn(sizes: list[int]) -> None:
    assert has(draw_sizes(gradations([of_sizes(65535, np.array(sizes))], {65535: "näme"})), 65535) > 100


def test_nothing_images_and_volumes(tmp_path: Path) -> None:
    write_size_plot(tmp_path / "none.png", ())
    plain, volume = of_sizes(1, np.array([3, 4])), of_sizes(1, np.array([3, 4]), (9, 9, 9))
    write_size_plot(tmp_path / "both.png", gradations([plain, volume], {}))
    none, both = (np.asarray(Image.open(tmp_path / f"{name}.png")) for name in ("none", "both"))
    assert both.shape == (2 * none.shape[0], *none.shape[1:])
    many = gradations([of_sizes(k, np.array([k, 2 * k])) for k in range(1, 30)], {})
    assert draw_sizes(many).shape == none.shape


def test_lengths_as_text() -> None:
    assert [length_text(x) for x in (None, 0.012345, 12.3456, 999.94, 12345.6)] == [
        "–",
        "0.01235",
        "12.35",
        "999.9",
        "12,346",
    ]
