"""Pretrained weights for a network's backbone, from local safetensors files. Read at the start of training alone."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from patchforest.errors import InputError
from patchforest.models.backbone import adapt_original, build_original
from patchforest.models.config import ModelConfig
from patchforest.models.trunk import Trunk
from patchforest.nn.adapt.readers import find_parts

UNTRAINED = re.compile(r"mask_token|norm_cross_attn")
"""Parameters that no forward of ours reads, and files may lack."""


def load_backbone(network: nn.Module, config: ModelConfig, weights: str | Path) -> None:
    """Give the backbone of a network the weights of a file, resampled to the network's patch and channels.

    Parameters
    ----------
    config : the network's, resolved.
    weights : a .safetensors file of the backbone's library, or a folder with ``model.safetensors`` (or its shards).
        Names may have one prefix more, such as ``vit.``; heads are passed over.

    Raises
    ------
    InputError : no such file, no safetensors, weights that are missing or of another shape; a network without backbone.
    """
    trunk = getattr(network, "trunk", None)
    if config.backbone is None or not isinstance(trunk, Trunk):
        raise InputError(weights, "are weights of a backbone, and there is none", "set model.backbone to their model")
    state = read_weights(Path(weights))
    original = build_original(config)
    fill = _fill_transformers if config.backbone.startswith("hf:") else _fill
    original = fill(original, state, Path(weights), config.backbone)
    stem = trunk.embed.stem
    adapted = adapt_original(original, config, stem_features=0 if stem is None else stem.in_features)
    trunk.embed.load_state_dict(adapted.embed.state_dict())
    trunk.encoder.load_state_dict(adapted.encoder.state_dict())


def read_weights(path: Path) -> dict[str, Tensor]:
    """Tensors by name of a safetensors file, or of a folder of them; InputError for anything else."""
    state: dict[str, Tensor] = {}
    for file in _files(path):
        try:
            state |= load_file(file, device="cpu")
        except (SafetensorError, OSError, ValueError) as error:
            raise InputError(file, f"not a whole safetensors file ({error})", "copy it again") from None
    return {k: v.float() if v.is_floating_point() else v for k, v in state.items()}


def _files(path: Path) -> list[Path]:
    if path.is_file() and path.suffix == ".safetensors":
        return [path]
    if path.is_file():
        raise InputError(
            path, "is no .safetensors file", "pickled checkpoints are never loaded; convert it where you trust it"
        )
    if not path.is_dir():
        raise InputError(path, "there is no such file or folder", "pass a .safetensors file or a folder that holds one")
    index = path / "model.safetensors.index.json"
    if index.is_file():
        try:
            names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            raise InputError(index, "is no list of safetensors files", "copy it again") from None
        return [path / Path(str(name)).name for name in names]
    found = sorted(path.glob("*.safetensors"))
    if len(found) != 1:
        raise InputError(path, f"holds {len(found)} .safetensors files, not one", "pass the file itself")
    return found


def _fill(original: nn.Module, state: dict[str, Tensor], path: Path, name: str) -> nn.Module:
    """The model with the weights of its own library."""
    needed = _needed(original)
    prefix = _prefix(needed, state)
    faults = [f"lacks {k}" for k in needed if prefix + k not in state]
    faults += [
        f"{k} is {tuple(state[prefix + k].shape)}, not {tuple(v.shape)}"
        for k, v in needed.items()
        if prefix + k in state and state[prefix + k].shape != v.shape
    ]
    _refuse(faults, path, name)
    with torch.no_grad():
        for key, parameter in needed.items():
            parameter.copy_(state[prefix + key])
    return original


def _fill_transformers(original: nn.Module, state: dict[str, Tensor], path: Path, name: str) -> nn.Module:
    """The same by transformers, which knows the names of its older versions."""
    with _quietly():
        try:
            filled, report = type(original).from_pretrained(  # type: ignore[attr-defined]
                None,
                config=original.config,
                state_dict=state,
                output_loading_info=True,
                ignore_mismatched_sizes=True,
                dtype=torch.float32,
                attn_implementation="sdpa",
            )
        except (RuntimeError, ValueError, KeyError, TypeError, OSError) as error:
            _refuse([" ".join(str(error).split())[:200]], path, name)
    needed = _needed(filled)
    faults = [f"lacks {k}" for k in sorted(report["missing_keys"]) if k in needed]
    faults += [f"another shape of {k[0] if isinstance(k, tuple) else k}" for k in sorted(report["mismatched_keys"])]
    _refuse(faults, path, name)
    return filled


def _needed(original: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that the adapted model is made of, by their names in the original."""
    used = {id(p) for p in find_parts(original).essential}
    return {n: p for n, p in original.named_parameters() if id(p) in used and not UNTRAINED.search(n)}


def _prefix(needed: dict[str, nn.Parameter], state: dict[str, Tensor]) -> str:
    """What a file puts before all of the names, if anything."""
    some = max(needed, key=len)
    found = [k[: -len(some)] for k in state if k.endswith(some)]
    return min(found, key=len, default="")


def _refuse(faults: list[str], path: Path, name: str) -> None:
    if faults:
        more = f" and {len(faults) - 3} more" if len(faults) > 3 else ""
        raise InputError(
            path,
            f"does not fit {name}: {', '.join(faults[:3])}{more}",
            "pass the weights of that very model, or set its sizes in model.backbone_config (e.g. img_size)",
        )


@contextmanager
def _quietly() -> Iterator[None]:
    """Without transformers' report and progress bar: what matters of it is said by our errors."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
