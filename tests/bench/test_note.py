"""Notes: files that state their circumstances, numbers as text, and pictures that stand alone."""

from __future__ import annotations

import json
import math
from xml.etree import ElementTree

import pytest

from patchforest.bench.note import (
    Note,
    NoteTable,
    geometric_mean,
    markdown,
    mean_of,
    mean_sd,
    standalone,
    without_places,
    write_note,
)
from patchforest.bench.plot import dot_chart
from patchforest.bench.settings import Settings
from patchforest.report.curves import line_chart


def test_a_note_is_three_kinds_of_files_that_say_on_what_and_how(settings: Settings) -> None:
    chart = dot_chart("Dice", {"a": [0.1]}, x_label="Dice")
    table = NoteTable("Scores", ("model", "Dice"), (("a", "0.1"),))
    page = write_note(
        "quality", Note("Title", ("A line.",), (table,), {"x": chart}, [{"v": math.nan}]), settings, ["b: no"]
    )
    text = page.read_text()
    for part in ("# Title", "A line.", "## Scores", "| a | 0.1 |", "quality-x.svg", "- b: no", "--steps 2", "torch "):
        assert part in text, part
    raw = json.loads((settings.out / "quality.json").read_text())
    assert raw["results"] == [{"v": None}]
    assert raw["failed"] == ["b: no"]
    assert raw["seeds"] == [0]
    assert raw["versions"]["torch"]
    assert "patchforest bench quality --data DATA --out OUT" in raw["command"]
    assert (settings.out / "quality-x.svg").exists()


def test_tables_keep_their_columns() -> None:
    lines = markdown(NoteTable("t", ("a", "b"), (("x|y", "1"), ("z", "2"))))
    assert lines == ["| a | b |", "|---|---:|", "| x/y | 1 |", "| z | 2 |"]


@pytest.mark.parametrize(("values", "text"), [
    ([0.5, 0.6], "0.550 ± 0.071"), ([0.5], "0.500"), ([], "–"), ([None, 0.25], "0.250"), ([math.nan], "–"),
])  # fmt: skip
def test_mean_and_spread(values: list[float | None], text: str) -> None:
    assert mean_sd(values) == text


def test_means() -> None:
    assert mean_of([1000.0, 3000.0], 0) == "2,000"
    assert mean_of([None]) == "–"
    assert geometric_mean([4.0, 9.0]) == pytest.approx(6.0)
    assert math.isnan(geometric_mean([]))


@pytest.mark.parametrize("chart", [
    dot_chart("a & b", {"x <y>": [0.1, 0.2], "z": []}, x_label="Dice"),
    line_chart("a & b", {"x <y>": [(0, 0.1), (1, 0.2)]}, x_label="s"),
])  # fmt: skip
def test_pictures_are_files_of_their_own(chart: str) -> None:
    root = ElementTree.fromstring(standalone(chart))
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert "a & b" in {e.text for e in root.iter()}


def test_numbers_name_no_place_of_a_machine() -> None:
    raw = {"c": {"images": "/a/b/c/d.png"}, "changes": ['data.train="/x/y/z.txt"', "train.lr=0.1"], "n": [1, None]}
    kept = {"c": {"images": "c/d.png"}, "changes": ['data.train="y/z.txt"', "train.lr=0.1"], "n": [1, None]}
    assert without_places(raw) == kept
    assert without_places(("a/b/c", "1/2 of it", "/x/y")) == ["a/b/c", "1/2 of it", "x/y"]
