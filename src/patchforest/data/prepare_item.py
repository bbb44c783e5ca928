"""One case from its files to its prepared items: the function that every process and every machine of a job runs."""

from __future__ import annotations

import errno
import hashlib
import time
import warnings
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from patchforest.data.layout import Case
from patchforest.data.pictures import open_picture
from patchforest.data.prepared import PreparedItem, PrepareSettings, check_item, item_name, write_item
from patchforest.data.slides import SlidePicture
from patchforest.errors import InputError
from patchforest.io.open import open_image
from patchforest.io.scale import at_scale
from patchforest.tree.cut import cut_forest
from patchforest.tree.detail import BY_TILES
from patchforest.tree.forest import FlatGround
from patchforest.tree.gather import gather
from patchforest.tree.leaves import stream_leaves
from patchforest.tree.window import unit_range
from patchforest.values import Array, Forest, ImageSource

FULL = (errno.ENOSPC, errno.EDQUOT)
_NOTED = (UserWarning, FlatGround)
LARGE = 1 << 27
"""Images of more pixels are read in parts."""


@dataclass(frozen=True)
class ItemTask:
    """A case to prepare: ``variants`` items of it in ``folder``."""

    case: Case
    variants: int
    settings: PrepareSettings
    folder: Path


@dataclass(frozen=True)
class Outcome:
    """What became of a case.

    Attributes
    ----------
    entry : what the manifest says of it: ``inputs`` and ``files``, or ``failed`` with the reason in one line.
    kept : everything was there already, whole, made by these settings from these very inputs.
    notes : warnings, one line each.
    """

    entry: dict[str, Any]
    kept: bool = False
    notes: tuple[str, ...] = ()
    seconds: float = field(default=0.0, compare=False)

    @property
    def failed(self) -> str | None:
        """The reason why there are no items of this case."""
        return self.entry.get("failed")


def failure(reason: str) -> Outcome:
    """The outcome of a case that could not be prepared."""
    return Outcome({"failed": " ".join(reason.split())})


def prepare_item(task: ItemTask) -> Outcome:
    """Make the items of a case that are not there yet, or say in one line why they cannot be made.

    Single-threaded. What is there counts only if every byte of it verifies and settings and inputs are the same.

    Raises OSError where the disk is full: that ends a job, not an item.
    """
    start = time.perf_counter()
    cv2.setNumThreads(0)
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            entry, kept = _items(task)
    except (InputError, ValueError) as error:
        return failure(str(error))
    except MemoryError as error:
        return failure(f"{task.case.image}: does not fit into memory ({error}); set data.downscale, or use more memory")
    except OSError as error:
        if error.errno in FULL:
            raise
        return failure(f"{error.filename or task.case.image}: {error.strerror or error}; check the file and its disk")
    except Exception as error:  # whatever a decoder raises on damaged bytes must end this item, not the job
        return failure(f"{task.case.image}: {type(error).__name__}: {error}; if the file is good, this is a bug")
    notes = tuple(dict.fromkeys(" ".join(str(w.message).split()) for w in caught if w.category in _NOTED))
    return Outcome(entry, kept, notes, time.perf_counter() - start)


def cut_item(
    case: Case, settings: PrepareSettings, variant: int, image: Array, label: Array, inputs: dict[str, dict[str, Any]]
) -> PreparedItem:
    """An image (H, W, C) and its label (H, W) as one sequence; the forest is a function of (seed, id, variant)."""
    if image.dtype != np.uint8 or settings.intensity_window is not None:
        image = unit_range(image, settings.intensity_window)
    forest = cut_forest(image, settings.forest, rng=variant_rng(settings.seed, case.id, variant))
    patches = gather(image, forest, settings.patch).patches
    if image.dtype == np.uint8:
        patches *= np.float32(1 / 255)
    shares = leaf_shares(label, forest, settings.q, len(settings.classes))
    return PreparedItem(case.id, variant, settings.fingerprint(variant), inputs, forest, patches, shares)


def stream_item(
    case: Case,
    settings: PrepareSettings,
    variant: int,
    source: ImageSource,
    label: Array,
    inputs: dict[str, dict[str, Any]],
) -> PreparedItem:
    """The item that ``cut_item`` makes, of an image that is never held as a whole; its label is."""
    forest, patches = stream_leaves(
        source,
        settings.forest,
        settings.patch,
        window=settings.intensity_window,
        rng=variant_rng(settings.seed, case.id, variant),
    )
    shares = leaf_shares(label, forest, settings.q, len(settings.classes))
    return PreparedItem(case.id, variant, settings.fingerprint(variant), inputs, forest, patches, shares)


def variant_rng(seed: int, case_id: str, variant: int) -> np.random.Generator | None:
    """The generator of a random forest; None for variant 0, the fixed forest."""
    if variant == 0:
        return None
    digest = hashlib.sha256(case_id.encode("utf-8", "surrogatepass")).digest()
    return np.random.default_rng([seed, variant, int.from_bytes(digest[:8], "little")])


def leaf_shares(label: Array, forest: Forest, q: int, num_classes: int) -> Array:
    """(L, 1 + K, q, q) float32: of every block of every leaf the share inside the image, then of each output's class.

    Two classes have K = 1 output, the foreground; more have one each. Exactly what ``train.losses`` averages from a
    raster, except that nothing is ignored (masks in files have no such pixels).
    """
    largest = int(forest.size.max())
    over = [(0, -s % largest) for s in forest.shape]
    padded = tuple(s + after for s, (_, after) in zip(forest.shape, over))
    wider = replace(forest, shape=padded)
    planes: list[Array] = [np.ones(forest.shape, bool)]
    planes += [label > 0] if num_classes == 2 else [label == k for k in range(num_classes)]
    shares = np.empty((len(forest), len(planes), q, q), np.float32)
    for k, plane in enumerate(planes):
        shares[:, k] = gather(np.pad(plane, over).astype(np.uint8), wider, q).patches[:, 0]
    return shares


def file_print(path: Path) -> dict[str, Any]:
    """``bytes`` and ``sha256`` of a file, or of the names and files of a folder; InputError where it cannot be read."""
    digest, length = hashlib.sha256(), 0
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    try:
        for name in files:
            if name != path:
                digest.update(f"{name.relative_to(path).as_posix()}\n{name.stat().st_size}\n".encode())
            with open(name, "rb") as file:
                while block := file.read(1 << 20):
                    digest.update(block)
                    length += len(block)
    except OSError as error:
        raise InputError(path, f"cannot be read ({error.strerror})", "check the file and its permissions") from None
    return {"bytes": length, "sha256": digest.hexdigest()}


def input_prints(case: Case) -> dict[str, dict[str, Any]]:
    """``file_print`` of a case's image and mask."""
    if case.label is None:
        raise InputError(case.image, "has no mask", "add one of the same stem or leave the image out")
    return {"image": file_print(case.image), "label": file_print(case.label)}


def _items(task: ItemTask) -> tuple[dict[str, Any], bool]:
    """The manifest's entry of a case, its items made where needed, and whether all were there."""
    case, settings = task.case, task.settings
    inputs = input_prints(case)
    files = [_existing(task, variant, inputs) for variant in range(task.variants)]
    kept = None not in files
    if not kept:
        image, label = _pixels(case, settings)
        channels = image.shape[2]
        if channels != settings.channels:
            hint = "convert it, so that all have as many"
            raise InputError(case.image, f"has {channels} channels where most images have {settings.channels}", hint)
        for variant, there in enumerate(files):
            if there is None:
                if isinstance(image, np.ndarray):
                    item = cut_item(case, settings, variant, image, label, inputs)
                else:
                    item = stream_item(case, settings, variant, image, label, inputs)
                sha256, length = write_item(task.folder / item_name(case.id, variant), item)
                files[variant] = _file_entry(case.id, variant, sha256, length)
    return {"inputs": inputs, "files": files}, kept


def _pixels(case: Case, settings: PrepareSettings) -> tuple[Array | ImageSource, Array]:
    """Image and label of a case; the image as a source where it is large, can be read in parts, and is cut by tiles."""
    source = open_image(case.image)
    whole = source.tile[0] >= source.shape[0] and source.tile[1] >= source.shape[1]
    by_tiles = settings.forest.uniform is not None or settings.forest.criterion in (*BY_TILES, "uniform", "random")
    known = {"label_map": settings.label_map, "num_classes": len(settings.classes)}
    assert case.label is not None
    height, width = at_scale(source, settings.scale, case.image).shape[:2]
    if height * width > LARGE and settings.downscale == 1 and by_tiles and not whole:
        slide = SlidePicture(case, names=settings.classes, scale=settings.scale, **known)  # type: ignore[arg-type]
        return slide.view, slide.label.read(0, 0, *slide.shape)
    picture = open_picture(
        case,
        downscale=settings.downscale,
        intensity_window=settings.intensity_window,
        scale=settings.scale,
        names=settings.classes,
        **known,  # type: ignore[arg-type]
    )
    if isinstance(picture, SlidePicture):
        return picture.read(0, 0, *picture.shape)
    return picture.image, picture.label


def _existing(task: ItemTask, variant: int, inputs: dict[str, dict[str, Any]]) -> dict[str, Any] | None:
    """The entry of an item that is there, whole, of these settings and inputs; else None."""
    path = task.folder / item_name(task.case.id, variant)
    try:
        header = check_item(path)
    except InputError:  # none there, or damaged: make it anew
        return None
    wanted = (task.case.id, variant, task.settings.fingerprint(variant), inputs)
    if (header["id"], header["variant"], header["fingerprint"], header["inputs"]) != wanted:
        return None
    return _file_entry(task.case.id, variant, header["sha256"], path.stat().st_size)


def _file_entry(case_id: str, variant: int, sha256: str, length: int) -> dict[str, Any]:
    return {"variant": variant, "file": item_name(case_id, variant), "bytes": length, "sha256": sha256}
