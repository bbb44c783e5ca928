"""Masks for files and folders of them: what is bad is listed, the rest goes on, what is done is not done again."""

from __future__ import annotations

import errno
import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from patchforest.errors import InputError
from patchforest.infer.inputs import STATE, digest, name_inputs
from patchforest.infer.outputs import Outputs
from patchforest.infer.slide import MEMORY, predict_slide
from patchforest.io.atomic import write_json
from patchforest.io.open import open_image
from patchforest.io.scale import AS_STORED, Scale, at_scale
from patchforest.models.bundle import Bundle, load_model
from patchforest.values import ImageSource

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
    open_source : opens an input; InputError for what it cannot.
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
    protected = frozenset(path.resolve() for path in every.values())
    job = _Job(bundle, fingerprint(bundle), out, outputs or Outputs(), scale, open_source, memory, options, protected)
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
    source = job.open(path)
    image = at_scale(source, job.scale, path)
    shape = (image.shape[0], image.shape[1])
    paths = job.outputs.paths(job.out, name, shape, len(source.levels))
    for file in paths.values():
        if file.resolve() in job.protected:
            raise InputError(path, f"its {file.name} would replace the input {file}", "choose another folder")
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
    state = {
        **mark,
        "status": parts.status,
        "mask": paths["mask"].relative_to(job.out).as_posix(),
        "tokens": parts.tokens,
        "seconds": time.perf_counter() - start,
    }
    write_json(_state_path(job.out, name), state)
    parts.remove()
    return state


def _finished(job: _Job, name: str, mark: dict[str, Any]) -> dict[str, Any] | None:
    """The state of an item that is finished as it is wanted now, or None."""
    try:
        state = json.loads(_state_path(job.out, name).read_text(encoding="utf-8"))
        same = all(state[k] == json.loads(json.dumps(v)) for k, v in mark.items())
        beside = job.outputs.paths(job.out, name, (1, 1), 1)
        files = [job.out / state["mask"], *(path for kind, path in beside.items() if kind != "mask")]
        return state if same and "status" in state and all(file.exists() for file in files) else None
    except (OSError, ValueError, KeyError, TypeError):  # no state, or none of ours: do it again
        return None


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
