"""A trained model as a folder: ``config.json`` and ``model.safetensors``. No pickle is ever read."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import nn

from patchforest.errors import InputError
from patchforest.io.atomic import write_bytes, write_json
from patchforest.models.build import MODELS, build_model, gives_classes, scores_leaves
from patchforest.models.config import SCORER, ModelConfig, VolumeSpec
from patchforest.values import ForestPolicy

FORMAT = 2


@dataclass(frozen=True)
class ModelSpec:
    """What a trained model needs beside its weights to be used on a new image.

    Attributes
    ----------
    model : the network.
    forest : how to cut images for it; None for a model without a forest.
    classes : class names by number, background first; of a model of classes an answer each.
    intensity_window : pixel values that become 0 and 1, or None for the range of the dtype.
    window : side of the square training windows, or their (height, width), in pixels after down-scaling.
    downscale : images are area-averaged by this factor before anything else, and the mask scaled back.
    mpp : microns per pixel of the images that it was trained on, before down-scaling: other images are brought to that
        scale first. None: images are taken as they are.
    level : stored level of the images that it was trained on, where they were seen at one; else None.
    volume : how volumes are given to it; None for a model of images.
    tissue : it was trained on tissue alone: windows of a slide without any are background, and not looked at.
    """

    model: ModelConfig
    forest: ForestPolicy | None
    classes: tuple[str, ...]
    intensity_window: tuple[float, float] | None = None
    window: int | tuple[int, int] = 512
    downscale: int = 1
    mpp: float | None = None
    tissue: bool = False
    volume: VolumeSpec | None = None
    level: int | None = None

    @property
    def of_images(self) -> bool:
        """Whether the model gives one class an image; others make masks."""
        return gives_classes(MODELS.get(self.model.name))

    @property
    def outputs(self) -> int:
        """Channels of the logits: of masks of two classes 1 (the foreground), else one a class."""
        return 1 if len(self.classes) == 2 and not self.of_images else len(self.classes)


@dataclass(frozen=True, eq=False)
class Bundle:
    """A network in evaluation mode and its specification.

    ``scorer`` says where its forests are fine, if its policy's criterion is ``scorer``; see ``infer.scorer``.
    """

    network: nn.Module
    spec: ModelSpec
    scorer: Bundle | None = None


def save_model(folder: str | Path, network: nn.Module, spec: ModelSpec, scorer: Bundle | None = None) -> None:
    """Write ``config.json`` and ``model.safetensors`` into ``folder``, each whole or not at all, and ``scorer/`` alike.

    Raises ValueError where the forest's criterion is ``scorer`` and none is given.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    if spec.forest is not None and spec.forest.criterion == SCORER:
        if scorer is None:
            raise ValueError("this model's forests need a scorer; pass scorer=")
        save_model(folder / SCORER, scorer.network, scorer.spec)
        spec = replace(spec, forest=replace(spec.forest, scorer=SCORER))
    state = {k: v.detach().cpu().contiguous() for k, v in network.state_dict().items()}
    whole = save(state, metadata={"format": "pt", "sha256": _digest(state)})
    write_bytes(folder / "model.safetensors", _in_order(whole))
    write_json(folder / "config.json", {"format": FORMAT, **asdict(spec)})


def load_model(folder: str | Path, device: torch.device | str = "cpu") -> Bundle:
    """The model saved in ``folder``, ready for ``predict``; a run folder gives its ``best`` model.

    Raises
    ------
    InputError : files missing or broken, an unknown setting, weights that do not fit the configuration (names up to
        five), a pickled checkpoint.
    """
    folder = _find(Path(folder))
    spec = _read_spec(folder / "config.json")
    weights = folder / "model.safetensors"
    try:
        with safe_open(weights, framework="pt") as file:
            promised = (file.metadata() or {}).get("sha256")
        state = load_file(weights, device="cpu")
    except (SafetensorError, OSError, ValueError) as error:
        raise InputError(weights, f"not a whole safetensors file ({error})", "copy it again or train anew") from None
    if promised is not None and promised != _digest(state):
        raise InputError(weights, "damaged: its weights are not those that were saved", "copy it again or train anew")
    try:
        if spec.model.depth > len(state):  # before as many layers are made
            raise ValueError(f"depth {spec.model.depth} with {len(state)} weights")
        with torch.device("meta"):  # takes no memory, whatever its widths
            _check_fit(weights, state, build_model(spec.model).state_dict())
        network = build_model(spec.model)
    except InputError:
        raise
    except (ValueError, TypeError, ArithmeticError, RuntimeError) as error:  # as settings of a stranger's file end
        raise InputError(
            folder / "config.json", f"its model cannot be built: {error}", "use the file it came with"
        ) from None
    network.load_state_dict(state)
    return Bundle(network=network.eval().to(device), spec=spec, scorer=_scorer(folder, spec))


def _scorer(folder: Path, spec: ModelSpec) -> Bundle | None:
    """The scorer in a model's folder, on the CPU; InputError where there is another model."""
    if spec.forest is None or spec.forest.criterion != SCORER:
        return None
    scorer = load_model(folder / SCORER)
    if not scores_leaves(scorer.network) or scorer.scorer is not None:
        raise InputError(folder / SCORER, f"holds the model {scorer.spec.model.name}, no scorer", "copy it again")
    return scorer


def load_spec(folder: str | Path) -> ModelSpec:
    """The specification of the model saved in ``folder``, without its weights; errors as of ``load_model``."""
    return _read_spec(_find(Path(folder)) / "config.json")


def fingerprint(bundle: Bundle) -> str:
    """SHA-256 over a model's specification and weights: two models with one fingerprint give one mask."""
    state = hashlib.sha256(repr(bundle.spec).encode())
    for name, value in bundle.network.state_dict().items():
        state.update(name.encode())
        state.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    if bundle.scorer is not None:
        state.update(fingerprint(bundle.scorer).encode())
    return state.hexdigest()


def _in_order(whole: bytes) -> bytes:
    """The same safetensors file with sorted metadata, so that the same model gives the same bytes."""
    length = int.from_bytes(whole[:8], "little")
    header = json.loads(whole[8 : 8 + length])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + whole[8 + length :]


def _digest(state: dict[str, torch.Tensor]) -> str:
    """Checksum of names, shapes and values; safetensors itself has none, and a flipped bit is a plausible weight."""
    digest = hashlib.sha256()
    for name in sorted(state):
        digest.update(f"{name} {state[name].dtype} {tuple(state[name].shape)}".encode())
        digest.update(state[name].reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _find(folder: Path) -> Path:
    if folder.is_file():
        hint = "pickled checkpoints are never loaded; " if folder.suffix in (".pt", ".pth", ".ckpt", ".pkl") else ""
        raise InputError(
            folder, "is a file, not a model folder", f"{hint}pass the folder with config.json and model.safetensors"
        )
    for candidate in (folder, folder / "best", folder / "last"):
        if (candidate / "config.json").is_file():
            if not (candidate / "model.safetensors").is_file():
                raise InputError(candidate / "model.safetensors", "is missing", "copy it beside config.json")
            return candidate
    if not folder.exists():
        raise InputError(
            folder, "there is no such folder", "pass a run folder of `patchforest train` or a model folder"
        )
    raise InputError(folder, "holds no config.json, nor a best/ with one", "pass a run folder of `patchforest train`")


def _read_spec(path: Path) -> ModelSpec:
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError, OSError) as error:
        raise InputError(path, f"not valid JSON ({error})", "restore the file written by training") from None
    if not isinstance(raw, dict) or raw.pop("format", None) != FORMAT:
        raise InputError(
            path, f"not a patchforest model of format {FORMAT}", "use the version that wrote it, or train anew"
        )
    try:
        values = _known(path, raw, ModelSpec)
        values["model"] = ModelConfig(**_tuples(_known(path, raw["model"], ModelConfig)))
        if raw.get("forest") is not None:
            values["forest"] = ForestPolicy(**_known(path, raw["forest"], ForestPolicy))
        if raw.get("volume") is not None:
            values["volume"] = VolumeSpec(**_tuples(_known(path, raw["volume"], VolumeSpec)))
        return _consistent(ModelSpec(**_tuples(values)))
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            path, f"a setting is missing or wrong ({error})", "restore the file written by training"
        ) from None


def _consistent(spec: ModelSpec) -> ModelSpec:
    """The specification, or ValueError where its parts contradict each other."""
    if spec.model.classes != spec.outputs:
        raise ValueError(f"{spec.model.classes} outputs for the classes {', '.join(map(str, spec.classes))}")
    if spec.forest is not None and spec.forest.cell != spec.model.cell:
        raise ValueError(f"forest of cell {spec.forest.cell}, model of cell {spec.model.cell}")
    sides = spec.window if isinstance(spec.window, tuple) else (spec.window,)
    for name, value in [*(("window", side) for side in sides), ("downscale", spec.downscale)]:
        if not isinstance(value, int) or isinstance(value, bool) or value < 1 or len(sides) > 2:
            raise ValueError(f"{name} is {getattr(spec, name)!r}, not a whole number of pixels")
    if spec.model.spatial == 3 and spec.volume is None:
        raise ValueError("a model of volumes does not say how it is given them")
    if spec.mpp is not None and not (isinstance(spec.mpp, int | float) and 0 < spec.mpp < 1e6):
        raise ValueError(f"mpp is {spec.mpp!r}, not a number of microns")
    return spec


def _known(path: Path, raw: Any, kind: type) -> dict[str, Any]:
    if not isinstance(raw, dict):
        raise InputError(path, f"{kind.__name__} must be a table of settings", "restore the file written by training")
    names = {f.name for f in fields(kind)}
    unknown = sorted(set(raw) - names)
    if unknown:
        raise InputError(
            path, f"unknown setting {unknown[0]!r}", f"settings of {kind.__name__} are {', '.join(sorted(names))}"
        )
    return dict(raw)


def _tuples(values: dict[str, Any]) -> dict[str, Any]:
    return {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}


def _check_fit(path: Path, state: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> None:
    faults = [f"missing {k}" for k in wanted if k not in state] + [f"unknown {k}" for k in state if k not in wanted]
    faults += [
        f"{k} is {tuple(state[k].shape)}, not {tuple(v.shape)}"
        for k, v in wanted.items()
        if k in state and state[k].shape != v.shape
    ]
    faults += [f"{k} is not finite" for k, v in state.items() if v.is_floating_point() and not torch.isfinite(v).all()]
    if faults:
        more = f" and {len(faults) - 5} more" if len(faults) > 5 else ""
        raise InputError(
            path,
            f"weights do not fit config.json: {', '.join(faults[:5])}{more}",
            "use the config.json saved with them",
        )
