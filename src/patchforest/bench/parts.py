"""Where the time of a training step goes: input (pipeline and forests), encoder, and all the rest of the network."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from patchforest.bench.training import clock_of
from patchforest.train.config import RunConfig

if TYPE_CHECKING:
    from torch import nn

REPEATS = 3


def time_parts(config: RunConfig, data: Path, *, repeats: int = REPEATS) -> dict[str, float]:
    """Seconds an image of ``input``, ``encoder`` and ``rest`` in training, as means over a few batches after a first.

    The network is freshly initialised. Input: windows, augmentation and forests, images read before. Encoder: forward
    and backward of the transformer blocks on the tokens that they were given, timed by themselves. Rest: forward and
    backward of all, less the encoder: stem, gathering, embedding, readout and loss; the optimiser does not count.

    Parameters
    ----------
    config : resolved, as in the run folder.
    """
    import torch

    from patchforest.data.layout import find_cases
    from patchforest.data.samples import collate
    from patchforest.nn.encoder import Encoder
    from patchforest.train.fit import split
    from patchforest.train.parts import Parts
    from patchforest.train.work import make_task

    training, validation = split(find_cases(data, layout=config.data.layout), config)
    task = make_task(config, Parts(training[:1], validation[:1]))
    gpu = torch.cuda.is_available() and config.train.device != "cpu"
    device, batch = torch.device("cuda" if gpu else "cpu"), config.train.batch
    task.to(device)
    encoder = next((m for m in task.network.modules() if isinstance(m, Encoder)), None)
    seen: list[Any] = []
    if encoder is not None:
        encoder.register_forward_pre_hook(lambda _, given, named: seen.append((given, named)), with_kwargs=True)
    clock, spent = clock_of(device.type), {"input": 0.0, "encoder": 0.0, "rest": 0.0}
    for number in range(repeats + 1):
        start = clock()
        items = collate([task.samples[i] for i in range(number * batch, (number + 1) * batch)])  # type: ignore[misc]
        ready = clock()
        on_device = items.to(device)
        begun = clock()
        with _autocast(config, device):
            loss = task.training_step(on_device, 0)
        if loss is not None:
            loss.backward()
        whole = clock() - begun
        inner = (
            0.0 if encoder is None or not seen else _encoder_alone(encoder, seen[-1], _autocast(config, device), clock)
        )
        seen.clear()
        task.zero_grad(set_to_none=True)
        if number:  # the first warms caches up
            spent["input"] += ready - start
            spent["encoder"] += inner
            spent["rest"] += whole - inner
    return {name: seconds / (repeats * batch) for name, seconds in spent.items()}


def _encoder_alone(encoder: nn.Module, given: tuple[Any, Any], autocast: AbstractContextManager, clock: Any) -> float:
    """Seconds of forward and backward on the tokens (the first argument) that it was given before."""
    (tokens, *others), named = given
    tokens = tokens.detach().requires_grad_(True)
    start = clock()
    with autocast:
        states, _ = encoder(tokens, *others, **named)
    states.float().sum().backward()
    return clock() - start


def _autocast(config: RunConfig, device: Any) -> AbstractContextManager:
    import torch

    types = {"bf16": torch.bfloat16, "fp16": torch.float16}
    kind = types.get(config.train.precision)
    return nullcontext() if kind is None else torch.autocast(device.type, kind)
