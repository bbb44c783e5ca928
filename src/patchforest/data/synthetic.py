"""Synthetic data sets on disk: folders that ``find_cases`` reads like anybody's own images and masks."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from patchforest.data.blobs import BLOBS_CLASSES, make_blobs
from patchforest.data.roadcore import ROADCORE_CLASSES, make_roadcore
from patchforest.errors import InputError
from patchforest.io.atomic import write_json
from patchforest.io.write import write_image, write_mask
from patchforest.values import Array, as_shape

_Maker = Callable[[Sequence[int], int], tuple[Array, Array]]

KINDS: dict[str, tuple[tuple[str, ...], _Maker]] = {
    "roadcore": (ROADCORE_CLASSES, lambda shape, seed: make_roadcore(shape, seed=seed)),
    "roadcore-shifted": (ROADCORE_CLASSES, lambda shape, seed: make_roadcore(shape, seed=seed, shifted=True)),
    "blobs": (BLOBS_CLASSES, lambda shape, seed: make_blobs(shape, seed=seed)),
    "noise": (BLOBS_CLASSES, lambda shape, seed: make_blobs(shape, seed=seed, noise=60.0)),
}
_VERSION = 1  # raise when a generator changes its pictures, so that old folders are not taken for new ones


def case_seed(seed: int, index: int) -> int:
    """The seed of one picture of a data set: another for every seed and index, whatever the number of pictures."""
    return int(np.random.SeedSequence([seed, index]).generate_state(1, np.uint64)[0])


def write_dataset(folder: str | Path, kind: str, count: int, shape: Sequence[int], seed: int) -> Path:
    """``folder`` with images/, masks/ and dataset.json (classes, kind, seed, shape); returns the folder.

    Pictures are ``KIND_0000.png`` and so on; the k-th depends on kind, shape, seed and k only. ``dataset.json`` is
    written last, so a folder that has it is whole: then nothing is made again.

    Parameters
    ----------
    kind : one of ``KINDS``: ``roadcore``, ``roadcore-shifted``, ``blobs``, ``noise``.
    count : number of pictures, at least 1.
    shape : (H, W) of each.

    Raises
    ------
    ValueError : unknown kind, count below 1, or a shape that is not 2-D.
    InputError : the folder already holds images or masks of anything else.
    """
    folder = Path(folder)
    if kind not in KINDS:
        raise ValueError(f"unknown kind {kind!r}; choose one of {', '.join(KINDS)}")
    if count < 1:
        raise ValueError(f"count must be at least 1; got {count}")
    size = as_shape(shape)
    if len(size) != 2:
        raise ValueError(f"a picture is 2-D: shape must be (H, W); got {size}")
    classes, make = KINDS[kind]
    wanted = {
        "kind": kind,
        "version": _VERSION,
        "count": count,
        "shape": list(size),
        "seed": seed,
        "classes": list(classes),
    }
    names = [f"{kind}_{k:04d}.png" for k in range(count)]
    if _is_complete(folder, wanted, names):
        return folder
    for k, name in enumerate(names):
        image, label = make(size, case_seed(seed, k))
        write_image(folder / "images" / name, image)
        write_mask(folder / "masks" / name, label)
    write_json(folder / "dataset.json", wanted)
    return folder


def _is_complete(folder: Path, wanted: dict[str, Any], names: list[str]) -> bool:
    """Whether the folder holds just this data set; False where it is empty or half made of it; else InputError."""
    description = folder / "dataset.json"
    seen = {p.name for part in ("images", "masks") for p in (folder / part).glob("[!.]*")}
    if description.exists():
        try:
            found = json.loads(description.read_text(encoding="utf-8"))
        except ValueError:
            found = None
        if found == wanted:
            return all((folder / part / name).is_file() for part in ("images", "masks") for name in names)
        raise InputError(folder, "holds another data set already (see dataset.json)", "choose an empty folder")
    strangers = sorted(seen - set(names))
    if strangers:
        raise InputError(folder, f"holds other files already, e.g. {strangers[0]}", "choose an empty folder")
    return False
