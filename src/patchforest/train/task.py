"""What one training step is: loss on the network's output, AdamW, the schedule, the moving average, and the skip rules.

Randomness is a function of (seed, step), never a state, so that a resumed run takes the same course.
"""

from __future__ import annotations

import copy
import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Sampler

from patchforest.data.images import ImageSamples
from patchforest.data.leaves import LeafSamples
from patchforest.data.samples import Batch, WindowSamples, collate, init_worker
from patchforest.data.sequences import SequenceBatch, SequenceSamples, collate_sequences
from patchforest.data.volumes import VolumeSamples
from patchforest.nn.raster import ForestBatch
from patchforest.nn.readout.output import DenseOutput, TokenMask
from patchforest.train.config import TrainConfig
from patchforest.train.engine import lightning
from patchforest.train.losses import segmentation_loss, token_loss
from patchforest.train.schedule import Budget, lr_factor
from patchforest.train.sequences import network_input

Samples = WindowSamples | SequenceSamples | VolumeSamples | ImageSamples | LeafSamples

PATIENCE = 10
"""So many steps in a row without a finite loss or gradient end the run."""


class DivergedError(RuntimeError):
    """Loss or gradient stayed NaN or infinite; the message names the last batch's items."""


class TrainingTask(lightning.LightningModule, ABC):
    """A network in training, with everything a resumed run needs to go on exactly where it was.

    Each kind of work says by ``_loss`` what its network is to learn.

    Attributes
    ----------
    budget : steps made and time spent, and so the progress that the learning rate follows.
    skipped : steps skipped so far because loss or gradient was not finite.
    losses : loss of every batch since they were last taken, in order.
    learning_rate : of the last step.
    """

    def __init__(self, network: nn.Module, config: TrainConfig, samples: Samples) -> None:
        super().__init__()
        self.network = network
        self.average = copy.deepcopy(network).requires_grad_(False) if config.ema else None
        self.config, self.samples, self.budget = config, samples, Budget(config)
        self.skipped, self._bad_in_a_row = 0, 0
        self.losses: list[float] = []
        self.learning_rate = 0.0
        self._items: tuple[str, ...] = ()

    @property
    def final_network(self) -> nn.Module:
        """The weights that are validated and saved: the moving average where there is one."""
        return self.network if self.average is None else self.average

    def train_dataloader(self) -> DataLoader:
        """The endless stream of batches, from the position that the steps made so far imply."""
        made = self.budget.steps * self.config.accumulate
        return DataLoader(
            self.samples,
            batch_sampler=Positions(made, self.config.batch),
            collate_fn=collate_sequences if isinstance(self.samples, SequenceSamples | LeafSamples) else collate,
            num_workers=self.config.num_workers,
            worker_init_fn=init_worker,
            pin_memory=torch.cuda.is_available(),
        )

    def transfer_batch_to_device(
        self, batch: Batch | SequenceBatch, device: torch.device, dataloader_idx: int
    ) -> Batch | SequenceBatch:
        """The same batch with its tensors on the device; forests are stacked there in ``training_step``."""
        return batch.to(device, non_blocking=True)

    def on_train_batch_start(self, batch: Batch | SequenceBatch, batch_idx: int) -> None:
        """Seed dropout and set the learning rate for this step."""
        torch.manual_seed(_seed(self.config.seed, self.budget.steps, batch_idx % self.config.accumulate))
        factor = lr_factor(self.budget.progress, warmup=self.config.warmup, schedule=self.config.schedule)
        self.learning_rate = self.config.lr * factor
        for group in self.trainer.optimizers[0].param_groups:
            group["lr"] = self.learning_rate

    def training_step(self, batch: Batch | SequenceBatch, batch_idx: int) -> Tensor | None:
        """Loss of a batch, or None, which skips it, when the loss is not finite."""
        loss = self._loss(batch)
        self._items = tuple(batch.ids)
        self.losses.append(float(loss.detach()))
        if not np.isfinite(self.losses[-1]):
            self.losses.pop()
            self._skip("loss")
            return None
        return loss

    @abstractmethod
    def _loss(self, batch: Batch | SequenceBatch) -> Tensor:
        """Of one batch, a scalar."""

    def _stacked(self, batch: Batch) -> ForestBatch | None:
        """The forests of a batch on its device; None for networks without."""
        if batch.forests is None:
            return None
        return ForestBatch.stack(batch.forests, place=batch.place, device=batch.image.device)

    def configure_gradient_clipping(
        self, optimizer: Any, gradient_clip_val: Any = None, gradient_clip_algorithm: Any = None
    ) -> None:
        """Limit the gradient's norm; drop one that is not finite (under fp16 the loss scaler does that)."""
        grown = [p for p in self.network.parameters() if p.grad is not None]
        if not grown:
            return
        norm = nn.utils.clip_grad_norm_(grown, self.config.clip or float("inf"))
        if torch.isfinite(norm):
            self._bad_in_a_row = 0
        elif self.config.precision != "fp16":
            optimizer.zero_grad(set_to_none=True)
            self._skip("gradient")

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """AdamW; only weights with two or more axes decay."""
        trained = [p for p in self.network.parameters() if p.requires_grad]
        groups = [
            {"params": [p for p in trained if p.ndim > 1], "weight_decay": self.config.weight_decay},
            {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
        ]
        return torch.optim.AdamW([g for g in groups if g["params"]], lr=self.config.lr)

    def made_step(self) -> None:
        """Count a step of the optimiser and follow it with the moving average."""
        self.budget.steps += 1
        if self.average is None:
            return
        decay = min(self.config.ema, (1 + self.budget.steps) / (10 + self.budget.steps))
        with torch.no_grad():
            for mean, weight in zip(self.average.parameters(), self.network.parameters()):
                mean.lerp_(weight, 1 - decay)
            for held, buffer in zip(self.average.buffers(), self.network.buffers()):
                held.copy_(buffer)

    def is_finite(self) -> bool:
        """Whether every weight is a finite number; nothing else may be saved."""
        return all(bool(torch.isfinite(p).all()) for p in self.network.state_dict().values() if p.is_floating_point())

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add our position; Lightning's own loop counters are left out, for the stream knows where it is."""
        checkpoint.pop("loops", None)
        checkpoint["patchforest"] = {
            "steps": self.budget.steps,
            "spent": self.budget.spent,
            "skipped": self.skipped,
            "bad_in_a_row": self._bad_in_a_row,
            "losses": list(self.losses),
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take up the position of ``on_save_checkpoint``."""
        state = checkpoint["patchforest"]
        self.budget.restore(state["steps"], state["spent"])
        self.skipped, self._bad_in_a_row = state["skipped"], state["bad_in_a_row"]
        self.losses = state["losses"]

    def _skip(self, what: str) -> None:
        self.skipped += 1
        self._bad_in_a_row += 1
        if self._bad_in_a_row >= PATIENCE:
            raise DivergedError(
                f"the {what} was not finite {PATIENCE} steps in a row, last at step {self.budget.steps} with "
                f"{', '.join(self._items)}; lower train.lr, raise train.warmup, or look at those images"
            )


class SegmentationTask(TrainingTask):
    """A network of masks in training."""

    def _loss(self, batch: Batch | SequenceBatch) -> Tensor:
        weight, eps = self.config.loss_weight, self.config.eps
        predict: Callable[[Any, ForestBatch | None], DenseOutput] = self.network.output  # type: ignore[assignment]
        if isinstance(batch, SequenceBatch):
            output = predict(*network_input(batch))
            assert isinstance(output, TokenMask)
            return token_loss(output, batch.shares, weight=weight, eps=eps)
        return segmentation_loss(predict(batch.image, self._stacked(batch)), batch.label, weight=weight, eps=eps)


class Positions(Sampler[list[int]]):
    """Positions of the samples of every batch from the ``made``-th on, without end."""

    def __init__(self, made: int, batch: int) -> None:
        self.made, self.batch = made, batch

    def __iter__(self) -> Iterator[list[int]]:
        for number in itertools.count(self.made):
            yield list(range(number * self.batch, (number + 1) * self.batch))


def _seed(*numbers: int) -> int:
    """One 63-bit seed from several numbers, well mixed."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1)
