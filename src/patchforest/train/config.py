"""One typed configuration for a training run: read strictly from YAML or JSON, every field overridable by its path.

Nothing is guessed: an unknown key, a value of another type and a setting that excludes another end in one line that
names the key and what fits.
"""

from __future__ import annotations

import difflib
import json
import math
import re
import types
import typing
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import TypeAdapter, ValidationError

from patchforest.data.augment import Augment
from patchforest.errors import InputError
from patchforest.io.atomic import write_bytes
from patchforest.io.scale import Scale
from patchforest.models.config import ModelConfig, VolumeSpec
from patchforest.values import ForestPolicy

EXCLUSIVE = {
    "forest": ("budget", "threshold", "uniform"),
    "train": ("max_steps", "max_minutes", "max_cpu_minutes"),
}
"""Of each group exactly one is set. Overriding one on the command line therefore clears its siblings."""

UNESSENTIAL = (
    "data.cache",
    "train.threads",
    "train.num_workers",
    "train.checkpoint_minutes",
    "train.checkpoint_steps",
)
"""Settings that may change between a run and its resumption: they change its speed, not its course."""


@dataclass(frozen=True)
class DataConfig:
    """Which cases, which windows of them, and what their labels mean.

    Attributes
    ----------
    layout : ``auto`` or a layout of ``data.layout.find_cases``.
    targets : CSV (in the data folder) with the class of each image, for models of classes; None: masks are learned.
    target : its column of class names.
    gather_once : of models of classes that read leaves alone (``apf_vit``, ``model.stem: []``): cut each image once, as
        a whole and by its fixed forest, and learn from its leaves without looking at a pixel again.
    classes : names in class-number order, background first; None: the data set's own, or background and foreground. Of
        ``targets``: None takes the names in the table, sorted.
    label_map : label value in the file → class number; the key ``other`` stands for every value not named.
    intensity_window : (low, high) in the image's own values for data that is not 8-bit; see ``tree.window``.
    mpp, level : see all images at so many microns per pixel, or at a stored level (0 the largest); one of them, or
        none: as they are stored. A model trained at an mpp brings every image to it.
    input_mpp : microns per pixel of the files, in place of what they say.
    tissue : draw training windows on the tissue of stained slides, and predict only there.
    window : side of the square training windows, or their [height, width], in (down-scaled) pixels.
    downscale : images are area-averaged by this factor first; masks come out at full size all the same.
    foreground : share of windows centred on a foreground pixel.
    fold, folds, split_seed : which part is for validation where the data set does not say.
    groups : CSV (in the data folder) with the group, such as the patient, of each case; groups are never divided.
    train, validation : text files (in the data folder) that list the cases of a part, in place of folds.
    cache : keep decoded images in memory.
    """

    layout: str = "auto"
    targets: str | None = None
    target: str = "class"
    gather_once: bool = False
    classes: tuple[str, ...] | None = None
    label_map: dict[int | Literal["other"], int] | None = None
    intensity_window: tuple[float, float] | None = None
    mpp: float | None = None
    level: int | None = None
    input_mpp: float | None = None
    tissue: bool = False
    window: int | tuple[int, int] = 512
    downscale: int = 1
    foreground: float = 0.5
    fold: int = 0
    folds: int = 5
    split_seed: int = 0
    groups: str | None = None
    train: str | None = None
    validation: str | None = None
    cache: bool = True

    def __post_init__(self) -> None:
        _at_least(1, window=min(self.window_shape), downscale=self.downscale)
        _ = self.scale  # says what does not fit
        _at_least(2, folds=self.folds)
        _between(0, 1, foreground=self.foreground)
        if not 0 <= self.fold < self.folds:
            raise ValueError(f"fold must be 0 to {self.folds - 1}; got {self.fold}")
        if self.classes is not None and len(self.classes) < 2:
            raise ValueError(f"classes must name the background and at least one more; got {list(self.classes)}")

    @property
    def scale(self) -> Scale:
        """The view of every image."""
        return Scale(level=self.level, mpp=self.mpp, input_mpp=self.input_mpp)

    @property
    def window_shape(self) -> tuple[int, int]:
        """(height, width) of a training window."""
        return (self.window, self.window) if isinstance(self.window, int) else self.window

    @property
    def labels(self) -> dict[int | str, int] | None:
        """``label_map`` as ``io.read_label`` takes it."""
        return None if self.label_map is None else dict(self.label_map.items())


@dataclass(frozen=True)
class TrainConfig:
    """How to learn, and for how long: exactly one of ``max_steps``, ``max_minutes`` and ``max_cpu_minutes``.

    Attributes
    ----------
    weights : a .safetensors file, or a folder with one, that ``model.backbone`` starts from; read once, before the
        first step, and not needed by the trained model.
    lr, weight_decay : of AdamW; biases and normalisations are not decayed.
    warmup : share of the run with linearly growing learning rate.
    schedule : ``cosine`` to 0 at the end, or ``milestones``: × 0.1 at 1/2, 3/4 and 7/8 of the run.
    max_minutes : wall time of training; validation and checkpoints do not count.
    max_cpu_minutes : CPU time of this process, the fair unit when several runs share a machine; needs num_workers 0.
    precision : ``fp32``, ``bf16`` or ``fp16`` (autocast; fp16 on GPUs only).
    accumulate : batches whose gradients make one step.
    loss_weight, eps : w and ε of Eq. 7, w · BCE + (1 − w) · soft Dice loss.
    validate_every : share of the run if ≤ 1, else steps, between validations; there is always one at the end.
    validate_cases : at most so many validation cases each time, evenly spread; None: all, 0: none.
    threads : CPU threads of PyTorch; None: its own choice.
    ema : decay of the exponential moving average of the weights that is validated and saved; 0: off.
    clip : largest norm of the gradient; 0: no limit.
    checkpoint_minutes, checkpoint_steps : how often to save for resuming, besides every validation.
    device : ``auto``, ``cpu`` or ``gpu``.
    """

    seed: int = 0
    weights: str | None = None
    batch: int = 4
    lr: float = 1e-3
    weight_decay: float = 0.05
    warmup: float = 0.05
    schedule: Literal["cosine", "milestones"] = "cosine"
    max_steps: int | None = None
    max_minutes: float | None = None
    max_cpu_minutes: float | None = None
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    accumulate: int = 1
    loss_weight: float = 0.5
    eps: float = 1.0
    validate_every: float = 0.1
    validate_cases: int | None = None
    threads: int | None = None
    num_workers: int = 0
    ema: float = 0.0
    clip: float = 1.0
    checkpoint_minutes: float = 5.0
    checkpoint_steps: int | None = None
    device: Literal["auto", "cpu", "gpu"] = "auto"

    def __post_init__(self) -> None:
        chosen = [n for n in EXCLUSIVE["train"] if getattr(self, n) is not None]
        if len(chosen) != 1:
            raise ValueError(f"set exactly one of {', '.join(EXCLUSIVE['train'])}; got {chosen or 'none'}")
        if not 0 < getattr(self, chosen[0]) < math.inf:
            raise ValueError(f"{chosen[0]} must be above 0 and finite; got {getattr(self, chosen[0])}")
        _at_least(1, batch=self.batch, accumulate=self.accumulate)
        _at_least(0, num_workers=self.num_workers, weight_decay=self.weight_decay, clip=self.clip, seed=self.seed)
        _between(0, 1, warmup=self.warmup, loss_weight=self.loss_weight, ema=self.ema)
        if self.lr <= 0 or self.eps <= 0 or self.validate_every <= 0 or self.checkpoint_minutes <= 0:
            raise ValueError("lr, eps, validate_every and checkpoint_minutes must be above 0")
        if self.max_cpu_minutes is not None and self.num_workers:
            raise ValueError("max_cpu_minutes counts this process alone; set num_workers: 0 or use max_minutes")


@dataclass(frozen=True)
class RunConfig:
    """Everything that decides a training run, apart from the data folder.

    ``forest`` is None for models on pixels, ``volume`` for data of images. With ``volume`` the data are volumes, read
    as sub-volumes by an octree model, or as slices along ``volume.axes`` by one of images.
    """

    data: DataConfig = field(default_factory=DataConfig)
    volume: VolumeSpec | None = None
    forest: ForestPolicy | None = None
    model: ModelConfig = field(default_factory=ModelConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    augment: Augment = field(default_factory=Augment)

    def __post_init__(self) -> None:
        if self.volume is None:
            return
        if self.data.targets is not None:
            raise ValueError("data.targets is for images; volumes have no classes of their own yet")
        default = DataConfig()
        for name in ("mpp", "level", "input_mpp", "tissue", "downscale"):
            if getattr(self.data, name) != getattr(default, name):
                raise ValueError(f"data.{name} is for images; volumes have volume.spacing and volume.downscale")


def load_config(path: str | Path | None, overrides: Sequence[str] = ()) -> RunConfig:
    """The configuration of a YAML or JSON file, changed by overrides such as ``"train.lr=3e-3"`` in their order.

    An override's value is read as YAML; ``null`` unsets. ``path`` None starts from the defaults.

    Raises
    ------
    InputError : no such file, no YAML mapping, unknown key (with the nearest known one), value of the wrong type.
    """
    name = "configuration" if path is None else str(path)
    raw = {} if path is None else _read(Path(path))
    for text in overrides:
        _override(raw, text)
    return parse_config(raw, name)


def parse_config(raw: dict[str, Any], name: str = "configuration") -> RunConfig:
    """The configuration of a plain nested mapping; ``name`` is what errors call it."""
    raw = {"train": {}, **raw}  # so that its faults are found below, with its name
    _refuse_unknown(raw, RunConfig, name, "")
    try:
        return TypeAdapter(RunConfig).validate_json(json.dumps(_plain(raw)), strict=True)
    except ValidationError as error:
        raise InputError(name, *_first_fault(error)) from None
    except (TypeError, ValueError) as error:  # keys or values that JSON has no word for, such as dates
        raise InputError(name, str(error), "use plain numbers, text, lists and mappings") from None


def config_dict(config: RunConfig) -> dict[str, Any]:
    """The configuration as nested plain values; ``parse_config`` is its inverse."""
    return json.loads(json.dumps(asdict(config)))


def save_config(path: str | Path, config: RunConfig) -> None:
    """Write the configuration, with every default resolved, as YAML that ``load_config`` reads back."""
    write_bytes(Path(path), yaml.safe_dump(config_dict(config), sort_keys=False, allow_unicode=True).encode())


def differences(before: RunConfig, after: RunConfig) -> list[str]:
    """Lines such as ``train.lr: 0.001 → 0.003`` for every setting that changes the course of a run."""
    old, new = dict(_leaves(config_dict(before))), dict(_leaves(config_dict(after)))
    keys = [k for k in [*old, *(k for k in new if k not in old)] if not k.startswith(UNESSENTIAL)]
    return [f"{k}: {old.get(k)} → {new.get(k)}" for k in keys if old.get(k) != new.get(k)]


def _read(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "is not UTF-8 text"
        raise InputError(path, f"cannot be read ({reason})", "give a YAML or JSON recipe") from None
    try:
        raw = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 1}" if mark else ""
        raise InputError(path, f"is no valid YAML{where}", "correct the syntax") from None
    if raw is None:
        return {}
    if not isinstance(raw, dict):
        raise InputError(path, f"holds a {type(raw).__name__}, not a mapping", "start with a section such as `train:`")
    return raw


def _override(raw: dict[str, Any], text: str) -> None:
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise InputError(text, "is no setting", "write section.field=value, e.g. train.lr=3e-3")
    *sections, last = key.strip().split(".")
    here = raw
    for section in sections:
        if not isinstance(here.get(section), dict):
            here[section] = {}
        here = here[section]
    group = EXCLUSIVE.get(".".join(sections), ())
    for sibling in group if last in group else ():
        here.pop(sibling, None)
    try:
        here[last] = yaml.safe_load(value)
    except yaml.YAMLError:
        raise InputError(text, f"value {value!r} is no valid YAML", "quote it, or correct the syntax") from None


def _plain(value: Any) -> Any:
    """YAML 1.1 reads ``3e-3`` as text: make such text the number it looks like, everywhere."""
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, str) and re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)[eE][+-]?\d+", value):
        return float(value)
    return value


def _refuse_unknown(raw: Any, kind: type, name: str, prefix: str) -> None:
    if not isinstance(raw, dict):
        return
    hints = typing.get_type_hints(kind)
    known = [f.name for f in fields(kind)]
    for key, value in raw.items():
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1, cutoff=0.5)
            elsewhere = [n for n, h in typing.get_type_hints(RunConfig).items() if key in _field_names(h)]
            hint = f"did you mean {prefix}{near[0]}?" if near else f"known: {', '.join(known)}"
            if elsewhere and not (near and near[0] == key):
                hint = f"did you mean {elsewhere[0]}.{key}?"
            raise InputError(name, f"unknown key {prefix}{key}", hint)
        inner = _dataclass_of(hints[key])
        if inner is not None:
            _refuse_unknown(value, inner, name, f"{prefix}{key}.")


def _dataclass_of(hint: Any) -> type | None:
    parts = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    return next((p for p in parts if isinstance(p, type) and is_dataclass(p)), None)


def _field_names(hint: Any) -> list[str]:
    kind = _dataclass_of(hint)
    return [f.name for f in fields(kind)] if kind else []


def _first_fault(error: ValidationError) -> tuple[str, str]:
    first = error.errors(include_url=False)[0]
    where = ".".join(str(p) for p in first["loc"] if not _is_branch(str(p)))
    if first["type"] == "value_error":
        return f"{where}: {first['ctx']['error']}", "correct that setting"
    hint = first["msg"].replace("Input should be", "give", 1).replace("an object", "a mapping of settings")
    if where.startswith("data.label_map"):
        hint = "map label values, or the word other, to class numbers, e.g. {0: 0, other: 1}"
        hint += ", with a space after each colon" if first["input"] is None else ""
    return f"{where} is {json.dumps(first['input'])} ({type(first['input']).__name__})", hint


def _is_branch(part: str) -> bool:
    """Whether a piece of pydantic's location names a branch of a union rather than a key."""
    return part in {"ForestPolicy", "int", "float", "str", "bool", "tuple", "[key]"} or "[" in part


def _leaves(value: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, item in value.items():
        if isinstance(item, dict):
            yield from _leaves(item, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", item


def _at_least(low: float, **values: float) -> None:
    for name, value in values.items():
        if value < low:
            raise ValueError(f"{name} must be at least {low}; got {value}")


def _between(low: float, high: float, **values: float) -> None:
    for name, value in values.items():
        if not low <= value <= high:
            raise ValueError(f"{name} must lie between {low} and {high}; got {value}")
