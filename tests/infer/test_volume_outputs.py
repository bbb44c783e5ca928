"""Names and formats of what is written for volumes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from patchforest.errors import InputError
from patchforest.infer.outputs import Outputs
from patchforest.infer.volume import VolumePrediction
from patchforest.infer.volume_outputs import VolumeOutputs
from patchforest.io.volume import open_volume
from patchforest.io.volume_array import ArrayVolume
from patchforest.values import Array

PLACED = ArrayVolume(np.zeros((3, 4, 5), np.uint8), affine=np.diag([2.0, -1, -1, 1])[[2, 1, 0, 3]])
PLAIN = ArrayVolume(np.zeros((3, 4, 5), np.uint8))


@pytest.mark.parametrize(
    ("file", "volume", "format", "name"),
    [
        ("a.nii", PLACED, "auto", "a.nii.gz"),
        ("a.nii.gz", PLACED, "auto", "a.nii.gz"),
        ("a.nhdr", PLACED, "auto", "a.nrrd"),
        ("a.npy", PLAIN, "auto", "a.npy"),
        ("series", PLACED, "auto", "a.nii.gz"),
        ("a.tif", PLAIN, "auto", "a.tif"),
        ("a.nii", PLACED, ".nrrd", "a.nrrd"),
        ("a.tif", PLAIN, ".nii.gz", "a.nii.gz"),
    ],
)
def test_names(tmp_path: Path, file: str, volume: ArrayVolume, format: str, name: str) -> None:
    paths = VolumeOutputs(Outputs(format=format)).paths(tmp_path, "a", volume, Path(file))
    assert paths == {"mask": tmp_path / name}


def test_what_volumes_do_not_have(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"a\.nii: is a volume, which \.png does not hold"):
        VolumeOutputs(Outputs(format=".png")).paths(tmp_path, "a", PLACED, Path("a.nii"))
    outlines = Outputs(polygons=".geojson", colours=np.zeros((2, 3), np.uint8))
    with pytest.raises(InputError, match="no outlines"):
        VolumeOutputs(outlines).paths(tmp_path, "a", PLACED, Path("a.nii"))


def test_the_overlay_shows_the_plane_with_most_to_see(tmp_path: Path, rng: np.random.Generator) -> None:
    volume = ArrayVolume(rng.integers(0, 255, (5, 6, 7)).astype(np.uint8))
    mask = np.zeros((5, 6, 7), np.uint8)
    mask[1, 2, 2], mask[3, 1:4, 1:5] = 1, 1
    seen: list[Array] = []

    def draw(image: Array, labels: Array) -> Array:
        seen.extend([image, labels])
        return np.zeros((*labels.shape, 3), np.uint8)

    outputs = VolumeOutputs(Outputs(format=".tif", probabilities=True, draw=draw))
    paths = outputs.paths(tmp_path, "x/a", volume, Path("a.tif"))
    shares = rng.random((1, 5, 6, 7), dtype=np.float32)
    outputs.write(paths, VolumePrediction(mask, shares, (), (1, 1, 1), 0, 0.0), volume)
    assert np.array_equal(seen[0], volume.read()[3])
    assert np.array_equal(seen[1], mask[3])
    assert np.array_equal(open_volume(tmp_path / "x" / "a.tif").read()[..., 0], mask)
    assert np.array_equal(open_volume(tmp_path / "probabilities" / "x" / "a.tif").read()[..., 0], shares[0])
    assert (tmp_path / "overlays" / "x" / "a.png").is_file()
