"""What a prepared folder says of itself is checked to the last bit; verify names everything that is wrong."""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from patchforest.data.layout import CaseList, find_cases
from patchforest.data.manifest import (
    enter_folder,
    finish,
    is_prepared,
    read_manifest,
    read_sealed,
    verify_prepared,
    write_sealed,
)
from patchforest.data.prepare import JobOptions, prepare
from patchforest.errors import InputError
from tests.data.prepared_data import SETTINGS, make_images


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[CaseList, Path]:
    """Six cases, one of them bad, prepared."""
    folder = tmp_path_factory.mktemp("manifest")
    found = find_cases(make_images(folder / "data", 6, bad=[4]))
    prepare(found, folder / "out", SETTINGS, options=JobOptions(workers=1))
    return found, folder / "out"


@pytest.fixture
def copy(whole: tuple[CaseList, Path], tmp_path: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(whole[1], tmp_path / "copy"))


def test_a_whole_folder_is_read_and_verified(whole: tuple[CaseList, Path]) -> None:
    found, out = whole
    prepared = read_manifest(out)
    assert verify_prepared(out) == []
    assert verify_prepared(out, found.cases) == []
    assert [c.case.id for c in prepared.cases] == [c.id for c in found.cases]
    assert [c.case.id for c in prepared.cases if c.failed] == ["case004"]
    assert prepared.settings == SETTINGS.named()
    assert prepared.case_list.classes == SETTINGS.classes
    assert (prepared.case_list.root, prepared.case_list.layout) == (out, "paired")
    assert is_prepared(out)
    assert not is_prepared(found.root)
    assert not is_prepared(out / "absent")


def test_every_flipped_bit_of_the_folder_is_found(copy: Path, rng: np.random.Generator) -> None:
    files = sorted(p for p in copy.rglob("*") if p.is_file())
    for k in range(120):
        path = files[k % len(files)]
        good = path.read_bytes()
        bad = bytearray(good)
        bad[int(rng.integers(len(bad)))] ^= 1 << int(rng.integers(8))
        path.write_bytes(bad)
        faults = verify_prepared(copy)
        assert [f.path for f in faults] == [str(path)], (path, faults)
        path.write_bytes(good)


def test_missing_strange_and_swapped_items_are_named(copy: Path) -> None:
    items = sorted((copy / "items").iterdir())
    items[0].unlink()
    first, second = items[1].read_bytes(), items[2].read_bytes()
    items[1].write_bytes(second)
    items[2].write_bytes(first)
    (copy / "items" / "notes.txt").write_text("?")
    assert {Path(f.path).name for f in verify_prepared(copy)} == {*(i.name for i in items[:3]), "notes.txt"}
    (copy / "prepared.json").unlink()
    faults = [str(f) for f in verify_prepared(copy)]
    assert any("prepared.json: is missing" in f for f in faults)
    assert any("is the item of another case" in f for f in faults)
    with pytest.raises(InputError, match="is not finished"):
        read_manifest(copy)
    with pytest.raises(InputError, match="no folder of prepared items"):
        verify_prepared(copy / "items")


def test_changed_inputs_are_named(whole: tuple[CaseList, Path], tmp_path: Path) -> None:
    found, out = whole
    data = Path(shutil.copytree(found.root, tmp_path / "data"))
    assert verify_prepared(out, find_cases(data).cases) == []
    changed = data / "masks" / "case001.png"
    changed.write_bytes(changed.read_bytes() + b"\0")
    for part in ("images", "masks"):
        (data / part / "case002.png").rename(data / part / "new.png")
    faults = [str(f) for f in verify_prepared(out, find_cases(data).cases)]
    assert len(faults) == 3
    assert any("masks/case001.png: has changed since case001 was prepared" in f for f in faults)
    assert any("case002: its image is not among the inputs any more" in f for f in faults)
    assert any("new.png: was not there" in f for f in faults)


def test_other_settings_are_refused_by_name(whole: tuple[CaseList, Path], tmp_path: Path) -> None:
    _, out = whole
    enter_folder(out, SETTINGS)
    other = replace(SETTINGS, q=8, forest=replace(SETTINGS.forest, budget=64))
    with pytest.raises(InputError, match=r"forest\.budget: 32 → 64, model\.q: 16 → 8.*same settings"):
        enter_folder(out, other)
    with pytest.raises(InputError, match=r"train\.seed: 0 → 3"):
        enter_folder(out, replace(SETTINGS, seed=3))
    (tmp_path / "photo.png").write_bytes(b"1")
    with pytest.raises(InputError, match=r"other files already, e\.g\. photo\.png"):
        enter_folder(tmp_path, SETTINGS)


def test_sealed_json_comes_back_and_is_not_written_twice(tmp_path: Path) -> None:
    path, value = tmp_path / "x.json", {"a": [1, 2.5, None], "b": {"é\udcff": "z"}}
    write_sealed(path, value)
    before = path.stat().st_mtime_ns
    write_sealed(path, value)
    assert path.stat().st_mtime_ns == before
    found = read_sealed(path)
    assert found.pop("sha256")
    assert found == value
    path.write_text("{}")
    with pytest.raises(InputError, match="truncated, damaged"):
        read_sealed(path)


def test_the_last_part_writes_the_manifest(whole: tuple[CaseList, Path], tmp_path: Path) -> None:
    found, out = whole
    entries = {c["id"]: c for c in read_sealed(out / "prepared.json")["cases"]}
    parts = [{c.id: entries[c.id] for c in found.cases[i::2]} for i in range(2)]
    enter_folder(tmp_path, SETTINGS)
    assert not finish(tmp_path, found, SETTINGS, 1, parts[1], (2, 2))
    assert not (tmp_path / "prepared.json").exists()
    assert not finish(tmp_path, found, SETTINGS, 1, parts[1], (2, 2))
    assert finish(tmp_path, found, SETTINGS, 1, parts[0], (1, 2))
    assert (tmp_path / "prepared.json").read_bytes() == (out / "prepared.json").read_bytes()
    assert not (tmp_path / "parts").exists()
    assert not finish(tmp_path, found, SETTINGS, 2, parts[0], (1, 2))  # two variants of each are not there


def test_the_last_word_counts_whatever_the_number_of_parts(whole: tuple[CaseList, Path], tmp_path: Path) -> None:
    found, out = whole
    entries = {c["id"]: c for c in read_sealed(out / "prepared.json")["cases"]}
    first, *others = found.cases
    enter_folder(tmp_path, SETTINGS)
    assert not finish(tmp_path, found, SETTINGS, 1, {first.id: {"failed": "is empty"}}, (1, 3))
    assert not finish(tmp_path, found, SETTINGS, 1, {first.id: entries[first.id]}, (1, 2))  # repaired meanwhile
    assert finish(tmp_path, found, SETTINGS, 1, {c.id: entries[c.id] for c in others}, (2, 2))
    assert (tmp_path / "prepared.json").read_bytes() == (out / "prepared.json").read_bytes()


def test_copied_lists_are_verified(whole: tuple[CaseList, Path], tmp_path: Path) -> None:
    found, out = whole
    entries = {c["id"]: c for c in read_sealed(out / "prepared.json")["cases"]}
    shutil.copytree(out, tmp_path / "x")
    (tmp_path / "x" / "grades.csv").write_text("name,patient\n")
    sha256 = hashlib.sha256(b"name,patient\n").hexdigest()
    assert finish(tmp_path / "x", found, SETTINGS, 1, entries, (1, 1), {"grades.csv": sha256})
    assert verify_prepared(tmp_path / "x") == []
    (tmp_path / "x" / "grades.csv").write_text("name,patienu\n")
    assert ["grades.csv" in str(fault) for fault in verify_prepared(tmp_path / "x")] == [True]
    (tmp_path / "x" / "grades.csv").unlink()
    assert ["grades.csv" in str(fault) for fault in verify_prepared(tmp_path / "x")] == [True]


def test_an_older_format_is_refused(copy: Path) -> None:
    raw = read_sealed(copy / "prepared.json")
    del raw["sha256"]
    write_sealed(copy / "prepared.json", {**raw, "format": 9})
    with pytest.raises(InputError, match="format 9"):
        read_manifest(copy)
    write_sealed(copy / "prepared.json", {"format": 1, "cases": []})
    with pytest.raises(InputError, match="lacks 'settings'"):
        read_manifest(copy)
