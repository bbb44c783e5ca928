"""Acceptance 6: every wrong input ends in one ``error:`` line that names it, the right exit code, and no traceback.

``run`` (conftest) fails on any traceback.
"""

from __future__ import annotations

import importlib.util
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from tests.cli.conftest import Ended, Run, write_picture

QUICK = ["model.width=16", "model.depth=1", "model.heads=2", "model.stem=[4,8]", "model.stride=4", "forest.budget=8"]
SETTINGS = [*QUICK, "data.window=32", "data.folds=2", "train.max_steps=1", "train.batch=1", "train.threads=1"]


def make_pairs(folder: Path, count: int = 4) -> Path:
    """A data set of tiny pairs with classes 0 and 1."""
    for k in range(count):
        write_picture(folder / "images" / f"case {k}.png", seed=k)
        mask = np.zeros((40, 56), np.uint8)
        mask[5 + k : 30, 8:40] = 1
        (folder / "masks").mkdir(exist_ok=True)
        Image.fromarray(mask).save(folder / "masks" / f"case {k}.png")
    return folder


def train_tiny(run: Run, data: Path, out: Path, *extra: object) -> Ended:
    settings = [part for setting in SETTINGS for part in ("--set", setting)]
    return run("train", "--data", data, "--out", out, *settings, *extra)


def _one_line(ended: Ended, code: int, *words: str) -> None:
    assert ended.code == code, ended.err
    assert len(ended.errors) == 1, ended.err
    for word in words:
        assert word in ended.errors[0]


def _truncate(path: Path) -> None:
    write_picture(path, (200, 200))
    path.write_bytes(path.read_bytes()[:20_000])


def _float_with_nan(path: Path) -> None:
    pixels = np.random.default_rng(0).random((40, 56, 3)).astype(np.float32)
    pixels[3, 4] = np.nan
    tifffile.imwrite(path, pixels)


BAD_IMAGES: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "empty": ("i.png", lambda p: p.write_bytes(b""), "empty"),
    "text named png": ("i.png", lambda p: p.write_text("hello, I am text\n" * 20), "text"),
    "html named tif": ("i.tif", lambda p: p.write_text("<!DOCTYPE html><html></html>"), "HTML"),
    "truncated": ("i.png", _truncate, ""),
    "not a number": ("i.tif", _float_with_nan, "NaN"),
    "float without a range": ("i.tif", lambda p: tifffile.imwrite(p, np.full((40, 56, 3), 900.0, np.float32)), "range"),
    "one channel for a colour model": ("i.png", lambda p: Image.new("L", (50, 40)).save(p), "channel"),
    "folder": ("i.png", lambda p: p.mkdir(), ""),
}


@pytest.mark.parametrize("name", BAD_IMAGES)
def test_bad_images_to_predict(run: Run, tiny_model: Path, tmp_path: Path, name: str) -> None:
    file, make, word = BAD_IMAGES[name]
    make(tmp_path / file)
    ended = run("predict", tiny_model, tmp_path / file, "--out", tmp_path / "out")
    _one_line(ended, 3, file, word)
    assert not list((tmp_path / "out").glob("*.png"))


@pytest.mark.parametrize("mode", ["RGBA", "I;16", "P", "1"])
def test_unusual_images_that_are_fine(run: Run, tmp_path: Path, mode: str) -> None:
    size = (50, 40)
    picture = Image.fromarray(np.full((40, 50), 40_000, np.uint16)) if mode == "I;16" else Image.new(mode, size)
    picture.save(tmp_path / "i.png")
    ended = run("forest", tmp_path / "i.png", "--budget", 8, "--out", tmp_path / "f.png")
    assert ended.code == 0, ended.err


def test_a_missing_input_and_an_empty_folder(run: Run, tiny_model: Path, tmp_path: Path) -> None:
    _one_line(run("predict", tiny_model, tmp_path / "no.png", "--out", tmp_path / "out"), 3, "no.png")
    (tmp_path / "in").mkdir()
    _one_line(run("predict", tiny_model, tmp_path / "in", "--out", tmp_path / "out"), 3, "no image")


def _break_weights(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def _other_width(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["model"]["width"] = 64
    (folder / "config.json").write_text(json.dumps(config))


BAD_MODELS: dict[str, Callable[[Path], object]] = {
    "no weights": lambda f: (f / "model.safetensors").unlink(),
    "truncated weights": _break_weights,
    "empty weights": lambda f: (f / "model.safetensors").write_bytes(b""),
    "pickled weights": lambda f: (f / "model.safetensors").write_bytes(b"\x80\x04\x95" + b"x" * 100),
    "weights of another model": _other_width,
    "no config": lambda f: (f / "config.json").unlink(),
    "broken config": lambda f: (f / "config.json").write_text('{"model": '),
    "config of another kind": lambda f: (f / "config.json").write_text("[1, 2]"),
    "unknown key in config": lambda f: (f / "config.json").write_text(
        (f / "config.json").read_text().replace('"width"', '"breadth"')
    ),
    "unknown model": lambda f: (f / "config.json").write_text(
        (f / "config.json").read_text().replace("apf_unetr", "os.system")
    ),
}


@pytest.mark.parametrize("name", BAD_MODELS)
def test_broken_models(run: Run, tiny_model: Path, tmp_path: Path, name: str) -> None:
    model = shutil.copytree(tiny_model, tmp_path / "model")
    BAD_MODELS[name](model)
    image = write_picture(tmp_path / "i.png")
    _one_line(run("predict", model, image, "--out", tmp_path / "out"), 3, str(model))


def test_a_run_that_is_not_there(run: Run, tmp_path: Path) -> None:
    image = write_picture(tmp_path / "i.png")
    _one_line(run("predict", tmp_path / "nope", image, "--out", tmp_path / "out"), 3, "nope")


def _save_mask(values: np.ndarray, mode: str | None = None) -> Callable[[Path], object]:
    return lambda path: Image.fromarray(values, mode).save(path) if mode else Image.fromarray(values).save(path)


def _palette(path: Path) -> None:
    picture = Image.fromarray(np.full((40, 56), 7, np.uint8), "P")
    picture.putpalette(list(range(256)) * 3)
    picture.save(path)


BAD_MASKS: dict[str, tuple[Callable[[Path], object], str]] = {
    "0 and 255": (_save_mask(np.eye(40, 56, dtype=np.uint8) * 255), "255"),
    "label out of range": (_save_mask(np.eye(40, 56, dtype=np.uint8) * 3), "3"),
    "palette index out of range": (_palette, "7"),
    "colours": (_save_mask(np.random.default_rng(0).integers(0, 255, (40, 56, 3), dtype=np.uint8)), "colour"),
    "RGBA": (_save_mask(np.random.default_rng(0).integers(0, 255, (40, 56, 4), dtype=np.uint8)), ""),
    "16 bit": (_save_mask(np.eye(40, 56, dtype=np.uint16) * 40_000), "40000"),
    "other size": (_save_mask(np.zeros((56, 40), np.uint8)), "56"),
    "empty file": (lambda p: p.write_bytes(b""), "empty"),
    "text": (lambda p: p.write_text("0 0 1 1\n" * 9), "text"),
}


@pytest.mark.parametrize("name", BAD_MASKS)
def test_bad_masks_to_train(run: Run, tmp_path: Path, name: str) -> None:
    data = make_pairs(tmp_path / "data")
    make, word = BAD_MASKS[name]
    for k in range(4):
        path = data / "masks" / f"case {k}.png"
        path.unlink()
        make(path)
    _one_line(train_tiny(run, data, tmp_path / "run"), 3, "case ", word)


def test_unpaired_files_are_listed(run: Run, tmp_path: Path) -> None:
    data = make_pairs(tmp_path / "data")
    (data / "masks" / "case 2.png").unlink()
    _one_line(train_tiny(run, data, tmp_path / "run"), 3, "case 2")


def test_no_data_at_all(run: Run, tmp_path: Path) -> None:
    _one_line(train_tiny(run, tmp_path / "nope", tmp_path / "run"), 3, "nope")
    (tmp_path / "empty").mkdir()
    _one_line(train_tiny(run, tmp_path / "empty", tmp_path / "run"), 3, "empty")


@pytest.mark.parametrize(
    ("setting", "word"),
    [("train.lrr=1", "train.lr"), ("train.lr=fast", "lr"), ("trian.lr=1", "trian"), ("lr", "section.field")],
)
def test_bad_settings(run: Run, tmp_path: Path, setting: str, word: str) -> None:
    _one_line(train_tiny(run, make_pairs(tmp_path / "data"), tmp_path / "run", "--set", setting), 3, word)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "text", ["train: {lrr: 1}", "train: [", "- a", "!!python/object/apply:os.system ['true']", "\0"]
)
def test_bad_recipes(run: Run, tmp_path: Path, text: str) -> None:
    recipe = tmp_path / "a recipe.yaml"
    recipe.write_text(text)
    _one_line(train_tiny(run, tmp_path, tmp_path / "run", "--recipe", recipe), 3, "a recipe.yaml")


def test_a_missing_extra_is_named(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda n, p=None: None if n == "lightning" else real(n, p))
    _one_line(train_tiny(run, make_pairs(tmp_path / "data"), tmp_path / "run"), 3, "pip install 'patchforest[train]'")


def test_an_output_that_is_no_folder(run: Run, tiny_model: Path, tmp_path: Path) -> None:
    image = write_picture(tmp_path / "i.png")
    (tmp_path / "out").write_text("")
    _one_line(run("predict", tiny_model, image, "--out", tmp_path / "out"), 3, "out")
