"""Slides from files to masks by the commands of the README: train at a scale, predict, evaluate, look at them."""

from __future__ import annotations

import gzip
import json
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from patchforest.cli.main import main
from patchforest.io.geojson import read_geojson
from patchforest.io.open import open_image
from tests.gland_slides import NAMES, label_bands, write_gland_slide

if find_spec("lightning") is None:
    pytest.skip("training needs the extra train", allow_module_level=True)
SHAPE = (1500, 1300)


@pytest.fixture(scope="module")
def slides(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three labelled slides of other scales: the labels of one are polygons."""
    folder = tmp_path_factory.mktemp("slides")
    for mpp, seed in ((0.5, 1), (0.25, 2), (1.0, 3)):
        name = f"slide_{seed}.tif"
        write_gland_slide(folder / "images" / name, folder / "masks" / name, shape=SHAPE, mpp=mpp, seed=seed)
    from patchforest.infer.polygons import polygons_of
    from patchforest.io.geojson import write_geojson

    polygons = polygons_of(label_bands(SHAPE, 1.0, 3), width=SHAPE[1])
    write_geojson(folder / "masks" / "slide_3.geojson", polygons, names=NAMES, colours=np.zeros((2, 3), np.uint8))
    (folder / "masks" / "slide_3.tif").unlink()
    return folder


@pytest.fixture(scope="module")
def trained(slides: Path) -> Path:
    """A run of a few steps at 4 microns per pixel, on tissue."""
    run, settings = slides / "run", slides / "recipe.json"
    recipe = {
        "data": {"mpp": 4.0, "tissue": True, "window": [64, 96], "classes": list(NAMES), "folds": 3},
        "forest": {"budget": 64},
        "model": {"name": "shf", "width": 16, "depth": 1, "heads": 2, "stem": [8]},
        "train": {"max_steps": 4, "batch": 2, "validate_every": 1.0, "threads": 1},
    }
    settings.write_text(json.dumps(recipe))
    assert main(["train", "--recipe", str(settings), "--data", str(slides), "--out", str(run), "--quiet"]) == 0
    return run


def test_masks_of_slides(slides: Path, trained: Path, tmp_path: Path) -> None:
    images, out = slides / "images", tmp_path / "masks"
    assert main(["predict", str(trained), str(images), "--out", str(out), "--geojson", "gz", "--quiet"]) == 0
    for path in sorted(images.iterdir()):
        image, mask = open_image(path), open_image(out / path.name)
        assert mask.shape == (*image.shape[:2], 1)
        assert mask.mpp == pytest.approx(image.mpp)
        pixels = mask.read()[:, :, 0]
        polygons = out / f"{path.stem}.geojson.gz"
        features = json.loads(gzip.decompress(polygons.read_bytes()))["features"]
        areas = [feature["properties"]["measurements"]["Area px"] for feature in features]
        assert sum(areas) == np.count_nonzero(pixels)
        if features:
            drawn = read_geojson(polygons, names=NAMES, shape=SHAPE)
            assert np.array_equal(drawn.read(0, 0, *SHAPE), pixels)
    told = json.loads((out / "predictions.json").read_text())
    assert (told["done"], told["failed"]) == (3, 0)


def test_scores_of_slides(slides: Path, trained: Path, tmp_path: Path) -> None:
    assert main(["evaluate", str(trained), "--data", str(slides), "--out", str(tmp_path), "--quiet"]) == 0
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["num_cases"] == 3
    for case in summary["metric_per_case"]:
        counts = case["metrics"]["1"]
        mpp = open_image(Path(case["image_file"])).mpp
        assert mpp is not None
        truth = np.concatenate(list(label_bands(SHAPE, mpp, int(case["id"][-1]))))
        assert counts["n_ref"] == pytest.approx(truth.sum() * (mpp / 4.0) ** 2, rel=0.05)  # pixels of 4 microns
    assert (tmp_path / "report.html").is_file()


def test_a_slide_to_look_at(slides: Path, tmp_path: Path) -> None:
    image, truth = slides / "images" / "slide_1.tif", slides / "masks" / "slide_1.tif"
    out = tmp_path / "view"
    command = ["view", str(image), "--out", str(out), "--truth", str(truth), "--classes", ",".join(NAMES), "--quiet"]
    assert main(command) == 0
    assert (out / "index.html").is_file()
