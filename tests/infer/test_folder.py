"""Folders of images: the rest goes on, finished ones are not redone, names never collide."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile

from patchforest.errors import InputError
from patchforest.infer import outputs
from patchforest.infer.folder import Summary, predict_many
from patchforest.infer.outputs import Draw, Outputs
from patchforest.io.label import read_label
from patchforest.io.open import open_image
from patchforest.io.pyramid import write_pyramid
from patchforest.io.scale import Scale
from patchforest.models.bundle import Bundle
from patchforest.models.config import ModelConfig, VolumeSpec
from patchforest.values import Array
from tests.infer.fakes import Bright, fake

COLOURS = np.array([[0, 0, 0], [230, 159, 0]], np.uint8)


def picture(path: Path, shape: tuple[int, int] = (20, 30), value: int = 230) -> Path:
    """A dark RGB image with a bright corner."""
    image = np.full((*shape, 3), 20, np.uint8)
    image[:7, :9] = value
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), image)
    return path


def run(inputs: list[Path], out: Path, *, draw: Draw | None = None, format: str = ".png", **options: object) -> Summary:
    outputs = Outputs(format=format, draw=draw)
    return predict_many(fake(Bright()), inputs, out, outputs=outputs, **options)  # type: ignore[arg-type]


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


def test_a_mask_without_its_state_is_not_ours(tmp_path: Path) -> None:
    data, out = tmp_path / "data", tmp_path / "out"
    picture(data / "a.png")
    run([data], out)
    (out / ".state" / "a.json").unlink()
    assert "was not written by this command" in run([data], out).failed["a"]
    assert run([data], out, overwrite=True).done == ("a",)
    (out / "a.png").write_bytes(b"x")  # cut
    assert run([data], out).done == ("a",)
    assert read_label(out / "a.png").sum() == 63


def test_files_of_others_stay(tmp_path: Path) -> None:
    image = picture(tmp_path / "images" / "a.png")
    truth = picture(tmp_path / "masks" / "a.png", value=99)
    before = truth.read_bytes()
    assert "--overwrite" in run([image], tmp_path / "masks").failed["a"]
    assert truth.read_bytes() == before
    with pytest.raises(InputError, match="is a folder of inputs"):
        run([tmp_path / "images"], tmp_path / "images")
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be a folder for outputs"):
        run([image], tmp_path / "file")


def test_two_processes_share_a_folder(tmp_path: Path) -> None:
    """The second waits for what the first is at, and then finds it there."""
    import threading

    image, out = picture(tmp_path / "a.png", shape=(90, 80)), tmp_path / "out"
    summaries: list[Summary] = []
    jobs = [threading.Thread(target=lambda: summaries.append(run([image], out, window=20))) for _ in range(3)]
    for thread in jobs:
        thread.start()
    for thread in jobs:
        thread.join()
    assert sorted(len(s.done) for s in summaries) == [0, 0, 1]
    assert not any(s.failed for s in summaries)
    assert sorted(p.name for p in (out / ".state").iterdir()) == ["a.json"]


def test_another_form_of_outlines_is_written(tmp_path: Path) -> None:
    image, out = picture(tmp_path / "a.png"), tmp_path / "out"
    for form in (".geojson.gz", ".geojson"):
        wanted = Outputs(polygons=form, colours=COLOURS)
        assert predict_many(fake(Bright()), [image], out, outputs=wanted).done == ("a",)
        assert (out / f"a{form}").is_file()


def test_a_model_of_a_level_looks_at_it(tmp_path: Path) -> None:
    image = np.full((64, 96, 3), 20, np.uint8)
    image[16:32, 32:80] = 230
    levels = [image, image[::2, ::2]]
    with tifffile.TiffWriter(tmp_path / "a.tif", bigtiff=True) as tif:
        for k, level in enumerate(levels):
            tif.write(level, tile=(16, 16), photometric="rgb", subfiletype=int(k > 0), metadata=None)
    bundle = Bundle(network=Bright(), spec=replace(fake(Bright()).spec, level=1))
    predict_many(bundle, [tmp_path / "a.tif"], tmp_path / "out")
    assert read_label(tmp_path / "out" / "a.tif").shape == (32, 48)


def test_outputs_inside_the_input_folder_are_no_inputs(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    out = tmp_path / "masks"
    assert run([tmp_path], out).done == ("a",)
    again = run([tmp_path], out)
    assert (again.skipped, again.done, again.failed) == (("a",), (), {})


def test_tiff_where_asked_or_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = picture(tmp_path / "a.png")
    assert run([image], tmp_path / "tif", format=".tif").done == ("a",)
    assert read_label(tmp_path / "tif" / "a.tif").sum() == 63
    monkeypatch.setattr(outputs, "LARGEST_PNG", 25)
    run([image], tmp_path / "large", format="auto")
    assert (tmp_path / "large" / "a.tif").is_file()
    assert json.loads((tmp_path / "large" / ".state" / "a.json").read_text())["files"] == {"mask": "a.tif"}
    assert run([image], tmp_path / "large", format="auto").skipped == ("a",)
    with pytest.raises(ValueError, match="bmp"):
        Outputs(format=".bmp")
    with pytest.raises(ValueError, match="colour"):
        Outputs(polygons=".geojson")
    with pytest.raises(ValueError, match=r"\.svg"):
        Outputs(polygons=".svg")


def test_every_output_of_one_image(tmp_path: Path) -> None:
    image, out = picture(tmp_path / "a.png"), tmp_path / "out"
    wanted = Outputs(
        format=".tif", probabilities=True, polygons=".geojson", colours=COLOURS, draw=lambda image, mask: image
    )
    summary = predict_many(fake(Bright()), [image], out, outputs=wanted)
    assert summary.done == ("a",)
    shares = open_image(out / "probabilities" / "a.tif").read()
    assert np.array_equal(shares[:, :, 0] > 127, read_label(out / "a.tif") > 0)
    found = json.loads((out / "a.geojson").read_text())["features"]
    assert len(found) == 1
    ring = np.array(found[0]["geometry"]["coordinates"][0])
    assert (ring.min(0).tolist(), ring.max(0).tolist()) == ([0, 0], [9, 7])
    assert found[0]["properties"]["classification"]["name"] == "class1"
    (out / "a.geojson").unlink()
    assert predict_many(fake(Bright()), [image], out, outputs=wanted).done == ("a",)
    assert predict_many(fake(Bright()), [image], out, outputs=wanted).skipped == ("a",)
    assert not list((out / ".state").glob("*.parts"))


def test_shards_share_the_work(tmp_path: Path) -> None:
    for name in "abcde":
        picture(tmp_path / "data" / f"{name}.png")
    first, second = (run([tmp_path / "data"], tmp_path / "out", shard=(k, 2)) for k in (1, 2))
    assert (first.done, second.done) == (("a", "c", "e"), ("b", "d"))
    listed = [json.loads((tmp_path / "out" / f"predictions-{k}-of-2.json").read_text()) for k in (1, 2)]
    assert [sorted(part["items"]) for part in listed] == [["a", "c", "e"], ["b", "d"]]
    assert run([tmp_path / "data"], tmp_path / "out").skipped == tuple("abcde")


def test_the_summary_lists_everything(tmp_path: Path) -> None:
    picture(tmp_path / "data" / "a.png")
    (tmp_path / "data" / "b.png").write_text("no image")
    run([tmp_path / "data"], tmp_path / "out")
    told = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert (told["done"], told["failed"]) == (1, 1)
    assert told["items"]["a"]["status"] == "done"
    assert told["items"]["b"]["status"] == "failed"
    assert "b.png" in told["items"]["b"]["reason"]


def test_a_view_has_a_mask_of_its_size(tmp_path: Path) -> None:
    image = np.full((64, 96, 3), 20, np.uint8)
    image[16:32, 32:80] = 230
    write_pyramid(tmp_path / "a.tif", [image], shape=(64, 96), dtype=np.uint8, mpp=0.5, kind="image")
    out = tmp_path / "out"
    wanted = Outputs(polygons=".geojson", colours=COLOURS)
    predict_many(fake(Bright()), [tmp_path / "a.tif"], out, outputs=wanted, scale=Scale(mpp=1.0))
    mask = read_label(out / "a.tif")
    assert mask.shape == (32, 48)
    assert mask[8:16, 16:40].all()
    assert mask.sum() == 8 * 24
    ring = np.array(json.loads((out / "a.geojson").read_text())["features"][0]["geometry"]["coordinates"][0])
    assert (ring.min(0).tolist(), ring.max(0).tolist()) == ([32, 16], [80, 32])  # level-0 pixels of the file
    failed = predict_many(fake(Bright()), [picture(tmp_path / "b.png")], out, scale=Scale(mpp=1.0)).failed
    assert "--input-mpp" in failed["b"]


def test_nothing_to_do_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        run([tmp_path / "absent"], tmp_path / "out")
    with pytest.raises(InputError, match="no image there"):
        run([tmp_path], tmp_path / "out")


def test_a_full_disk_stops_the_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    picture(tmp_path / "a.png")
    monkeypatch.setattr(outputs, "write_pyramid", full)
    with pytest.raises(OSError, match="No space"):
        run([tmp_path], tmp_path / "out")


def test_an_image_is_never_replaced_by_its_own_mask(tmp_path: Path) -> None:
    image = picture(tmp_path / "a.png")
    before = image.read_bytes()
    summary = run([image], tmp_path)
    assert "would replace the input" in summary.failed["a"]
    assert image.read_bytes() == before
    assert run([image], tmp_path, format=".tif").done == ("a",)  # beside it is fine
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


def test_what_killed_writers_left_is_removed(tmp_path: Path) -> None:
    picture(tmp_path / "data" / "deep" / "a.png")
    out = tmp_path / "out"
    (out / "deep").mkdir(parents=True)
    (out / "deep" / ".patchforest-0011223344556677.tif").write_bytes(b"half")
    (out / "deep" / ".patchforest-0011223344556677.zarr").mkdir()
    (out / "deep" / ".patchforest-0011223344556677.zarr" / "0").write_bytes(b"half")
    run([tmp_path / "data"], out)
    assert [p.name for p in (out / "deep").iterdir()] == ["a.png"]


@pytest.mark.parametrize("shift", [(0, 0), (8, 24), (64, 40), (104, 136)])
def test_an_object_is_found_at_its_pixel_at_every_level_and_scale(tmp_path: Path, shift: tuple[int, int]) -> None:
    """A bright 24 x 32 box, moved about, in a pyramid of three levels; windows smaller than the image."""
    shape, size = (160, 208), (24, 32)
    image = np.full((*shape, 3), 20, np.uint8)
    image[shift[0] : shift[0] + size[0], shift[1] : shift[1] + size[1]] = 230
    levels = [image, *(image.reshape(160 // f, f, 208 // f, f, 3).mean((1, 3)).astype(np.uint8) for f in (2, 4))]
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path, bigtiff=True) as tif:
        for k, level in enumerate(levels):
            per_cm = 1e4 / 0.5 / 2**k
            tif.write(level, tile=(64, 64), photometric="rgb", subfiletype=int(k > 0), resolutionunit="CENTIMETER",
                      resolution=(per_cm, per_cm), metadata=None)  # fmt: skip
    views = {f: [Scale(level=k), Scale(mpp=0.5 * f), Scale(magnification=20 / f)] for k, f in enumerate((1, 2, 4))}
    views[8] = [Scale(mpp=4.0), Scale(magnification=2.5), Scale(mpp=8.0, input_mpp=1.0)]  # beyond the stored levels
    for factor, scales in views.items():
        for number, scale in enumerate(scales):
            out = tmp_path / f"{factor}-{number}"
            wanted = Outputs(format=".tif", polygons=".geojson", colours=COLOURS)
            predict_many(fake(Bright()), [path], out, outputs=wanted, scale=scale, window=24)
            source = open_image(out / "a.tif")
            truth = np.zeros((shape[0] // factor, shape[1] // factor), np.uint8)
            box = [slice(s // factor, (s + n) // factor) for s, n in zip(shift, size)]
            truth[box[0], box[1]] = 1
            assert np.array_equal(source.read()[:, :, 0], truth)
            assert source.mpp == pytest.approx(0.5 * factor if scale.input_mpp is None else 8.0)
            feature = json.loads((out / "a.geojson").read_text())["features"][0]
            ring = np.array(feature["geometry"]["coordinates"][0])
            assert ring.min(0).tolist() == [shift[1], shift[0]]
            assert ring.max(0).tolist() == [shift[1] + size[1], shift[0] + size[0]]
            assert feature["properties"]["measurements"]["Area px"] == size[0] * size[1]


@pytest.mark.parametrize("mpp", [0.25, 0.5, 1.0])
def test_a_model_of_a_scale_finds_it_at_its_pixel_whatever_the_file_has(tmp_path: Path, mpp: float) -> None:
    """Trained at 1 micron per pixel; the mask has the file's own size, the box its own place."""
    step = round(1 / mpp)
    image = np.full((96 * step, 80 * step, 3), 20, np.uint8)
    image[32 * step : 64 * step, 16 * step : 48 * step] = 230
    write_pyramid(tmp_path / "a.tif", [image], shape=image.shape[:2], dtype=np.uint8, mpp=mpp, kind="image")
    predict_many(fake(Bright(gain=0.01), mpp=1.0), [tmp_path / "a.tif"], tmp_path / "out", window=24)
    wrong = read_label(tmp_path / "out" / "a.tif") != (image[:, :, 0] > 100)
    for row in (32, 64):
        for column in (16, 48):  # its corners are rounded by less than a pixel of the model's
            wrong[row * step - step : row * step + step, column * step - step : column * step + step] = False
    assert not wrong.any()


def test_volumes_in_a_folder_keep_their_place(tmp_path: Path) -> None:
    nib = pytest.importorskip("nibabel", reason="needs the extra volumes")
    affine = np.array([[0, 0, -2.0, 5], [0, -1.5, 0, 7], [3.0, 0, 0, -9], [0, 0, 0, 1]])
    voxels = np.full((9, 20, 24), 10, np.int16)
    voxels[2:5, 6:14, 8:20] = 240
    nib.Nifti1Image(voxels, affine).to_filename(tmp_path / "ct.nii.gz")
    np.save(tmp_path / "stack.npy", voxels.astype(np.uint8))
    out, spec = tmp_path / "out", replace(fake(Bright()).spec, model=ModelConfig(channels=1), intensity_window=(0, 255))
    bundle = Bundle(network=Bright(), spec=spec)
    wanted = Outputs(probabilities=True, draw=lambda image, mask: np.repeat(mask[:, :, None] * 255, 3, 2))
    summary = predict_many(bundle, [tmp_path / "ct.nii.gz", tmp_path / "stack.npy"], out, outputs=wanted)
    assert summary.done == ("ct", "stack")
    mask = nib.load(out / "ct.nii.gz")
    assert np.array_equal(mask.affine, nib.load(tmp_path / "ct.nii.gz").affine)
    assert np.array_equal(np.asarray(mask.dataobj), voxels > 100)
    assert np.array_equal(np.load(out / "stack.npy"), voxels > 100)
    assert nib.load(out / "probabilities" / "ct.nii.gz").get_fdata().max() > 0.99
    assert (out / "overlays" / "ct.png").is_file()
    assert predict_many(bundle, [tmp_path / "ct.nii.gz"], out, outputs=wanted).skipped == ("ct",)
    for outputs_, scale, what in (
        (Outputs(format=".png"), None, "--format auto, nifti or tiff"),
        (Outputs(polygons=".geojson", colours=COLOURS), None, "leave --geojson out"),
        (Outputs(), Scale(mpp=1.0), "leave --level, --mpp, --mag and --input-mpp out"),
    ):
        options = {} if scale is None else {"scale": scale}
        told = predict_many(bundle, [tmp_path / "ct.nii.gz"], tmp_path / "bad", outputs=outputs_, **options)  # type: ignore[arg-type]
        assert what in told.failed["ct"]


def test_volumes_whose_file_does_not_say_are_given_a_spacing(tmp_path: Path) -> None:
    np.save(tmp_path / "v.npy", np.full((4, 12, 12), 230, np.uint8))
    spec = replace(
        fake(Bright()).spec, model=ModelConfig(channels=1), volume=VolumeSpec(spacing=(2.0, 2.0, 2.0), axes=(0,))
    )
    bundle, out = Bundle(network=Bright(), spec=spec), tmp_path / "out"
    assert "does not say how large its voxels are" in predict_many(bundle, [tmp_path / "v.npy"], out).failed["v"]
    told = predict_many(bundle, [tmp_path / "v.npy"], out, spacing=(2.0, 1.0, 1.0))
    assert told.done == ("v",)
    assert np.load(out / "v.npy").shape == (4, 12, 12)
    with pytest.raises(ValueError, match="three lengths"):
        predict_many(bundle, [tmp_path / "v.npy"], out, spacing=(0.0, 1.0, 1.0))
