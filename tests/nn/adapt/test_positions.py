"""The table of positions read at leaves: exact on its grid, and as torch interpolates it elsewhere."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from patchforest.nn.adapt.positions import leaf_places, read_table
from patchforest.nn.raster import ForestBatch
from tests.forests import random_forest
from tests.nn.adapt.uniform import in_rows, uniform


@pytest.mark.parametrize(("shape", "grid"), [((64, 96), (4, 6)), ((224, 224), (14, 14)), ((16, 48, 32), (1, 3, 2))])
def test_a_uniform_forest_of_the_pretrained_patch_reads_the_very_table(
    shape: tuple[int, ...], grid: tuple[int, ...]
) -> None:
    torch.manual_seed(0)
    forest, table = uniform(shape, 16), torch.randn(*grid, 7)
    read = read_table(table, leaf_places(forest, grid, framed=True))
    assert torch.equal(read[0, in_rows(forest)], table.flatten(0, -2))


@pytest.mark.parametrize("side", [8, 4])
def test_finer_grids_are_those_of_torch(side: int) -> None:
    torch.manual_seed(0)
    forest, table = uniform((64, 96), side), torch.randn(4, 6, 7)
    wanted = F.interpolate(table.movedim(-1, 0)[None], size=(64 // side, 96 // side), mode="bicubic")
    read = read_table(table, leaf_places(forest, (4, 6), framed=True))[0, in_rows(forest)]
    torch.testing.assert_close(read, wanted[0].flatten(1).T, atol=1e-5, rtol=1e-5)


def test_a_constant_table_is_the_same_everywhere(rng: np.random.Generator) -> None:
    forest = ForestBatch.stack([random_forest(rng, (70, 90), budget=30)])
    read = read_table(torch.full((3, 5, 2), 4.0), leaf_places(forest, (3, 5), framed=True))
    torch.testing.assert_close(read, torch.full((1, len(forest.size_BL[0]), 2), 4.0))


def test_a_window_is_placed_in_its_frame_or_fills_the_grid() -> None:
    window = replace(uniform((32, 32), 16), place_B4=torch.tensor([[32.0, 64.0, 64.0, 96.0]]))
    framed = leaf_places(window, (4, 6), framed=True)[0, in_rows(window)]
    assert framed.tolist() == [[2, 4], [2, 5], [3, 4], [3, 5]]
    alone = leaf_places(window, (4, 6), framed=False)[0, in_rows(window)]
    assert alone.tolist() == [[0.5, 1], [0.5, 4], [2.5, 1], [2.5, 4]]


def test_leaves_beyond_the_edge_stay_on_the_grid() -> None:
    forest = uniform((20, 20), 16)
    assert leaf_places(forest, (2, 2), framed=True).max() == 1.5


def test_low_precision_regions_do_not_blur_positions() -> None:
    forest, table = uniform((64, 64), 16), torch.randn(4, 4, 3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        read = read_table(table, leaf_places(forest, (4, 4), framed=True))
    assert torch.equal(read[0, in_rows(forest)], table.flatten(0, 1))
