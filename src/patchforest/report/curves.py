"""Training curves as small SVG charts, drawn without a plotting library, so that a report needs nothing but itself."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

from patchforest.errors import InputError

Points = list[tuple[float, float]]
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
_WIDTH, _HEIGHT = 420, 240
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 12, 30, 40
_TIME_COLUMNS = ("seconds", "time", "step", "epoch")
_OF_CLASSES = (("accuracy", "Validation accuracy"), ("auc", "Validation AUC"))
_PANELS = (("loss", "Loss"), ("dice", "Validation Dice"), *_OF_CLASSES, ("lr", "Learning rate"))


def read_metrics(path: Path) -> tuple[str, dict[str, Points]]:
    """(name of the time column, points (time, value) a column) of a metrics.csv; empty cells are left out.

    Time is the first of the columns seconds, time, step, epoch that the file has, else the row number. A last line
    torn by a crash is read as far as it goes.

    Raises
    ------
    InputError : the file is missing or has no header.
    """
    try:
        with path.open(newline="", encoding="utf-8", errors="replace") as file:
            rows = list(csv.DictReader(file))
    except FileNotFoundError:
        raise InputError(path, "no metrics were written here", "give a run folder of `patchforest train`") from None
    if not rows:
        return "row", {}
    time = next((c for c in _TIME_COLUMNS if c in rows[0]), "row")
    columns: dict[str, Points] = {}
    for number, row in enumerate(rows):
        at = float(number) if time == "row" else _number(row.get(time))
        for name, cell in row.items():
            value = _number(cell) if isinstance(name, str) and name not in _TIME_COLUMNS else None
            if at is not None and value is not None:
                columns.setdefault(name, []).append((at, value))
    return time, columns


def draw_curves(runs: Mapping[str, Path]) -> list[str]:
    """One SVG chart each for loss, validation Dice and learning rate, with a line for every run.

    A single run also shows its Dice per class.

    Parameters
    ----------
    runs : metrics.csv of each run by the name to show, e.g. ``{"adaptive": path}``. Panels without data are left out.
    """
    tables = {name: read_metrics(path) for name, path in runs.items()}
    time = next((t for t, columns in tables.values() if columns), "row")
    charts = []
    for word, title in _PANELS:
        lines: dict[str, Points] = {}
        for run, (_, columns) in tables.items():
            exact = len(tables) > 1 and word in columns  # no lines per class where several runs share a chart
            for column, points in columns.items():
                if column == word if exact else _belongs(column, word):
                    label = column if len(tables) == 1 else f"{run}: {column}"
                    lines[label] = points
        if lines:
            charts.append(line_chart(title, lines, x_label=time))
    return charts


def line_chart(
    title: str,
    lines: Mapping[str, Sequence[tuple[float, float]]],
    *,
    x_label: str,
    bands: Mapping[str, Sequence[tuple[float, float, float]]] | None = None,
) -> str:
    """An SVG element, as text: a line for every name, round ticks, a legend. Non-finite points are left out.

    ``bands`` are shaded in the colour of the line of their name: (x, lowest, highest) from left to right.
    """
    finite = {n: [p for p in points if all(map(math.isfinite, p))] for n, points in lines.items()}
    shaded = {n: [p for p in points if all(map(math.isfinite, p))] for n, points in (bands or {}).items()}
    every = [p for points in finite.values() for p in points] or [(0.0, 0.0)]
    every += [(x, y) for points in shaded.values() for x, *ends in points for y in ends]
    x_ticks, y_ticks = (_ticks(min(axis), max(axis)) for axis in zip(*every))
    (x0, x1), (y0, y1) = (x_ticks[0], x_ticks[-1]), (y_ticks[0], y_ticks[-1])

    def place(x: float, y: float) -> tuple[float, float]:
        across, up = (x - x0) / (x1 - x0), (y - y0) / (y1 - y0)
        return _LEFT + across * (_WIDTH - _LEFT - _RIGHT), _HEIGHT - _BOTTOM - up * (_HEIGHT - _TOP - _BOTTOM)

    parts = [f'<text x="{_LEFT}" y="16" class="title">{escape(title)}</text>']
    for tick in y_ticks:
        _, y = place(x0, tick)
        parts.append(f'<line x1="{_LEFT}" y1="{y:.1f}" x2="{_WIDTH - _RIGHT}" y2="{y:.1f}" class="grid"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{tick:g}</text>')
    for tick in x_ticks:
        x, _ = place(tick, y0)
        parts.append(f'<text x="{x:.1f}" y="{_HEIGHT - _BOTTOM + 16}" text-anchor="middle">{tick:g}</text>')
    parts.append(f'<text x="{_WIDTH - _RIGHT}" y="{_HEIGHT - 8}" text-anchor="end">{escape(x_label)}</text>')
    ends_high = sum(points[-1][1] - (y0 + y1) / 2 for points in finite.values() if points) > 0
    legend_top = _HEIGHT - _BOTTOM - 14 * len(finite) if ends_high else _TOP + 8  # where the lines are not
    for number, (name, points) in enumerate(finite.items()):
        colour = _COLOURS[number % len(_COLOURS)]
        path = " ".join("{:.1f},{:.1f}".format(*place(*p)) for p in points)
        band = shaded.get(name, [])
        if len(band) > 1:
            around = [(x, low) for x, low, _ in band] + [(x, high) for x, _, high in reversed(band)]
            outline = " ".join("{:.1f},{:.1f}".format(*place(*p)) for p in around)
            parts.append(f'<polygon points="{outline}" fill="{colour}" fill-opacity=".15"/>')
        if len(points) == 1:
            x, y = place(*points[0])
            parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>')
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.6"/>')
        x, y = _WIDTH - _RIGHT - 4, legend_top + 14 * number
        parts.append(f'<text x="{x}" y="{y}" text-anchor="end" style="fill:{colour}">{escape(name)}</text>')
    body = "".join(parts)
    return f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" height="{_HEIGHT}" role="img">{body}</svg>'


def _ticks(low: float, high: float) -> list[float]:
    """Three to eight round numbers that enclose [low, high], evenly spaced; two at least, whatever is given."""
    span = high - low or abs(high) or 1.0
    power = 10.0 ** math.floor(math.log10(span / 4))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if span / (m * power) <= 5)
    first, last = math.floor(low / step), math.ceil(high / step)
    last = max(last, first + 1)
    return [round(k * step, 12) for k in range(first, last + 1)]


def _belongs(column: str, word: str) -> bool:
    """Whether a column goes to a panel: the word stands alone in its name (``lr-AdamW``, ``train_loss``)."""
    plain = "".join(c if c.isalnum() else " " for c in column.lower()).split()
    return word in plain


def _number(cell: str | None) -> float | None:
    """A float, or None for empty and unreadable cells."""
    try:
        return float(cell) if cell else None
    except ValueError:
        return None
