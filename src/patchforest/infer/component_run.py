"""Components of mask files and folders of them: a table each, one summary; what is bad is listed, the rest goes on."""

from __future__ import annotations

import csv
import errno
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from patchforest.errors import InputError
from patchforest.infer.components import CONNECTIVITIES, Components, components_of, label_components
from patchforest.infer.gradation import Gradation, Sized, gradations, sized, summary_of
from patchforest.infer.label_file import write_labels
from patchforest.infer.mask_bands import MaskFile, open_mask
from patchforest.infer.shapes import table_header, table_lines
from patchforest.io.atomic import atomic_path, write_json

SUFFIXES = (".png", ".tif", ".tiff", ".npy", ".nii", ".nii.gz", ".nrrd", ".nhdr", ".zarr")
SUMMARY, TABLE, LABELS = "summary.json", "components.csv", "labels.tif"
_PASSED_OVER = ("overlays", "probabilities")  # what `predict` puts among its masks
_FULL = (errno.ENOSPC, errno.EDQUOT)

Tell = Callable[[str], None]


@dataclass(frozen=True)
class ComponentOptions:
    """How to look for components; see ``components_of``.

    Attributes
    ----------
    connectivity : None, or 4, 8 (images), 6, 18, 26 (volumes).
    classes : the only ones that count; empty: all but 0.
    names : of classes, by number.
    min_size : in pixels or voxels.
    mpp : microns a pixel of the images, whatever the files say.
    spacing : millimetres a voxel of the volumes along (plane, row, column), whatever the files say.
    labels : also write every component's number at its pixels.
    """

    connectivity: int | None = None
    classes: tuple[int, ...] = ()
    names: Mapping[int, str] = field(default_factory=dict)
    min_size: int = 1
    mpp: float | None = None
    spacing: tuple[float, float, float] | None = None
    labels: bool = False


@dataclass(frozen=True, eq=False)
class ComponentRun:
    """What became of every mask, by id: measured, or failed with the reason in one line."""

    measured: dict[str, Sized]
    failed: dict[str, str]
    total: tuple[Gradation, ...]
    seconds: float


def measure_masks(
    inputs: Sequence[str | Path], out: str | Path, options: ComponentOptions, *, tell: Tell | None = None
) -> ComponentRun:
    """Find and measure the components of masks; ``out`` gets components.csv, summary.json and, if wanted, labels.tif.

    A single mask has its table and labels in ``out`` itself. Where a folder or several masks are given, each has them
    in ``out/<id>/``: its path relative to the folder given, without suffix. summary.json has every mask's classes
    and those of all masks together.

    Parameters
    ----------
    inputs : mask files and volumes, and folders that are searched for them at any depth (pictures that ``predict`` put
        into ``overlays/`` and hidden folders are passed over).
    tell : receives one line of text a mask.

    Raises
    ------
    InputError : no input at all, or one that does not exist.
    OSError : the disk is full.
    """
    out, start = Path(out), time.time()
    named, alone = _named(inputs, out)
    measured: dict[str, Sized] = {}
    records: list[dict[str, Any]] = []
    failed: dict[str, str] = {}
    for number, (name, path) in enumerate(named.items(), 1):
        begun = time.time()
        folder = out if alone else out / name
        try:
            mask = open_mask(path)
            found, scale = _measure(mask, folder, options, protected=path)
        except (InputError, ValueError, OSError, MemoryError) as error:
            if isinstance(error, OSError) and error.errno in _FULL:
                raise
            failed[name] = str(error) or type(error).__name__
            line = f"failed: {failed[name]}"
        else:
            measured[name] = sized(found, scale)
            grades = gradations([measured[name]], options.names)
            records.append(_record(name, mask, found, scale, folder, out, grades, time.time() - begun))
            line = f"{len(found):,} components, {time.time() - begun:.1f} s"
        if tell is not None:
            tell(" ".join(f"[{number}/{len(named)}] {name}: {line}".split()))
    total = gradations(list(measured.values()), options.names)
    write_json(
        out / SUMMARY,
        {
            "min_size": options.min_size,
            "classes_counted": list(options.classes) or "all",
            "masks": records,
            "failed": failed,
            "total": {"masks": len(measured), "classes": summary_of(total)},
        },
    )
    return ComponentRun(measured, failed, total, time.time() - start)


def write_table(
    path: str | Path,
    found: Components,
    *,
    scale: tuple[float, ...] | None = None,
    names: Mapping[int, str] | None = None,
) -> None:
    """``path`` holds one CSV line a component, in the order of their numbers; columns: ``shapes.table_header``."""
    with atomic_path(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(table_header(len(found.shape)))
        writer.writerows(table_lines(found, scale=scale, names=names or {}))


def _measure(
    mask: MaskFile, folder: Path, options: ComponentOptions, *, protected: Path
) -> tuple[Components, tuple[float, ...] | None]:
    ndim = len(mask.shape)
    if options.connectivity not in (None, *CONNECTIVITIES[ndim]):
        kind = "an image" if ndim == 2 else "a volume"
        what = f"is {kind}, which has no connectivity {options.connectivity}"
        raise InputError(mask.path, what, f"give one of {', '.join(map(str, CONNECTIVITIES[ndim]))}")
    given = options.spacing if ndim == 3 else None if options.mpp is None else (options.mpp, options.mpp)
    scale = mask.scale if given is None else given
    if (folder / LABELS).resolve() == protected.resolve() and options.labels:
        raise InputError(protected, f"would be replaced by its own {LABELS}", "choose another folder")
    found = components_of(
        mask.bands(),
        connectivity=options.connectivity,
        classes=options.classes or None,
        min_size=options.min_size,
    )
    if options.labels:
        write_labels(folder / LABELS, label_components(mask.bands(), found), found.shape)
    write_table(folder / TABLE, found, scale=scale, names=options.names)
    return found, scale


def _record(
    name: str,
    mask: MaskFile,
    found: Components,
    scale: tuple[float, ...] | None,
    folder: Path,
    out: Path,
    grades: tuple[Gradation, ...],
    seconds: float,
) -> dict[str, Any]:
    physical = {"mpp": None if scale is None else scale[0]} if len(found.shape) == 2 else {"spacing_mm": scale}
    return {
        "id": name,
        "path": mask.path,
        "shape": found.shape,
        **physical,
        "connectivity": found.connectivity,
        "count": len(found),
        "seconds": round(seconds, 3),
        "table": (folder / TABLE).relative_to(out),
        "classes": summary_of(grades),
    }


def _named(inputs: Sequence[str | Path], out: Path) -> tuple[dict[str, Path], bool]:
    """Masks by id, in order, each once, and whether a single one was given by its name. InputError: none there."""
    found: dict[Path, tuple[Path, Path]] = {}
    for given in map(Path, inputs):
        if not given.exists():
            raise InputError(given, "there is no such file or folder", "check the path")
        for path in [given] if _is_mask(given) else _below(given, out):
            found.setdefault(path.resolve(), (given, path))
    if not found:
        raise InputError(", ".join(map(str, inputs)) or "inputs", "no mask there", f"give {', '.join(SUFFIXES)} files")
    alone = len(inputs) == 1 and _is_mask(Path(inputs[0]))
    shortest, longer = [], []
    for given, path in found.values():
        relative = Path(path.name) if given == path else path.relative_to(given)
        suffix = next((s for s in SUFFIXES if relative.name.lower().endswith(s)), relative.suffix)
        shortest.append(relative.as_posix()[: len(relative.as_posix()) - len(suffix)] or relative.name)
        longer.append(f"{given.resolve().parent.name if given == path else given.resolve().name}/{relative.as_posix()}")
    counts = Counter(n.lower() for n in shortest)
    named: dict[str, Path] = {}
    for short, long, (_, path) in zip(shortest, longer, found.values(), strict=True):
        name, again = short if counts[short.lower()] == 1 else long.replace(".", "_"), 2
        while name in named:
            name, again = f"{name}-{again}", again + 1
        named[name] = path
    return named, alone


def _is_mask(path: Path) -> bool:
    """Whether something that was given is a mask itself: any file, a Zarr image, the folder of a DICOM series."""
    from patchforest.io.volume import is_volume
    from patchforest.io.zarr import is_zarr

    return not path.is_dir() or is_zarr(path) or is_volume(path)


def _below(folder: Path, out: Path) -> Iterator[Path]:
    """Files and Zarr folders with a known suffix, sorted; nothing in ``out``, hidden or inside a Zarr folder."""
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or path.name in _PASSED_OVER or path.resolve() == out.resolve():
            continue
        if path.is_dir() and path.suffix.lower() != ".zarr":
            if not path.is_symlink():  # a link to a folder above would never end
                yield from _below(path, out)
        elif path.name.lower().endswith(SUFFIXES):
            yield path
