"""Single steps: skip rules, moving average, schedule, positions, and a network that is really learning."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from patchforest.models.build import build_model
from patchforest.models.bundle import load_model
from patchforest.train import task as task_module
from patchforest.train.checkpoint import checkpoints, load_checkpoint
from patchforest.train.config import load_config
from patchforest.train.fit import fit
from patchforest.train.task import DivergedError, Positions, SegmentationTask
from tests.train.runs import config, weights


def skipped(run: Path) -> int:
    with open(run / "metrics.csv", newline="") as file:
        return int(list(csv.DictReader(file))[-1]["skipped"])


def sabotage(monkeypatch: pytest.MonkeyPatch, bad: set[int], how: str) -> list[int]:
    """Make loss or gradient of some batches NaN; returns the list that counts the batches."""
    real, count = task_module.segmentation_loss, []

    def loss(output: Any, label: Tensor, **options: float) -> Tensor:
        value = real(output, label, **options)
        count.append(1)
        if len(count) not in bad:
            return value
        return value * float("nan") if how == "loss" else value + (output.logits.sum() * 0.0).sqrt()

    monkeypatch.setattr(task_module, "segmentation_loss", loss)
    return count


@pytest.mark.parametrize("how", ["loss", "gradient"])
def test_a_step_that_is_not_finite_is_skipped(
    how: str, data: Path, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sabotage(monkeypatch, {3, 4, 9}, how)
    run = fit(config(), data, tmp_path / "run", quiet=True)
    assert skipped(run) == 3
    assert all(torch.isfinite(p).all() for p in load_model(run).network.parameters())
    assert weights(run) != weights(finished)


def test_ten_in_a_row_end_the_run_and_name_the_items(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = sabotage(monkeypatch, set(range(6, 100)), "loss")
    with pytest.raises(DivergedError, match=r"10 steps in a row.*case\d, case\d; lower train\.lr"):
        fit(config(), data, tmp_path / "run", quiet=True)
    assert len(count) == 15
    state = load_checkpoint(checkpoints(tmp_path / "run" / "checkpoints")[0])["state_dict"]
    assert all(torch.isfinite(v).all() for v in state.values())


def test_weights_that_are_not_finite_are_never_saved(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = SegmentationTask.made_step

    def made_step(self: SegmentationTask) -> None:
        real(self)
        if self.budget.steps == 24:
            next(self.network.parameters()).data.fill_(float("nan"))

    monkeypatch.setattr(SegmentationTask, "made_step", made_step)
    with pytest.raises(DivergedError, match="weights are not finite at step 24"):
        fit(config(), data, tmp_path / "run", quiet=True)
    for folder in ("best", "last"):
        assert all(torch.isfinite(p).all() for p in load_model(tmp_path / "run" / folder).network.parameters())
    for path in checkpoints(tmp_path / "run" / "checkpoints"):
        assert all(torch.isfinite(v).all() for v in load_checkpoint(path)["state_dict"].values())


def test_the_average_is_what_is_saved(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Tensor] = []
    real = SegmentationTask.made_step

    def made_step(self: SegmentationTask) -> None:
        real(self)
        seen.append(next(self.network.parameters()).detach().clone())

    monkeypatch.setattr(SegmentationTask, "made_step", made_step)
    run = fit(config(ema=0.8, max_steps=6), data, tmp_path / "run", quiet=True)
    state = load_checkpoint(checkpoints(run / "checkpoints")[0])["state_dict"]
    name = next(k for k in state if k.startswith("network."))
    torch.manual_seed(0)
    mean = next(build_model(load_config(run / "config.yaml").model).parameters()).detach().clone()
    for step, value in enumerate(seen, 1):
        decay = min(0.8, (1 + step) / (10 + step))
        mean = decay * mean + (1 - decay) * value
    saved = dict(load_model(run / "last").network.named_parameters())[name.removeprefix("network.")]
    assert torch.allclose(saved, mean, atol=1e-6)
    assert not torch.allclose(saved, seen[-1], atol=1e-6)
    assert torch.equal(state[name], seen[-1])


def test_positions_go_on_where_the_steps_ended() -> None:
    fresh, resumed = iter(Positions(0, 3)), iter(Positions(2, 3))
    batches = [next(fresh) for _ in range(4)]
    assert batches == [[0, 1, 2], [3, 4, 5], [6, 7, 8], [9, 10, 11]]
    assert [next(resumed), next(resumed)] == batches[2:]


def test_it_learns(data: Path, tmp_path: Path) -> None:
    run = fit(config(max_steps=80, checkpoint_steps=None, lr=5e-3), data, tmp_path / "run", quiet=True)
    with open(run / "metrics.csv", newline="") as file:
        rows = [r for r in csv.DictReader(file) if r["loss"]]
    assert len(rows) == len({r["step"] for r in rows})
    assert float(rows[-1]["loss"]) < 0.6 * float(rows[0]["loss"])
    assert float(rows[-1]["dice"]) > 0.6


def test_a_task_without_a_loss_cannot_be_made() -> None:
    with pytest.raises(TypeError, match="_loss"):
        task_module.TrainingTask()  # type: ignore[abstract, call-arg]
