"""Class names from every description a data set may have; what is unclear is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from patchforest.data.classes import read_classes
from patchforest.errors import InputError


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("dataset.json", '{"classes": ["background", "vessel"]}'),
        ("dataset.json", '{"labels": {"vessel": 1, "background": 0}}'),
        ("dataset.yaml", "classes: [background, vessel]\n"),
        ("classes.txt", "background\n\nvessel\n"),
    ],
)
def test_every_description_names_the_classes(tmp_path: Path, name: str, text: str) -> None:
    assert read_classes(tmp_path) is None
    (tmp_path / name).write_text(text)
    assert read_classes(tmp_path) == ("background", "vessel")


@pytest.mark.parametrize(
    ("labels", "what"),
    [
        ({"background": 0, "ignore": 1}, "ignore label"),
        ({"background": 0, "whole": [1, 2]}, "not one number"),
        ({"background": 0, "x": True}, "not one number"),
        ({"background": 0, "x": 2}, r"\[0, 2\]"),
        ({"background": 0}, r"\[0\]"),
        (["background", "x"], "not one number"),
    ],
)
def test_nnunet_labels_we_cannot_honour_are_refused(tmp_path: Path, labels: object, what: str) -> None:
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": labels}))
    with pytest.raises(InputError, match=what):
        read_classes(tmp_path)


@pytest.mark.parametrize("classes", [["a"], ["a", "a"], "ab", [1, 2], {"a": 0}])
def test_no_list_of_names_is_refused(tmp_path: Path, classes: object) -> None:
    (tmp_path / "dataset.json").write_text(json.dumps({"classes": classes}))
    with pytest.raises(InputError, match="different names"):
        read_classes(tmp_path)


def test_yaml_runs_nothing(tmp_path: Path) -> None:
    (tmp_path / "dataset.yaml").write_text("classes: !!python/object/apply:os.system ['true']\n")
    with pytest.raises(InputError, match="no valid YAML"):
        read_classes(tmp_path)
