"""A table of the classes of many images: bad ones listed, shards apart, files of others left alone."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from patchforest.errors import InputError
from patchforest.infer.class_run import classify_many
from patchforest.infer.classify import classify
from patchforest.infer.predict import predict
from patchforest.io.write import write_image
from tests.infer.test_classify import bundle


@pytest.fixture
def folder(tmp_path: Path, rng: np.random.Generator) -> Path:
    """Four pictures, one of them broken, one in grey."""
    for name in ("a", "b", "sub/c"):
        write_image(tmp_path / "in" / f"{name}.png", rng.integers(0, 256, (40, 50, 3), np.uint8))
    (tmp_path / "in" / "broken.png").write_bytes(b"no picture")
    write_image(tmp_path / "in" / "grey.png", np.zeros((40, 50), np.uint8))
    return tmp_path / "in"


def rows(path: Path) -> list[dict[str, str]]:
    """Of a table."""
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_every_image_has_its_line(folder: Path, tmp_path: Path) -> None:
    model, lines = bundle("vit"), list[str]()
    run = classify_many(model, [folder], tmp_path / "out", tell=lines.append)
    assert list(run.told) == ["a", "b", "sub/c"]
    assert sorted(run.failed) == ["broken", "grey"]
    assert all(str(folder / f"{name}.png") in text and "\n" not in text for name, text in run.failed.items())
    assert len(lines) == 3
    table = rows(tmp_path / "out" / "classes.csv")
    assert [r["id"] for r in table] == ["a", "b", "sub/c"]
    said = classify(model, folder / "sub" / "c.png").probability
    assert [float(table[2][f"p_{c}"]) for c in "abc"] == pytest.approx(list(said), abs=1e-6)
    assert table[2]["class"] == "abc"[said.argmax()]
    again = classify_many(model, [folder], tmp_path / "out")  # a table of ours is written anew
    assert list(again.told) == list(run.told)


def test_shards_have_tables_of_their_own(folder: Path, tmp_path: Path) -> None:
    seen = [classify_many(bundle("vit"), [folder], tmp_path / "out", shard=(k, 2)) for k in (1, 2)]
    assert sorted(i for run in seen for i in [*run.told, *run.failed]) == ["a", "b", "broken", "grey", "sub/c"]
    assert len(rows(tmp_path / "out" / "classes-1-of-2.csv")) == len(seen[0].told)


def test_files_of_others_are_left_alone(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "out" / "classes.csv"
    other.parent.mkdir()
    other.write_text("id,label\n1,2\n")
    with pytest.raises(InputError, match=r"not written by `predict`.*--overwrite"):
        classify_many(bundle("vit"), [folder], tmp_path / "out")
    assert other.read_text() == "id,label\n1,2\n"
    classify_many(bundle("vit"), [folder], tmp_path / "out", overwrite=True)
    assert len(rows(other)) == 3


def test_no_mask_is_made_of_classes(folder: Path) -> None:
    with pytest.raises(InputError, match="gives classes, not masks"):
        predict(bundle("vit"), folder / "a.png")
