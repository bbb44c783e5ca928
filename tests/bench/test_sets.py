"""Data folders of recipes, and one image that becomes a set."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from patchforest.bench.sets import cut_image, cut_volume, data_of
from patchforest.data.layout import Case, find_cases
from patchforest.data.load import load_case
from patchforest.data.splits import split_cases
from patchforest.errors import InputError
from patchforest.io.volume import open_volume
from patchforest.io.volume_array import ArrayVolume
from patchforest.io.volume_write import write_volume, write_volume_mask
from patchforest.io.write import write_image, write_mask


def one_image(folder: Path, rng: np.random.Generator, rows: int = 13) -> tuple[np.ndarray, np.ndarray]:
    """A set of a single image; its pixels and its mask."""
    image, mask = rng.integers(0, 256, (rows, 8, 3), np.uint8), rng.integers(0, 5, (rows, 8)).astype(np.uint8)
    write_image(folder / "images" / "a.png", image)
    write_mask(folder / "masks" / "a.png", mask)
    return image, mask


@pytest.mark.parametrize("rows", [4, 12, 13, 15])
def test_every_pixel_is_in_one_part(tmp_path: Path, rng: np.random.Generator, rows: int) -> None:
    image, mask = one_image(tmp_path / "one", rng, rows)
    cut = cut_image(tmp_path / "one", tmp_path / "cut")
    training, held = split_cases(find_cases(cut), train=cut / "train.txt", validation=cut / "validation.txt")
    assert [c.id for c in (*training, *held)] == ["train_1", "train_2", "validation"]
    parts = [load_case(c) for c in (*training, *held)]
    np.testing.assert_array_equal(np.concatenate([p.image for p in parts]), image)
    np.testing.assert_array_equal(np.concatenate([p.label for p in parts]), mask)
    before = {p: p.stat().st_mtime_ns for p in cut.rglob("*")}
    assert cut_image(tmp_path / "one", tmp_path / "cut") == cut
    assert {p: p.stat().st_mtime_ns for p in before} == before


@pytest.mark.parametrize("suffix", [".nii.gz", ".nrrd"])
def test_every_voxel_of_a_cut_volume_stays_where_it_was(suffix: str, tmp_path: Path, rng: np.random.Generator) -> None:
    if suffix == ".nii.gz":
        pytest.importorskip("nibabel")
    affine = np.array([[0.1, 0.2, -1.0, 40.0], [0.3, -2.0, -0.1, -20.0], [3.0, 0.2, 0.1, 7.0], [0.0, 0.0, 0.0, 1.0]])
    voxels = rng.integers(0, 200, (7, 6, 5)).astype(np.float32)
    place = ArrayVolume(voxels, affine=affine)
    case = Case("a", tmp_path / f"image{suffix}", tmp_path / f"label{suffix}")
    write_volume(case.image, voxels, place)
    assert case.label is not None
    write_volume_mask(case.label, (voxels > 100).astype(np.uint8), place)
    cut = cut_volume(case, tmp_path / "cut")
    for name, first, planes in (("lower", 0, 4), ("upper", 4, 3)):
        for folder in ("images", "labels"):
            part = open_volume(cut / folder / f"{name}.nrrd")
            assert part.shape == (planes, 6, 5, 1)
            assert part.affine is not None
            corners = np.array([[0, 0, 0, 1], [1, 3, 2, 1]])
            np.testing.assert_allclose(part.affine @ corners.T, affine @ (corners + [first, 0, 0, 0]).T, atol=1e-4)
            wanted = voxels if folder == "images" else voxels > 100
            np.testing.assert_array_equal(part.read()[..., 0], wanted[first : first + planes])


def test_two_images_are_not_cut(tmp_path: Path, rng: np.random.Generator) -> None:
    one_image(tmp_path / "one", rng)
    write_image(tmp_path / "one" / "images" / "b.png", np.zeros((4, 4, 3), np.uint8))
    write_mask(tmp_path / "one" / "masks" / "b.png", np.zeros((4, 4), np.uint8))
    with pytest.raises(InputError, match="holds 2 images"):
        cut_image(tmp_path / "one", tmp_path / "cut")


def test_folders_by_name(tmp_path: Path, rng: np.random.Generator) -> None:
    (tmp_path / "data" / "idrid").mkdir(parents=True)
    one_image(tmp_path / "data" / "swiss_drone", rng)
    assert data_of("idrid_classes", tmp_path / "data", tmp_path / "out") == tmp_path / "data" / "idrid"
    assert data_of("idrid", tmp_path / "data", tmp_path / "out") == tmp_path / "data" / "idrid"
    cut = data_of("swiss_drone", tmp_path / "data", tmp_path / "out")
    assert cut == tmp_path / "out" / "data" / "swiss_drone"
    assert len(find_cases(cut).cases) == 3
    with pytest.raises(InputError, match="there are no such data; --data names the folder of all sets; it holds idrid"):
        data_of("hrf", tmp_path / "data", tmp_path / "out")
