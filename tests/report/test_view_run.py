"""Files to layers: masks whole and in parts, polygons beside masks, the forest cut on the way."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from patchforest.errors import InputError
from patchforest.io.array import ArraySource
from patchforest.io.write import write_mask
from patchforest.report import view_run
from patchforest.report.view_run import LayerFiles, open_layers, open_mask, view_image
from patchforest.tree.cut import cut_forest
from patchforest.values import ForestPolicy

IMAGE = ArraySource(np.random.default_rng(3).integers(0, 256, (60, 80, 3), dtype=np.uint8))


def write_polygons(path: Path, boxes: dict[str, tuple[int, int, int, int]]) -> Path:
    """GeoJSON of boxes (top, left, bottom, right) by class name."""
    features = []
    for name, (top, left, bottom, right) in boxes.items():
        ring = [[left, top], [right, top], [right, bottom], [left, bottom], [left, top]]
        features.append(
            {
                "type": "Feature",
                "geometry": {"type": "Polygon", "coordinates": [ring]},
                "properties": {"objectType": "annotation", "classification": {"name": name}},
            }
        )
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    return path


def test_masks_polygons_and_probabilities_become_layers(tmp_path: Path, rng: np.random.Generator) -> None:
    mask = rng.integers(0, 3, (30, 40), dtype=np.uint8)
    write_mask(tmp_path / "m.png", mask)
    np.save(tmp_path / "p.npy", rng.random((60, 80)))
    truth = write_polygons(tmp_path / "t.GeoJSON", {"gland": (10, 20, 30, 50)})
    files = LayerFiles(tmp_path / "m.png", truth, tmp_path / "p.npy", classes=("background", "stroma", "gland"))
    layers = open_layers(files, IMAGE)
    assert [(layer.name, layer.kind) for layer in layers] == [
        ("prediction", "mask"),
        ("truth", "mask"),
        ("probability", "probability"),
    ]
    assert layers[0].names == layers[1].names == ("background", "stroma", "gland")
    np.testing.assert_array_equal(layers[0].source.read()[:, :, 0], mask)
    expected = np.zeros((60, 80), np.uint8)
    expected[10:30, 20:50] = 2
    np.testing.assert_array_equal(layers[1].source.read()[:, :, 0], expected)
    np.testing.assert_array_equal(layers[1].source.read(0, 5, 15, 20, 30)[:, :, 0], expected[5:25, 15:45])


def test_polygons_without_names_share_their_numbers(tmp_path: Path) -> None:
    prediction = write_polygons(tmp_path / "p.geojson", {"tumour": (0, 0, 10, 10), "stroma": (20, 20, 30, 30)})
    truth = write_polygons(tmp_path / "t.json", {"necrosis": (0, 0, 5, 5), "stroma": (20, 20, 30, 30)})
    first, second = open_layers(LayerFiles(prediction, truth), IMAGE)
    assert first.names == second.names == ("background", "tumour", "stroma", "necrosis")
    assert (first.source.read()[5, 5, 0], first.source.read()[25, 25, 0]) == (1, 2)
    assert (second.source.read()[2, 2, 0], second.source.read()[25, 25, 0]) == (3, 2)


@pytest.mark.parametrize("label_map", [None, {255: 1, 7: 2}])
def test_a_large_mask_is_read_in_parts(
    tmp_path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch, label_map: dict[int | str, int] | None
) -> None:
    values = rng.choice(np.array([0, 255, 7], np.uint8), (600, 700))
    write_mask(tmp_path / "m.tif", values)
    expected = values if label_map is None else np.select([values == 255, values == 7], [1, 2], 0)
    for most in (1 << 28, 1000):
        monkeypatch.setattr(view_run, "_WHOLE", most)
        source = open_mask(tmp_path / "m.tif", label_map)
        np.testing.assert_array_equal(source.read(0, 100, 50, 400, 300)[:, :, 0], expected[100:500, 50:350])
        assert isinstance(source, ArraySource) == (most > 1000)
        assert source.shape[:2] == (600, 700)


def test_a_large_picture_is_no_mask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.fromarray(IMAGE.read()).save(tmp_path / "m.tif")
    monkeypatch.setattr(view_run, "_WHOLE", 10)
    with pytest.raises(InputError, match="no mask"):
        open_mask(tmp_path / "m.tif")


@pytest.mark.parametrize("part", ["prediction", "truth", "probability"])
def test_layers_of_another_image_are_refused_by_name(tmp_path: Path, part: str) -> None:
    write_mask(tmp_path / "other.png", np.zeros((60, 90), np.uint8))
    with pytest.raises(InputError, match=r"other\.png: is 60 x 90 pixels"):
        open_layers(LayerFiles(**{part: tmp_path / "other.png"}), IMAGE)


def test_a_view_with_the_forest_of_its_policy(tmp_path: Path) -> None:
    said: list[str] = []
    truth = write_polygons(tmp_path / "t.geojson", {"gland": (10, 20, 30, 50)})
    view = view_image(
        IMAGE,
        tmp_path / "v",
        title="i",
        files=LayerFiles(truth=truth),
        policy=ForestPolicy(budget=40),
        tell=said.append,
    )
    assert said == ["forest", "tiles of the image", "tiles of the truth"]
    assert (view.page, view.files) == (tmp_path / "v" / "index.html", 2)
    count = len(cut_forest(IMAGE.read(), ForestPolicy(budget=40)))
    assert f'"count": {count},' in (tmp_path / "v" / "forest.js").read_text()
    view_image(IMAGE, tmp_path / "v", title="i", files=LayerFiles())
    assert (tmp_path / "v" / "forest.js").read_text() == "window.patchforestLeaves = null;\n"


def test_a_slide_of_a_scanner(tmp_path: Path, shared_data: Path) -> None:
    from patchforest.io.open import open_image

    slide = open_image(shared_data / "wsi" / "CMU-1-Small-Region.svs")
    view = view_image(slide, tmp_path / "v", title="CMU", files=LayerFiles(), policy=ForestPolicy(budget=500))
    assert view.files == 30 + 9 + 4 + 1
    tile = np.asarray(Image.open(tmp_path / "v" / "image" / "3" / "1_2.jpg")).astype(int)
    expected = slide.read(0, 1024, 512, 512, 512).astype(int)
    assert np.abs(tile - expected).mean() < 4
