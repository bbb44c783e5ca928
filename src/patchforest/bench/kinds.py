"""The kinds of bench by name: to add one, write its file and add a line here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from patchforest.bench import classes, cost, curves, length, organs, overhead, quality, randomness, speed, trees
from patchforest.bench.contender import Contender
from patchforest.bench.kind import Kind
from patchforest.bench.training import train_and_score
from patchforest.bench.tune import KIND as TUNE

KINDS: dict[str, Kind] = {
    "quality": quality.KIND,
    "organs": organs.KIND,
    "classes": classes.KIND,
    "speed": speed.KIND,
    "length": length.KIND,
    "curves": curves.KIND,
    "randomness": randomness.KIND,
    "overhead": overhead.KIND,
    "cost": cost.KIND,
    "trees": trees.KIND,
}


def work_of(kind: str) -> Callable[[Contender, Path], dict[str, Any]]:
    """The work of contenders of a kind of bench, or of tries of learning rates: these are scored in every bench."""
    return train_and_score if kind == TUNE else KINDS[kind].work
