"""Training and validation cases that share no patient, slide or video: the same two lists for the same seed."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from patchforest.data.layout import Case, CaseList, read_groups, select_cases
from patchforest.data.tables import read_text, some
from patchforest.errors import InputError

Split = tuple[tuple[Case, ...], tuple[Case, ...]]


def split_cases(
    found: CaseList,
    *,
    fold: int = 0,
    folds: int = 5,
    seed: int = 0,
    groups: Path | None = None,
    train: Path | None = None,
    validation: Path | None = None,
) -> Split:
    """(training cases, validation cases), disjoint, no group on both sides. Test cases are in neither.

    The first of these that applies decides:

    1. ``validation`` (a list of ids): these validate; ``train``'s cases train, or without it all others.
    2. ``train`` alone: its cases are divided by folds (rule 5).
    3. Splits the cases carry (manifest): its validation cases, or where there are none its training cases by folds.
    4. ``splits_final.json`` in an nnU-Net folder: its entry number ``fold``.
    5. Folds: groups are shuffled by ``seed`` and dealt, largest first, to the emptiest of ``folds`` folds (by cases
       and groups alike); fold ``fold`` validates. A case without group is its own group.

    Parameters
    ----------
    groups : CSV with an id column and a group column; replaces the groups the cases carry.

    Raises
    ------
    ValueError : fold not in 0..folds-1, or fewer than two folds.
    InputError : too few groups for the folds, a group or case on both sides, an empty side, unknown ids.
    """
    if folds < 2 or not 0 <= fold < folds:
        raise ValueError(f"fold counts from 0 and folds is at least 2: 0 <= fold < folds; got fold {fold} of {folds}")
    if groups is not None:
        found = replace(found, cases=read_groups(groups, found.cases))
    usable = tuple(c for c in found.cases if c.split != "test")
    nnunet = found.root / "splits_final.json"
    if validation is not None:
        held = select_cases(found.cases, validation)
        others = tuple(c for c in usable if c.id not in {h.id for h in held})
        sides = (others if train is None else select_cases(found.cases, train)), held
    elif train is not None:
        sides = _by_fold(select_cases(found.cases, train), fold, folds, seed, train)
    elif any(c.split for c in usable):
        sides = _by_marks(usable, fold, folds, seed, found.root)
    elif found.layout == "nnunet" and nnunet.is_file():
        sides = _by_nnunet(usable, nnunet, fold)
    else:
        sides = _by_fold(usable, fold, folds, seed, found.root)
    _require_apart(*sides, validation or found.root)
    return sides


def _by_fold(cases: Sequence[Case], fold: int, folds: int, seed: int, source: Path) -> Split:
    """Rule 5. Both sides keep the order of ``cases``."""
    members: dict[tuple[str, str], list[Case]] = defaultdict(list)
    for case in cases:
        members[("case", case.id) if case.group is None else ("group", case.group)].append(case)
    keys = sorted(members)
    if len(keys) < folds:
        kind = "groups" if any(c.group for c in cases) else "cases"
        hint = f"set folds to {len(keys)} or fewer" if len(keys) > 1 else "name validation cases in a list"
        raise InputError(source, f"has {len(keys)} {kind}, too few for {folds} folds", hint)
    keys = [keys[i] for i in np.random.default_rng(seed).permutation(len(keys))]
    typical = len(cases) / len(keys)
    filled = [0.0] * folds  # half by cases, half by groups, so that one large group does not make a fold alone
    place: dict[tuple[str, str], int] = {}
    for key in sorted(keys, key=lambda k: -len(members[k])):  # stable: shuffled among equals
        place[key] = filled.index(min(filled))
        filled[place[key]] += len(members[key]) + typical
    held = {case.id for key, k in place.items() if k == fold for case in members[key]}
    return tuple(c for c in cases if c.id not in held), tuple(c for c in cases if c.id in held)


def _by_marks(cases: Sequence[Case], fold: int, folds: int, seed: int, source: Path) -> Split:
    """Rule 3."""
    unmarked = [c.id for c in cases if c.split is None]
    if unmarked:
        raise InputError(source, f"gives a split to some cases but not to {some(unmarked)}", "fill the split column")
    training = tuple(c for c in cases if c.split == "train")
    held = tuple(c for c in cases if c.split == "validation")
    return (training, held) if held else _by_fold(training, fold, folds, seed, source)


def _by_nnunet(cases: Sequence[Case], path: Path, fold: int) -> Split:
    """Rule 4."""
    try:
        entries = json.loads(read_text(path))
        if fold >= len(entries):
            raise InputError(path, f"has {len(entries)} folds, none numbered {fold}", "choose a smaller fold")
        lists = [[str(i) for i in entries[fold][side]] for side in ("train", "val")]
    except (TypeError, KeyError, RecursionError, json.JSONDecodeError) as fault:
        hint = 'write [{"train": [ids], "val": [ids]}, ...]'
        raise InputError(path, "is no list of folds with train and val", hint) from fault
    known = {c.id: c for c in cases}
    unknown = [i for side in lists for i in side if i not in known]
    if unknown:
        raise InputError(path, f"names unknown cases {some(unknown)}", f"known are {some(known)}")
    training, held = (tuple(known[i] for i in side) for side in lists)
    return training, held


def _require_apart(training: Sequence[Case], held: Sequence[Case], source: Path) -> None:
    """InputError for an empty side, or a case or group on both sides."""
    if not training or not held:
        empty = "training" if not training else "validation"
        raise InputError(source, f"leaves no cases for {empty}", "add cases or change the lists")
    both = [c.id for c in held if c.id in {t.id for t in training}]
    if both:
        raise InputError(source, f"puts cases on both sides: {some(both)}", "name each case once")
    torn = sorted({c.group for c in held if c.group} & {t.group for t in training if t.group})
    if torn:
        raise InputError(source, f"puts groups on both sides: {some(torn)}", "keep each group on one side")
