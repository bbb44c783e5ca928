"""Masks larger than memory: predicted band by band into parts on disk, from which any interrupted run goes on."""

from __future__ import annotations

import json
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from patchforest.errors import InputError
from patchforest.infer.blend import Enlargement, blended_rows
from patchforest.infer.predict import Seer, class_dtype, hard, num_outputs
from patchforest.infer.windows import MEMORY, Grid, plan_grid
from patchforest.infer.working import Tissue, WorkingImage
from patchforest.io.atomic import atomic_path, remove_leftovers, write_json
from patchforest.models.build import has_fixed_window
from patchforest.models.bundle import Bundle, fingerprint
from patchforest.values import Array, ImageSource

Progress = Callable[[float], None]


@dataclass(frozen=True)
class Parts:
    """A predicted mask in bands on disk.

    Attributes
    ----------
    folder : of the parts.
    shape : (H, W) of the whole mask.
    number : of parts.
    status : ``done``, or ``no-tissue`` for a slide on which nothing was found to look at.
    tokens : leaves read by the network in all.
    seconds : spent on the parts, in all runs together.
    """

    folder: Path
    shape: tuple[int, int]
    number: int
    status: str
    tokens: int
    seconds: float

    def masks(self) -> Iterator[Array]:
        """(n, W) uint8 (uint16 from 257 classes on) bands of class numbers, from the top."""
        return (self._read(k, "mask") for k in range(self.number))

    def probabilities(self) -> Iterator[Array]:
        """(n, W, K) uint8 bands, 255 for probability 1; only of a prediction that was asked to keep them."""
        return (self._read(k, "probability") for k in range(self.number))

    def remove(self) -> None:
        """Delete the parts and their folder."""
        remove_parts(self.folder)

    def _read(self, number: int, name: str) -> Array:
        return _read_part(self.folder, number, name)[name]


def predict_slide(
    bundle: Bundle,
    source: ImageSource,
    folder: Path,
    *,
    path: str | Path = "image",
    mark: Any = None,
    trees: int = 1,
    flips: bool = False,
    window: str | int = "auto",
    precision: str = "fp32",
    tissue: bool | None = None,
    probabilities: bool = False,
    memory: int = MEMORY,
    progress: Progress | None = None,
) -> Parts:
    """The mask of an image of any size, as parts in ``folder``; the same call goes on after an interruption.

    The mask is that of ``infer.predict.predict`` with the same windows, bit for bit, also after interruptions. Held in
    memory are a row of windows' answers (16 bytes a pixel and class of the down-scaled image's width times a window's
    height), one window in the network, and the part that is written.

    Parameters
    ----------
    folder : for the parts; one image each.
    path : the image's name in messages.
    mark : what tells image and model of this job from others (JSON); None: the model's fingerprint. Parts of another
        job, or of other settings, are discarded.
    trees, flips, window, precision : see ``predict``. ``window="auto"`` looks at the whole image at once only
        where that fits ``memory``.
    tissue : leave windows without tissue out, as background; None: as the model was trained.
    probabilities : keep them, 8 bits a pixel and class.
    memory : bytes; see ``MEMORY``.
    progress : told the share that is done.

    Raises
    ------
    InputError : as of ``predict``; and an image of which a row of windows alone needs more than ``memory``.
    """
    start = time.perf_counter()
    working = WorkingImage(source, bundle.spec, path)
    outputs = num_outputs(bundle)
    large = working.enlargement.large[0] * working.enlargement.large[1] / (working.frame[0] * working.frame[1])
    values = large * (1 + (outputs if probabilities else 0))
    fixed = has_fixed_window(bundle.network)
    grid = plan_grid(
        working.frame, window, bundle.spec.window, outputs, memory=memory, values=values, fixed=fixed, path=path
    )
    where = bundle.spec.tissue if tissue is None else tissue
    plan = {"mark": mark, "rows": grid.rows, "columns": grid.columns, "side": grid.side, "tissue": bool(where),
            "probabilities": probabilities, "shape": working.enlargement.large, "trees": trees, "flips": flips,
            "precision": precision, "model": fingerprint(bundle) if mark is None else None}  # fmt: skip
    first = _enter(folder, json.loads(json.dumps(plan)))
    shape, number = working.enlargement.large, len(grid.rows)
    found = working.tissue() if where else None
    status = "no-tissue" if found is not None and not found else "done"
    if first < number:
        seer = Seer(bundle, working, trees=trees, flips=flips, precision=precision)
        _predict_parts(folder, grid, first, seer, found, working.enlargement, outputs, probabilities,
                       start, progress)  # fmt: skip
    told = [_read_part(folder, k, "tokens", "seconds") for k in range(number)]
    tokens, seconds = sum(int(t["tokens"]) for t in told), sum(float(t["seconds"]) for t in told)
    return Parts(folder, shape, number, status, tokens, seconds)


def remove_parts(folder: Path) -> None:
    """Delete the parts in a folder, and it; nothing where there is none."""
    if folder.is_dir():
        for path in [*folder.glob("part-*.npz"), folder / "plan.json"]:
            path.unlink(missing_ok=True)
        remove_leftovers(folder)
        folder.rmdir()


def _predict_parts(
    folder: Path,
    grid: Grid,
    first: int,
    seer: Seer,
    tissue: Tissue | None,
    enlargement: Enlargement,
    outputs: int,
    probabilities: bool,
    start: float,
    progress: Progress | None,
) -> None:
    """Write the parts from number ``first`` on."""
    begin = grid.rows[first]
    lead = next(k for k, row in enumerate(grid.rows) if row + grid.side[0] > begin - 1)  # all that reach that far
    windows = [region for k in range(lead, len(grid.rows)) for region in grid.row(k)]
    rows = blended_rows(grid, seer.answers(windows, tissue), outputs, begin=lead)
    bands = enlargement.bands(rows, begin=begin)
    ends = [enlargement.end(row) for row in grid.rows[1:]] + [enlargement.large[0]]
    top, tokens = enlargement.end(begin), 0
    for number in range(first, len(ends)):
        mask = np.empty((ends[number] - top, enlargement.large[1]), class_dtype(outputs))
        shares = np.empty((*mask.shape, outputs), np.uint8) if probabilities else None
        filled = 0
        while filled < len(mask):
            at, band = next(bands)
            box = slice(at - top, at - top + band.shape[1])
            mask[box] = hard(band)
            if shares is not None:
                shares[box] = np.rint(band * 255).astype(np.uint8).transpose(1, 2, 0)
            filled = box.stop
        now = time.perf_counter()
        _write_part(folder, number, mask, shares, seer.tokens - tokens, now - start)
        top, tokens, start = ends[number], seer.tokens, now
        if progress is not None:
            progress((number + 1) / len(ends))


def _enter(folder: Path, plan: Any) -> int:
    """Make the folder of a plan, or find how many of its parts are there; those of another plan are removed."""
    folder.mkdir(parents=True, exist_ok=True)
    remove_leftovers(folder)
    try:
        same = json.loads((folder / "plan.json").read_text(encoding="utf-8")) == plan
    except (OSError, ValueError):
        same = False
    parts = sorted(folder.glob("part-*.npz"))
    if not same:
        for path in parts:
            path.unlink()
        write_json(folder / "plan.json", plan)
        return 0
    whole = 0
    while whole < len(plan["rows"]) and _is_whole(folder, whole):
        whole += 1
    return whole


def _part(folder: Path, number: int) -> Path:
    return folder / f"part-{number:06d}.npz"


def _write_part(folder: Path, number: int, mask: Array, shares: Array | None, tokens: int, seconds: float) -> None:
    arrays = {"mask": mask, "tokens": np.int64(tokens), "seconds": np.float64(seconds)}
    if shares is not None:
        arrays["probability"] = shares
    with (
        atomic_path(_part(folder, number)) as temporary,
        zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
    ):
        for name, value in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array(file, np.asarray(value), allow_pickle=False)


def _is_whole(folder: Path, number: int) -> bool:
    try:
        with zipfile.ZipFile(_part(folder, number)) as archive:
            return archive.testzip() is None
    except Exception:  # zipfile on damaged bytes raises BadZipFile, zlib.error, NotImplementedError, RuntimeError, ...
        return False


def _read_part(folder: Path, number: int, *names: str) -> dict[str, Array]:
    """The arrays of these names in a part; the archive has their checksums."""
    path = _part(folder, number)
    try:
        with np.load(path, allow_pickle=False) as held:
            found = {name: held[name] for name in names}
        if not all(isinstance(value, np.ndarray) for value in found.values()):  # NumPy gives other members as bytes
            raise ValueError("an array in it has lost its header")
        return found
    except Exception as fault:  # NumPy on damaged bytes raises BadZipFile, zlib.error, TokenError, KeyError, ...
        raise InputError(path, f"is damaged ({fault})", "delete it and run the same command again") from fault
