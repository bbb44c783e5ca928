"""Blending in bands and enlarging in bands: equal to doing it at once."""

from __future__ import annotations

from itertools import pairwise

import cv2
import numpy as np
import pytest

from patchforest.infer.blend import Enlargement, blended_rows
from patchforest.infer.windows import blend_weights, cover, tiles
from patchforest.values import Array


@pytest.mark.parametrize("seed", range(8))
def test_bands_are_the_blend_of_all_windows(seed: int) -> None:
    rng = np.random.default_rng(seed)
    shape, outputs = tuple(int(s) for s in rng.integers(1, 90, 2)), int(rng.integers(1, 4))
    grid = tiles(shape, (int(rng.integers(1, 40)), int(rng.integers(1, 40))))  # type: ignore[arg-type]
    answers = [
        None if rng.random() < 0.2 else rng.random((outputs, *grid.side), dtype=np.float32) for _ in range(len(grid))
    ]
    total, weights = np.zeros((outputs, *shape)), np.zeros(shape)
    for region, answer in zip(grid, answers):
        if answer is not None:
            box = tuple(slice(o, o + s) for o, s in zip(region.origin, region.shape))
            total[(slice(None), *box)] += answer * blend_weights(grid.side).astype(float)
            weights[box] += blend_weights(grid.side)
    expected = np.divide(total, weights, out=np.zeros_like(total), where=weights > 0)
    if outputs > 1:
        expected[0][weights == 0] = 1
    at, bands = 0, []
    for first, band in blended_rows(grid, iter(answers), outputs):
        assert first == at
        at += band.shape[1]
        bands.append(band)
    assert np.abs(np.concatenate(bands, 1) - expected).max() < 1e-6


@pytest.mark.parametrize("factor", [(1.0, 1.0), (2.0, 2.0), (3.0, 3.0), (2.37, 1.81), (0.6, 0.7), (7.9, 1.0)])
def test_enlarging_in_bands_is_enlarging_at_once(factor: tuple[float, float], rng: np.random.Generator) -> None:
    small = (37, 23)
    large = (int(np.floor(small[0] * factor[0])), int(np.floor(small[1] * factor[1])))
    plane = rng.random((2, *small), dtype=np.float32)
    job = Enlargement(small, large, factor)
    whole = [band for _, band in job.bands([(0, plane)])]
    assert np.concatenate(whole, 1).shape == (2, *large)
    if factor[0] == factor[1] and factor[0] in (2.0, 3.0):
        for k in range(2):
            reference = cv2.resize(plane[k], large[::-1], interpolation=cv2.INTER_LINEAR)
            assert np.abs(reference - np.concatenate(whole, 1)[k]).max() < 1e-6
    for _ in range(5):
        cuts = sorted({0, *rng.integers(1, small[0], 6).tolist(), small[0]})
        bands = [(a, plane[:, a:b]) for a, b in pairwise(cuts)]
        parts = list(job.bands(bands, most=int(rng.integers(1, 4000))))
        assert [first for first, _ in parts] == np.cumsum([0, *(p.shape[1] for _, p in parts)]).tolist()[:-1]
        assert np.array_equal(np.concatenate([p for _, p in parts], 1), np.concatenate(whole, 1))
        half = cuts[len(cuts) // 2]
        late = list(job.bands([b for b in bands if b[0] >= cuts[len(cuts) // 2 - 1]], begin=half))
        assert np.array_equal(np.concatenate([p for _, p in late], 1), np.concatenate(whole, 1)[:, job.end(half) :])


def test_a_constant_stays_exactly_constant() -> None:
    grid = cover((70, 90), 24, 24)
    for value in (0.5, 0.1, 1 / 3, 0.7310586):
        answer = np.full((1, *grid.side), value, np.float32)
        rows = blended_rows(grid, iter([answer] * len(grid)), 1)
        for _, band in Enlargement((70, 90), (163, 207), (2.33, 2.3)).bands(rows):
            assert (band == np.float32(value)).all()


def as_list(values: Array) -> list[float]:
    return [round(float(v), 3) for v in values.ravel()]


def test_by_hand() -> None:
    (_, band), *rest = Enlargement((1, 2), (1, 4), (1.0, 2.0)).bands([(0, np.array([[[0.0, 1.0]]], np.float32))])
    assert not rest
    assert as_list(band) == [0.0, 0.25, 0.75, 1.0]
