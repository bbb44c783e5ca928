"""Runs over files and folders: a table each, one summary, the bad ones listed, nothing measured twice."""

from __future__ import annotations

import csv
import errno
import json
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from patchforest.errors import InputError
from patchforest.infer import component_run
from patchforest.infer.component_run import ComponentOptions, measure_masks, write_table
from patchforest.infer.components import components_of
from patchforest.values import Array

TWO = np.array([[1, 1, 0, 2], [0, 0, 0, 2]], np.uint8)


def save(path: Path, mask: Array = TWO) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".npy":
        np.save(path, mask)
    elif path.suffix == ".tif":
        tifffile.imwrite(path, mask)
    else:
        Image.fromarray(mask).save(path)
    return path


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def summary(out: Path) -> dict:
    return json.loads((out / "summary.json").read_text())


def test_a_single_mask_has_its_files_in_the_folder_itself(tmp_path: Path) -> None:
    out = tmp_path / "out"
    run = measure_masks([save(tmp_path / "a.png")], out, ComponentOptions(names={2: "void, air"}, mpp=2.0, labels=True))
    assert sorted(p.name for p in out.iterdir()) == ["components.csv", "labels.tif", "summary.json"]
    assert [line["name"] for line in rows(out / "components.csv")] == ["1", "void, air"]
    assert [line["area_um2"] for line in rows(out / "components.csv")] == ["8", "8"]
    assert tifffile.imread(out / "labels.tif").tolist() == TWO.tolist()
    said = summary(out)
    (mask,) = said["masks"]
    assert (mask["id"], mask["shape"], mask["mpp"], mask["connectivity"], mask["count"]) == ("a", [2, 4], 2.0, 4, 2)
    assert mask["table"] == "components.csv"
    assert mask["classes"] == said["total"]["classes"]
    assert said["total"]["masks"] == len(run.measured) == 1


def test_folders_give_a_folder_each_and_totals(tmp_path: Path) -> None:
    save(tmp_path / "in" / "a.png")
    save(tmp_path / "in" / "sub" / "a.tif")
    save(tmp_path / "in" / "sub" / "v.npy", np.stack([TWO] * 3).repeat(2, axis=2))
    save(tmp_path / "in" / "overlays" / "a.png", np.stack([TWO, TWO, TWO + 1], -1))
    save(tmp_path / "in" / ".state" / "b.png")
    (tmp_path / "in" / "notes.txt").write_text("no mask")
    out = tmp_path / "in" / "out"
    lines: list[str] = []
    for _ in range(2):  # the second time what was written must not be taken for masks
        lines.clear()
        run = measure_masks([tmp_path / "in"], out, ComponentOptions(labels=True), tell=lines.append)
        assert sorted(run.measured) == ["a", "sub/a", "sub/v"]
        assert run.failed == {}
    assert len(lines) == 3
    assert "[1/3] a: 2 components" in lines[0]
    assert len(rows(out / "sub" / "v" / "components.csv")) == 2
    assert [(g.ndim, g.value, len(g)) for g in run.total] == [(2, 1, 2), (2, 2, 2), (3, 1, 1), (3, 2, 1)]
    assert tifffile.imread(out / "sub" / "v" / "labels.tif").shape == (3, 2, 8)


def test_a_bad_mask_is_listed_and_the_rest_goes_on(tmp_path: Path) -> None:
    save(tmp_path / "in" / "good.png")
    save(tmp_path / "in" / "colour.png", np.stack([TWO, TWO, TWO + 1], -1))
    (tmp_path / "in" / "torn.tif").write_bytes(b"II*\0")
    run = measure_masks([tmp_path / "in"], tmp_path / "out", ComponentOptions())
    assert list(run.measured) == ["good"]
    assert sorted(run.failed) == ["colour", "torn"]
    assert "colour.png" in run.failed["colour"]
    assert summary(tmp_path / "out")["failed"] == run.failed
    assert not (tmp_path / "out" / "colour").exists()


def test_connectivity_is_of_images_or_of_volumes(tmp_path: Path) -> None:
    image, volume = save(tmp_path / "i.png"), save(tmp_path / "v.npy", np.stack([TWO] * 3).repeat(2, axis=2))
    run = measure_masks([image, volume], tmp_path / "out", ComponentOptions(connectivity=8))
    assert list(run.measured) == ["i"]
    assert "is a volume, which has no connectivity 8; give one of 6, 18, 26" in run.failed["v"]
    run = measure_masks([image, volume], tmp_path / "out", ComponentOptions(connectivity=26))
    assert list(run.measured) == ["v"]


def test_equal_names_stay_apart_and_no_mask_is_measured_twice(tmp_path: Path) -> None:
    for file in ("x/a.png", "y/a.png", "y/a.tif"):
        save(tmp_path / file)
    given = [tmp_path / "x", tmp_path / "x" / "a.png", tmp_path / "y"]
    assert sorted(measure_masks(given, tmp_path / "o", ComponentOptions()).measured) == [
        "x/a_png",
        "y/a_png",
        "y/a_tif",
    ]


def test_scales_given_win_over_those_of_files(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "i.tif", TWO, resolution=(20000, 20000), resolutionunit=3)
    save(tmp_path / "v.npy", np.stack([TWO] * 3).repeat(2, axis=2))
    given = [tmp_path / "i.tif", tmp_path / "v.npy"]
    measure_masks(given, tmp_path / "o", ComponentOptions())
    assert rows(tmp_path / "o" / "i" / "components.csv")[0]["area_um2"] == "0.5"
    assert rows(tmp_path / "o" / "v" / "components.csv")[0]["volume_mm3"] == ""
    measure_masks(given, tmp_path / "o", ComponentOptions(mpp=3.0, spacing=(1.0, 2.0, 0.5)))
    assert rows(tmp_path / "o" / "i" / "components.csv")[0]["area_um2"] == "18"
    assert rows(tmp_path / "o" / "v" / "components.csv")[0]["volume_mm3"] == "12"


def test_no_input_and_unknown_paths(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no mask there"):
        measure_masks([tmp_path / "empty"], tmp_path / "o", ComponentOptions())
    with pytest.raises(InputError, match="no such file"):
        measure_masks([tmp_path / "nope.png"], tmp_path / "o", ComponentOptions())


def test_labels_never_replace_their_mask(tmp_path: Path) -> None:
    path = save(tmp_path / "labels.tif")
    before = path.read_bytes()
    run = measure_masks([path], tmp_path, ComponentOptions(labels=True))
    assert "would be replaced" in run.failed["labels"]
    assert path.read_bytes() == before


def test_a_full_disk_stops_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "disk full", "x")

    monkeypatch.setattr(component_run, "write_table", full)
    with pytest.raises(OSError, match="disk full"):
        measure_masks([save(tmp_path / "a.png")], tmp_path / "o", ComponentOptions())


def test_a_mask_without_components_has_an_empty_table(tmp_path: Path) -> None:
    measure_masks([save(tmp_path / "a.png", TWO * 0)], tmp_path / "o", ComponentOptions(labels=True))
    assert rows(tmp_path / "o" / "components.csv") == []
    assert summary(tmp_path / "o")["total"]["classes"] == []
    assert not tifffile.imread(tmp_path / "o" / "labels.tif").any()


def test_a_table_alone(tmp_path: Path) -> None:
    write_table(tmp_path / "t.csv", components_of([TWO]))
    assert [line["size_px"] for line in rows(tmp_path / "t.csv")] == ["2", "2"]
