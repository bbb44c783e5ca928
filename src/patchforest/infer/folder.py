"""Masks for files and folders of them: what is bad is listed, the rest goes on, what is done is not done again."""

from __future__ import annotations

import errno
import hashlib
import json
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from patchforest.errors import InputError
from patchforest.infer.inputs import OURS, STATE, digest, name_inputs, real_path
from patchforest.infer.outputs import Outputs
from patchforest.infer.slide import MEMORY, predict_slide
from patchforest.infer.volume import predict_volume
from patchforest.infer.volume_outputs import VolumeOutputs
from patchforest.infer.working import hold
from patchforest.io.atomic import remove_leftovers, write_json
from patchforest.io.atomic_folder import remove_leftover_folders
from patchforest.io.open import open_image
from patchforest.io.scale import AS_STORED, Scale, at_scale
from patchforest.io.volume import is_volume, open_volume
from patchforest.models.bundle import Bundle, load_model
from patchforest.values import ImageSource, VolumeSource

FULL = (errno.ENOSPC, errno.EDQUOT)

Tell = Callable[[str], None]
Open = Callable[[Path], ImageSource]


@dataclass(frozen=True)
class Summary:
    """What became of every input, by id: masks written, found finished, or failed with the reason in one line.

    ``empty`` are those of ``done`` and ``skipped`` on which no tissue was found, so that their masks are empty.
    """

    done: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()
    failed: dict[str, str] = field(default_factory=dict)
    empty: tuple[str, ...] = ()
    seconds: float = 0.0


@dataclass(frozen=True)
class _Job:
    """One model and one way to use it, for all inputs."""

    bundle: Bundle
    fingerprint: str
    out: Path
    outputs: Outputs
    scale: Scale
    open: Open
    open_volume: Callable[[Path], VolumeSource]
    memory: int
    options: dict[str, Any]
    protected: frozenset[Path]

    def mark(self, path: Path) -> dict[str, Any]:
        """What a finished mask is told by; the memory decides only with ``window="auto"``."""
        asked = {"format": self.outputs.format, "scale": asdict(self.scale), "memory": self.memory, **self.options}
        return {"input": digest(path), "model": self.fingerprint, "options": asked}


def predict_many(
    model: Bundle | str | Path,
    inputs: Sequence[str | Path],
    out: str | Path,
    *,
    outputs: Outputs | None = None,
    scale: Scale = AS_STORED,
    shard: tuple[int, int] = (1, 1),
    memory: int = MEMORY,
    open_source: Open = open_image,
    open_volume_source: Callable[[Path], VolumeSource] = open_volume,
    overwrite: bool = False,
    tell: Tell | None = None,
    progress: Callable[[str, float], None] | None = None,
    **options: Any,
) -> Summary:
    """Write ``out/<id>.png`` or ``.tif`` (class numbers at the image's size) for every image, and what else is wanted.

    Ids are those of ``name_inputs``. A finished mask of the same input, model and options is skipped, unless a file
    that is wanted beside it is absent. One that was interrupted goes on. An image is never replaced by its own mask:
    such an item fails. ``out/predictions.json`` lists what became of every input.

    Parameters
    ----------
    inputs : image files, slides, Zarr folders, and folders that are searched for them at any depth.
    outputs : what to write; see ``Outputs``.
    scale : the view of every image that is predicted, and that its mask has the size of.
    shard : (i, n): only every n-th input from the i-th on, 1 ≤ i ≤ n.
    memory : bytes; see ``infer.slide.MEMORY``.
    open_source, open_volume_source : open an image, and a volume; InputError for what they cannot.
    overwrite : do finished ones again.
    tell : receives one line of text an input.
    progress : told the id that is being worked on and the share of it that is done.
    options : ``trees``, ``flips``, ``window``, ``precision`` and ``tissue`` of ``infer.slide.predict_slide``.

    Raises
    ------
    InputError : no input at all, or one that does not exist.
    OSError : the disk is full.
    """
    bundle, out, start = (load_model(Path(model)) if isinstance(model, str | Path) else model), Path(out), time.time()
    every = name_inputs(inputs, skip=out)
    named = dict(list(every.items())[shard[0] - 1 :: shard[1]])
    protected = frozenset(real_path(path) for path in every.values())
    job = _Job(bundle, fingerprint(bundle), out, outputs or Outputs(), scale, open_source, open_volume_source,
               memory, options, protected)  # fmt: skip
    _clean(out, named)
    done, skipped, failed, empty = [], [], {}, []
    for number, (name, path) in enumerate(named.items(), 1):
        try:
            mark = job.mark(path)
            state = None if overwrite else _finished(job, name, mark)
            line = "there already"
            if state is None:
                state = _one(job, name, path, mark, progress)
                line = f"{state['seconds']:.1f} s" + (", no tissue" if state["status"] == "no-tissue" else "")
                done.append(name)
            else:
                skipped.append(name)
            if state["status"] == "no-tissue":
                empty.append(name)
        except (InputError, ValueError, OSError, MemoryError) as error:
            if isinstance(error, OSError) and error.errno in FULL:
                raise
            failed[name] = str(error) or type(error).__name__
            line = f"failed: {failed[name]}"
        if tell is not None and line != "there already":
            tell(" ".join(f"[{number}/{len(named)}] {name}: {line}".split()))
    summary = Summary(tuple(done), tuple(skipped), failed, tuple(empty), time.time() - start)
    _write_summary(out, named, summary, shard)
    return summary


def fingerprint(bundle: Bundle) -> str:
    """SHA-256 over a model's specification and weights: two models with one fingerprint give one mask."""
    state = hashlib.sha256(repr(bundle.spec).encode())
    for name, value in bundle.network.state_dict().items():
        state.update(name.encode())
        state.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return state.hexdigest()


def _one(
    job: _Job, name: str, path: Path, mark: dict[str, Any], progress: Callable[[str, float], None] | None
) -> dict[str, Any]:
    """Predict and write one image; its state, which is written last: only that makes an item finished."""
    start = time.perf_counter()
    if is_volume(path) and not _is_image_array(path, job.bundle):
        return _one_volume(job, name, path, mark)
    source = hold(job.open(path), job.memory, path)
    image = at_scale(source, job.scale, path)
    shape = (image.shape[0], image.shape[1])
    paths = job.outputs.paths(job.out, name, shape, len(source.levels))
    _protect(job, path, paths)
    parts = predict_slide(
        job.bundle,
        image,
        job.out / STATE / f"{name}.parts",
        path=path,
        mark=mark,
        probabilities=job.outputs.needs_probabilities,
        memory=job.memory,
        progress=None if progress is None else lambda share: progress(name, share),
        **job.options,
    )
    job.outputs.write(paths, parts, image, job.bundle.spec.classes)
    state = _finish(job, name, mark, paths, parts.status, parts.tokens, start)
    parts.remove()
    return state


def _one_volume(job: _Job, name: str, path: Path, mark: dict[str, Any]) -> dict[str, Any]:
    """As ``_one``, of a volume; it is held in memory."""
    start = time.perf_counter()
    if job.scale != AS_STORED:
        raise InputError(path, "is a volume, which has no levels and no microns", "leave --level, --mpp and --mag out")
    volume = job.open_volume(path)
    outputs = VolumeOutputs(job.outputs)
    paths = outputs.paths(job.out, name, volume, path)
    _protect(job, path, paths)
    asked = {k: v for k, v in job.options.items() if k != "tissue"}
    try:
        prediction = predict_volume(job.bundle, volume, probabilities=job.outputs.probabilities, **asked)
    except InputError as error:
        raise InputError(path, error.what, error.hint) from None
    outputs.write(paths, prediction, volume)
    return _finish(job, name, mark, paths, "done", prediction.tokens, start)


def _is_image_array(path: Path, bundle: Bundle) -> bool:
    """Whether an array (H, W, C) could be a volume as well, and is not for this model."""
    spec = bundle.spec.model
    if spec.spatial == 3 or path.suffix.lower() != ".npy":
        return False
    shape = open_volume(path).shape
    return shape[3] == 1 and shape[2] == spec.channels


def _protect(job: _Job, path: Path, paths: dict[str, Path]) -> None:
    """InputError where a file to be written is one of the inputs."""
    for file in paths.values():
        if real_path(file) in job.protected:
            raise InputError(path, f"its {file.name} would replace the input {file}", "choose another folder")


def _finish(
    job: _Job, name: str, mark: dict[str, Any], paths: dict[str, Path], status: str, tokens: int, start: float
) -> dict[str, Any]:
    """Write the state of an item, which makes it finished."""
    state = {
        **mark,
        "status": status,
        "files": {kind: path.relative_to(job.out).as_posix() for kind, path in paths.items()},
        "tokens": tokens,
        "seconds": time.perf_counter() - start,
    }
    write_json(_state_path(job.out, name), state)
    return state


def _finished(job: _Job, name: str, mark: dict[str, Any]) -> dict[str, Any] | None:
    """The state of an item that is finished as it is wanted now, or None."""
    try:
        state = json.loads(_state_path(job.out, name).read_text(encoding="utf-8"))
        same = all(state[k] == json.loads(json.dumps(v)) for k, v in mark.items())
        there = {kind: (job.out / file).exists() for kind, file in state["files"].items()}
        whole = all(there.get(kind, False) for kind in ("mask", *job.outputs.beside))
        return state if same and "status" in state and whole else None
    except (OSError, ValueError, KeyError, TypeError):  # no state, or none of ours: do it again
        return None


def _clean(out: Path, names: Iterable[str]) -> None:
    """Remove what killed writers left where outputs go."""
    places = {(place / name).parent for name in names for place in (out, *(out / kind for kind in OURS))}
    for place in sorted(places):
        remove_leftovers(place)
        remove_leftover_folders(place)


def _write_summary(out: Path, named: dict[str, Path], summary: Summary, shard: tuple[int, int]) -> None:
    """``predictions.json``, or one of its own for every shard."""
    name = "predictions.json" if shard[1] == 1 else f"predictions-{shard[0]}-of-{shard[1]}.json"
    items = {
        key: {"input": str(path), "status": "failed", "reason": summary.failed[key]}
        if key in summary.failed
        else {"input": str(path), "status": "no-tissue" if key in summary.empty else "done"}
        for key, path in named.items()
    }
    write_json(out / name, {"done": len(named) - len(summary.failed), "failed": len(summary.failed), "items": items})


def _state_path(out: Path, name: str) -> Path:
    return out / STATE / f"{name}.json"
