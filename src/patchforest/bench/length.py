"""Sequence length against leaf size (APF figure 3): how many tokens a threshold or a budget costs on real images."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from patchforest.bench.contender import Contender
from patchforest.bench.kind import Kind
from patchforest.bench.note import Note, NoteTable
from patchforest.bench.run import Row
from patchforest.bench.settings import Settings
from patchforest.report.curves import line_chart
from patchforest.tree.cut import build_by_policy
from patchforest.tree.detail import detail_map
from patchforest.values import Array, ForestPolicy

SETS = ("glas", "glomeruli", "hrf", "landslide")
SIZES = (512, 1024)
NATIVE = "native"
CELL = 4
"""A node of 4 × 4 pixels holds at most 16 edge pixels, so that no threshold from 16 on asks for smaller leaves."""

THRESHOLDS = (20.0, 50.0, 100.0, 200.0, 500.0)
BUDGETS = (64, 128, 256, 512, 1024, 2048, 4096)
MOST_IMAGES = 24
PUBLISHED = ((20.0, 677.7, 9.37), (50.0, 286.9, 20.21), (100.0, 127.5, 30.73))
"""(v, mean length, mean leaf side) at 512² on PAIP: APF (SC'24), figure 3."""


@dataclass(frozen=True)
class Point:
    """What one setting of the forest gives, means over images.

    Attributes
    ----------
    rule : ``canny``, ``edges`` (thresholds), or ``budget`` (of ``edges``).
    setting : the threshold or the budget.
    length, length_sd : leaves of an image, and how they spread over images.
    side : mean side of an image's leaves in pixels, every leaf counting as one.
    """

    rule: str
    setting: float
    length: float
    length_sd: float
    side: float


def plan(settings: Settings) -> list[Contender]:
    """Every set at every size; sizes that were asked for are squares, else 512², 1024² and the stored size."""
    from patchforest.bench.sets import data_of

    sizes = [str(s) for s in settings.sizes] or [*map(str, SIZES), NATIVE]
    return [
        Contender(
            kind="length", set=name, name=size, data=str(data_of(name, settings.data, settings.out).resolve()),
            threads=settings.threads,
        )
        for name in settings.sets
        for size in sizes
    ]  # fmt: skip


def work(contender: Contender, folder: Path) -> dict[str, Any]:
    """The points of a set at a size; ``images`` were seen, ``left_out`` are shorter than the size."""
    from patchforest.data.layout import find_cases
    from patchforest.io.open import open_image

    cases = find_cases(contender.data, require_labels=False).cases
    chosen = [cases[k] for k in np.unique(np.linspace(0, len(cases) - 1, MOST_IMAGES).round().astype(int))]
    found: list[list[tuple[str, float, int, float]]] = []
    left_out = 0
    for case in chosen:
        source = open_image(case.image)
        if contender.name != NATIVE and min(source.shape[:2]) < int(contender.name):
            left_out += 1
            continue
        image = source.read()
        found.append(lengths(image if contender.name == NATIVE else squared(image, int(contender.name))))
    return {"images": len(found), "left_out": left_out, "points": [asdict(p) for p in means(found)]}


def squared(image: Array, side: int) -> Array:
    """(side, side, C): the whole image by area averages, whatever its proportions, as the papers bring slides to Z²."""
    return cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA).reshape(side, side, -1)


def lengths(image: Array) -> list[tuple[str, float, int, float]]:
    """(rule, setting, leaves, mean side) of an image for every threshold and budget; of budgets those it can spend."""
    out: list[tuple[str, float, int, float]] = []
    shape = (image.shape[0], image.shape[1])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # flat images are a result here
        for rule in ("canny", "edges"):
            detail = detail_map(image, CELL, criterion=rule)
            for v in THRESHOLDS:
                forest = build_by_policy(detail, ForestPolicy(criterion=rule, cell=CELL, threshold=v), shape)
                out.append((rule, v, len(forest), float(forest.size.mean())))
        for budget in BUDGETS:
            policy = ForestPolicy(criterion="edges", cell=CELL, budget=budget)
            forest = build_by_policy(detail, policy, shape)
            out.append(("budget", float(budget), len(forest), float(forest.size.mean())))
    return out


def means(found: Sequence[Sequence[tuple[str, float, int, float]]]) -> list[Point]:
    """The points of several images, setting by setting; none of no image."""
    points = []
    for same in zip(*found, strict=True):
        leaves = [length for _, _, length, _ in same]
        spread = float(np.std(leaves, ddof=1)) if len(leaves) > 1 else 0.0
        side = float(np.mean([side for _, _, _, side in same]))
        points.append(Point(same[0][0], same[0][1], float(np.mean(leaves)), spread, side))
    return points


def slopes(points: Sequence[tuple[float, float]]) -> tuple[float, tuple[float, ...]]:
    """Exponents of (length, side) points: from the first to the last, and from each to the next.

    Length grows as 1 / side to this power: 2 for uniform grids. NaN where sides do not change.
    """
    steps = tuple(_slope(a, b) for a, b in pairwise(points))
    return (_slope(points[0], points[-1]) if len(points) > 1 else math.nan), steps


def _slope(first: tuple[float, float], last: tuple[float, float]) -> float:
    across = math.log(last[1] / first[1])
    return -math.log(last[0] / first[0]) / across if across else math.nan


def note(rows: Sequence[Row], settings: Settings) -> Note:
    """Tables of lengths, of slopes, and a picture at every size."""
    lines = (
        "Images are brought to a square by area averages whatever their proportions, as the paper brings slides to Z²; "
        f"those shorter than the size are left out; at most {MOST_IMAGES} a set, evenly spread. Smallest leaf {CELL} "
        "pixels, which no threshold from 16 on would split. Mean leaf side: every leaf counts as one.",
        "`canny`: the paper's blur and thresholds 100 and 200. `edges`: our thresholds from the image's own gradients, "
        "on means of 2 × 2 pixels, so that the same v asks for four times the edge.",
        "Published: v, mean length and mean side at 512² on PAIP, which is not public. Slope: the exponent e in "
        "length ~ (1 / mean side)^e, from v = 20 to v = 100 and step by step; a uniform grid has 2.",
    )
    whole = [r for r in rows if r.result["images"]]
    sizes = list(dict.fromkeys(r.contender.name for r in whole))
    return Note(
        title="Tokens and leaf side against the threshold",
        lines=lines,
        tables=(*(_table(size, [r for r in whole if r.contender.name == size]) for size in sizes), _slopes(whole)),
        charts={size: _chart(size, [r for r in whole if r.contender.name == size]) for size in sizes},
        numbers=[{"set": r.contender.set, "size": r.contender.name, **r.result} for r in rows],
    )


def points_of(row: Row, rule: str) -> list[Point]:
    """The points of a row under a rule, in the order of their settings."""
    return [Point(**p) for p in row.result["points"] if p["rule"] == rule]


def _title(size: str) -> str:
    return "stored size" if size == NATIVE else f"{size}²"


def _table(size: str, rows: Sequence[Row]) -> NoteTable:
    lines = []
    if size == "512":
        lines += [("PAIP, published", f"v {v:g}", f"{length:.1f}", f"{side:.2f}", "–", "–")
                  for v, length, side in PUBLISHED]  # fmt: skip
    for row in rows:
        name = f"{row.contender.set} ({row.result['images']} images)"
        for canny, edges in zip(points_of(row, "canny"), points_of(row, "edges")):
            cells = (f"{p.length:,.1f} ± {p.length_sd:,.0f}" for p in (canny, edges))
            first, second = cells
            lines.append((name, f"v {canny.setting:g}", first, f"{canny.side:.2f}", second, f"{edges.side:.2f}"))
        for point in points_of(row, "budget"):
            lines.append((name, f"L {point.setting:g}", "–", "–", f"{point.length:,.1f}", f"{point.side:.2f}"))
    header = ("set", "setting", "canny: tokens ± sd", "mean side", "edges: tokens ± sd", "mean side")
    return NoteTable(_title(size), header, tuple(lines))


def _slopes(rows: Sequence[Row]) -> NoteTable:
    published = [(length, side) for _, length, side in PUBLISHED]
    lines = [("PAIP, published", "512²", *_slope_cells(published), "–", "–")]
    for row in rows:
        threshold = {
            rule: [(p.length, p.side) for p in points_of(row, rule) if p.setting <= 100] for rule in ("canny", "edges")
        }
        spent = [(p.length, p.side) for p in points_of(row, "budget") if p.length > 0.9 * p.setting]
        overall, _ = slopes(spent)
        edges, _ = slopes(threshold["edges"])
        lines.append(
            (row.contender.set, _title(row.contender.name), *_slope_cells(threshold["canny"]), f"{edges:.2f}",
             f"{overall:.2f}")
        )  # fmt: skip
    lines.append(("any", "uniform grid", "2.00", "2.00 2.00", "2.00", "2.00"))
    header = ("set", "size", "canny, v 20 to 100", "step by step", "edges, v 20 to 100", "edges, by budget")
    return NoteTable("Slopes", header, tuple(lines))


def _slope_cells(points: Sequence[tuple[float, float]]) -> tuple[str, str]:
    overall, steps = slopes(points)
    return f"{overall:.2f}", " ".join(f"{s:.2f}" for s in steps)


def _chart(size: str, rows: Sequence[Row]) -> str:
    lines = {
        row.contender.set: [(math.log2(p.side), math.log2(p.length)) for p in points_of(row, "canny")] for row in rows
    }
    if size == "512":
        lines["PAIP, published"] = [(math.log2(side), math.log2(length)) for _, length, side in PUBLISHED]
    if size != NATIVE:
        lines["uniform grid"] = [(k, 2 * (math.log2(int(size)) - k)) for k in (3.0, 4.0, 5.0, 6.0)]
    return line_chart(f"log2 tokens, canny, {_title(size)}", lines, x_label="log2 mean leaf side, pixels")


KIND = Kind(
    title="tokens and mean leaf side against the threshold and the budget (APF figure 3)",
    options=("sets", "sizes"),
    plan=plan,
    work=work,
    note=note,
    sets=SETS,
)
