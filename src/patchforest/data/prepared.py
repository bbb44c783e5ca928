"""One prepared item as a file: forest, patches and label shares of an image, whole and unchanged, or refused.

An item is a safetensors file whose header holds one JSON text with the SHA-256 of the whole file, taken with its own 64
digits set to zero. So every file proves by itself that it is complete: no flipped bit and no missing byte passes, and
nothing else has to be kept in step with it. The same item gives the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from patchforest.errors import InputError
from patchforest.io.atomic import write_bytes
from patchforest.io.scale import AS_STORED, Scale
from patchforest.tree.serial import decode_forest, encode_forest
from patchforest.values import Array, Forest, ForestPolicy

FORMAT = 1
KEY = "patchforest-item"  # one entry: safetensors writes several in random order
ZEROS = b"0" * 64
SUFFIX = ".safetensors"


@dataclass(frozen=True)
class PrepareSettings:
    """Everything that shapes a prepared item.

    Attributes
    ----------
    forest : how images are cut, its window resolved.
    classes : names, background first.
    label_map, intensity_window, downscale : as in ``data.load.load_case``.
    channels : of the images; others fail.
    patch : side p of a patch.
    q : side of the grid of label shares a leaf.
    scale : the view of every image that is cut; see ``io.scale``.
    seed : of the random forests of variants above 0; the fixed forest, variant 0, knows no seed.
    """

    forest: ForestPolicy
    classes: tuple[str, ...]
    channels: int
    patch: int
    q: int
    label_map: Mapping[int | str, int] | None = None
    intensity_window: tuple[float, float] | None = None
    downscale: int = 1
    scale: Scale = AS_STORED
    seed: int = 0

    def named(self) -> dict[str, Any]:
        """Setting → plain value under the names of a recipe, without the seed."""
        policy = {k: v for k, v in asdict(self.forest).items() if k != "fresh"}
        policy["window"] = policy["window"] if policy["budget"] is not None else None
        labels = self.label_map
        scale = {"mpp": self.scale.mpp, "level": self.scale.level, "input_mpp": self.scale.input_mpp}
        return {
            "format": FORMAT,
            **{f"forest.{k}": v for k, v in policy.items()},
            "data.classes": list(self.classes),
            "data.label_map": None if labels is None else {str(k): v for k, v in sorted(labels.items(), key=str)},
            "data.intensity_window": None
            if self.intensity_window is None
            else [float(v) for v in self.intensity_window],
            "data.downscale": self.downscale,
            **{f"data.{k}": v for k, v in scale.items() if v is not None},
            "model.channels": self.channels,
            "model.patch": self.patch,
            "model.q": self.q,
        }

    def fingerprint(self, variant: int = 0) -> str:
        """SHA-256 of what shapes a variant: items of one case with one fingerprint and the same inputs are equal."""
        text = json.dumps([self.named(), self.seed if variant else None], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True, eq=False)
class PreparedItem:
    """A whole image as a sequence of patches with labels.

    Attributes
    ----------
    id : of the case.
    variant : 0 for the fixed forest, above for random ones.
    fingerprint : of the settings, ``PrepareSettings.fingerprint``.
    inputs : ``image`` and ``label`` → ``bytes`` and ``sha256`` of the files it was made from.
    forest : over the (down-scaled) image, its lengths in pixels of that.
    patches : (L, C, p, p) float32 in [0, 1].
    shares : (L, 1 + K, q, q) float32, of every block the share that is known (inside the image), then of each of the K
        outputs: the foreground for two classes, else every class.
    """

    id: str
    variant: int
    fingerprint: str
    inputs: dict[str, dict[str, Any]]
    forest: Forest
    patches: Array
    shares: Array

    @property
    def nbytes(self) -> int:
        """Bytes of the arrays."""
        return int(self.patches.nbytes + self.shares.nbytes + self.forest.origin.nbytes + 2 * self.forest.size.nbytes)


def setting_differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """Lines such as ``forest.budget: 256 → 512`` for every setting of two ``PrepareSettings.named`` that differs."""
    keys = [*before, *(k for k in after if k not in before)]
    return [f"{k}: {before.get(k)} → {after.get(k)}" for k in keys if before.get(k) != after.get(k)]


def item_name(case_id: str, variant: int) -> str:
    """File name of an item: readable, short, and another for every id, whatever letters the id has."""
    digest = hashlib.sha256(case_id.encode("utf-8", "surrogatepass")).hexdigest()[:16]
    readable = re.sub(r"[^A-Za-z0-9]+", "_", case_id)[-48:].strip("_")
    return f"{readable or 'case'}-{digest}-{variant}{SUFFIX}"


def encode_item(item: PreparedItem) -> bytes:
    """The bytes of an item's file. Shares are stored in 16 bits where that loses nothing."""
    half = item.shares.astype(np.float16)
    exact = np.array_equal(half, item.shares)
    tensors: dict[str, Array] = {
        "forest": np.frombuffer(encode_forest(item.forest), np.uint8),
        "patches": np.ascontiguousarray(item.patches, np.float32),
        "shares": half if exact else np.ascontiguousarray(item.shares, np.float32),
    }
    content = {
        "sha256": ZEROS.decode(),
        "format": FORMAT,
        "id": item.id,
        "variant": item.variant,
        "fingerprint": item.fingerprint,
        "inputs": item.inputs,
    }
    return seal(save(tensors, metadata={KEY: json.dumps(content, separators=(",", ":"))}), rb'\\"sha256\\":\\"')


def decode_item(data: bytes) -> PreparedItem:
    """The item that ``encode_item`` was given; ValueError where a single bit differs or it is none of ours."""
    header = decode_header(data)
    try:
        tensors = load(data)
        forest = decode_forest(tensors["forest"].tobytes())
        patches, shares = tensors["patches"], tensors["shares"].astype(np.float32)
        item = PreparedItem(
            str(header["id"]), int(header["variant"]), str(header["fingerprint"]), dict(header["inputs"]),
            forest, patches, shares,
        )  # fmt: skip
    except (SafetensorError, KeyError, TypeError) as error:
        raise ValueError(f"is no prepared item of patchforest ({error})") from None
    leaves = len(forest)
    if patches.ndim != 4 or shares.ndim != 4 or not len(patches) == len(shares) == leaves:
        raise ValueError(f"has {leaves} leaves but patches {patches.shape} and label shares {shares.shape}")
    return item


def decode_header(data: bytes) -> dict[str, Any]:
    """The header of an item's bytes, ``sha256`` among its fields, every byte having been checked; else ValueError."""
    length = int.from_bytes(data[:8], "little")
    if len(data) < 8 + length or length < 64:
        raise ValueError("is truncated, damaged or no prepared item of patchforest")
    unseal(data, rb'\\"sha256\\":\\"', limit=8 + length)
    try:
        header = json.loads(json.loads(data[8 : 8 + length])["__metadata__"][KEY])
    except (ValueError, KeyError, TypeError):
        raise ValueError("is no prepared item of patchforest") from None
    if header.get("format") != FORMAT:
        raise ValueError(f"has the format {header.get('format')}, this version reads {FORMAT}")
    return header


def write_item(path: Path, item: PreparedItem) -> tuple[str, int]:
    """Write an item, whole or not at all: its checksum and bytes; errors as in ``io.atomic.write_bytes``."""
    data = encode_item(item)
    write_bytes(path, data)
    return decode_digest(data), len(data)


def read_item(path: Path, sha256: str | None = None) -> PreparedItem:
    """The item of a file; InputError where it is missing, damaged, or not the one with this checksum."""
    data = _read(path)
    try:
        item = decode_item(data)
        if sha256 is not None and decode_digest(data) != sha256:
            raise ValueError("is not the item that prepared.json lists")
    except ValueError as fault:
        raise InputError(
            path, str(fault), "run the same `patchforest prepare` again, it makes bad items anew"
        ) from None
    return item


def check_item(path: Path) -> dict[str, Any]:
    """The header of an item's file after every byte was checked; InputError as in ``read_item``."""
    data = _read(path)
    try:
        return decode_header(data)
    except ValueError as fault:
        raise InputError(
            path, str(fault), "run the same `patchforest prepare` again, it makes bad items anew"
        ) from None


def decode_digest(data: bytes) -> str:
    """The checksum written in an item's bytes (which ``decode_header`` has compared with them)."""
    start, end = _span(data, rb'\\"sha256\\":\\"', 8 + int.from_bytes(data[:8], "little"))
    return data[start:end].decode()


def seal(data: bytes, mark: bytes) -> bytes:
    """``data`` with its SHA-256 in place of the 64 zeros behind ``mark`` (a pattern)."""
    start, end = _span(data, mark, len(data))
    return data[:start] + hashlib.sha256(data).hexdigest().encode() + data[end:]


def unseal(data: bytes, mark: bytes, limit: int | None = None) -> None:
    """ValueError unless the checksum behind ``mark``, within the first ``limit`` bytes, is that of ``seal``."""
    start, end = _span(data, mark, len(data) if limit is None else limit)
    view, digest = memoryview(data), hashlib.sha256()
    for part in (view[:start], ZEROS, view[end:]):
        digest.update(part)
    if digest.hexdigest().encode() != data[start:end]:
        raise ValueError("is damaged: its checksum does not match")


def _span(data: bytes, mark: bytes, limit: int) -> tuple[int, int]:
    match = re.compile(mark + rb"([0-9a-f]{64})").search(data, 0, limit)
    if match is None:
        raise ValueError("is truncated, damaged or not of patchforest")
    return match.span(1)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        hint = "run the same `patchforest prepare` again, it makes missing items anew"
        raise InputError(path, f"cannot be read ({error.strerror})", hint) from None
