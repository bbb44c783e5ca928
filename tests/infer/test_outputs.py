"""Files of a result: names, formats, small overlays of large masks, probabilities of the class itself."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from patchforest.infer import outputs
from patchforest.infer.outputs import Outputs
from patchforest.io.array import ArraySource
from patchforest.io.geojson import read_geojson
from patchforest.io.open import open_image
from patchforest.values import Array

COLOURS = np.array([[0, 0, 0], [230, 159, 0], [1, 2, 3]], np.uint8)


@dataclass
class Banded:
    """A result in memory, given in bands of a height."""

    mask: Array
    shares: Array
    height: int = 7

    @property
    def shape(self) -> tuple[int, int]:
        """(H, W)."""
        return self.mask.shape[0], self.mask.shape[1]

    def masks(self) -> Iterator[Array]:
        """Bands."""
        return (self.mask[k : k + self.height] for k in range(0, len(self.mask), self.height))

    def probabilities(self) -> Iterator[Array]:
        """Bands."""
        return (self.shares[k : k + self.height] for k in range(0, len(self.mask), self.height))


def test_names_follow_what_is_wanted(tmp_path: Path) -> None:
    every = Outputs(probabilities=True, polygons=".geojson.gz", colours=COLOURS, draw=lambda image, mask: image)
    named = {k: v.relative_to(tmp_path).as_posix() for k, v in every.paths(tmp_path, "x/a", (5, 5), flat=True).items()}
    assert named == {
        "mask": "x/a.png",
        "probabilities": "probabilities/x/a.tif",
        "polygons": "x/a.geojson.gz",
        "overlay": "overlays/x/a.png",
    }
    assert every.paths(tmp_path, "a", (5, 5), flat=False)["mask"].name == "a.tif"
    assert every.paths(tmp_path, "a", (20000, 5), flat=True)["mask"].name == "a.tif"
    assert Outputs(format=".ome.zarr").paths(tmp_path, "a", (5, 5), flat=True) == {"mask": tmp_path / "a.ome.zarr"}
    assert not Outputs(draw=lambda image, mask: image).needs_probabilities


@pytest.mark.parametrize("classes", [2, 3])
def test_polygons_carry_the_probability_of_their_own_class(tmp_path: Path, classes: int) -> None:
    mask = np.zeros((30, 20), np.uint8)
    mask[5:15, 3:9], mask[18:28, 10:19] = 1, classes - 1
    shares = np.zeros((30, 20, 1 if classes == 2 else 3), np.uint8)
    if classes == 2:
        shares[5:15, 3:9], shares[18:28, 10:19] = 204, 153
    else:
        shares[5:15, 3:9, 1], shares[18:28, 10:19, 2] = 204, 153
    wanted = Outputs(polygons=".geojson", colours=COLOURS)
    paths, names = wanted.paths(tmp_path, "a", (30, 20), flat=True), ("none", "one", "two")[:classes]
    wanted.write(paths, Banded(mask, shares), ArraySource(np.zeros((30, 20, 3), np.uint8)), names)
    features = json.loads((tmp_path / "a.geojson").read_text())["features"]
    told = [feature["properties"]["measurements"]["Probability"] for feature in features]
    assert told == pytest.approx([0.8, 0.6])
    assert np.array_equal(read_geojson(tmp_path / "a.geojson", names=names).read(0, 0, 30, 20), mask)
    assert np.array_equal(open_image(tmp_path / "a.png").read()[:, :, 0], mask)


def test_large_masks_have_small_overlays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outputs, "LARGEST_OVERLAY", 16)
    mask = np.zeros((64, 48), np.uint8)
    mask[16:32, 8:40] = 1
    seen = []

    def draw(image: Array, small: Array) -> Array:
        seen.append((image.shape, small))
        return image

    wanted = Outputs(draw=draw)
    image = ArraySource(np.zeros((64, 48, 3), np.uint8))
    wanted.write(wanted.paths(tmp_path, "a", (64, 48), flat=True), Banded(mask, mask[:, :, None]), image, ("a", "b"))
    ((shape, small),) = seen
    assert shape == (16, 12, 3)
    expected = np.zeros((16, 12), np.uint8)
    expected[4:8, 2:10] = 1
    assert np.array_equal(small, expected)
