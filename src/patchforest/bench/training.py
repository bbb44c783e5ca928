"""Contenders that are trained: their settings, one training and its scores, and learning rates chosen beforehand."""

from __future__ import annotations

import hashlib
import json
import resource
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from patchforest.bench.contender import Contender
from patchforest.bench.settings import Settings
from patchforest.train.config import RunConfig, config_dict, load_config

if TYPE_CHECKING:
    from patchforest.data.layout import Case, CaseList
    from patchforest.models.bundle import Bundle

RATES = "learning_rates.json"
LAST = ("train.validate_cases=0", "train.validate_every=1.0")
"""Changes of a recipe that score the last weights alone, once."""

LONG = 20.0
"""Seconds from which a prediction is timed once and not again."""

SCORES = ("Dice", "BoundaryF2", "ceiling", "tokens", "seconds")


def make_contender(
    kind: str,
    name: str,
    model: str,
    changes: tuple[str, ...],
    seed: int,
    settings: Settings,
    *,
    label: str | None = None,
    data: Path | None = None,
    scorer: tuple[str, ...] = (),
) -> Contender:
    """A contender that the recipe ``name`` trains, with seed and threads added to its changes.

    ``label`` is what the set is called where it is not the recipe's name, such as ``glas 512``; ``data`` its data where
    they are not the recipe's. ``scorer``: changes for a scorer that is trained first, see ``Contender``.
    """
    from patchforest.bench.sets import data_of

    recipe = settings.recipe(name)
    fixed = (f"train.seed={seed}", f"train.threads={settings.threads}", "train.num_workers=0")
    return Contender(
        kind=kind,
        set=label or name,
        name=model,
        changes=(*changes, *fixed, *settings.changes),
        scorer=(*scorer, *fixed, *settings.changes) if scorer else (),
        seed=seed,
        recipe=str(recipe.resolve()),
        data=str((data or data_of(name, settings.data, settings.out)).resolve()),
        digest=hashlib.sha256(recipe.read_bytes()).hexdigest()[:16],
        threads=settings.threads,
    )


def picked(known: Mapping[str, tuple[str, ...]], settings: Settings) -> dict[str, tuple[str, ...]]:
    """Of all contenders with their changes those that were asked for, in that order; all where none were.

    Raises
    ------
    ValueError : one asked for that there is not.
    """
    unknown = [n for n in settings.contenders if n not in known]
    if unknown:
        raise ValueError(f"there is no contender {unknown[0]!r}; there are {', '.join(known)}")
    return {n: known[n] for n in settings.contenders or known}


def tuned(settings: Settings, name: str, model: str) -> tuple[str, ...]:
    """The learning rate that ``--tune`` chose for a contender of a set as a change of the recipe; none without."""
    rate = read_rates(settings.out).get(name, {}).get(model)
    return () if rate is None else (f"train.lr={rate}",)


def read_rates(out: Path) -> Mapping[str, Mapping[str, float]]:
    """Learning rates by set and contender that ``--tune`` left in ``out``; empty without."""
    try:
        return json.loads((out / RATES).read_text(encoding="utf-8"))["rates"]
    except FileNotFoundError:
        return {}


@dataclass(frozen=True, eq=False)
class Trained:
    """A contender after its training: its last weights, and what scores them.

    Attributes
    ----------
    config : resolved.
    cases : all of the data set.
    numbers : what the training cost, by name.
    """

    config: RunConfig
    bundle: Bundle
    run: Path
    cases: CaseList
    validation: Sequence[Case]
    numbers: dict[str, Any]


def train(contender: Contender, folder: Path) -> Trained:
    """Train in ``folder/run``; an interrupted training goes on, a finished one is taken as it is.

    A contender with a scorer trains that first, in ``folder/scorer``; the seconds of both count. Checkpoints are
    removed in the end, the run stays.
    """
    from patchforest.data.layout import find_cases
    from patchforest.models.bundle import load_model
    from patchforest.report.environment import choose_device
    from patchforest.train.fit import fit, split

    run, changes, before = folder / "run", contender.changes, 0.0
    if contender.scorer:
        scorer = folder / "scorer"
        fit(load_config(contender.recipe, contender.scorer), contender.data, scorer, quiet=True)
        shutil.rmtree(scorer / "checkpoints", ignore_errors=True)
        before = json.loads((scorer / "done.json").read_text(encoding="utf-8"))["train_seconds"]
        changes = (*changes, "forest.criterion=scorer", f"forest.scorer={json.dumps(str(scorer.resolve()))}")
    fit(load_config(contender.recipe, changes), contender.data, run, quiet=True)
    shutil.rmtree(run / "checkpoints", ignore_errors=True)
    config = load_config(run / "config.yaml")
    cases = find_cases(contender.data, layout=config.data.layout, require_labels=config.data.targets is None)
    _, validation = split(cases, config)
    bundle = load_model(run / "last", choose_device("cpu" if config.train.device == "cpu" else "auto"))
    done = json.loads((run / "done.json").read_text(encoding="utf-8"))
    plain = config_dict(config)
    if contender.scorer:
        plain["forest"]["scorer"] = "scorer"  # not its place on this machine
    numbers = {
        "steps": done["steps"],
        "images": done["steps"] * config.train.batch * config.train.accumulate,
        "train_seconds": before + done["train_seconds"],
        "skipped_steps": done["skipped_steps"],
        "train_peak_mib": peak_mib(),
        "parameters": sum(p.numel() for p in bundle.network.parameters()),
        "lr": config.train.lr,
        "configuration": plain,
    }
    return Trained(config, bundle, run, cases, validation, numbers)


def train_and_score(contender: Contender, folder: Path) -> dict[str, Any]:
    """Train a contender and score its last weights on full-size validation images; plain numbers by name.

    Of models of classes the scores are those of ``bench.class_scores``.
    """
    from patchforest.bench.class_scores import score_classes
    from patchforest.train.evaluate import evaluate

    trained = train(contender, folder)
    config, bundle = trained.config, trained.bundle
    if config.data.targets is not None:
        return score_classes(trained, folder)
    with counted_tokens(bundle.network) as tokens:
        evaluate(
            bundle,
            trained.validation,
            folder / "scores",
            label_map=config.data.labels,
            scale=config.data.scale,
            precision=precision_of(config, bundle),
        )
    summary = json.loads((folder / "scores" / "summary.json").read_text(encoding="utf-8"))
    if summary["failed"]:
        raise RuntimeError(f"could not be scored: {next(iter(summary['failed'].values()))}")
    mean, cases = summary["foreground_mean"], len(summary["metric_per_case"])
    return {
        **{key: mean[key] for key in SCORES},
        "tokens": mean["tokens"] or sum(tokens) / cases,
        "predict_seconds": seconds_to_predict(trained),
        "per_case": {c["id"]: c["Dice"] for c in summary["metric_per_case"]},
        "per_class": {summary["classes"][k]: v["Dice"] for k, v in summary["mean"].items()},
        "peak_mib": peak_mib(),
        **trained.numbers,
    }


def headline(result: Mapping[str, Any]) -> tuple[str, float]:
    """The score that matters most of a trained contender, by its name: Dice, or the AUC of classes (-1 for none)."""
    name = "Dice" if "Dice" in result else "AUC"
    return name, -1.0 if result[name] is None else float(result[name])


def seconds_to_predict(trained: Trained) -> float:
    """From pixels to mask of the first validation case: CPU seconds of this process, or seconds where a GPU works.

    The median of three predictions after one to warm up; where that one takes ``LONG`` seconds or more, its own time.
    """
    clock, predict_once = clock_of(next(trained.bundle.network.parameters()).device.type), _prediction(trained)

    def seconds() -> float:
        start = clock()
        predict_once()
        return clock() - start

    first = seconds()
    return first if first >= LONG else median(seconds() for _ in range(3))


def _prediction(trained: Trained) -> Callable[[], object]:
    """What predicts the first validation case, whose pixels are in memory."""
    precision, case = precision_of(trained.config, trained.bundle), trained.validation[0]
    if trained.config.volume is not None:
        from patchforest.infer.volume import predict_volume
        from patchforest.io.volume import open_volume

        volume = open_volume(case.image)
        volume.read()
        return lambda: predict_volume(trained.bundle, volume, precision=precision)
    from patchforest.infer.predict import predict
    from patchforest.io.array import ArraySource
    from patchforest.io.open import open_image

    source = open_image(case.image)
    pixels = ArraySource(source.read(), case.image, mpp=source.mpp)
    return lambda: predict(trained.bundle, pixels, precision=precision)


def clock_of(device: str) -> Callable[[], float]:
    """CPU seconds of this process, which others on the machine do not disturb; on a GPU wall seconds, work done."""
    if device == "cpu":
        return time.process_time
    import torch

    def clock() -> float:
        torch.cuda.synchronize()
        return time.perf_counter()

    return clock


def precision_of(config: RunConfig, bundle: Bundle) -> str:
    """Of prediction: that of training, but for fp16, which only GPUs have."""
    device = next(bundle.network.parameters()).device.type
    return "fp32" if config.train.precision == "fp16" and device == "cpu" else config.train.precision


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
