"""Pictures of benches as SVG text, beside the lines of ``report.curves``: every seed of every contender as a dot."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

_WIDTH, _LEFT, _RIGHT, _TOP, _ROW = 560, 170, 24, 34, 20


def dot_chart(title: str, rows: Mapping[str, Sequence[float]], *, x_label: str) -> str:
    """An SVG element, as text: a row for every name, a dot for every value and a bar at their mean."""
    finite = {name: [v for v in values if math.isfinite(v)] for name, values in rows.items()}
    every = [v for values in finite.values() for v in values] or [0.0, 1.0]
    low, high, step = _span(min(every), max(every))
    height = _TOP + _ROW * len(finite) + 36

    def across(value: float) -> float:
        return _LEFT + (value - low) / (high - low) * (_WIDTH - _LEFT - _RIGHT)

    bottom = height - 32
    parts = [f'<text x="8" y="18" class="title">{escape(title)}</text>']
    for k in range(round((high - low) / step) + 1):
        x = across(low + k * step)
        parts.append(f'<line x1="{x:.1f}" y1="{_TOP - 4}" x2="{x:.1f}" y2="{bottom}" class="grid"/>')
        parts.append(f'<text x="{x:.1f}" y="{bottom + 14}" text-anchor="middle">{low + k * step:.4g}</text>')
    parts.append(f'<text x="{_WIDTH - _RIGHT}" y="{height - 4}" text-anchor="end">{escape(x_label)}</text>')
    for number, (name, values) in enumerate(finite.items()):
        y = _TOP + _ROW * number + _ROW / 2
        parts.append(f'<text x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{escape(name)}</text>')
        parts += [
            f'<circle cx="{across(v):.1f}" cy="{y:.1f}" r="3.5" fill="#0072b2" fill-opacity=".6"/>' for v in values
        ]
        if values:
            x = across(sum(values) / len(values))
            parts.append(
                f'<line x1="{x:.1f}" y1="{y - 7}" x2="{x:.1f}" y2="{y + 7}" stroke="#d55e00" stroke-width="2"/>'
            )
    body = "".join(parts)
    return f'<svg viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" height="{height}" role="img">{body}</svg>'


def _span(low: float, high: float) -> tuple[float, float, float]:
    """Round numbers that enclose [low, high], and the step between ticks."""
    width = high - low or abs(high) or 1.0
    power = 10.0 ** math.floor(math.log10(width / 4))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if width / (m * power) <= 6)
    first, last = math.floor(low / step), math.ceil(high / step)
    return first * step, max(last, first + 1) * step, step
