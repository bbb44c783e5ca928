"""The kinds of bench by name: to add one, write its file and add a line here."""

from __future__ import annotations

from patchforest.bench import cost, curves, length, organs, overhead, quality, randomness, speed, trees
from patchforest.bench.kind import Kind

KINDS: dict[str, Kind] = {
    "quality": quality.KIND,
    "organs": organs.KIND,
    "speed": speed.KIND,
    "length": length.KIND,
    "curves": curves.KIND,
    "randomness": randomness.KIND,
    "overhead": overhead.KIND,
    "cost": cost.KIND,
    "trees": trees.KIND,
}
