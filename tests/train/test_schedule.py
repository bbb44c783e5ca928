"""Learning rate and budget as functions of progress."""

from __future__ import annotations

import itertools
import time

import numpy as np
import pytest

from patchforest.train.config import TrainConfig
from patchforest.train.schedule import Budget, lr_factor


def test_cosine_warms_up_and_ends_at_zero() -> None:
    at = [lr_factor(p, warmup=0.1, schedule="cosine") for p in np.linspace(0, 1, 101)]
    assert 0 < at[0] < 0.01
    assert at[5] == pytest.approx(0.5)
    assert at[10] == pytest.approx(1.0)
    assert at[55] == pytest.approx(0.5)
    assert at[100] == pytest.approx(0.0, abs=1e-12)
    assert all(a >= b for a, b in itertools.pairwise(at[10:]))
    assert lr_factor(0, warmup=0, schedule="cosine") == 1.0
    assert lr_factor(1, warmup=1, schedule="cosine") <= 1.0


def test_milestones_are_fractions_of_the_run() -> None:
    factors = [lr_factor(p, warmup=0.0, schedule="milestones") for p in (0.0, 0.49, 0.5, 0.75, 0.875, 1.0)]
    assert factors == pytest.approx([1, 1, 0.1, 0.01, 0.001, 0.001])


def test_steps_budget() -> None:
    budget = Budget(TrainConfig(max_steps=4))
    assert budget.progress == 0
    budget.steps = 3
    assert budget.progress == 0.75
    budget.steps = 9
    assert budget.progress == 1


def test_time_budget_runs_only_between_resume_and_pause() -> None:
    budget = Budget(TrainConfig(max_minutes=1 / 60))
    time.sleep(0.05)
    assert budget.spent == 0
    budget.resume()
    time.sleep(0.05)
    budget.pause()
    spent = budget.spent
    assert 0.05 <= spent < 0.5
    time.sleep(0.05)
    assert budget.spent == spent
    assert budget.progress == pytest.approx(spent)
    other = Budget(TrainConfig(max_minutes=1 / 60))
    other.restore(steps=7, spent=spent)
    assert (other.steps, other.spent) == (7, spent)


def test_cpu_budget_ignores_sleep() -> None:
    budget = Budget(TrainConfig(max_cpu_minutes=1.0))
    budget.resume()
    time.sleep(0.2)
    asleep = budget.spent
    start = time.process_time()
    while time.process_time() - start < 0.1:
        pass
    assert asleep < 0.1
    assert budget.spent - asleep >= 0.09
