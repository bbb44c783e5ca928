"""Time to a Dice and what follows from it, by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from patchforest.bench.ratio import best_of, ratios_of, time_to
from tests.bench.conftest import row

CURVE = [(10.0, 0.2), (20.0, 0.5), (30.0, 0.4), (40.0, 0.6)]
COST = {"training": 2.0, "prediction": 3.0, "tokens": 64, "all_foreground": 0.3, "train_seconds": 50.0}


@pytest.mark.parametrize(("dice", "seconds"), [(0.0, 10), (0.2, 10), (0.21, 20), (0.5, 20), (0.51, 40), (0.61, None)])
def test_the_first_validation_at_or_above(dice: float, seconds: float | None) -> None:
    assert time_to(CURVE, dice) == seconds


def test_nothing_is_interpolated_and_never_earlier_for_more(rng: np.random.Generator) -> None:
    for _ in range(50):
        curve = [(float(t), float(d)) for t, d in zip(np.sort(rng.random(6)), rng.random(6))]
        found = [time_to(curve, d) for d in np.linspace(0, best_of(curve), 9)]
        assert set(found) <= {t for t, _ in curve}
        assert found == sorted(found)  # type: ignore[type-var]
        assert time_to(curve, best_of(curve) + 1e-9) is None


def test_a_curve_without_validations() -> None:
    assert best_of([]) == 0
    assert time_to([], 0.0) is None


def test_ratios_are_against_the_baseline_of_the_same_set_and_seed() -> None:
    cheap = {"training": 0.5, "prediction": 1.0, "tokens": 4}
    rows = [
        row("uniform", curve=CURVE, **COST),
        row("adaptive", curve=[(2.0, 0.3), (8.0, 0.7)], **{**COST, **cheap}),
        row("never", curve=[(2.0, 0.3)], **{**COST, **cheap}),
        row("uniform", seed=1, curve=[(10.0, 0.9)], **COST),
        row("adaptive", seed=1, curve=[(20.0, 0.95)], **COST),
        row("adaptive", label="other", curve=[(20.0, 0.95)], **COST),
    ]
    found = ratios_of(rows, "uniform")
    assert [(r.name, r.seed, r.time) for r in found] == [
        ("uniform", 0, 1.0), ("adaptive", 0, 5.0), ("never", 0, 0.8), ("uniform", 1, 1.0), ("adaptive", 1, 0.5)
    ]  # fmt: skip
    assert [r.seconds for r in found] == [40.0, 8.0, None, 10.0, 20.0]
    assert (found[1].training, found[1].prediction, found[1].tokens, found[1].seconds) == (4.0, 3.0, 16.0, 8.0)
    assert all(r.counts for r in found)


def test_the_baseline_is_timed_on_the_schedule_on_which_it_was_first_there() -> None:
    rows = [
        row("uniform", curve=CURVE, **COST),
        row("half", curve=[(12.0, 0.55), (16.0, 0.6), (20.0, 0.7)], **COST),
        row("adaptive", curve=[(8.0, 0.65)], **COST),
        row("half", seed=1, curve=[(1.0, 0.9)], **COST),
        row("half", label="other", curve=[(1.0, 0.9)], **COST),
    ]
    found = {r.name: r for r in ratios_of(rows, "uniform", same=("half",))}
    assert {n: r.time for n, r in found.items()} == {"uniform": 0.4, "half": 1.0, "adaptive": 2.0}
    rows[1] = row("half", curve=[(12.0, 0.55)], **COST)  # never there: the baseline's own time
    found = {r.name: r for r in ratios_of(rows, "uniform", same=("half",))}
    assert {n: r.time for n, r in found.items()} == {"uniform": 1.0, "half": 0.8, "adaptive": 5.0}
    assert ratios_of(rows, "uniform")[2].time == 5.0


def test_times_below_what_is_known_and_no_validations_make_no_infinite_ratio() -> None:
    rows = [row("uniform", curve=[(0.0, 0.5)], **COST), row("adaptive", curve=[(0.0, 0.6)], **COST)]
    assert [r.time for r in ratios_of(rows, "uniform")] == [1.0, 1.0]
    (alone,) = ratios_of([row("uniform", curve=[], **COST)], "uniform")
    assert (alone.time, alone.counts) == (None, False)


@pytest.mark.parametrize(("floor", "counts"), [(0.59, True), (0.6, False), (None, True)])
def test_a_baseline_that_learned_nothing_does_not_count(floor: float | None, counts: bool) -> None:
    (one,) = ratios_of([row("uniform", curve=CURVE, **{**COST, "all_foreground": floor})], "uniform")
    assert one.counts is counts
    assert not math.isnan(one.training)
