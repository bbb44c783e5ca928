"""Train a model from a configuration, a data folder and a run folder; the same call resumes what was interrupted."""

from __future__ import annotations

import errno
import importlib.util
import json
import logging
import os
import shutil
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from patchforest.data.layout import Case, CaseList, find_cases
from patchforest.data.manifest import is_prepared
from patchforest.data.splits import split_cases
from patchforest.data.targets import Targets
from patchforest.errors import InputError
from patchforest.io.atomic import remove_leftovers, write_json
from patchforest.models.backbone import resolve_backbone
from patchforest.models.build import MODELS, build_model, gives_classes, has_fixed_window, scores_leaves
from patchforest.models.bundle import Bundle, ModelSpec, save_model
from patchforest.models.config import SCORER
from patchforest.models.pretrained import load_backbone
from patchforest.train.compat import require_lightning
from patchforest.train.config import RunConfig, differences, load_config, save_config
from patchforest.train.inputs import channels_of, check_cases, check_images
from patchforest.train.parts import Parts
from patchforest.train.prepare import resolved_classes, resolved_policy
from patchforest.train.progress import Progress
from patchforest.train.sequences import check_items, open_prepared
from patchforest.train.volumes import resolved_volume_policy
from patchforest.values import ForestPolicy

if TYPE_CHECKING:
    from patchforest.train.recorder import RunFolder
    from patchforest.train.task import TrainingTask

PREEMPTED = 75
PRECISIONS = {"fp32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}


class Preempted(SystemExit):
    """Training was asked to stop and left a checkpoint; exit code 75, the same command goes on from there."""

    def __init__(self) -> None:
        super().__init__(PREEMPTED)


def fit(config: RunConfig, data: str | Path, out: str | Path, *, resume: bool = True, quiet: bool = False) -> Path:
    """Train and return the run folder; a finished run is left as it is, an interrupted one goes on.

    The folder holds ``config.yaml`` (every setting resolved), ``split.json`` (case ids), ``best/`` and ``last/``
    (models), ``checkpoints/`` and ``scorer/`` (for resuming), ``metrics.csv``, ``tensorboard/`` and, once finished,
    ``done.json``.

    Parameters
    ----------
    data : folder or manifest of images and masks (or of images alone, with ``data.targets``), or a folder that
        ``patchforest prepare`` made of one.
    resume : False refuses a folder that holds a run.
    quiet : neither bar nor lines.

    Raises
    ------
    InputError : data or settings that do not fit, a folder of a run with other settings, a missing extra.
    DivergedError : no finite loss for ten steps in a row.
    Preempted : on SIGTERM, SIGUSR1 or Ctrl-C, after saving (a SystemExit of code 75).
    OSError : the disk is full, also when it would be soon.
    """
    require_lightning()
    from patchforest.train.recorder import RunFolder, StopRequest

    folder = RunFolder(Path(out))
    prepared = open_prepared(data, config) if is_prepared(data) else None
    cases, targets = _cases(Path(data), config) if prepared is None else (prepared.case_list, None)
    parts = Parts(*split(cases, config), prepared, targets)
    first = parts.training[0]
    config = resolve(config, cases, prepared.channels if prepared is not None else channels_of(first, config))
    with Progress(Path(out).name, quiet=quiet) as progress, StopRequest().listening() as stop:
        if not folder.config.exists():
            _check(parts, config)
        _enter(folder, config, parts, resume)
        if folder.done.exists():
            progress.line(f"finished already: {folder.done}")
            return folder.root
        finished = _train(folder, config, parts, progress, stop)
        if not finished:
            progress.line("stopped; the same command goes on from here")
            raise Preempted
    return folder.root


def _cases(data: Path, config: RunConfig) -> tuple[CaseList, Targets | None]:
    """The cases of a data folder, and their classes where the settings name a table of them."""
    cases = find_cases(data, layout=config.data.layout, require_labels=config.data.targets is None)
    if config.data.targets is None:
        return cases, None
    from patchforest.train.classify import targets_of

    targets = targets_of(config.data, cases)
    return replace(cases, classes=targets.classes), targets


def split(cases: CaseList, config: RunConfig) -> tuple[Sequence[Case], Sequence[Case]]:
    """Training and validation cases of a configuration; its list files lie in the data folder, or where they say."""
    c, root = config.data, cases.root

    def file(name: str | None) -> Path | None:
        return None if name is None else (root / name if (root / name).exists() else Path(name))

    return split_cases(
        cases,
        fold=c.fold,
        folds=c.folds,
        seed=c.split_seed,
        groups=file(c.groups),
        train=file(c.train),
        validation=file(c.validation),
    )


def _check(parts: Parts, config: RunConfig) -> None:
    """Look at all that will be read before the first step, so that a fault ends the run now and not in an hour."""
    if parts.targets is not None:
        check_images([*parts.training, *parts.validation], config.model.channels)
    elif parts.prepared is None:
        check_cases([*parts.training, *parts.validation], config)
    else:
        check_items(parts.prepared, parts.training, "training")
        check_items(parts.prepared, parts.validation, "validation")
    if config.train.weights is not None:
        load_backbone(build_model(config.model), config.model, config.train.weights)


def resolve(config: RunConfig, cases: CaseList, channels: int) -> RunConfig:
    """The configuration with what follows from the data: classes, channels, the forest's share in the model, and the
    window of one that is made for it; and from files: all that builds a backbone.

    ``channels`` are those of the images.

    Raises
    ------
    InputError : a model that reads a forest without one, one of masks where classes are learned, or the reverse.
    """
    classes = resolved_classes(config.data, cases.classes)
    of_images = config.data.targets is not None
    outputs = 1 if len(classes) == 2 and not of_images else len(classes)
    model = replace(config.model, channels=channels, classes=outputs, spatial=2)
    if config.volume is not None and not config.volume.axes:
        model, forest = replace(model, spatial=3), resolved_volume_policy(config, config.volume)
    else:
        forest = resolved_policy(config)
    if forest is not None:
        model = replace(model, cell=forest.cell)
    if has_fixed_window(MODELS.get(model.name)):
        model = replace(model, window=config.data.window_shape)
    try:
        model = resolve_backbone(model)
        network = build_model(model)
    except InputError:
        raise
    except (ValueError, TypeError) as error:
        raise InputError("configuration", f"model: {error}", "correct that setting") from None
    if not of_images and not hasattr(network, "output"):
        hint = "set model.name to a segmentation model, or data.targets to a table of the images' classes"
        raise InputError("configuration", f"{model.name} makes no masks", hint)
    if of_images and not gives_classes(network):
        known = ", ".join(name for name, kind in MODELS.items() if gives_classes(kind))
        what = f"data.targets are classes of images, and {model.name} makes masks"
        raise InputError("configuration", what, f"set model.name to one of {known}")
    if network.needs_forest and forest is None:
        raise InputError("configuration", f"{model.name} reads a forest", "set forest.budget, e.g. forest.budget=1024")
    _check_scorer(config, scores_leaves(network), forest)
    if config.data.gather_once:
        from patchforest.train.classify import check_gather_once

        check_gather_once(config, network)
    if not network.needs_forest and not scores_leaves(network):
        forest = None
    return replace(config, model=model, forest=forest, data=replace(config.data, classes=classes))


def _check_scorer(config: RunConfig, is_scorer: bool, forest: ForestPolicy | None) -> None:
    """InputError for a scorer without forests to be scored by, or one where none can be."""
    by_scorer = forest is not None and forest.criterion == SCORER
    if is_scorer and forest is None:
        what = "a scorer is judged by the forests that it cuts"
        raise InputError("configuration", what, "set forest.budget, e.g. forest.budget=1024")
    if is_scorer and by_scorer:
        raise InputError("configuration", "a scorer reads no forest of another one", "leave forest.criterion out")
    if config.volume is not None and (is_scorer or by_scorer):
        raise InputError("configuration", "scorers are for images, not for volumes", "set forest.criterion=edges")


def scorer_for(config: RunConfig, spec: ModelSpec, folder: RunFolder) -> Bundle | None:
    """The scorer of a run's forests: its own copy, else the one that the configuration names.

    None where their criterion has a name of its own.

    Raises InputError where there is none, or one that sees images otherwise than the model.
    """
    if config.forest is None or config.forest.scorer is None:
        return None
    from patchforest.infer.scorer import load_scorer, require_same_view

    place = folder.scorer if folder.config.exists() and folder.scorer.is_dir() else Path(config.forest.scorer)
    scorer = load_scorer(place)
    require_same_view(scorer.spec, spec, place)
    return scorer


def model_spec(config: RunConfig) -> ModelSpec:
    """What a trained model of a resolved configuration carries along."""
    c = config.data
    assert c.classes is not None
    return ModelSpec(
        model=config.model,
        forest=config.forest,
        classes=c.classes,
        intensity_window=c.intensity_window,
        window=c.window,
        downscale=c.downscale,
        mpp=c.mpp,
        tissue=c.tissue,
        volume=config.volume,
        level=c.level,
    )


def _enter(folder: RunFolder, config: RunConfig, parts: Parts, resume: bool) -> None:
    """Make a run folder, or make sure that the one there is of this very run."""
    sides = {"train": parts.training, "validation": parts.validation}
    ids: dict[str, Any] = {side: [c.id for c in cases] for side, cases in sides.items()}
    if parts.prepared is not None:
        ids["prepared"] = parts.prepared.sha256
    if folder.config.exists():
        if not resume:
            raise InputError(folder.root, "holds a run already", "choose another folder, or let it resume")
        changed = differences(load_config(folder.config), config)
        if not changed and folder.split.exists():
            before = json.loads(folder.split.read_text(encoding="utf-8"))
            changed = [f"{k} cases: {len(before[k])} → {len(ids[k])}" for k in sides if before[k] != ids[k]]
            if before.get("prepared") != ids.get("prepared"):
                kinds = ["images" if k.get("prepared") is None else "prepared items" for k in (before, ids)]
                changed.append(f"data: {' → '.join(kinds) if kinds[0] != kinds[1] else 'other prepared items'}")
        if changed:
            more = f" and {len(changed) - 5} more" if len(changed) > 5 else ""
            what = f"holds a run with other settings ({'; '.join(changed[:5])}{more})"
            raise InputError(folder.root, what, "use the same settings to go on, or another folder")
    if folder.done.exists():
        return
    for place in (folder.root, folder.best, folder.last, folder.scorer, folder.checkpoints):
        remove_leftovers(place)
    if not folder.config.exists():  # what has one is a run to go on with, and its scorer is whole
        scorer = scorer_for(config, model_spec(config), folder)
        if scorer is not None:
            save_model(folder.scorer, scorer.network, scorer.spec)
    save_config(folder.config, config)
    write_json(folder.split, ids)


def _train(folder: RunFolder, config: RunConfig, parts: Parts, progress: Progress, stop: Any) -> bool:
    """One process's share of a run: whether its budget is spent."""
    from patchforest.train.recorder import Recorder
    from patchforest.train.work import make_task, make_validator

    if config.train.threads is not None:
        torch.set_num_threads(config.train.threads)
    checkpoint = _checkpoint(folder, progress)
    spec = model_spec(config)
    scorer = scorer_for(config, spec, folder)
    task, prepared = make_task(config, parts, scorer, fresh=checkpoint is None), parts.prepared
    _require_space(folder, task)
    validator = make_validator(config, spec, parts, stop, scorer)
    parameters = sum(p.numel() for p in task.network.parameters())
    if prepared is not None and prepared.num_failed:
        progress.line(f"{prepared.num_failed} cases that could not be prepared are left out")
    progress.line(
        f"{'resuming' if checkpoint else 'training'} {config.model.name} ({parameters / 1e6:.2f} M parameters) on "
        f"{len(task.samples.cases)} {'images' if prepared is None else 'prepared images'}, validating on "
        f"{len(validator.cases)}; {folder.root}"
    )
    recorder = Recorder(folder, spec, validator, progress, stop, scorer)
    with _quietly():
        trainer = _trainer(folder, config, recorder)
        trainer.fit(task, ckpt_path=None if checkpoint is None else str(checkpoint))
    return recorder.finished


def _trainer(folder: RunFolder, config: RunConfig, recorder: Any) -> Any:
    import lightning.pytorch as lightning
    from lightning.pytorch.loggers import TensorBoardLogger
    from lightning.pytorch.plugins.environments import LightningEnvironment

    from patchforest.train.checkpoint import SafetensorsIO

    gpu = torch.cuda.is_available() and config.train.device != "cpu"
    if config.train.precision == "fp16" and not gpu:
        raise InputError("configuration", "train.precision is fp16, which needs a GPU", "use bf16 or fp32")
    if config.train.device == "gpu" and not gpu:
        raise InputError("configuration", "train.device is gpu, and there is none", "use auto or cpu")
    logger = None
    if importlib.util.find_spec("tensorboard") is not None:
        logger = TensorBoardLogger(folder.root, name="tensorboard", version="")
    return lightning.Trainer(
        accelerator="gpu" if gpu else "cpu",
        devices=1,
        precision=PRECISIONS[config.train.precision],  # type: ignore[arg-type]
        accumulate_grad_batches=config.train.accumulate,
        max_epochs=-1,
        default_root_dir=folder.root,
        logger=logger or False,
        callbacks=[recorder],
        plugins=[SafetensorsIO(), LightningEnvironment()],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )


def _checkpoint(folder: RunFolder, progress: Progress) -> Path | None:
    """The checkpoint to resume from; what is wrong with newer ones is said aloud."""
    from patchforest.train.checkpoint import newest_valid

    path, refused = newest_valid(folder.checkpoints)
    for error in refused:
        progress.line(f"skipped a broken checkpoint: {error}")
    if refused and path is None:
        raise InputError(folder.checkpoints, "holds no whole checkpoint", "delete the run folder to train anew")
    return path


def _require_space(folder: RunFolder, task: TrainingTask) -> None:
    """OSError ENOSPC unless three checkpoints (weights, two moments of AdamW) and two models fit on the disk."""
    weights = sum(p.numel() * p.element_size() for p in task.parameters())
    needed, free = 12 * weights + (1 << 20), shutil.disk_usage(folder.root).free
    if free < needed:
        text = f"{os.strerror(errno.ENOSPC)}: the run needs about {needed >> 20} MiB, {free >> 20} MiB are free"
        raise OSError(errno.ENOSPC, text, str(folder.root))


@contextmanager
def _quietly() -> Iterator[None]:
    """Without the chatter of Lightning, which is about settings that are meant."""
    loggers = [logging.getLogger(n) for n in ("lightning.pytorch", "lightning.fabric", "lightning")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            for module in ("lightning", "torch.utils.data"):
                warnings.filterwarnings("ignore", module=module)
            for text in (".*(num_workers|DataLoader|dataloader).*", "the detail map ran out"):  # random forests may
                warnings.filterwarnings("ignore", message=text)
            yield
    finally:
        for logger, level in zip(loggers, levels):
            logger.setLevel(level)
