"""Folders of images: the rest goes on, finished ones are not redone, names never collide."""

from __future__ import annotations

import json
import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from patchforest.errors import InputError
from patchforest.infer import folder
from patchforest.infer.folder import Summary, name_inputs, predict_many
from patchforest.io.label import read_label
from patchforest.values import Array
from tests.infer.fakes import Bright, fake


def picture(path: Path, shape: tuple[int, int] = (20, 30), value: int = 230) -> Path:
    """A dark RGB image with a bright corner."""
    image = np.full((*shape, 3), 20, np.uint8)
    image[:7, :9] = value
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), image)
    return path


def run(inputs: list[Path], out: Path, **options: object) -> Summary:
    return predict_many(fake(Bright()), inputs, out, **options)  # type: ignore[arg-type]


def test_masks_overlays_and_the_rest_goes_on(tmp_path: Path) -> None:
    data, out = tmp_path / "data", tmp_path / "out"
    picture(data / "a.png")
    picture(data / "deep" / "a b é.tif", shape=(9, 31))
    (data / "broken.png").write_bytes((data / "a.png").read_bytes()[:60])
    (data / "text.png").write_text("not an image")
    (data / "notes.txt").write_text("ignored")
    lines: list[str] = []

    def draw(image: Array, mask: Array) -> Array:
        assert image.shape[:2] == mask.shape
        return np.zeros((*mask.shape, 3), np.uint8)

    summary = run([data], out, draw=draw, tell=lines.append)
    assert summary.done == ("a", "deep/a b é")
    assert sorted(summary.failed) == ["broken", "text"]
    assert all("\n" not in reason and name in reason for name, reason in summary.failed.items())
    assert len(lines) == 4
    mask = read_label(out / "deep" / "a b é.png")
    assert mask.shape == (9, 31)
    assert mask.sum() == 63
    assert (out / "overlays" / "deep" / "a b é.png").is_file()
    assert not (out / "broken.png").exists()


def test_finished_masks_are_skipped_until_something_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, out = tmp_path / "data", tmp_path / "out"
    first, second = picture(data / "a.png"), picture(data / "b.png")
    assert len(run([data], out).done) == 2
    again = run([data], out)
    assert (again.done, again.skipped) == ((), ("a", "b"))
    assert run([data], out, flips=True).done == ("a", "b")  # other options, other masks
    assert run([data], out, overwrite=True, flips=True).done == ("a", "b")
    picture(first, value=240)
    assert run([data], out, flips=True).done == ("a",)
    (out / "b.png").unlink()
    assert run([data], out, flips=True).done == ("b",)
    (out / ".state" / "b.json").write_text("{torn")
    assert run([data], out, flips=True).done == ("b",)
    other = predict_many(fake(Bright(gain=9.0)), [second], out, flips=True)
    assert other.done == ("b",)


def test_a_mask_without_its_state_is_not_taken_for_whole(tmp_path: Path) -> None:
    data, out = tmp_path / "data", tmp_path / "out"
    picture(data / "a.png")
    run([data], out)
    (out / ".state" / "a.json").unlink()
    assert run([data], out).done == ("a",)


def test_ids_never_collide(tmp_path: Path) -> None:
    names = ["x/a.png", "x/a.tif", "x/sub/a.png", "y/a.png", "x/b.png", "y/overlays/b.png", "z/x/c.png", "y/c.png"]
    paths = [picture(tmp_path / n) for n in names]
    named = name_inputs([tmp_path / "x", tmp_path / "y", tmp_path / "z" / "x", tmp_path / "x" / "b.png"])
    assert sorted(named.values()) == sorted(paths)
    assert len({n.lower() for n in named}) == len(paths)
    assert named["sub/a"] == tmp_path / "x" / "sub" / "a.png"
    assert not any(n.startswith(("overlays/", ".state/")) for n in named)
    assert name_inputs([tmp_path / "x"])["b"] == tmp_path / "x" / "b.png"


def test_outputs_inside_the_input_folder_are_no_inputs(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    out = tmp_path / "masks"
    assert run([tmp_path], out).done == ("a",)
    again = run([tmp_path], out)
    assert (again.skipped, again.done, again.failed) == (("a",), (), {})


def test_tiff_where_asked_or_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = picture(tmp_path / "a.png")
    assert run([image], tmp_path / "tif", suffix=".tif").done == ("a",)
    assert read_label(tmp_path / "tif" / "a.tif").sum() == 63
    monkeypatch.setattr(folder, "LARGEST_PNG", 25)
    run([image], tmp_path / "large")
    assert (tmp_path / "large" / "a.tif").is_file()
    assert json.loads((tmp_path / "large" / ".state" / "a.json").read_text())["mask"] == "a.tif"
    assert run([image], tmp_path / "large").skipped == ("a",)
    with pytest.raises(ValueError, match="bmp"):
        run([image], tmp_path / "large", suffix=".bmp")


def test_nothing_to_do_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        run([tmp_path / "absent"], tmp_path / "out")
    with pytest.raises(InputError, match="no image there"):
        run([tmp_path], tmp_path / "out")


def test_a_full_disk_stops_the_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    picture(tmp_path / "a.png")
    monkeypatch.setattr(folder, "write_mask", full)
    with pytest.raises(OSError, match="No space"):
        run([tmp_path], tmp_path / "out")


def test_an_image_is_never_replaced_by_its_own_mask(tmp_path: Path) -> None:
    image = picture(tmp_path / "a.png")
    before = image.read_bytes()
    summary = run([image], tmp_path)
    assert "would replace the input" in summary.failed["a"]
    assert image.read_bytes() == before
    assert run([image], tmp_path, suffix=".tif").done == ("a",)  # beside it is fine
    assert image.read_bytes() == before


def test_a_finished_mask_without_its_overlay_is_done_again_when_overlays_are_wanted(tmp_path: Path) -> None:
    image, out = picture(tmp_path / "a.png"), tmp_path / "out"
    assert run([image], out).done == ("a",)
    assert run([image], out).skipped == ("a",)
    assert run([image], out, draw=lambda image, mask: image).done == ("a",)
    assert run([image], out, draw=lambda image, mask: image).skipped == ("a",)


def test_names_that_are_no_utf8_are_finished_like_others(tmp_path: Path) -> None:
    try:
        image = picture(tmp_path / "plain.png").rename(tmp_path / os.fsdecode(b"bad\xff.png"))
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    assert len(run([image], tmp_path / "out").done) == 1
    assert len(run([image], tmp_path / "out").skipped) == 1
