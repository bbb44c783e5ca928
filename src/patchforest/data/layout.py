"""Which files belong together: images and masks of a data set, found in one of three layouts and checked by name.

- *paired*: ``images/`` beside ``masks/`` or ``labels/``, files of the same stem; folders below them are kept in the id.
- *nnunet*: nnU-Net v2, ``dataset.json``, ``imagesTr/CASE_0000.png``, ``labelsTr/CASE.png``, optionally ``imagesTs``.
- *csv*: a manifest with the columns image and label and, where wanted, id, group and split, paths relative to it.

No pixel is read here. Files are paired by stem, never by sort order; what has no partner is an error that names it.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from patchforest.data.classes import read_classes
from patchforest.data.tables import read_csv, read_json, read_text, some
from patchforest.errors import InputError
from patchforest.io.formats import SUFFIXES, stem_of
from patchforest.io.geojson import SUFFIXES as POLYGONS
from patchforest.io.zarr import is_zarr

_LABEL_SUFFIXES = (*SUFFIXES, *POLYGONS)
LAYOUTS = ("paired", "nnunet", "csv")
_LABEL_FOLDERS = ("masks", "labels")
_MANIFESTS = ("manifest.csv", "dataset.csv", "cases.csv")
ID_COLUMNS = ("id", "case", "case_id", "name", "image", "image_id", "image_name", "file", "filename", "stem")
_GROUP_COLUMNS = (
    "group", "patient", "patient_id", "patient id", "subject", "subject_id", "slide", "slide_id", "specimen",
)  # fmt: skip
_SPLITS = {
    "": None, "train": "train", "training": "train", "val": "validation", "valid": "validation",
    "validation": "validation", "test": "test", "testing": "test",
}  # fmt: skip


@dataclass(frozen=True)
class Case:
    """One image and its mask.

    Attributes
    ----------
    id : name, unique in its data set: the image's path below its folder without suffix, ``/`` between folders.
    image, label : the files; label is None where there is no mask.
    group : what must not be torn apart by a split (patient, slide, video), or None.
    split : ``train``, ``validation`` or ``test`` where the data set says so, or None.
    """

    id: str
    image: Path
    label: Path | None
    group: str | None = None
    split: str | None = None


@dataclass(frozen=True)
class CaseList:
    """The cases of a data set in order of id (CSV: in order of the rows).

    Attributes
    ----------
    classes : names of the classes, background first, or None where the data set does not tell.
    layout : ``paired``, ``nnunet`` or ``csv``.
    root : folder of the data set.
    """

    cases: tuple[Case, ...]
    classes: tuple[str, ...] | None
    layout: str
    root: Path


def find_cases(data: str | Path, *, layout: str = "auto", require_labels: bool = True) -> CaseList:
    """The cases of a folder or CSV manifest, in a stated order, each image with its mask.

    Class names come from ``dataset.json`` (``classes``, or nnU-Net's ``labels``), ``dataset.yaml`` (``classes``) or
    ``classes.txt`` (one a line) in the data set's folder. Groups come from a ``group``/``patient`` column of the
    manifest or of any CSV beside the folders that has one, else, for files in folders below images/, from the folder.

    Parameters
    ----------
    layout : ``auto``, or one of ``LAYOUTS`` where a folder could be read in two ways.
    require_labels : False admits images without mask (``label`` None).

    Raises
    ------
    InputError : no layout fits, no images, images or masks without partner, two files of one stem, missing files.
    """
    path = Path(data)
    if layout not in ("auto", *LAYOUTS):
        raise ValueError(f"layout must be auto, {', '.join(LAYOUTS)}; got {layout!r}")
    if not path.exists():
        raise InputError(path, "does not exist", "give the folder of a data set or a CSV manifest")
    chosen = _detect(path) if layout == "auto" else layout
    if chosen == "csv":
        found = _read_manifest(_manifest_of(path), require_labels)
    elif path.is_dir():
        found = (_find_nnunet if chosen == "nnunet" else _find_paired)(path, require_labels)
    else:
        raise InputError(path, "is a file", f"layout {chosen} is a folder")
    if not found.cases:
        raise InputError(path, "holds no cases", f"images may end in {', '.join(SUFFIXES)}")
    return found if any(c.group for c in found.cases) else _with_found_groups(found)


def select_cases(cases: Sequence[Case], list_path: str | Path) -> tuple[Case, ...]:
    """The cases named by a text file (one id a line, ``#`` comments), in its order.

    Raises InputError for ids that are not among ``cases``, ids named twice, and an empty list. A file suffix behind an
    id is tolerated.
    """
    known = {c.id: c for c in cases}
    lines = (line.strip() for line in read_text(Path(list_path)).splitlines())
    ids = [line for line in lines if line and not line.startswith("#")]
    ids = [i if i in known else bare_id(i) for i in ids]
    if not ids:
        raise InputError(list_path, "names no cases", "write one id a line, e.g. " + next(iter(known), "case_001"))
    unknown = [i for i in ids if i not in known]
    if unknown:
        raise InputError(list_path, f"names unknown cases {some(unknown)}", f"known are {some(known)}")
    twice = sorted({i for i in ids if ids.count(i) > 1})
    if twice:
        raise InputError(list_path, f"names cases twice: {some(twice)}", "keep one line each")
    return tuple(known[i] for i in ids)


def read_groups(path: str | Path, cases: Sequence[Case]) -> tuple[Case, ...]:
    """``cases`` with the groups that a CSV gives them: one id column, one group column, found by their names.

    Raises InputError where a column is missing, a case has no row or no group, or rows disagree.
    """
    table = Path(path)
    rows = read_csv(table)
    columns = _group_columns(rows)
    if columns is None:
        what = f"has the columns {some(rows[0]) if rows else 'none'}"
        hint = f"name one column of {some(ID_COLUMNS[:4])} and one of {some(_GROUP_COLUMNS[:3])}"
        raise InputError(table, what, hint)
    groups: dict[str, str] = {}
    for row in rows:
        key, group = bare_id(row[columns[0]]), row[columns[1]]
        if groups.setdefault(key, group) != group:
            raise InputError(table, f"puts {key} into two groups, {groups[key]} and {group}", "keep one row a case")
    missing = [c.id for c in cases if not groups.get(c.id)]
    if missing:
        raise InputError(table, f"gives no {columns[1]} for {some(missing)}", "add a row for each case")
    return tuple(replace(c, group=groups[c.id]) for c in cases)


def _detect(path: Path) -> str:
    if path.is_file():
        return "csv"
    if (path / "imagesTr").is_dir():
        return "nnunet"
    if (path / "images").is_dir():
        return "paired"
    if any((path / name).is_file() for name in _MANIFESTS):
        return "csv"
    if (path / "prepared.json").is_file() or ((path / "settings.json").is_file() and (path / "items").is_dir()):
        hint = "give the folder of the images (`train` alone reads prepared items)"
        raise InputError(path, "holds prepared items, not images", hint)
    seen = some(sorted(p.name for p in path.iterdir() if not p.name.startswith("."))) or "nothing"
    hint = "make images/ and masks/, or imagesTr/ and labelsTr/ with dataset.json, or a CSV with image and label"
    raise InputError(path, f"is no data set we know; it holds {seen}", hint)


def _manifest_of(path: Path) -> Path:
    if path.is_file():
        return path
    for name in _MANIFESTS:
        if (path / name).is_file():
            return path / name
    raise InputError(path, "holds no manifest", f"name it {_MANIFESTS[0]} or give its path")


def _find_paired(root: Path, require_labels: bool) -> CaseList:
    image_folder = root / "images"
    if not image_folder.is_dir():
        raise InputError(root, "has no folder images/", "put the images there")
    folders = [root / name for name in _LABEL_FOLDERS if (root / name).is_dir()]
    if len(folders) > 1:
        raise InputError(root, "has both masks/ and labels/", "keep one of them")
    if not folders and require_labels:
        raise InputError(root, "has no folder masks/ or labels/", "put a mask of the same name there for every image")
    images = _files_by_id(image_folder)
    labels = _files_by_id(folders[0], _LABEL_SUFFIXES) if folders else {}
    if require_labels:
        _require_partners(root, set(images), set(labels), f"images/ and {folders[0].name}/")
    cases = tuple(
        Case(i, path, labels.get(i), group=i.rpartition("/")[0] or None) for i, path in sorted(images.items())
    )
    return CaseList(cases, read_classes(root), "paired", root)


def _find_nnunet(root: Path, require_labels: bool) -> CaseList:
    description = read_json(root / "dataset.json")
    ending, channels = description.get("file_ending"), description.get("channel_names", description.get("modality"))
    if not isinstance(ending, str) or not isinstance(channels, dict):
        hint = 'an nnU-Net v2 dataset.json names both, e.g. ".png" and {"0": "R", "1": "G", "2": "B"}'
        raise InputError(root / "dataset.json", "lacks file_ending or channel_names", hint)
    if ending.lower() not in SUFFIXES:
        raise InputError(root / "dataset.json", f"has file_ending {ending}", f"use one of {', '.join(SUFFIXES)}")
    cases: list[Case] = []
    for part, split in (("Tr", None), ("Ts", "test")):
        images, labels = root / f"images{part}", root / f"labels{part}"
        if not images.is_dir():
            continue
        found = _nnunet_images(images, ending)
        truth = _files_by_id(labels, (ending.lower(),)) if labels.is_dir() else {}
        if require_labels and part == "Tr":
            _require_partners(root, set(found), set(truth), "imagesTr/ and labelsTr/")
        cases += [
            Case(i, path, truth.get(i), split=split)
            for i, path in sorted(found.items())
            if i in truth or not require_labels
        ]
    _require_unique(root, [c.id for c in cases])
    return CaseList(tuple(cases), read_classes(root), "nnunet", root)


def _nnunet_images(folder: Path, ending: str) -> dict[str, Path]:
    """Case → file of ``CASE_0000`` + ending; several files a case are refused."""
    out: dict[str, Path] = {}
    for name, path in _files_by_id(folder, (ending.lower(),)).items():
        case, _, channel = name.rpartition("_")
        if not case or len(channel) != 4 or not channel.isdigit():
            raise InputError(path, "is not named CASE_0000" + ending, "name it by nnU-Net's rule")
        if channel != "0000":
            raise InputError(
                path, "is a further channel file of its case", f"store all channels in one CASE_0000{ending} (RGB)"
            )
        out[case] = path
    return out


def _read_manifest(path: Path, require_labels: bool) -> CaseList:
    rows = read_csv(path)
    columns = set(rows[0]) if rows else set()
    label_column = next((c for c in ("label", "mask") if c in columns), None)
    if "image" not in columns or (label_column is None and require_labels):
        raise InputError(path, f"has the columns {some(sorted(columns)) or 'none'}", "name two columns image and label")
    group_column = next((c for c in _GROUP_COLUMNS if c in columns), None)
    cases, missing = [], []
    for row in rows:
        label = row.get(label_column or "", "")
        for name in (row["image"], *([label] if label else [])):
            if not name or not _is_there(path.parent / name):
                missing.append(name or "(empty)")
        if not label and require_labels:
            raise InputError(path, f"gives no {label_column} for {row['image']}", "add it or leave the row out")
        split = row.get("split", "").lower()
        if split not in _SPLITS:
            raise InputError(path, f"has the split {split!r}", "use train, validation, test or nothing")
        identity = row.get("id") or _default_id(row["image"])
        if PurePosixPath(identity).is_absolute() or {"..", "."} & set(identity.split("/")):
            raise InputError(path, f"has the id {identity!r}, which leads out of a folder", "use plain names")
        group = row.get(group_column or "") or None
        file = path.parent / label if label else None
        cases.append(Case(identity, path.parent / row["image"], file, group, _SPLITS[split]))
    if missing:
        raise InputError(path, f"names files that do not exist: {some(missing)}", "paths are relative to the CSV")
    _require_unique(path, [c.id for c in cases])
    if group_column and any(c.group for c in cases) and not all(c.group for c in cases):
        lacking = some(c.id for c in cases if not c.group)
        raise InputError(path, f"gives no {group_column} for {lacking}", "fill the column or remove it")
    return CaseList(tuple(cases), read_classes(path.parent), "csv", path.parent)


def _is_there(path: Path) -> bool:
    return path.is_file() or is_zarr(path)


def _bare(name: str) -> str:
    """A file's name without its suffix, that of polygons included."""
    polygons = next((s for s in sorted(POLYGONS, key=len, reverse=True) if name.lower().endswith(s)), None)
    return name[: -len(polygons)] if polygons and len(name) > len(polygons) else stem_of(name)


def _default_id(image: str) -> str:
    """A manifest row's id: the image's path without suffix, or only its stem if it lies outside the CSV's folder."""
    path = PurePosixPath(image.replace("\\", "/"))
    outside = path.is_absolute() or ".." in path.parts
    return stem_of(path.name) if outside else str(path.parent / stem_of(path.name))


def _with_found_groups(found: CaseList) -> CaseList:
    """Groups from a CSV in the data set's folder that has an id and a group column and knows the cases."""
    for table in sorted(p for p in found.root.glob("*.csv") if not p.name.startswith(".")):
        rows = read_csv(table)
        columns = _group_columns(rows)
        if columns is not None and {c.id for c in found.cases} & {bare_id(r[columns[0]]) for r in rows}:
            return replace(found, cases=read_groups(table, found.cases))
    return found


def _group_columns(rows: list[dict[str, str]]) -> tuple[str, str] | None:
    """(id column, group column) by the usual names, or None."""
    columns = rows[0] if rows else {}
    identity = next((c for c in ID_COLUMNS if c in columns), None)
    group = next((c for c in _GROUP_COLUMNS if c in columns), None)
    return (identity, group) if identity and group else None


def bare_id(name: str) -> str:
    """An id as a table may write it: without the suffix of an image file and without a leading ``images/``."""
    name = name.replace("\\", "/").removeprefix("images/")
    path = PurePosixPath(name)
    return str(path.parent / stem_of(path.name)) if name.lower().endswith(SUFFIXES) else name


def _files_by_id(folder: Path, suffixes: tuple[str, ...] = SUFFIXES) -> dict[str, Path]:
    """Id → file for every file of these suffixes in or below a folder; InputError for two files of one id."""
    found: dict[str, Path] = {}
    twice: list[str] = []
    for where, folders, files in os.walk(folder):
        folders[:] = sorted(f for f in folders if not f.startswith("."))
        arrays = [f for f in folders if is_zarr(Path(where) / f)]
        folders[:] = [f for f in folders if f not in arrays]
        for name in sorted([*files, *arrays]):
            if name.startswith(".") or not (name in arrays or name.lower().endswith(suffixes)):
                continue
            path = Path(where) / name
            identity = (path.relative_to(folder).parent / _bare(name)).as_posix()
            if identity in found:
                twice.append(f"{found[identity].name} and {name}")
            found[identity] = path
    if twice:
        raise InputError(folder, f"has files of the same stem: {some(twice)}", "keep one of each")
    return found


def _require_partners(root: Path, images: set[str], labels: set[str], what: str) -> None:
    alone = [f"image {i}" for i in sorted(images - labels)] + [f"mask {i}" for i in sorted(labels - images)]
    if alone:
        raise InputError(root, f"{what} do not match: no partner for {some(alone)}", "give both files the same stem")


def _require_unique(path: Path, ids: Sequence[str]) -> None:
    twice = sorted({i for i in ids if ids.count(i) > 1}) if len(set(ids)) < len(ids) else []
    if twice:
        raise InputError(path, f"has cases of the same id: {some(twice)}", "give each its own id")
