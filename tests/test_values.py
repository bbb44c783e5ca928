"""Frozen values and their invariants."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, replace
from pathlib import Path

import numpy as np
import pytest

from patchforest.io.open import open_image
from patchforest.values import Forest, ForestPolicy, ImageSource, PatchSequence, as_shape

FOREST = Forest(
    origin=np.array([[0, 0], [0, 16], [16, 0], [16, 16]]),
    size=np.full(4, 16),
    level=np.zeros(4, int),
    shape=(20, 32),
    root=16,
    cell=8,
)


def test_what_a_forest_says_of_itself() -> None:
    assert (len(FOREST), FOREST.ndim, FOREST.depth) == (4, 2, 1)
    assert FOREST.extent.tolist() == [[16, 16], [16, 16], [4, 16], [4, 16]]
    assert FOREST.area.sum() == 20 * 32
    with pytest.raises(FrozenInstanceError):
        FOREST.root = 8  # type: ignore[misc]


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"origin": np.zeros((4, 3), int)}, "origin must be"),
        ({"size": np.full(3, 16)}, "one row a leaf"),
        ({"root": 24}, "power of two"),
        ({"root": 4}, "power of two"),
    ],
)
def test_leaf_tables_that_contradict_themselves_are_refused(change: dict, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        replace(FOREST, **change)


def test_a_policy_is_one_policy() -> None:
    assert ForestPolicy(budget=5).criterion == "edges"
    for given in ({}, {"budget": 5, "uniform": 8}, {"threshold": 1.0, "budget": 5}):
        with pytest.raises(ValueError, match="exactly one"):
            ForestPolicy(**given)  # type: ignore[arg-type]


def test_shapes_are_two_or_three_positive_sizes() -> None:
    assert as_shape(np.array([3, 4])) == (3, 4)
    for bad in ((3,), (0, 4), (1, 2, 3, 4)):
        with pytest.raises(ValueError, match="2 or 3 positive"):
            as_shape(bad)


def test_an_opened_image_fits_the_protocol(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((4, 5), np.uint8))
    assert isinstance(open_image(tmp_path / "a.npy"), ImageSource)


def test_a_sequence_has_its_length() -> None:
    sequence = PatchSequence(np.zeros((3, 1, 2, 2)), np.zeros((3, 2)), np.full(3, 8), np.ones(3, bool))
    assert len(sequence) == 3
