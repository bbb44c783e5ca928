"""Tables of the classes of images: read by name, and every fault in one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from patchforest.data.layout import Case
from patchforest.data.targets import read_targets
from patchforest.errors import InputError

CASES = [Case(name, Path(f"{name}.png"), None) for name in ("a", "b", "sub/c")]


def table(folder: Path, text: str) -> Path:
    """A CSV of that text."""
    path = folder / "grades.csv"
    path.write_text(text)
    return path


def test_classes_by_name(tmp_path: Path) -> None:
    path = table(tmp_path, "Name,Grade\nimages/b.png,low\na,high\nsub/c,low\nunknown,other\n")
    found = read_targets(path, "grade", CASES)
    assert found.classes == ("high", "low")
    assert found.numbers == {"a": 0, "b": 1, "sub/c": 1}
    ordered = read_targets(path, "Grade", CASES, classes=["low", "middle", "high"])
    assert ordered.numbers == {"a": 2, "b": 0, "sub/c": 0}


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("", "has the columns none, not grade"),
        ("name,class\na,x\n", "has the columns name, class, not grade; name it by data.target"),
        ("grade,x\nlow,1\n", "none of ids"),
        ("name,grade\na,low\nb,high\n", "gives no grade for sub/c"),
        ("name,grade\na,low\nb,high\nsub/c,\n", "gives no grade for sub/c"),
        ("name,grade\na,low\nb,high\nsub/c,low\na,high\n", "puts a into two classes, low and high"),
        ("name,grade\na,low\nb,low\nsub/c,low\n", "two at least"),
    ],
)
def test_faults_end_in_one_line(tmp_path: Path, text: str, match: str) -> None:
    with pytest.raises(InputError, match=match) as caught:
        read_targets(table(tmp_path, text), "grade", CASES)
    assert "\n" not in str(caught.value)


def test_an_unknown_class_is_named(tmp_path: Path) -> None:
    path = table(tmp_path, "name,grade\na,low\nb,hihg\nsub/c,low\n")
    with pytest.raises(InputError, match=r"names the class hihg; data\.classes are low, high"):
        read_targets(path, "grade", CASES, classes=("low", "high"))


def test_no_such_table(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"absent\.csv: cannot be read"):
        read_targets(tmp_path / "absent.csv", "grade", CASES)
