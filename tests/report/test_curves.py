"""Curves: what a metrics.csv says ends up in the chart, holes and torn lines included."""

import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from patchforest.errors import InputError
from patchforest.report.curves import draw_curves, line_chart, read_metrics

CSV = """epoch,step,seconds,train_loss,val_dice,lr
0,10,1.5,0.9,,0.001
0,20,3.0,0.7,0.5,0.001
1,30,4.5,nan,,0.0005
1,40,6.0,0.5,0.75,"""


def test_columns_keep_their_own_times(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    path.write_text(CSV)
    time, columns = read_metrics(path)
    assert time == "seconds"
    assert columns["val_dice"] == [(3.0, 0.5), (6.0, 0.75)]
    assert columns["lr"] == [(1.5, 0.001), (3.0, 0.001), (4.5, 0.0005)]
    assert "epoch" not in columns


def test_three_charts_are_drawn_and_well_formed(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    path.write_text(CSV)
    charts = draw_curves({"a<b": path, "uniform": path})
    assert len(charts) == 3
    for chart in charts:
        root = ET.fromstring(chart)
        assert len(root.findall("polyline")) == 2
    assert "Validation Dice" in charts[1]
    assert "a&lt;b: val_dice" in charts[1]


def test_classes_are_shown_for_a_single_run_only(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    path.write_text("step,seconds,lr,loss,dice,dice_stone\n1,2,0.1,0.5,0.6,0.7\n2,3,0.1,0.4,0.7,0.8\n")
    assert "dice_stone" in draw_curves({"run": path})[1]
    both = draw_curves({"a": path, "b": path})[1]
    assert "dice_stone" not in both
    assert "b: dice" in both


def test_higher_values_are_drawn_higher_and_nan_left_out() -> None:
    root = ET.fromstring(line_chart("t", {"x": [(0, 1.0), (1, float("nan")), (2, 3.0)]}, x_label="step"))
    points = [tuple(map(float, p.split(","))) for p in root.find("polyline").get("points").split()]  # type: ignore[union-attr]
    assert len(points) == 2
    assert points[1][0] > points[0][0]
    assert points[1][1] < points[0][1]


def test_the_legend_keeps_out_of_the_way() -> None:
    for end, low in ((1.0, True), (0.0, False)):
        root = ET.fromstring(line_chart("t", {"x": [(0, 0.0), (1, 1.0), (2, end)]}, x_label="s"))
        name = next(text for text in root.findall("text") if text.text == "x")
        assert (float(name.get("y", "0")) > 120) == low


@pytest.mark.parametrize("points", [[], [(0.0, 0.0)], [(5.0, 1e-9)], [(1.0, -3.0), (1.0, -3.0)], [(1e9, 1e12)]])
def test_degenerate_lines_still_make_a_chart(points: list[tuple[float, float]]) -> None:
    root = ET.fromstring(line_chart("t", {"x": points}, x_label="s"))
    assert len(root.findall("text")) < 25


def test_a_missing_file_is_named_and_an_empty_one_has_no_charts(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"metrics\.csv"):
        read_metrics(tmp_path / "metrics.csv")
    (tmp_path / "metrics.csv").write_text("epoch,loss\n")
    assert draw_curves({"run": tmp_path / "metrics.csv"}) == []


def test_a_band_is_shaded_under_its_line_and_widens_the_axis() -> None:
    line = {"a": [(0.0, 1.0), (1.0, 1.0)]}
    plain = line_chart("t", line, x_label="x")
    shaded = line_chart(
        "t", line, x_label="x", bands={"a": [(0.0, 0.0, 2.0), (1.0, 0.5, float("nan")), (2.0, 0.0, 9.0)]}
    )
    assert "<polygon" not in plain
    assert shaded.index("<polygon") < shaded.index("<polyline")
    assert ">10<" in shaded
    assert ">10<" not in plain
    points = re.search(r'<polygon points="([^"]+)"', shaded)
    assert points is not None
    assert len(points.group(1).split()) == 4  # both ends of the two finite places
