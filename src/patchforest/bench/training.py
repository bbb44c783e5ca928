"""Contenders that are trained: their settings, one training and its scores, and learning rates chosen beforehand."""

from __future__ import annotations

import hashlib
import json
import resource
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from patchforest.bench.contender import Contender
from patchforest.bench.contenders import contenders_of
from patchforest.bench.settings import Settings
from patchforest.train.config import config_dict, load_config

RATES = "learning_rates.json"
SCORES = ("Dice", "BoundaryF2", "ceiling", "tokens", "seconds")


def trained(kind: str, name: str, model: str, changes: tuple[str, ...], seed: int, settings: Settings) -> Contender:
    """A contender that a recipe trains, its budget and threads among its changes; ``changes`` hold the budget's."""
    from patchforest.bench.sets import data_of

    recipe = settings.recipe(name)
    fixed = (f"train.seed={seed}", f"train.threads={settings.threads}", "train.num_workers=0")
    return Contender(
        kind=kind,
        set=name,
        name=model,
        changes=(*changes, *fixed, *settings.changes),
        seed=seed,
        recipe=str(recipe.resolve()),
        data=str(data_of(name, settings.data, settings.out).resolve()),
        digest=hashlib.sha256(recipe.read_bytes()).hexdigest()[:16],
        threads=settings.threads,
    )


def chosen(settings: Settings, name: str) -> dict[str, tuple[str, ...]]:
    """The contenders of a set that were asked for, each with its changes of the recipe.

    Raises
    ------
    ValueError : one asked for that there is not.
    """
    known = contenders_of(load_config(settings.recipe(name), settings.changes), full=settings.full)
    unknown = [n for n in settings.contenders if n not in known]
    if unknown:
        raise ValueError(f"there is no contender {unknown[0]!r}; there are {', '.join(known)}")
    return {n: known[n] for n in settings.contenders or known}


def read_rates(out: Path) -> Mapping[str, Mapping[str, float]]:
    """Learning rates by set and contender that ``--tune`` left in ``out``; empty without."""
    try:
        return json.loads((out / RATES).read_text(encoding="utf-8"))["rates"]
    except FileNotFoundError:
        return {}


def train_and_score(contender: Contender, folder: Path) -> dict[str, Any]:
    """Train in ``folder/run`` and score the last weights on full-size validation images; plain numbers by name.

    An interrupted training goes on from its last checkpoint. Checkpoints are removed in the end, the run stays.
    """
    from patchforest.data.layout import find_cases
    from patchforest.models.bundle import load_model
    from patchforest.report.environment import choose_device
    from patchforest.train.evaluate import evaluate
    from patchforest.train.fit import fit, split

    config, run = load_config(contender.recipe, contender.changes), folder / "run"
    fit(config, contender.data, run, quiet=True)
    after_training = peak_mib()
    _, validation = split(find_cases(contender.data, layout=config.data.layout), config)
    device = choose_device("cpu" if config.train.device == "cpu" else "auto")
    bundle = load_model(run / "last", device)
    with counted_tokens(bundle.network) as tokens:
        evaluate(
            bundle,
            validation,
            folder / "scores",
            label_map=config.data.labels,
            scale=config.data.scale,
            precision=config.train.precision if config.train.precision != "fp16" or device != "cpu" else "fp32",
        )
    summary = json.loads((folder / "scores" / "summary.json").read_text(encoding="utf-8"))
    if summary["failed"]:
        raise RuntimeError(f"could not be scored: {next(iter(summary['failed'].values()))}")
    done = json.loads((run / "done.json").read_text(encoding="utf-8"))
    shutil.rmtree(run / "checkpoints", ignore_errors=True)
    mean = summary["foreground_mean"]
    cases = len(summary["metric_per_case"])
    return {
        **{key: mean[key] for key in SCORES},
        "tokens": mean["tokens"] or sum(tokens) / cases,
        "per_case": {c["id"]: c["Dice"] for c in summary["metric_per_case"]},
        "per_class": {summary["classes"][k]: v["Dice"] for k, v in summary["mean"].items()},
        "steps": done["steps"],
        "train_seconds": done["train_seconds"],
        "skipped_steps": done["skipped_steps"],
        "peak_mib": peak_mib(),
        "train_peak_mib": after_training,
        "parameters": sum(p.numel() for p in bundle.network.parameters()),
        "lr": config.train.lr,
        "configuration": config_dict(load_config(run / "config.yaml")),
    }


def peak_mib() -> float:
    """Most memory this process has held so far, in MiB: of the GPU where it uses one."""
    import torch

    if torch.cuda.is_available() and torch.cuda.max_memory_allocated():
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # Linux counts KiB


@contextmanager
def counted_tokens(network: Any) -> Iterator[list[int]]:
    """How many tokens the encoders of a network read in every call inside the block; none where it has no such part."""
    from patchforest.nn.encoder import Encoder

    seen: list[int] = []
    hooks = [
        part.register_forward_pre_hook(lambda _, given: seen.append(given[0].shape[0] * given[0].shape[1]))
        for part in network.modules()
        if isinstance(part, Encoder)
    ]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()
