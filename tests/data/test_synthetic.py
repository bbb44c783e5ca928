"""Synthetic folders are read back like anybody's, made once, and never mixed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from patchforest.data.layout import find_cases
from patchforest.data.load import load_case
from patchforest.data.roadcore import ROADCORE_CLASSES, make_roadcore
from patchforest.data.synthetic import KINDS, case_seed, write_dataset
from patchforest.errors import InputError


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_folder_reads_back_with_its_classes(tmp_path: Path, kind: str) -> None:
    write_dataset(tmp_path / "set", kind, 2, (48, 40), 3)
    found = find_cases(tmp_path / "set")
    assert [c.id for c in found.cases] == [f"{kind}_0000", f"{kind}_0001"]
    assert found.classes == KINDS[kind][0]
    picture = load_case(found.cases[0], num_classes=len(found.classes))
    assert picture.label.shape == (48, 40)
    assert picture.image.shape[:2] == (48, 40)


def test_pictures_are_stored_unchanged_whatever_the_count(tmp_path: Path) -> None:
    write_dataset(tmp_path / "a", "roadcore", 1, (40, 40), 9)
    write_dataset(tmp_path / "b", "roadcore", 3, (40, 40), 9)
    files = [(tmp_path / n / "images" / "roadcore_0000.png").read_bytes() for n in "ab"]
    assert files[0] == files[1]
    image, label = make_roadcore((40, 40), seed=case_seed(9, 2))
    picture = load_case(find_cases(tmp_path / "b").cases[2], num_classes=len(ROADCORE_CLASSES))
    assert np.array_equal(picture.image[..., 0], image)
    assert np.array_equal(picture.label, label)


def test_a_whole_folder_is_kept_and_a_half_one_completed(tmp_path: Path) -> None:
    folder = write_dataset(tmp_path / "set", "blobs", 2, (32, 32), 1)
    before = {p: p.stat().st_mtime_ns for p in folder.rglob("*.png")}
    write_dataset(folder, "blobs", 2, (32, 32), 1)
    assert before == {p: p.stat().st_mtime_ns for p in folder.rglob("*.png")}
    content = {p: p.read_bytes() for p in before}
    (folder / "dataset.json").unlink()
    (folder / "masks" / "blobs_0001.png").unlink()
    write_dataset(folder, "blobs", 2, (32, 32), 1)
    assert content == {p: p.read_bytes() for p in folder.rglob("*.png")}
    (folder / "masks" / "blobs_0001.png").unlink()
    write_dataset(folder, "blobs", 2, (32, 32), 1)
    assert content == {p: p.read_bytes() for p in folder.rglob("*.png")}


def test_other_data_is_never_overwritten(tmp_path: Path) -> None:
    folder = write_dataset(tmp_path / "set", "blobs", 1, (32, 32), 1)
    with pytest.raises(InputError, match="another data set"):
        write_dataset(folder, "blobs", 1, (32, 32), 2)
    (folder / "dataset.json").unlink()
    (folder / "images" / "mine.png").write_bytes(b"x")
    with pytest.raises(InputError, match=r"mine\.png"):
        write_dataset(folder, "blobs", 1, (32, 32), 1)


def test_wrong_arguments_say_why(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="roadcore-shifted"):
        write_dataset(tmp_path, "rodcore", 1, (8, 8), 0)
    with pytest.raises(ValueError, match="count"):
        write_dataset(tmp_path, "blobs", 0, (8, 8), 0)
    with pytest.raises(ValueError, match="2-D"):
        write_dataset(tmp_path, "blobs", 1, (8, 8, 8), 0)
    assert not any(tmp_path.iterdir())


def test_seeds_differ_between_pictures_and_sets() -> None:
    assert len({case_seed(s, k) for s in range(10) for k in range(10)}) == 100
