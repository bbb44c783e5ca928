"""What a case becomes: the patches and label shares of its forest, as training from the image has them."""

from __future__ import annotations

import errno
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile

from patchforest.data import prepare_item as module
from patchforest.data.layout import Case, find_cases
from patchforest.data.load import load_case
from patchforest.data.prepare_item import (
    ItemTask,
    cut_item,
    file_print,
    input_prints,
    leaf_shares,
    prepare_item,
    variant_rng,
)
from patchforest.data.prepared import item_name, read_item
from patchforest.errors import InputError
from patchforest.io.write import write_image, write_mask
from patchforest.tree.cut import cut_forest
from patchforest.tree.serial import encode_forest
from patchforest.tree.window import unit_range
from tests.data.prepared_data import SETTINGS, make_images, times
from tests.forests import random_forest


@pytest.fixture
def case(tmp_path: Path) -> Case:
    """The one case of a small data set."""
    return find_cases(make_images(tmp_path / "data", 1)).cases[0]


def task_of(case: Case, tmp_path: Path, **changes: object) -> ItemTask:
    return ItemTask(case, 1, replace(SETTINGS, **changes), tmp_path / "items")  # type: ignore[arg-type]


def test_shares_are_counted_pixels(rng: np.random.Generator) -> None:
    for classes, cell, q in ((2, 8, 16), (3, 8, 4), (4, 4, 8), (2, 16, 1)):
        shape = (int(rng.integers(20, 70)), int(rng.integers(20, 70)))
        label = rng.integers(0, classes, shape).astype(np.uint8)
        forest = random_forest(rng, shape, cell=cell, budget=60, root=32)
        shares = leaf_shares(label, forest, q, classes)
        assert shares.shape == (len(forest), 2 if classes == 2 else classes + 1, q, q)
        for (row, column), size, got in zip(forest.origin, forest.size, shares):
            inside = np.zeros((size, size), int)
            inside[: shape[0] - row, : shape[1] - column] = 1
            seen = np.zeros((size, size), int)
            part = label[row : row + size, column : column + size]
            seen[: part.shape[0], : part.shape[1]] = part
            planes = [inside] + [inside * (seen == k) for k in ((1,) if classes == 2 else range(classes))]
            for plane, value in zip(planes, got):
                big = np.kron(plane, np.ones((max(q // size, 1),) * 2))
                mean = big.reshape(q, big.shape[0] // q, q, -1).mean((1, 3))
                np.testing.assert_array_equal(value, mean)


def test_patches_and_forest_are_those_of_the_image(case: Case, tmp_path: Path) -> None:
    assert prepare_item(task_of(case, tmp_path)).failed is None
    item = read_item(tmp_path / "items" / item_name(case.id, 0))
    image = load_case(case).image
    forest = cut_forest(image, SETTINGS.forest)
    assert encode_forest(item.forest) == encode_forest(forest)
    frame = tuple(-(-s // forest.root) * forest.root for s in forest.shape)
    padded = np.pad(image, [*((0, f - s) for f, s in zip(frame, image.shape)), (0, 0)], mode="edge") / 255.0
    for (row, column), size, patch in zip(forest.origin, forest.size, item.patches):
        block = padded[row : row + size, column : column + size].reshape(8, size // 8, 8, size // 8, 3).mean((1, 3))
        np.testing.assert_allclose(patch, block.transpose(2, 0, 1), atol=1e-6)


def test_sixteen_bits_and_windows_reach_unit_range(tmp_path: Path, rng: np.random.Generator) -> None:
    image = rng.integers(100, 3000, (64, 64, 3)).astype(np.uint16)
    settings = replace(SETTINGS, intensity_window=(100.0, 3000.0))
    item = cut_item(Case("x", tmp_path, tmp_path), settings, 0, image, np.zeros((64, 64), np.uint8), {})
    eight = cut_item(Case("x", tmp_path, tmp_path), SETTINGS, 0, image.astype(np.uint8), np.ones((64, 64)), {})
    assert 0 <= item.patches.min() < 0.05
    assert 0.95 < item.patches.max() <= 1
    assert unit_range(image, (100, 3000)).mean() == pytest.approx(item_mean(item), abs=1e-5)
    assert eight.patches.max() <= 1


def item_mean(item: object) -> float:
    """Mean of the pixels of an item whose leaves all lie inside."""
    area = item.forest.area  # type: ignore[attr-defined]
    return float((item.patches.mean((1, 2, 3)) * area).sum() / area.sum())  # type: ignore[attr-defined]


def test_variants_are_random_forests_that_depend_on_seed_id_and_number_alone(tmp_path: Path) -> None:
    case = find_cases(make_images(tmp_path / "larger", 1, side=200)).cases[0]
    task = replace(task_of(case, tmp_path, forest=replace(SETTINGS.forest, criterion="random")), variants=3)
    assert len(prepare_item(task).entry["files"]) == 3
    forests = [read_item(task.folder / item_name(case.id, v)).forest for v in range(3)]
    assert len({encode_forest(f) for f in forests}) == 3
    first, again = (variant_rng(5, "a", 1) for _ in range(2))
    assert first is not None
    assert again is not None
    draws = [first.random()] + [variant_rng(s, i, v).random() for s, i, v in ((5, "b", 1), (6, "a", 1), (5, "a", 2))]  # type: ignore[union-attr]
    assert again.random() == draws[0]
    assert len(set(draws)) == 4
    assert variant_rng(5, "a", 0) is None


def test_what_is_there_and_whole_is_kept_and_else_made_anew(case: Case, tmp_path: Path) -> None:
    task = task_of(case, tmp_path)
    first = prepare_item(task)
    before, path = times(task.folder), task.folder / item_name(case.id, 0)
    assert not first.kept
    again = prepare_item(task)
    assert again.kept
    assert again.entry == first.entry
    assert times(task.folder) == before
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert not prepare_item(task).kept
    assert path.read_bytes() == whole
    assert not prepare_item(replace(task, settings=replace(SETTINGS, q=8))).kept
    assert not prepare_item(task).kept
    write_mask(case.label, 1 - load_case(case).label)  # type: ignore[arg-type]
    changed = prepare_item(task)
    assert not changed.kept
    assert changed.entry["inputs"]["image"] == first.entry["inputs"]["image"]
    assert changed.entry["inputs"]["label"] != first.entry["inputs"]["label"]


def test_bad_cases_fail_in_one_line(case: Case, tmp_path: Path, rng: np.random.Generator) -> None:
    def reason(**changes: object) -> str:
        failed = prepare_item(task_of(replace(case, **changes), tmp_path)).failed  # type: ignore[arg-type]
        assert failed is not None
        assert "\n" not in failed
        return failed

    write_image(tmp_path / "grey.png", rng.integers(0, 255, load_case(case).label.shape, np.uint8))
    write_image(tmp_path / "small.png", np.zeros((9, 9, 3), np.uint8))
    assert "cannot be read" in reason(image=tmp_path / "absent.png")
    assert "has no mask" in reason(label=None)
    assert "pixels" in reason(image=tmp_path / "small.png")
    assert "has 1 channels where most images have 3" in reason(image=tmp_path / "grey.png")
    (tmp_path / "page.png").write_text("<html>")
    assert "page.png" in reason(image=tmp_path / "page.png")
    folder = tmp_path / "folder.png"
    folder.mkdir()
    assert "folder.png" in reason(image=folder)


def test_a_decoder_that_breaks_fails_its_item_and_a_full_disk_the_job(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*args: object, **options: object) -> None:
        raise KeyError("tag 258")

    def starved(*args: object, **options: object) -> None:
        raise MemoryError("12 GiB")

    def full(*args: object, **options: object) -> None:
        raise OSError(errno.ENOSPC, "disk full", "x")

    monkeypatch.setattr(module, "open_picture", broken)
    assert "KeyError: 'tag 258'" in str(prepare_item(task_of(case, tmp_path)).failed)
    monkeypatch.setattr(module, "open_picture", starved)
    assert "does not fit into memory" in str(prepare_item(task_of(case, tmp_path)).failed)
    monkeypatch.undo()
    monkeypatch.setattr(module, "write_item", full)
    with pytest.raises(OSError, match="disk full"):
        prepare_item(task_of(case, tmp_path))


def test_warnings_travel_as_notes(case: Case, tmp_path: Path) -> None:
    write_image(case.image, np.zeros((*load_case(case).label.shape, 3), np.uint8))
    outcome = prepare_item(task_of(case, tmp_path))
    assert outcome.failed is None
    assert "detail map ran out" in outcome.notes[0]


def test_prints_of_files_and_folders(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x").write_bytes(b"12")
    first = file_print(tmp_path / "a")
    assert (first["bytes"], file_print(tmp_path / "a" / "x")["bytes"]) == (2, 2)
    (tmp_path / "a" / "x").rename(tmp_path / "a" / "y")
    assert file_print(tmp_path / "a") != first
    with pytest.raises(InputError, match="has no mask"):
        input_prints(Case("x", tmp_path, None))


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("variant", [0, 1])
def test_a_large_image_is_read_in_parts_to_the_same_item(
    dtype: str, variant: int, tmp_path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = (rng.random((200, 330, 3)).repeat(2, 0).repeat(2, 1) * (255 if dtype == "uint8" else 4000)).astype(dtype)
    label = (image[..., 0] > image.mean()).astype(np.uint8)
    tifffile.imwrite(tmp_path / "x.tif", image, tile=(64, 64), photometric="rgb", compression="deflate")
    write_mask(tmp_path / "x.png", label)
    case = Case("x", tmp_path / "x.tif", tmp_path / "x.png")
    settings = replace(SETTINGS, intensity_window=None if dtype == "uint8" else (0.0, 4095.0))
    made = []
    for name, limit in (("whole", 1 << 27), ("parts", 1000)):
        monkeypatch.setattr(module, "LARGE", limit)
        outcome = prepare_item(ItemTask(case, 1 + variant, settings, tmp_path / name))
        assert outcome.failed is None
        made.append((tmp_path / name / item_name("x", variant)).read_bytes())
    assert made[0] == made[1]
    monkeypatch.setattr(module, "cut_item", lambda *_: pytest.fail("the image was read as a whole"))
    prepare_item(ItemTask(case, 1, settings, tmp_path / "again"))


def test_a_dark_image_read_in_parts_warns_once(
    tmp_path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = rng.integers(0, 900, (300, 300, 3)).astype(np.uint16)
    tifffile.imwrite(tmp_path / "x.tif", image, tile=(64, 64), photometric="rgb")
    write_mask(tmp_path / "x.png", np.zeros((300, 300), np.uint8))
    task = ItemTask(Case("x", tmp_path / "x.tif", tmp_path / "x.png"), 1, SETTINGS, tmp_path / "items")
    monkeypatch.setattr(module, "LARGE", 1000)
    assert ["nearly black" in note for note in prepare_item(task).notes] == [True]
    image[:8, :8] = 60_000  # a dark part of a bright image is no matter
    tifffile.imwrite(tmp_path / "x.tif", image, tile=(64, 64), photometric="rgb")
    assert prepare_item(task).notes == ()
