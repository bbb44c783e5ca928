"""Masks for files and folders of them: what is bad is listed, the rest goes on, what is done is not done again."""

from __future__ import annotations

import errno
import hashlib
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from patchforest.errors import InputError
from patchforest.infer.predict import predict
from patchforest.io.atomic import write_json
from patchforest.io.open import open_image
from patchforest.io.write import write_image, write_mask
from patchforest.models.bundle import Bundle, load_model
from patchforest.values import Array

SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".npy")
LARGEST_PNG = 65535
STATE, OVERLAYS = ".state", "overlays"
FULL = (errno.ENOSPC, errno.EDQUOT)

Draw = Callable[[Array, Array], Array]
Tell = Callable[[str], None]


@dataclass(frozen=True)
class Summary:
    """What became of every input, by id: masks written, found finished, or failed with the reason in one line."""

    done: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()
    failed: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0


def predict_many(
    model: Bundle | str | Path,
    inputs: Sequence[str | Path],
    out: str | Path,
    *,
    suffix: str = ".png",
    draw: Draw | None = None,
    overwrite: bool = False,
    tell: Tell | None = None,
    **options: Any,
) -> Summary:
    """Write ``out/<id>.png`` (label numbers at the input's size) for every image, and ``out/overlays/<id>.png``.

    Ids are paths relative to the folder given, without suffix; inputs that would share one keep more of their name.
    Masks with a side over 65,535 become TIFF. A finished mask of the same input, model and options is skipped,
    unless its overlay is wanted and absent. An image is never replaced by its own mask: such an item fails.

    Parameters
    ----------
    inputs : image files, and folders that are searched for PNG, JPEG, TIFF and NumPy files at any depth.
    suffix : ``.png`` or ``.tif`` for the masks.
    draw : makes the overlay (H, W, 3) from image and mask; None: no overlays.
    overwrite : do finished ones again.
    tell : receives one line of text an input.
    options : of ``infer.predict.predict``.

    Raises
    ------
    InputError : no input at all, or one that does not exist.
    OSError : the disk is full.
    """
    if suffix not in (".png", ".tif", ".tiff"):
        raise ValueError(f"suffix must be .png or .tif; got {suffix!r}")
    bundle, out, start = (load_model(Path(model)) if isinstance(model, str | Path) else model), Path(out), time.time()
    named = name_inputs(inputs, skip=out)
    print_of_model = fingerprint(bundle) if named else ""
    protected = {path.resolve() for path in named.values()}
    done, skipped, failed = [], [], {}
    for number, (name, path) in enumerate(named.items(), 1):
        try:
            mark = {"input": _digest(path), "model": print_of_model, "options": options, "suffix": suffix}
            if not overwrite and _finished(out, name, mark, overlay=draw is not None):
                skipped.append(name)
                continue
            seconds = _one(bundle, path, out, name, suffix, draw, mark, options, protected)
        except (InputError, ValueError, OSError, MemoryError) as error:
            if isinstance(error, OSError) and error.errno in FULL:
                raise
            failed[name] = str(error) or type(error).__name__
            line = f"failed: {failed[name]}"
        else:
            done.append(name)
            line = f"{seconds:.1f} s"
        if tell is not None:
            tell(" ".join(f"[{number}/{len(named)}] {name}: {line}".split()))
    return Summary(tuple(done), tuple(skipped), failed, time.time() - start)


def name_inputs(inputs: Sequence[str | Path], *, skip: Path | None = None) -> dict[str, Path]:
    """Image files by id, in order; nothing below ``skip`` (the outputs). InputError as in ``predict_many``."""
    found = list(_files(inputs, skip))
    if not found:
        raise InputError(", ".join(map(str, inputs)) or "inputs", "no image there", f"give {', '.join(SUFFIXES)} files")
    shortest = [relative.with_suffix("").as_posix() for _, relative, _ in found]
    longer = [relative.as_posix().replace(".", "_") for _, relative, _ in found]
    longest = [f"{root}/{name}" for (root, _, _), name in zip(found, longer)]
    names = _distinct(_distinct(shortest, longer), longest)
    names = [m if n.split("/")[0] in (STATE, OVERLAYS) else n for n, m in zip(names, longest)]
    counted: Counter[str] = Counter()
    out: dict[str, Path] = {}
    for name, (_, _, path) in zip(names, found):
        counted[name] += 1
        out[name if counted[name] == 1 else f"{name}-{counted[name]}"] = path
    return out


def fingerprint(bundle: Bundle) -> str:
    """SHA-256 over a model's specification and weights: two models with one fingerprint give one mask."""
    digest = hashlib.sha256(repr(bundle.spec).encode())
    for name, value in bundle.network.state_dict().items():
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _one(
    bundle: Bundle,
    path: Path,
    out: Path,
    name: str,
    suffix: str,
    draw: Draw | None,
    mark: dict,
    options: dict,
    protected: set[Path],
) -> float:
    image = open_image(path).read()
    try:
        prediction = predict(bundle, image, **options)
    except InputError as error:
        raise InputError(path, error.what, error.hint) from None
    target = _mask_path(out, name, suffix if max(prediction.mask.shape) <= LARGEST_PNG else ".tif")
    for file in (target, _overlay_path(out, name)):
        if file.resolve() in protected:
            raise InputError(path, f"its mask or overlay would replace the input {file}", "choose another folder")
    write_mask(target, prediction.mask)
    if draw is not None:
        write_image(_overlay_path(out, name), draw(image, prediction.mask))
    state = {**mark, "mask": target.name, "tokens": prediction.tokens, "seconds": prediction.seconds}
    write_json(_state_path(out, name), state)  # written last: only this makes an item finished
    return prediction.seconds


def _finished(out: Path, name: str, mark: dict[str, Any], *, overlay: bool) -> bool:
    try:
        state = json.loads(_state_path(out, name).read_text(encoding="utf-8"))
        same = all(state[k] == json.loads(json.dumps(v)) for k, v in mark.items())
        whole = (_mask_path(out, name, "").parent / state["mask"]).is_file()
        return same and whole and (not overlay or _overlay_path(out, name).is_file())
    except (OSError, ValueError, KeyError, TypeError):  # no state, or none of ours: do it again
        return False


def _mask_path(out: Path, name: str, suffix: str) -> Path:
    return out / f"{name}{suffix}"


def _overlay_path(out: Path, name: str) -> Path:
    return out / OVERLAYS / f"{name}.png"


def _state_path(out: Path, name: str) -> Path:
    return out / STATE / f"{name}.json"


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    try:
        with open(path, "rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    except OSError as error:
        raise InputError(path, f"cannot be read ({error.strerror})", "check the file and its permissions") from None
    return digest.hexdigest()


def _files(inputs: Sequence[str | Path], skip: Path | None) -> Iterator[tuple[str, Path, Path]]:
    """(name of the folder given, path relative to it, path) of every image, each once, sorted within a folder."""
    seen = set()
    for given in map(Path, inputs):
        if not given.exists():
            raise InputError(given, "there is no such file or folder", "check the path")
        paths = sorted(p for p in given.rglob("*") if _is_image(p, skip)) if given.is_dir() else [given]
        for path in paths:
            if path.resolve() not in seen:
                seen.add(path.resolve())
                root = given if given.is_dir() else given.parent
                yield root.resolve().name or "root", path.relative_to(root), path


def _is_image(path: Path, skip: Path | None) -> bool:
    inside = skip is not None and skip.resolve() in path.resolve().parents
    return path.suffix.lower() in SUFFIXES and path.is_file() and not inside


def _distinct(names: list[str], longer: list[str]) -> list[str]:
    """Names, or the longer ones where several would be one (case aside, as some file systems see it)."""
    counts = Counter(n.lower() for n in names)
    return [n if counts[n.lower()] == 1 else m for n, m in zip(names, longer)]
