"""The class of each image, as a table gives it: what is learned where a whole image has one answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from patchforest.data.layout import ID_COLUMNS, Case, bare_id
from patchforest.data.tables import read_csv, some
from patchforest.errors import InputError


@dataclass(frozen=True, eq=False)
class Targets:
    """Classes of images.

    Attributes
    ----------
    classes : their names by number.
    numbers : case id → class number.
    """

    classes: tuple[str, ...]
    numbers: Mapping[str, int]


def read_targets(
    path: str | Path, column: str, cases: Sequence[Case], *, classes: Sequence[str] | None = None
) -> Targets:
    """The class of every case, from a CSV with a column of ids and one of class names.

    Parameters
    ----------
    column : that holds the class names; case does not matter.
    classes : their order; None: the names of these cases, sorted.

    Raises
    ------
    InputError
        No such file or column, a case without a row or with two that differ, a name that is no class, or fewer than
        two classes.
    """
    table = Path(path)
    rows = read_csv(table)
    have = list(rows[0]) if rows else []
    identity, target = next((c for c in ID_COLUMNS if c in have), None), column.lower()
    if target not in have:
        raise InputError(table, f"has the columns {some(have) or 'none'}, not {column}", "name it by data.target")
    if identity is None:
        raise InputError(table, f"has the columns {some(have)}, none of ids", f"name one {some(ID_COLUMNS[:4])}")
    names: dict[str, str] = {}
    for row in rows:
        key, name = bare_id(row[identity]), row[target]
        if names.setdefault(key, name) != name:
            raise InputError(table, f"puts {key} into two classes, {names[key]} and {name}", "keep one row an image")
    missing = [c.id for c in cases if not names.get(c.id)]
    if missing:
        raise InputError(table, f"gives no {column} for {some(missing)}", "add a row for each image, or remove it")
    order = tuple(classes) if classes is not None else tuple(sorted({names[c.id] for c in cases}))
    unknown = sorted({names[c.id] for c in cases} - set(order))
    if unknown:
        raise InputError(table, f"names the class {some(unknown)}", f"data.classes are {', '.join(order)}; correct one")
    if len(order) < 2:
        raise InputError(table, f"gives every image the {column} {some(order)}", "classes are two at least")
    return Targets(order, {c.id: order.index(names[c.id]) for c in cases})
