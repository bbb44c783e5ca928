"""How far a run has come, and the learning rate that belongs there: pure functions of progress, whatever the budget."""

from __future__ import annotations

import math
import time

from patchforest.train.config import TrainConfig

MILESTONES = (0.5, 0.75, 0.875)
"""Where the learning rate drops tenfold: 500, 750 and 875 of the 1,000 epochs of the authors' code, as shares."""


def lr_factor(progress: float, *, warmup: float, schedule: str) -> float:
    """Learning rate at a progress in [0, 1], as a share of the full one: linear warm-up, then cosine to 0 or drops."""
    progress = min(max(progress, 0.0), 1.0)
    if progress < warmup:
        return max(progress / warmup, 1e-3)
    if schedule == "milestones":
        return 0.1 ** sum(progress >= m for m in MILESTONES)
    return 0.5 + 0.5 * math.cos(math.pi * (progress - warmup) / max(1 - warmup, 1e-12))


class Budget:
    """The share of a run's budget that is spent: steps, wall minutes, or CPU minutes of this process.

    Time runs only between ``resume`` and ``pause``, so that validation, checkpoints and interruptions cost nothing.
    ``spent`` (seconds of training) is what a checkpoint stores.
    """

    def __init__(self, config: TrainConfig) -> None:
        self.max_steps = config.max_steps
        minutes = config.max_minutes if config.max_cpu_minutes is None else config.max_cpu_minutes
        self.max_seconds = None if minutes is None else 60.0 * minutes
        self._clock = time.monotonic if config.max_cpu_minutes is None else time.process_time
        self._before = 0.0
        self._since: float | None = None
        self.steps = 0

    @property
    def spent(self) -> float:
        """Seconds of training so far, on the budget's clock."""
        return self._before + (0.0 if self._since is None else self._clock() - self._since)

    @property
    def progress(self) -> float:
        """Share of the budget that is spent, 0 to 1."""
        if self.max_steps is not None:
            return min(self.steps / self.max_steps, 1.0)
        assert self.max_seconds is not None
        return min(self.spent / self.max_seconds, 1.0)

    def resume(self) -> None:
        """Let time run."""
        self._since = self._clock() if self._since is None else self._since

    def pause(self) -> None:
        """Let time stand still."""
        self._before, self._since = self.spent, None

    def restore(self, steps: int, spent: float) -> None:
        """Take up an interrupted run; time stands still until ``resume``."""
        self.steps, self._before, self._since = steps, spent, None
