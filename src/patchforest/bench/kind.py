"""What a kind of bench is: a plan, the work of one contender, and a note about all of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from patchforest.bench.contender import Contender
from patchforest.bench.note import Note
from patchforest.bench.run import Row
from patchforest.bench.settings import Settings


@dataclass(frozen=True)
class Kind:
    """A kind of bench.

    Attributes
    ----------
    title : what it shows, in a line.
    options : names of the fields of ``Settings`` that it reads besides ``data``, ``out``, ``jobs``, ``threads``.
    plan : settings → contenders, in the order in which they are to run.
    work : (contender, its folder) → plain numbers and lists by name; runs in a process of its own.
    note : (rows, settings) → what the bench found; rows of failed contenders are left out before.
    tune : (settings, tell) → nothing; what ``--tune`` does, or None.
    sets : names of sets where none are asked for.
    """

    title: str
    options: tuple[str, ...]
    plan: Callable[[Settings], list[Contender]]
    work: Callable[[Contender, Path], dict[str, Any]]
    note: Callable[[Sequence[Row], Settings], Note]
    tune: Callable[[Settings, Callable[[str], None]], None] | None = None
    sets: tuple[str, ...] = ()


def without_effect(kind: Kind, given: Sequence[str]) -> list[str]:
    """Those of the given names of ``Settings`` fields that a kind does not read."""
    always = ("data", "out", "jobs", "threads")
    return [name for name in given if name not in (*always, *kind.options)]
