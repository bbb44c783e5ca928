"""Leaves of an image without holding it: those of the image, in [0, 1], whatever its dtype and criterion."""

from __future__ import annotations

import numpy as np
import pytest

from patchforest.io.array import ArraySource
from patchforest.tree.cut import cut_forest
from patchforest.tree.gather import gather
from patchforest.tree.leaves import UnitSource, stream_leaves
from patchforest.tree.window import unit_range
from patchforest.values import Array, ForestPolicy


def picture(rng: np.random.Generator, dtype: str) -> Array:
    """Some shapes on noise, 90 × 130 pixels."""
    image = rng.normal(0.3, 0.05, (90, 130, 3))
    image[20:50, 30:80] += 0.5
    image = np.clip(image, 0, 1)
    full = {"uint8": 255, "uint16": 65535, "float32": 1}[dtype]
    return (image * full).astype(dtype)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("criterion", ["edges", "canny", "variance", "random"])
def test_they_are_those_of_the_image(rng: np.random.Generator, dtype: str, criterion: str) -> None:
    image, policy = picture(rng, dtype), ForestPolicy(criterion=criterion, budget=30)
    forest, patches = stream_leaves(ArraySource(image), policy, 8)
    unit = image if dtype == "uint8" else unit_range(image)
    wanted = cut_forest(unit, policy)
    assert np.array_equal(forest.origin, wanted.origin)
    assert np.array_equal(forest.size, wanted.size)
    np.testing.assert_allclose(patches, gather(unit_range(image), wanted, 8).patches, atol=2e-6)
    assert patches.dtype == np.float32


def test_a_uniform_grid_and_a_random_forest_need_no_pixels_first(rng: np.random.Generator) -> None:
    image = picture(rng, "uint8")
    forest, patches = stream_leaves(ArraySource(image), ForestPolicy(uniform=16), 8)
    assert len(forest) == 6 * 9
    np.testing.assert_allclose(patches, gather(unit_range(image), forest, 8).patches, atol=2e-6)


def test_an_intensity_window_and_a_random_draw(rng: np.random.Generator) -> None:
    image = (picture(rng, "float32") * 900 - 200).astype(np.int16)
    policy = ForestPolicy(budget=30)
    forest, patches = stream_leaves(ArraySource(image), policy, 8, window=(-100, 500), rng=np.random.default_rng(3))
    unit = unit_range(image, (-100, 500))
    wanted = cut_forest(unit, policy, rng=np.random.default_rng(3))
    assert np.array_equal(forest.origin, wanted.origin)
    np.testing.assert_allclose(patches, gather(unit, wanted, 8).patches, atol=2e-6)


def test_dark_wide_pixels_are_warned_of() -> None:
    source = UnitSource(ArraySource(np.full((40, 40, 1), 900, np.uint16)), None)
    source.read()
    with pytest.warns(UserWarning, match="nearly black"):
        source.warn()
