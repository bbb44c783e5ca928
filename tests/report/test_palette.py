"""Class and level colours: fixed, apart from each other, black for the background."""

import numpy as np
import pytest

from patchforest.report.palette import class_colours, level_colours


def test_class_colours_are_fixed_and_stay_apart() -> None:
    colours = class_colours(20)
    assert colours.shape == (20, 3)
    assert colours.dtype == np.uint8
    assert colours[0].tolist() == [0, 0, 0]
    np.testing.assert_array_equal(class_colours(5), colours[:5])
    apart = np.abs(colours[:, None].astype(int) - colours[None]).sum(axis=2) + 999 * np.eye(20, dtype=int)
    assert apart.min() > 40


def test_a_palette_needs_a_class() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        class_colours(0)


def test_level_colours_run_from_coarse_to_fine() -> None:
    colours = level_colours(4).astype(int)
    assert len(colours) == 5
    assert (np.diff(colours[:, 0]) > 0).all()  # more and more yellow
    assert len(level_colours(0)) == 1
