"""Small text files are read strictly, whatever a spreadsheet or an editor made of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from patchforest.data.tables import read_csv, read_json, read_text, some
from patchforest.errors import InputError


def test_csv_of_a_spreadsheet(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(b'\xef\xbb\xbfName, Patient_ID\r\n"a, b", 3\r\n\r\nc\r\n')
    assert read_csv(path) == [{"name": "a, b", "patient_id": "3"}, {"name": "c", "patient_id": ""}]
    path.write_bytes(b"")
    assert read_csv(path) == []


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"\xff\xfe\x00x", "not UTF-8"),
        (b"[1]", "holds a list"),
        (b"{", "no valid JSON"),
        (b"[" * 100_000, "no valid JSON"),
    ],
)
def test_broken_json_is_one_line(tmp_path: Path, content: bytes, what: str) -> None:
    path = tmp_path / "d.json"
    path.write_bytes(content)
    with pytest.raises(InputError, match=what) as error:
        read_json(path)
    assert "\n" not in str(error.value)
    assert "d.json" in str(error.value)


def test_missing_file_and_broken_csv(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        read_text(tmp_path / "absent")
    (tmp_path / "t.csv").write_text('a,b\n"open')
    with pytest.raises(InputError, match="is no CSV"):
        read_csv(tmp_path / "t.csv")


def test_some_counts_the_rest() -> None:
    assert some("abc") == "a, b, c"
    assert some(range(8), 2) == "0, 1 and 6 more"
