"""``predict``: masks of the exact size, overlays one can see, bad files reported while the rest goes on."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.cli.conftest import Run, write_picture


def test_a_folder_with_odd_names_becomes_masks_and_overlays(run: Run, tiny_model: Path, tmp_path: Path) -> None:
    write_picture(tmp_path / "in" / "a b.png", (33, 47))
    write_picture(tmp_path / "in" / "sub" / "ü.png", (1, 5))
    ended = run("predict", tiny_model, tmp_path / "in", "--out", tmp_path / "out")
    assert ended.code == 0, ended.err
    mask = Image.open(tmp_path / "out" / "a b.png")
    assert mask.size == (47, 33)
    assert set(np.unique(np.asarray(mask))) <= {0, 1}
    assert Image.open(tmp_path / "out" / "overlays" / "a b.png").mode == "RGB"
    assert Image.open(tmp_path / "out" / "sub" / "ü.png").size == (5, 1)
    assert "2 masks written" in ended.out
    again = run("predict", tiny_model, tmp_path / "in", "--out", tmp_path / "out")
    assert "0 masks written" in again.out
    assert "2 were there already" in again.out
    assert (
        "2 masks written" in run("predict", tiny_model, tmp_path / "in", "--out", tmp_path / "out", "--overwrite").out
    )


def test_tiff_without_overlays_trees_and_flips(run: Run, tiny_model: Path, tmp_path: Path) -> None:
    image = write_picture(tmp_path / "-x.png")
    options = ["--format", "tiff", "--no-overlays", "--trees", 2, "--flips", "--window", 32, "--threads", 1]
    ended = run("predict", *options, "--out", tmp_path / "out", tiny_model, image)
    assert ended.code == 0, ended.err
    assert Image.open(tmp_path / "out" / "-x.tif").size == (56, 40)
    assert not (tmp_path / "out" / "overlays").exists()


def test_one_bad_file_does_not_stop_the_rest(run: Run, tiny_model: Path, tmp_path: Path) -> None:
    write_picture(tmp_path / "in" / "good.png")
    (tmp_path / "in" / "bad.png").write_text("<html>not found</html>")
    ended = run("predict", tiny_model, tmp_path / "in", "--out", tmp_path / "out")
    assert ended.code == 4
    assert len(ended.errors) == 1
    assert "bad.png" in ended.errors[0]
    assert (tmp_path / "out" / "good.png").exists()
    assert not (tmp_path / "out" / "bad.png").exists()


@pytest.mark.parametrize("window", ["", "big", "-3", "0", "1.5"])
def test_a_window_is_auto_whole_or_pixels(run: Run, tiny_model: Path, tmp_path: Path, window: str) -> None:
    ended = run("predict", tiny_model, tmp_path, "--out", tmp_path / "out", f"--window={window}")
    assert ended.code == 2
    assert "--window" in ended.errors[0]


def test_an_unknown_device_is_a_usage_error(run: Run, tiny_model: Path, tmp_path: Path) -> None:
    ended = run("predict", tiny_model, tmp_path, "--out", tmp_path / "out", "--device", "abacus")
    assert ended.code == 2
    assert "abacus" in ended.errors[0]


def test_files_of_strangers_are_decoded_elsewhere(run: Run, tiny_model: Path, tmp_path: Path) -> None:
    write_picture(tmp_path / "in" / "good.png")
    (tmp_path / "in" / "bad.png").write_text("<html>not found</html>")
    plain = run("predict", tiny_model, tmp_path / "in", "--out", tmp_path / "plain")
    ended = run("predict", tiny_model, tmp_path / "in", "--out", tmp_path / "out", "--isolate")
    assert (ended.code, ended.errors) == (plain.code, plain.errors) == (4, ended.errors)
    assert (tmp_path / "out" / "good.png").read_bytes() == (tmp_path / "plain" / "good.png").read_bytes()


def test_slides_get_pyramids_and_outlines(run: Run, tiny_model: Path, tmp_path: Path) -> None:
    from patchforest.io.open import open_image
    from patchforest.io.pyramid import write_pyramid

    pixels = np.random.default_rng(0).integers(0, 255, (1200, 1100, 3)).astype(np.uint8)
    write_pyramid(tmp_path / "s.tif", [pixels], shape=(1200, 1100), dtype=np.uint8, mpp=0.5, kind="image")
    options = ["--mpp", 4.0, "--geojson", "gz", "--probabilities", "--memory", "600MB", "--no-overlays"]
    ended = run("predict", tiny_model, tmp_path / "s.tif", "--out", tmp_path / "out", *options)
    assert ended.code == 0, ended.err
    mask = open_image(tmp_path / "out" / "s.tif")
    assert mask.shape == (150, 138, 1)
    assert mask.mpp == pytest.approx(4.0)
    assert (tmp_path / "out" / "s.geojson.gz").is_file()
    assert (tmp_path / "out" / "probabilities" / "s.tif").is_file()
    plain = write_picture(tmp_path / "plain.png")
    asked = run("predict", tiny_model, plain, "--out", tmp_path / "out", "--mag", 20)
    assert asked.code == 3
    assert "--input-mpp" in asked.errors[0]
    assert run("predict", tiny_model, plain, "--out", tmp_path / "o", "--mpp", 1, "--mag", 20).code == 2


def test_a_stopped_job_says_so_and_goes_on(tiny_model: Path, tmp_path: Path) -> None:
    import os
    import signal
    import subprocess
    import sys
    import time

    for k in range(40):
        write_picture(tmp_path / "in" / f"{k:02d}.png", (200, 240))
    out = tmp_path / "out"
    command = [
        sys.executable,
        "-m",
        "patchforest",
        "predict",
        tiny_model,
        tmp_path / "in",
        "--out",
        out,
        "--window",
        16,
    ]
    for number, code in ((signal.SIGTERM, 75), (signal.SIGINT, 130)):
        job = subprocess.Popen([str(c) for c in command], stderr=subprocess.PIPE, text=True, start_new_session=True)
        end = time.monotonic() + 60
        before = len(list(out.glob("[0-9]*.png")))  # not those still under a temporary name
        while len(list(out.glob("[0-9]*.png"))) <= before and time.monotonic() < end:
            time.sleep(0.02)
        os.kill(job.pid, number)
        _, told = job.communicate(timeout=60)
        assert job.returncode == code, told
        assert told.splitlines()[-1] == "warning: stopped; the same command goes on from here"
    assert 2 <= len(list(out.glob("[0-9]*.png"))) < 40
    assert not [p for p in out.rglob("*") if p.name.startswith(".patchforest-")]
