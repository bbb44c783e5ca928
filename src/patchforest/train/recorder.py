"""What happens between the steps: validation, checkpoints, saved models, logs, and stopping when asked to."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from torch import nn

from patchforest.io.atomic import write_json, write_text
from patchforest.models.bundle import Bundle, ModelSpec, save_model
from patchforest.models.config import SCORER
from patchforest.train.checkpoint import checkpoint_path, prune
from patchforest.train.engine import lightning
from patchforest.train.progress import Progress
from patchforest.train.stop import StopRequest
from patchforest.train.task import DivergedError, TrainingTask

ROWS = 100
"""About so many rows of a run stand in its metrics.csv, besides one a validation."""


class Result(Protocol):
    """What a validation found: ``score`` decides which model is best, ``values`` belong to ``Validator.columns``."""

    @property
    def score(self) -> float: ...

    @property
    def seconds(self) -> float: ...

    @property
    def line(self) -> str: ...

    def values(self) -> tuple[float | None, ...]: ...


class Validator(Protocol):
    """Scores a network on its cases; ``word`` is what its score is called."""

    cases: tuple[Any, ...]
    word: str

    def columns(self, classes: Sequence[str]) -> list[str]: ...

    def __call__(self, network: nn.Module) -> Result | None: ...


@dataclass(frozen=True)
class RunFolder:
    """Names of the files of a run."""

    root: Path

    @property
    def config(self) -> Path:
        return self.root / "config.yaml"

    @property
    def split(self) -> Path:
        return self.root / "split.json"

    @property
    def best(self) -> Path:
        return self.root / "best"

    @property
    def last(self) -> Path:
        return self.root / "last"

    @property
    def checkpoints(self) -> Path:
        return self.root / "checkpoints"

    @property
    def scorer(self) -> Path:
        """The run's own copy of what cuts its forests, where that is a trained scorer."""
        return self.root / SCORER

    @property
    def metrics(self) -> Path:
        return self.root / "metrics.csv"

    @property
    def done(self) -> Path:
        """Written last: only this makes a run finished."""
        return self.root / "done.json"


class Recorder(lightning.Callback):
    """Drives one run of a ``TrainingTask`` and leaves everything in its folder.

    ``finished`` tells whether the budget was spent; otherwise a stop was asked for and a checkpoint written.
    """

    def __init__(
        self,
        folder: RunFolder,
        spec: ModelSpec,
        validator: Validator,
        progress: Progress,
        stop: StopRequest,
        scorer: Bundle | None = None,
    ) -> None:
        self._folder, self._spec, self._validator, self._scorer = folder, spec, validator, scorer
        self._progress, self._stop = progress, stop
        self._columns = validator.columns(spec.classes)
        self.finished, self._saved, self._written = False, time.monotonic(), 0.0
        self.rows: list[dict[str, float | int]] = []
        self.best, self._validations, self._validated_at = -1.0, 0, -1

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs to log and choose on."""
        state = {"rows": self.rows, "best": self.best}
        return {**state, "validations": self._validations, "validated_at": self._validated_at}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Inverse of ``state_dict``."""
        self.rows, self.best = state_dict["rows"], state_dict["best"]
        self._validations, self._validated_at = state_dict["validations"], state_dict["validated_at"]

    def on_train_start(self, trainer: lightning.Trainer, task: TrainingTask) -> None:  # type: ignore[override]
        """Take the signals from Lightning; do what was due when the run was interrupted."""
        self._stop.install()
        if task.budget.steps:
            self._between(trainer, task)
        task.budget.resume()

    def on_train_batch_end(  # type: ignore[override]
        self, trainer: lightning.Trainer, task: TrainingTask, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """After every step: count, log, and whatever is due."""
        if (batch_idx + 1) % task.config.accumulate == 0:
            task.made_step()
            self._log(trainer, task)
            task.budget.pause()
            self._between(trainer, task)
            task.budget.resume()
        elif self._stop():
            self._halt(trainer, task)

    def _between(self, trainer: lightning.Trainer, task: TrainingTask) -> None:
        """Validation, checkpoint, end of the run or a stop, as due; the budget's clock stands still meanwhile."""
        over = task.budget.progress >= 1
        if not self._stop() and ((over and self._validated_at < task.budget.steps) or self._validation_is_due(task)):
            self._validate(trainer, task)
        if self._stop():
            self._halt(trainer, task)
        elif over:
            self._finish(trainer, task)
        elif self._checkpoint_is_due(task):
            self._checkpoint(trainer, task)

    def _validation_number(self, task: TrainingTask) -> int:
        every = task.config.validate_every
        return int(task.budget.progress / every + 1e-9) if every <= 1 else int(task.budget.steps // every)

    def _validation_is_due(self, task: TrainingTask) -> bool:
        return self._validation_number(task) > self._validations

    def _checkpoint_is_due(self, task: TrainingTask) -> bool:
        steps = task.config.checkpoint_steps
        due = steps is not None and task.budget.steps % steps == 0
        return due or time.monotonic() - self._saved > 60 * task.config.checkpoint_minutes

    def _validate(self, trainer: lightning.Trainer, task: TrainingTask) -> None:
        """Score the weights, save them as last and perhaps best, and the state after; nothing if stopped midway."""
        self._require_finite(task)
        result = self._validator(task.final_network)
        if self._stop():
            return
        self._validations, self._validated_at = self._validation_number(task), task.budget.steps
        save_model(self._folder.last, task.final_network, self._spec, self._scorer)
        if result is not None:
            self._add_row(trainer, task, result)
            better = result.score > self.best
            if better:
                self.best = result.score
                save_model(self._folder.best, task.final_network, self._spec, self._scorer)
            self._progress.line(f"step {task.budget.steps}: validation {result.line}{' best' if better else ''}")
        self._checkpoint(trainer, task)

    def _checkpoint(self, trainer: lightning.Trainer, task: TrainingTask) -> None:
        """A durable checkpoint of this very step; only then are older ones deleted."""
        self._require_finite(task)
        path = checkpoint_path(self._folder.checkpoints, task.budget.steps)
        trainer.save_checkpoint(path)
        prune(self._folder.checkpoints)
        self._write_metrics()
        self._saved = time.monotonic()

    def _halt(self, trainer: lightning.Trainer, task: TrainingTask) -> None:
        self._checkpoint(trainer, task)
        trainer.should_stop = True

    def _finish(self, trainer: lightning.Trainer, task: TrainingTask) -> None:
        self._write_metrics()
        summary = {"steps": task.budget.steps, "train_seconds": task.budget.spent, "skipped_steps": task.skipped}
        write_json(self._folder.done, {**summary, f"best_{self._columns[0]}": self.best if self.best >= 0 else None})
        self.finished = trainer.should_stop = True

    def _require_finite(self, task: TrainingTask) -> None:
        if not task.is_finite():
            raise DivergedError(
                f"weights are not finite at step {task.budget.steps}; nothing was saved over the checkpoints before. "
                "Lower train.lr or set train.clip"
            )

    def _log(self, trainer: lightning.Trainer, task: TrainingTask) -> None:
        progress, budget = task.budget.progress, task.budget
        logged = self.rows[-1]["progress"] if self.rows else 0.0
        if progress - logged >= 1 / ROWS or not self.rows:
            self._add_row(trainer, task, None)
            best = f" best {self._validator.word} {self.best:.4f}" if self.best >= 0 else ""
            self._progress.update(progress, f"step {budget.steps} loss {self.rows[-1].get('loss', np.nan):.4f}{best}")

    def _add_row(self, trainer: lightning.Trainer, task: TrainingTask, result: Result | None) -> None:
        config, budget = task.config, task.budget
        row: dict[str, float | int] = {
            "step": budget.steps,
            "seconds": round(budget.spent, 2),
            "progress": budget.progress,
            "samples": budget.steps * config.batch * config.accumulate,
            "lr": task.learning_rate,
            "skipped": task.skipped,
        }
        if task.losses:
            row["loss"] = float(np.mean(task.losses))
            task.losses.clear()
        if result is not None:
            row["validation_seconds"] = round(result.seconds, 2)
            row |= {name: v for name, v in zip(self._columns, result.values(), strict=True) if v is not None}
        if self.rows and self.rows[-1]["step"] == budget.steps:
            self.rows[-1] |= row
        else:
            self.rows.append(row)
        for logger in trainer.loggers:
            logger.log_metrics({k: float(v) for k, v in row.items() if k != "step"}, step=budget.steps)
        if time.monotonic() - self._written > 5:
            self._write_metrics()

    def _write_metrics(self) -> None:
        first, *others = self._columns
        columns = ["step", "seconds", "progress", "samples", "lr", "skipped", "loss", first, "validation_seconds"]
        text = io.StringIO()
        writer = csv.DictWriter(text, [*columns, *others], lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        write_text(self._folder.metrics, text.getvalue())
        self._written = time.monotonic()
