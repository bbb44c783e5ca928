"""Masks for files and folders of them: what is bad is listed, the rest goes on, what is done is not done again."""

from __future__ import annotations

import errno
import json
import math
import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from patchforest.errors import InputError
from patchforest.infer.inputs import OURS, STATE, digest, name_inputs, real_path
from patchforest.infer.options import PredictOptions
from patchforest.infer.outputs import Outputs
from patchforest.infer.slide import predict_slide, remove_parts
from patchforest.infer.volume import predict_volume
from patchforest.infer.volume_outputs import VolumeOutputs
from patchforest.infer.windows import MEMORY
from patchforest.infer.working import hold
from patchforest.io.atomic import remove_leftovers, write_json
from patchforest.io.atomic_folder import remove_leftover_folders
from patchforest.io.lock import locked
from patchforest.io.open import open_image
from patchforest.io.scale import AS_STORED, Scale, at_scale
from patchforest.io.volume import is_volume, open_volume
from patchforest.io.volume_array import ArrayVolume
from patchforest.models.bundle import Bundle, fingerprint, load_model
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
    options: PredictOptions
    protected: frozenset[Path]
    overwrite: bool
    spacing: tuple[float, float, float] | None

    def mark(self, path: Path) -> dict[str, Any]:
        """What a finished mask is told by; the memory decides only with ``window="auto"``."""
        looks = {**asdict(self.options), "scale": asdict(self.scale), "memory": self.memory}
        asked = {"format": self.outputs.format, **looks}
        if self.spacing is not None:
            asked["spacing"] = self.spacing
        return {"input": digest(path), "model": self.fingerprint, "options": asked}


def predict_many(
    model: Bundle | str | Path,
    inputs: Sequence[str | Path],
    out: str | Path,
    *,
    outputs: Outputs | None = None,
    scale: Scale = AS_STORED,
    spacing: tuple[float, float, float] | None = None,
    shard: tuple[int, int] = (1, 1),
    memory: int = MEMORY,
    open_source: Open = open_image,
    open_volume_source: Callable[[Path], VolumeSource] = open_volume,
    overwrite: bool = False,
    trees: int = 1,
    flips: bool = False,
    window: str | int = "auto",
    precision: str = "fp32",
    tissue: bool | None = None,
    tell: Tell | None = None,
    progress: Callable[[str, float], None] | None = None,
) -> Summary:
    """Write ``out/<id>.png`` or ``.tif`` (class numbers at the image's size) for every image, and what else is wanted.

    Ids are those of ``name_inputs``. A finished mask of the same input, model and options is skipped, unless a file
    that is wanted beside it is absent or has changed its size. One that was interrupted goes on; one that another
    process is at is waited for. Only files that were written here before are replaced, or any with ``overwrite``, but
    never an input. ``out/predictions.json`` lists what became of every input.

    Parameters
    ----------
    inputs : image files, slides, Zarr folders, and folders that are searched for them at any depth.
    outputs : what to write; see ``Outputs``.
    scale : the view of every image that is predicted, and that its mask has the size of; as stored: of a model that was
        trained at a stored level, that level.
    spacing : millimetres (plane, row, column) of volumes whose file does not say.
    shard : (i, n): only every n-th input from the i-th on, 1 ≤ i ≤ n.
    memory : bytes; see ``infer.slide.MEMORY``.
    open_source, open_volume_source : open an image, and a volume; InputError for what they cannot.
    overwrite : do finished ones again.
    trees, flips, window, precision, tissue : see ``infer.slide.predict_slide``.
    tell : receives one line of text an input.
    progress : told the id that is being worked on and the share of it that is done.

    Raises
    ------
    InputError : no input at all, or one that does not exist; an ``out`` that is no folder, or one of the inputs.
    OSError : the disk is full.
    """
    bundle, out, start = (load_model(Path(model)) if isinstance(model, str | Path) else model), Path(out), time.time()
    if scale == AS_STORED and bundle.spec.level is not None:
        scale = Scale(level=bundle.spec.level)
    if spacing is not None and not all(0 < s < math.inf for s in spacing):
        raise ValueError(f"spacing must be three lengths in millimetres; got {spacing}")
    if any(Path(given).is_dir() and real_path(Path(given)) == real_path(out) for given in inputs):
        raise InputError(out, "is a folder of inputs, which outputs would join", "choose another folder for them")
    every = name_inputs(inputs, skip=out)
    named = dict(list(every.items())[shard[0] - 1 :: shard[1]])
    protected = frozenset(real_path(path) for path in every.values())
    options = PredictOptions(trees=trees, flips=flips, window=window, precision=precision, tissue=tissue)
    job = _Job(bundle, fingerprint(bundle), out, outputs or Outputs(), scale, open_source, open_volume_source,
               memory, options, protected, overwrite, spacing)  # fmt: skip
    _require_folder(out)
    _clean(out, named)
    done, skipped, failed, empty = [], [], {}, []
    for number, (name, path) in enumerate(named.items(), 1):
        try:
            mark = job.mark(path)
            lock = _state_path(out, name).with_suffix(".lock")
            lock.parent.mkdir(parents=True, exist_ok=True)
            with locked(lock, wait=True):
                state = None if overwrite else _finished(job, name, mark)
                found, line = state is not None, "there already"
                if state is None:
                    state = _one(job, name, path, mark, progress)
                remove_parts(_parts_path(out, name))
            if not found:
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
            line = "failed"
        if tell is not None and line != "there already":
            tell(" ".join(f"[{number}/{len(named)}] {name}: {line}".split()))
    summary = Summary(tuple(done), tuple(skipped), failed, tuple(empty), time.time() - start)
    _write_summary(out, named, summary, shard)
    return summary


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
    if job.outputs.format in (".nii.gz", ".nrrd"):
        raise InputError(path, "is an image, and the format asked for holds volumes", "use --format auto, png or tiff")
    paths = job.outputs.paths(job.out, name, shape, flat=len(source.levels) == 1 and image.mpp is None)
    _protect(job, name, path, paths)
    parts = predict_slide(
        job.bundle,
        image,
        _parts_path(job.out, name),
        path=path,
        mark=mark,
        probabilities=job.outputs.needs_probabilities,
        memory=job.memory,
        progress=None if progress is None else lambda share: progress(name, share),
        trees=job.options.trees,
        flips=job.options.flips,
        window=job.options.window,
        precision=job.options.precision,
        tissue=job.options.tissue,
    )
    told = None if progress is None else partial(progress, f"{name}, writing")
    job.outputs.write(paths, parts, image, job.bundle.spec.classes, told)
    return _finish(job, name, mark, paths, parts.status, parts.tokens, start)


def _one_volume(job: _Job, name: str, path: Path, mark: dict[str, Any]) -> dict[str, Any]:
    """As ``_one``, of a volume; it is held in memory."""
    start, spec = time.perf_counter(), job.bundle.spec
    if spec.mpp is not None:
        what = f"is a volume, and the model reads images at {spec.mpp:g} microns per pixel"
        raise InputError(path, what, "use a model of volumes, or of images without a scale")
    if job.scale != AS_STORED:
        hint = "leave --level, --mpp, --mag and --input-mpp out"
        raise InputError(path, "is a volume, which has no levels and no microns", hint)
    volume = job.open_volume(path)
    if volume.spacing is None and job.spacing is not None:
        volume = ArrayVolume(volume.read(), path, spacing=job.spacing)
    outputs = VolumeOutputs(job.outputs)
    paths = outputs.paths(job.out, name, volume, path)
    _protect(job, name, path, paths)
    try:
        prediction = predict_volume(
            job.bundle,
            volume,
            probabilities=job.outputs.probabilities,
            trees=job.options.trees,
            flips=job.options.flips,
            window=job.options.window,
            precision=job.options.precision,
        )
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


def _protect(job: _Job, name: str, path: Path, paths: dict[str, Path]) -> None:
    """Claim the files to be written; InputError where one is an input, or was not written by us."""
    ours = job.overwrite or _state_path(job.out, name).exists() or _parts_path(job.out, name).exists()
    for file in paths.values():
        if real_path(file) in job.protected:
            raise InputError(path, f"its {file.name} would replace the input {file}", "choose another folder")
        if not ours and os.path.lexists(file):
            hint = "choose another folder, or give --overwrite"
            raise InputError(file, "is there, and was not written by this command", hint)
    write_json(_state_path(job.out, name), {"status": "begun"})


def _finish(
    job: _Job, name: str, mark: dict[str, Any], paths: dict[str, Path], status: str, tokens: int, start: float
) -> dict[str, Any]:
    """Write the state of an item, which makes it finished."""
    state = {
        **mark,
        "status": status,
        "files": {kind: path.relative_to(job.out).as_posix() for kind, path in paths.items()},
        "sizes": {kind: _size(path) for kind, path in paths.items()},
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
        wanted = {kind: job.outputs.polygons if kind == "polygons" else None for kind in job.outputs.beside}
        files = {kind: state["files"][kind] for kind in ("mask", *wanted)}
        whole = all(_size(job.out / file) == state["sizes"][kind] for kind, file in files.items())
        whole = whole and all(suffix is None or files[kind].endswith(suffix) for kind, suffix in wanted.items())
        return state if same and "status" in state and whole else None
    except (OSError, ValueError, KeyError, TypeError):  # no state, or none of ours: do it again
        return None


def _require_folder(out: Path) -> None:
    """Make the folder of the outputs; InputError where it cannot be one."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as fault:
        what = f"cannot be a folder for outputs ({fault.strerror})"
        raise InputError(out, what, "choose one that you may write to") from fault


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


def _size(path: Path) -> int | None:
    """Bytes of a file; None for a folder. OSError for neither."""
    about = path.stat()
    return None if path.is_dir() else about.st_size


def _parts_path(out: Path, name: str) -> Path:
    return out / STATE / f"{name}.parts"


def _state_path(out: Path, name: str) -> Path:
    return out / STATE / f"{name}.json"
