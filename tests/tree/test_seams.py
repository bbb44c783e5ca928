"""Chains across seams, against labelling of whole random pictures."""

import itertools

import cv2
import numpy as np
import pytest

from patchforest.tree.canny import STRONG, EdgeTile
from patchforest.tree.seams import Seams


def cut(weak: np.ndarray, strong: np.ndarray, rows: slice, columns: slice) -> EdgeTile:
    """What a tile of a picture of weak and strong pixels says, worked out by labelling it."""
    w, s = weak[rows, columns], strong[rows, columns]
    _, labels = cv2.connectedComponents((w | s).astype(np.uint8), connectivity=8)
    sure = np.isin(labels, np.unique(labels[s])) & (labels > 0)
    border = np.zeros_like(w)
    border[[0, -1]] = border[:, [0, -1]] = True
    state = np.where(sure, STRONG, 0).astype(np.int32)
    records = []
    open_ones = np.unique(labels[border & ~sure & (labels > 0)])
    for number, label in enumerate(open_ones, 1):
        state[labels == label] = number
        records += [(number, y, x, 1) for y, x in np.argwhere(labels == label)]
    return EdgeTile(
        sure.astype(np.uint32), state[0], state[-1], state[:, 0], state[:, -1], len(open_ones),
        np.array(records, np.int32).reshape(-1, 4),
    )  # fmt: skip


@pytest.mark.parametrize("seed", range(40))
def test_any_tiling_of_a_random_picture(seed: int) -> None:
    rng = np.random.default_rng(seed)
    height, width = rng.integers(1, 40, 2)
    weak = rng.random((height, width)) < rng.uniform(0.2, 0.6)  # near percolation: chains of all lengths
    strong = weak & (rng.random(weak.shape) < 0.02)
    rows = [0, *sorted(set(rng.integers(1, height + 1, 3).tolist()) - {int(height)}), int(height)]
    columns = [0, *sorted(set(rng.integers(1, width + 1, 3).tolist()) - {int(width)}), int(width)]
    counts = np.zeros((height, width), int)

    def add(row: np.ndarray, column: np.ndarray, count: np.ndarray) -> None:
        np.add.at(counts, (row, column), count)

    seams = Seams(add)
    for a, b in itertools.pairwise(rows):
        tiles = [cut(weak, strong, slice(a, b), slice(c, d)) for c, d in itertools.pairwise(columns)]
        for tile, c in zip(tiles, columns):
            counts[a:b, c : c + tile.counts.shape[1]] += tile.counts
        seams.push(tiles, row=a, columns=columns[:-1])
    seams.settle()
    _, labels = cv2.connectedComponents(weak.astype(np.uint8), connectivity=8)
    expected = np.isin(labels, np.unique(labels[strong])) & weak
    assert np.array_equal(counts, expected)


def test_what_has_ended_is_forgotten() -> None:
    weak = np.zeros((12, 8), bool)
    weak[2:4, 3] = True  # crosses one seam, meets nothing
    seams = Seams(lambda *_: pytest.fail("nothing is real here"))
    seams.push([cut(weak, weak & False, slice(0, 3), slice(0, 8))], row=0, columns=[0])
    assert len(seams.pending())
    seams.push([cut(weak, weak & False, slice(3, 6), slice(0, 8))], row=3, columns=[0])
    seams.push([cut(weak, weak & False, slice(6, 12), slice(0, 8))], row=6, columns=[0])
    seams.settle()
    assert not len(seams.pending())
