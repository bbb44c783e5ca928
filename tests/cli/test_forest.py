"""``forest``: the picture, the counts, the options that exclude each other."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.cli.conftest import Run, write_picture


def test_a_forest_is_drawn_and_counted(run: Run, tmp_path: Path) -> None:
    image = write_picture(tmp_path / "a b" / "ü.png", (64, 128))
    ended = run("forest", image, "--budget", 20, "--out", tmp_path / "f.png")
    assert ended.code == 0
    assert "64 × 128 pixels" in ended.out
    assert "20 tokens" in ended.out
    assert "level" in ended.out
    assert "seconds: read" in ended.out
    assert Image.open(tmp_path / "f.png").size == (384, 192)  # tiny pictures are enlarged


def test_the_default_is_1024_leaves(run: Run, tmp_path: Path) -> None:
    image = write_picture(tmp_path / "i.png", (512, 512))
    assert "1,024 tokens" in run("forest", image, "--out", tmp_path / "f.png").out


def test_quiet_prints_nothing(run: Run, tmp_path: Path) -> None:
    image = write_picture(tmp_path / "i.png")
    ended = run("forest", image, "--uniform", 8, "--out", tmp_path / "f.png", "--quiet")
    assert (ended.code, ended.out) == (0, "")
    assert (tmp_path / "f.png").exists()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--budget", "9", "--uniform", "8"], "one of"),
        (["--criterion", "beauty"], "beauty"),
        (["--budget", "1", "--root", "8"], "35"),
        (["--uniform", "12"], "12"),
    ],
)
def test_settings_that_do_not_fit_are_usage_errors(run: Run, tmp_path: Path, options: list[str], says: str) -> None:
    ended = run("forest", write_picture(tmp_path / "i.png"), *options, "--out", tmp_path / "f.png")
    assert ended.code == 2
    assert len(ended.errors) == 1
    assert says in ended.errors[0]
    assert not (tmp_path / "f.png").exists()


def test_float_images_need_a_window(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "ct.npy"
    np.save(path, np.random.default_rng(0).normal(0, 300, (32, 32)).astype(np.float32))
    ended = run("forest", path, "--out", tmp_path / "f.png")
    assert ended.code != 0
    assert "window" in ended.errors[0]
    assert run("forest", path, "--window", -200, 300, "--budget", 10, "--out", tmp_path / "f.png").code == 0


def test_a_name_that_looks_like_an_option(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_picture(tmp_path / "-x.png")
    assert run("forest", "--budget", 10, "--", "-x.png").code == 0
    assert (tmp_path / "forest.png").exists()
