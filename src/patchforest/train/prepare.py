"""What of a run's configuration shapes prepared items: the bridge from a recipe to `prepare`, and to `train` on them.

No PyTorch here, so that preparing needs none.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from patchforest.data.augment import Augment
from patchforest.data.layout import CaseList, find_cases, read_groups
from patchforest.data.manifest import Prepared
from patchforest.data.prepare import JobOptions, Summary, prepare
from patchforest.data.prepared import PrepareSettings, setting_differences
from patchforest.data.tables import some
from patchforest.errors import InputError
from patchforest.io.open import open_image
from patchforest.models.config import SCORER, ModelConfig
from patchforest.train.config import DataConfig, RunConfig
from patchforest.tree.cut import build_by_policy, cut_forest
from patchforest.tree.gather import check_patch
from patchforest.values import Forest, ForestPolicy

_TOKENS_ONLY = "set model.name=shf and model.stem=[], or train from the images"


def prepare_run(
    config: RunConfig,
    data: str | Path,
    out: str | Path,
    *,
    variants: int = 1,
    options: JobOptions | None = None,
    stop: Callable[[], bool] = lambda: False,
    tell: Callable[[str], None] = lambda line: None,
    progress: Callable[[float, str], None] = lambda share, values: None,
) -> Summary:
    """Prepare the cases of a data set for a run of this configuration; see ``data.prepare.prepare``.

    Cases that the data set marks as test cases are left out: training never reads them.

    Raises InputError as well for a configuration whose model reads more than patches, or cuts no forest.
    """
    require_patch_reader(config.model)
    found = find_cases(Path(data), layout=config.data.layout)
    lists = [name for name in (config.data.groups, config.data.train, config.data.validation) if name]
    if config.data.groups is not None:
        at = found.root / config.data.groups
        found = replace(found, cases=read_groups(at if at.exists() else Path(config.data.groups), found.cases))
    tests = sum(c.split == "test" for c in found.cases)
    if tests:
        tell(f"{tests} test cases are left out; evaluate a model on their images")
    found = replace(found, cases=tuple(c for c in found.cases if c.split != "test"))
    settings = prepare_settings(config, found.classes, usual_channels(found))
    files = [*lists, "splits_final.json"] if found.layout == "nnunet" else lists
    return prepare(
        found, out, settings, variants=variants, options=options, files=files, stop=stop, tell=tell, progress=progress
    )


def prepare_settings(config: RunConfig, classes: Sequence[str] | None, channels: int) -> PrepareSettings:
    """The settings of items for a configuration, for a data set of these classes (its own, if any) and channels.

    Raises InputError for a configuration without a forest, or one whose sides do not fit each other.
    """
    policy = resolved_policy(config)
    if policy is None:
        raise InputError("configuration", "has no forest to cut", "set forest.budget, e.g. forest.budget=1024")
    if policy.criterion == SCORER:
        raise InputError("configuration", "prepare cuts no forests by a scorer", "set forest.criterion=edges")
    q = config.model.q or 2 * config.model.patch
    one = np.zeros((1, 2), np.int64)
    leaf = Forest(one, one[:, 0] + policy.cell, one[:, 0], (policy.cell,) * 2, policy.cell, policy.cell)
    for name, side in (("patch", config.model.patch), ("q", q)):
        try:
            check_patch(leaf, side)
        except ValueError as error:
            raise InputError("configuration", f"model.{name}: {error}", "correct that setting") from None
    return PrepareSettings(
        forest=policy,
        classes=resolved_classes(config.data, classes),
        channels=channels,
        patch=config.model.patch,
        q=q,
        label_map=config.data.labels,
        intensity_window=config.data.intensity_window,
        downscale=config.data.downscale,
        scale=config.data.scale,
        seed=config.train.seed,
    )


def resolved_classes(data: DataConfig, known: Sequence[str] | None) -> tuple[str, ...]:
    """Class names: of the configuration, else the data set's own, else background and foreground."""
    return tuple(data.classes or known or ("background", "foreground"))


def resolved_policy(config: RunConfig) -> ForestPolicy | None:
    """The forest policy with its window, tried on a blank one; InputError where it cannot work."""
    if config.forest is None:
        return None
    height, width = config.data.window_shape
    side = round((height * width) ** 0.5)
    policy = replace(config.forest, window=side) if config.forest.window is None else config.forest
    blank = np.zeros((height, width), np.uint8)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of course there is nothing to see in it
            if policy.criterion == SCORER:  # which is not known yet, and changes no side
                build_by_policy(np.zeros((-(-height // policy.cell), -(-width // policy.cell))), policy, blank.shape)
            else:
                cut_forest(blank, policy)
    except ValueError as error:
        raise InputError("configuration", f"forest: {error}", "correct that setting") from None
    return policy


_ASKED = 16  # images whose headers tell how many channels there are


def usual_channels(found: CaseList) -> int:
    """Channels of most of the first images that open, the fewest on ties; InputError where none opens.

    Of most and not of the first: one odd image must fail by itself, not make all the others fail.
    """
    fault: Exception = InputError(found.root, "holds no cases to prepare", "add images with masks")
    seen: list[int] = []
    for case in found.cases:
        try:
            seen.append(int(open_image(case.image).shape[2]))
        except (InputError, OSError) as error:
            fault = error
        if len(seen) == _ASKED:
            break
    if not seen:
        raise fault
    return max(sorted(set(seen)), key=seen.count)


def require_patch_reader(model: ModelConfig) -> None:
    """InputError, with the setting to change, unless a model reads nothing of an image but its leaves' patches."""
    if model.name != "shf":
        raise InputError("configuration", f"{model.name} reads pixels, prepared items hold patches", _TOKENS_ONLY)
    if model.stem:
        what = f"the stem {list(model.stem)} of {model.name} reads pixels, prepared items hold patches"
        raise InputError("configuration", what, _TOKENS_ONLY)


def require_same_settings(config: RunConfig, prepared: Prepared) -> None:
    """InputError, naming what differs, unless items are just as this configuration would make them.

    Warns of settings that have no effect on items that are cut already.
    """
    require_patch_reader(config.model)
    wanted = prepare_settings(config, prepared.settings["data.classes"], prepared.channels).named()
    changed = setting_differences(prepared.settings, wanted)
    if changed:
        what = f"was prepared with other settings ({some(changed)})"
        raise InputError(prepared.root, what, "train with those, or prepare into another folder")
    idle = idle_settings(config, prepared.variants)
    if idle:
        warnings.warn(f"no effect on prepared items: {', '.join(idle)}", UserWarning, stacklevel=2)


def idle_settings(config: RunConfig, variants: int) -> list[str]:
    """Settings that were chosen and that prepared items cannot follow."""
    default, idle = Augment(), []
    if config.data.foreground != DataConfig().foreground:
        idle.append("data.foreground")
    for name in ("affine", "gamma", "noise", "blur"):
        if getattr(config.augment, name) != getattr(default, name) and getattr(config.augment, name) != 0:
            idle.append(f"augment.{name}")
    if variants == 1 and config.forest is not None and config.forest.fresh:
        idle.append("forest.fresh (prepare with --variants above 1 for random forests)")
    return idle
