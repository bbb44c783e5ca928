"""Training checkpoints as one safetensors file each: no pickle, verified before use, never half-written.

The tensors of a checkpoint lie in the payload; everything else (step counters, optimiser settings, scores) is JSON in
the header, with references where the tensors were. A SHA-256 of the whole file, taken with its own 64 digits set to
zero, stands in the header: every flipped bit and every missing byte is found before anything is restored.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from patchforest.errors import InputError
from patchforest.io.atomic import write_bytes
from patchforest.train.engine import CheckpointIO

ZEROS = "0" * 64
SUFFIX = ".safetensors"
KEY = "patchforest-checkpoint"  # one entry: safetensors writes several in random order


class SafetensorsIO(CheckpointIO):
    """Lightning's way to and from disk, by ``save_checkpoint`` and ``load_checkpoint`` of this module."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        """Write a checkpoint durably; see ``encode``."""
        write_bytes(Path(path), encode(checkpoint))

    def load_checkpoint(self, path: Any, map_location: Any | None = None, weights_only: bool | None = None) -> Any:
        """The verified checkpoint, tensors on the CPU."""
        return load_checkpoint(path)

    def remove_checkpoint(self, path: Any) -> None:
        """Delete one checkpoint file."""
        Path(path).unlink(missing_ok=True)


def load_checkpoint(path: str | Path) -> dict[str, Any]:
    """The checkpoint of a file, its checksum verified; InputError when it is damaged, foreign or unreadable."""
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise InputError(path, f"cannot be read ({error.strerror})", "check the path and its permissions") from None
    try:
        return decode(data)
    except ValueError as error:
        raise InputError(path, str(error), "delete it; training falls back to the checkpoint before") from None


def checkpoints(folder: str | Path) -> list[Path]:
    """Checkpoint files of a run, newest (highest step) first; whether they are whole is not looked at."""
    numbered = [(int(p.stem[5:]), p) for p in Path(folder).glob(f"step-*{SUFFIX}") if p.stem[5:].isdecimal()]
    return [path for _, path in sorted(numbered, reverse=True)]


def checkpoint_path(folder: str | Path, step: int) -> Path:
    """Where the checkpoint after ``step`` optimiser steps lies."""
    return Path(folder) / f"step-{step:09d}{SUFFIX}"


def newest_valid(folder: str | Path) -> tuple[Path | None, list[InputError]]:
    """The newest checkpoint that verifies, or None, and what was wrong with the newer ones."""
    refused: list[InputError] = []
    for path in checkpoints(folder):
        try:
            load_checkpoint(path)
        except InputError as error:
            refused.append(error)
        else:
            return path, refused
    return None, refused


def prune(folder: str | Path, keep: int = 2) -> None:
    """Delete all but the newest ``keep`` ≥ 2 checkpoints; call it after the newest is durable."""
    for path in checkpoints(folder)[max(keep, 2) :]:
        path.unlink(missing_ok=True)


def encode(checkpoint: Mapping[str, Any]) -> bytes:
    """Bytes of a nested structure of dicts, lists, tuples, tensors, numbers, text, bools and None.

    Raises
    ------
    TypeError : anything else, with its place; it would need pickle.
    """
    tensors: dict[str, torch.Tensor] = {}
    content = {"sha256": ZEROS, "format": 1, "state": _pack(checkpoint, tensors, "checkpoint")}
    raw = save_tensors(tensors, metadata={KEY: json.dumps(content, separators=(",", ":"))})
    start, end = _digest_span(raw)
    return raw[:start] + hashlib.sha256(raw).hexdigest().encode() + raw[end:]


def decode(data: bytes) -> dict[str, Any]:
    """The structure that ``encode`` was given, equal in values, types, dtypes and shapes.

    Raises
    ------
    ValueError : not one of our checkpoints, or not a single bit may differ and one does.
    """
    start, end = _digest_span(data)
    if hashlib.sha256(data[:start] + ZEROS.encode() + data[end:]).hexdigest().encode() != data[start:end]:
        raise ValueError("is damaged: its checksum does not match")
    try:
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        content = json.loads(header["__metadata__"][KEY])
        return _unpack(content["state"], load_tensors(data))
    except (SafetensorError, KeyError, TypeError) as error:
        raise ValueError(f"is no training checkpoint of patchforest ({error})") from None


def _digest_span(data: bytes) -> tuple[int, int]:
    length = int.from_bytes(data[:8], "little")
    header = data[8 : 8 + length]
    match = re.search(rb'\\"sha256\\":\\"([0-9a-f]{64})\\"', header)  # our JSON lies in the header's JSON, hence \"
    if len(data) < 8 or len(header) < length or match is None:
        raise ValueError("is truncated, damaged or no training checkpoint of patchforest")
    return 8 + match.start(1), 8 + match.end(1)


def _pack(value: Any, tensors: dict[str, torch.Tensor], place: str) -> Any:
    """JSON for a value: plain where JSON has the type, else a one-entry mapping whose key starts with ``$``."""
    if isinstance(value, torch.Tensor):
        name = f"{len(tensors):06d}"
        tensors[name] = value.detach().to("cpu", copy=True).contiguous()
        return {"$tensor": name}
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else {"$float": str(value)}
    if isinstance(value, list):
        return [_pack(v, tensors, f"{place}[{i}]") for i, v in enumerate(value)]
    if type(value) is tuple:
        return {"$tuple": [_pack(v, tensors, f"{place}[{i}]") for i, v in enumerate(value)]}
    if isinstance(value, Mapping):
        if all(isinstance(k, str) and not k.startswith("$") for k in value):
            return {k: _pack(v, tensors, f"{place}.{k}") for k, v in value.items()}
        if all(isinstance(k, str | int) and not isinstance(k, bool) for k in value):
            return {"$dict": [[k, _pack(v, tensors, f"{place}.{k}")] for k, v in value.items()]}
    raise TypeError(f"{place} is a {type(value).__name__}, which a checkpoint without pickle cannot hold")


def _unpack(value: Any, tensors: Mapping[str, torch.Tensor]) -> Any:
    if isinstance(value, list):
        return [_unpack(v, tensors) for v in value]
    if not isinstance(value, dict):
        return value
    if len(value) == 1:
        (kind, inner), *_ = value.items()
        if kind == "$tensor":
            return tensors[inner]
        if kind == "$float":
            return float(inner)
        if kind == "$tuple":
            return tuple(_unpack(v, tensors) for v in inner)
        if kind == "$dict":
            return {k: _unpack(v, tensors) for k, v in inner}
    return {k: _unpack(v, tensors) for k, v in value.items()}
