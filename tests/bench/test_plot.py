"""Dot charts: a dot a value inside the frame, in the order given."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import numpy as np
import pytest

from patchforest.bench.plot import dot_chart


def dots(chart: str) -> list[tuple[float, float]]:
    """(x, y) of every dot."""
    circles = [e for e in ElementTree.fromstring(chart).iter() if e.tag == "circle"]
    return [(float(e.attrib["cx"]), float(e.attrib["cy"])) for e in circles]


def test_dots_keep_order_and_ratio(rng: np.random.Generator) -> None:
    for scale in (1e-3, 1.0, 1e4):
        values = np.sort(rng.random(7)) * scale
        chart = dot_chart("t", {"a": values[:3], "b": values[3:]}, x_label="x")
        found = dots(chart)
        assert len(found) == 7
        x = np.array([p[0] for p in found])
        expected = (values - values[0]) / (values[-1] - values[0])
        np.testing.assert_allclose((x - x[0]) / (x[-1] - x[0]), expected, atol=1e-3)
        assert {p[1] for p in found[:3]} < {p[1] for p in found}
        width = float(re.findall(r'viewBox="0 0 (\d+)', chart)[0])
        assert (x > 0).all()
        assert (x < width).all()


@pytest.mark.parametrize("rows", [{}, {"a": []}, {"a": [0.0]}, {"a": [0.5, 0.5]}, {"a": [float("nan"), 1.0]}])
def test_little_to_show(rows: dict[str, list[float]]) -> None:
    chart = dot_chart("t", rows, x_label="x")
    assert len(dots(chart)) == sum(np.isfinite(v).sum() for v in rows.values())
