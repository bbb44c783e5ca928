"""What a folder of prepared items says of itself: its settings, written first, and its manifest, written last.

    settings.json   what shapes the items; a job of other settings is refused by name
    items/          one file an item (``data.prepared``)
    parts/          of an unfinished array of jobs: what each finished part says of its cases
    prepared.json   every case in order, its files with their checksums, or why it failed: only this makes it finished

All JSON here carries the SHA-256 of its own file, like the items.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from patchforest.data.layout import Case, CaseList
from patchforest.data.prepare_item import input_prints
from patchforest.data.prepared import (
    ZEROS,
    PrepareSettings,
    check_item,
    item_name,
    seal,
    setting_differences,
    unseal,
)
from patchforest.data.tables import some
from patchforest.errors import InputError
from patchforest.io.atomic import write_bytes

SETTINGS, MANIFEST, ITEMS, PARTS = "settings.json", "prepared.json", "items", "parts"
_MARK = rb'^\{\n "sha256": "'
_AGAIN = "run the same `patchforest prepare` again"


@dataclass(frozen=True)
class PreparedCase:
    """A case of a prepared folder: checksum of its items by variant, or why there are none; prints of its inputs."""

    case: Case
    sha256: tuple[str, ...] = ()
    failed: str | None = None
    inputs: Mapping[str, dict[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class Prepared:
    """A finished folder of prepared items.

    Attributes
    ----------
    settings : ``PrepareSettings.named`` of the items.
    cases : in the order of the data set. ``Case.image`` is the file of variant 0.
    layout : of the data set.
    variants : items a case.
    sha256 : of the manifest; changes when any item does.
    """

    root: Path
    settings: dict[str, Any]
    cases: tuple[PreparedCase, ...]
    layout: str
    variants: int
    sha256: str

    @property
    def case_list(self) -> CaseList:
        """All cases, failed ones too, so that they are split as those of the images are."""
        cases = tuple(c.case for c in self.cases)
        return CaseList(cases, tuple(self.settings["data.classes"]), self.layout, self.root)

    @property
    def channels(self) -> int:
        """Of the images the items were made from."""
        return int(self.settings["model.channels"])

    @property
    def num_failed(self) -> int:
        """Cases that could not be prepared; they are split as the others are, then left out."""
        return sum(c.failed is not None for c in self.cases)

    def of(self, cases: Sequence[Case]) -> list[PreparedCase]:
        """The prepared ones of some cases."""
        by_id = {c.case.id: c for c in self.cases}
        return [by_id[c.id] for c in cases if by_id[c.id].failed is None]


def is_prepared(path: str | Path) -> bool:
    """Whether a folder holds prepared items, finished or not."""
    root = Path(path)
    return (root / MANIFEST).is_file() or ((root / SETTINGS).is_file() and (root / ITEMS).is_dir())


def enter_folder(out: Path, settings: PrepareSettings) -> None:
    """Make a folder for items of these settings, or make sure that the one there is; InputError names what differs."""
    path = out / SETTINGS
    strangers = [p.name for p in out.iterdir() if not p.name.startswith(".")] if out.is_dir() else []
    if not path.exists():
        if strangers:
            raise InputError(out, f"holds other files already, e.g. {min(strangers)}", "choose an empty folder")
        write_sealed(path, {"settings": settings.named(), "seed": settings.seed})
    found = read_sealed(path)
    changed = setting_differences(found["settings"], settings.named())
    changed += [] if found["seed"] == settings.seed else [f"train.seed: {found['seed']} → {settings.seed}"]
    if changed:
        what = f"holds items of other settings ({some(changed)})"
        raise InputError(out, what, "use the same settings to go on, or another folder")


def part_path(out: Path, part: tuple[int, int]) -> Path:
    """Where a part of an array leaves its entries."""
    return out / PARTS / f"{part[0]}-of-{part[1]}.json"


def finish(
    out: Path,
    found: CaseList,
    settings: PrepareSettings,
    variants: int,
    entries: Mapping[str, dict[str, Any]],
    part: tuple[int, int],
    lists: Mapping[str, str] | None = None,
) -> bool:
    """Write the manifest if every case is accounted for, else this part's entries; whether it is written.

    Entries come from the manifest that is there, from the other parts, and from ``entries``, the last one counting.
    ``lists`` are the SHA-256 of the data set's own lists that were copied along.
    """
    known: dict[str, dict[str, Any]] = {}
    if (out / MANIFEST).exists():
        with suppress(InputError):  # a damaged manifest is written anew, from the items
            known |= {c["id"]: c for c in read_sealed(out / MANIFEST)["cases"]}
    for path in sorted((out / PARTS).glob("*.json")):
        with suppress(InputError):
            known |= read_sealed(path)["entries"]
    known |= entries
    if any(not _is_settled(known.get(c.id), variants) for c in found.cases):
        _forget(out, entries, keep=part_path(out, part))
        write_sealed(part_path(out, part), {"entries": dict(entries)})
        return False
    cases = [
        {"id": c.id, "group": c.group, "split": c.split, **_outcome_of(known[c.id], variants)} for c in found.cases
    ]
    content = {"format": 1, "layout": found.layout, "variants": variants, "settings": settings.named()}
    write_sealed(out / MANIFEST, {**content, "seed": settings.seed, "lists": dict(lists or {}), "cases": cases})
    for path in (out / PARTS).glob("*.json"):
        path.unlink(missing_ok=True)
    with suppress(OSError):
        (out / PARTS).rmdir()
    return True


def _forget(out: Path, ids: Iterable[str], keep: Path) -> None:
    """Take cases out of what other parts said of them: the last word counts, whatever the number of parts was."""
    gone = set(ids)
    for path in sorted((out / PARTS).glob("*.json")):
        if path == keep:
            continue
        try:
            before = read_sealed(path)["entries"]
        except InputError:  # damaged: its cases are asked for again
            before = {}
        rest = {name: entry for name, entry in before.items() if name not in gone}
        if not rest:
            path.unlink(missing_ok=True)
        elif len(rest) < len(before):
            write_sealed(path, {"entries": rest})


def read_manifest(path: str | Path) -> Prepared:
    """A finished prepared folder; InputError where it is unfinished, damaged or of another version."""
    root = Path(path)
    if not (root / MANIFEST).exists():
        raise InputError(root, "is not finished: it has no prepared.json", _AGAIN)
    raw = read_sealed(root / MANIFEST)
    try:
        if raw["format"] != 1:
            raise InputError(root, f"has the format {raw['format']}, this version reads 1", "prepare it anew")
        cases = tuple(_prepared_case(root, c) for c in raw["cases"])
        settings, variants = dict(raw["settings"]), int(raw["variants"])
        return Prepared(root, settings, cases, str(raw["layout"]), variants, str(raw["sha256"]))
    except (KeyError, TypeError) as error:
        raise InputError(root / MANIFEST, f"lacks {error}", "prepare it anew") from None


def verify_prepared(path: str | Path, inputs: Sequence[Case] | None = None) -> list[InputError]:
    """Everything that is wrong with a prepared folder, every byte of it having been read; [] where nothing is.

    Parameters
    ----------
    inputs : the cases of the data set it was made from; those whose files have changed since are reported too.
    """
    root = Path(path)
    if not is_prepared(root):
        raise InputError(root, "is no folder of prepared items", "give the folder that `patchforest prepare` wrote")
    faults: list[InputError] = []
    cases: tuple[PreparedCase, ...] = ()
    lists: dict[str, str] = {}
    for name in (SETTINGS, MANIFEST):
        try:
            if not (root / name).exists():
                raise InputError(root / name, "is missing", _AGAIN)
            lists = read_sealed(root / name).get("lists", lists)
            cases = read_manifest(root).cases if name == MANIFEST else cases
        except InputError as error:
            faults.append(error)
    for name, sha256 in lists.items():
        if not (root / name).is_file() or hashlib.sha256((root / name).read_bytes()).hexdigest() != sha256:
            faults.append(InputError(root / name, "is missing or was changed since it was copied", _AGAIN))
    listed = {root / ITEMS / item_name(c.case.id, v): sha256 for c in cases for v, sha256 in enumerate(c.sha256)}
    files = {**dict.fromkeys(sorted((root / ITEMS).glob("[!.]*"))), **listed}
    with ThreadPoolExecutor(min(8, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 2)) as pool:
        faults += filter(None, pool.map(lambda pair: _fault_of(*pair), files.items()))
    return faults + (_changed_inputs(cases, inputs) if inputs is not None else [])


def write_sealed(path: Path, value: Mapping[str, Any]) -> None:
    """JSON with the SHA-256 of its file in front; not written where the same bytes are there already."""
    text = json.dumps({"sha256": ZEROS.decode(), **value}, indent=1) + "\n"
    data = seal(text.encode(), _MARK)
    if not (path.is_file() and path.read_bytes() == data):
        write_bytes(path, data)


def read_sealed(path: Path) -> dict[str, Any]:
    """What ``write_sealed`` wrote; InputError where a single bit differs."""
    try:
        data = path.read_bytes()
        unseal(data, _MARK)
        return json.loads(data)
    except OSError as error:
        raise InputError(path, f"cannot be read ({error.strerror})", "check the file and its permissions") from None
    except ValueError as error:
        raise InputError(path, str(error), f"if patchforest wrote it, delete it and {_AGAIN}") from None


def _is_settled(entry: dict[str, Any] | None, variants: int) -> bool:
    return entry is not None and ("failed" in entry or len(entry["files"]) >= variants)


def _outcome_of(entry: dict[str, Any], variants: int) -> dict[str, Any]:
    """The part of an entry that tells how a case ended."""
    if "failed" in entry:
        return {"failed": entry["failed"]}
    return {"inputs": entry["inputs"], "files": entry["files"][:variants]}


def _prepared_case(root: Path, raw: dict[str, Any]) -> PreparedCase:
    case = Case(raw["id"], root / ITEMS / item_name(raw["id"], 0), None, raw["group"], raw["split"])
    checksums = tuple(f["sha256"] for f in sorted(raw.get("files", ()), key=lambda f: f["variant"]))
    return PreparedCase(case, checksums, raw.get("failed"), raw.get("inputs", {}))


def _fault_of(path: Path, sha256: str | None) -> InputError | None:
    """What is wrong with an item's file; ``sha256`` is what the manifest says of it, None where it says nothing."""
    try:
        header = check_item(path)
    except InputError as error:
        return (
            error if sha256 is not None else InputError(path, error.what, "delete it: prepared.json lists no such item")
        )
    if sha256 is not None and header["sha256"] != sha256:
        return InputError(path, "is not the item that prepared.json lists", _AGAIN)
    if item_name(header["id"], header["variant"]) != path.name:
        return InputError(path, f"is the item of another case, {header['id']!r}", _AGAIN)
    return None


def _changed_inputs(cases: Sequence[PreparedCase], inputs: Sequence[Case]) -> list[InputError]:
    """One error for every input that is not what its item was made from, is gone, or is new."""
    by_id, faults = {c.id: c for c in inputs}, []
    for prepared in cases:
        name = prepared.case.id
        case = by_id.pop(name, None)
        if case is None:
            faults.append(InputError(name, "its image is not among the inputs any more", _AGAIN))
        elif prepared.failed is None:
            try:
                now = input_prints(case)
            except InputError as error:
                faults.append(error)
                continue
            for kind, path in (("image", case.image), ("label", case.label)):
                if now[kind] != prepared.inputs.get(kind):
                    faults.append(InputError(path or "", f"has changed since {name} was prepared", _AGAIN))
    faults += [InputError(c.image, "was not there when the folder was prepared", _AGAIN) for c in by_id.values()]
    return faults
