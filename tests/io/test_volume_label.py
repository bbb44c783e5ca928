"""Label volumes: the rules of label files, and pairs that do not belong together."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile

from patchforest.errors import InputError
from patchforest.io.volume import open_volume
from patchforest.io.volume_array import ArrayVolume
from patchforest.io.volume_label import check_volume_pair, read_label_volume
from tests.io.volumes import AFFINE, ORDERS, anatomy, reordered, save_nifti, shown, turned

VALUES = np.arange(24).reshape(2, 3, 4) % 3


def saved(path: Path, values: np.ndarray) -> Path:
    np.save(path, values)
    return path


def test_class_numbers_come_back(tmp_path: Path) -> None:
    for dtype in ("u1", "i2", ">u2", "i8"):
        label = read_label_volume(saved(tmp_path / "m.npy", VALUES.astype(dtype)), num_classes=3)
        assert label.dtype == np.uint8
        np.testing.assert_array_equal(label, VALUES)
    label = read_label_volume(saved(tmp_path / "m.npy", VALUES + 300))
    assert label.dtype == np.uint16
    np.testing.assert_array_equal(read_label_volume(saved(tmp_path / "m.npy", VALUES > 0)), VALUES > 0)
    np.testing.assert_array_equal(read_label_volume(saved(tmp_path / "m.npy", VALUES[..., None])), VALUES)


def test_labels_are_shown_like_images(tmp_path: Path) -> None:
    pytest.importorskip("nibabel", reason="NIfTI needs the extra volumes")
    ras = anatomy("uint8") % 5
    for k in (0, 11, 30, 47):
        path = save_nifti(tmp_path / "m.nii.gz", *reordered(ras, AFFINE, *ORDERS[k]))
        np.testing.assert_array_equal(read_label_volume(path, num_classes=5), shown(ras)[..., 0])


def test_the_rules_of_label_files_hold(tmp_path: Path) -> None:
    path = saved(tmp_path / "m.npy", VALUES)
    np.testing.assert_array_equal(read_label_volume(path, label_map={2: 0, "other": 1}), VALUES != 2)
    with pytest.raises(InputError, match=r"m.npy: holds value 2, but class numbers go from 0 to 1"):
        read_label_volume(path, num_classes=2)
    with pytest.raises(InputError, match="value 2, neither in label_map"):
        read_label_volume(path, label_map={1: 1})
    with pytest.raises(ValueError, match="label_map: "):
        read_label_volume(path, label_map={0.5: 1})  # type: ignore[dict-item]
    with pytest.raises(InputError, match=r"set `label_map: \{255: 1\}`"):
        read_label_volume(saved(path, np.where(VALUES > 0, 255, 0).astype(np.uint8)))
    with pytest.raises(InputError, match="holds value -1"):
        read_label_volume(saved(path, VALUES - 1))
    with pytest.raises(InputError, match="holds float32 values, but class numbers are whole"):
        read_label_volume(saved(path, VALUES.astype(np.float32)))
    with pytest.raises(InputError, match="is a label of 2 channels"):
        read_label_volume(saved(path, np.stack([VALUES, VALUES], axis=3)))
    with tifffile.TiffWriter(tmp_path / "w.tif") as tif:
        for plane in VALUES:
            tif.write(plane > 0, photometric="miniswhite")
    with pytest.raises(InputError, match="counts from white"):
        read_label_volume(tmp_path / "w.tif")


def test_scaled_labels_are_refused(tmp_path: Path) -> None:
    nibabel = pytest.importorskip("nibabel", reason="NIfTI needs the extra volumes")
    image = nibabel.Nifti1Image(VALUES.astype(np.uint8), AFFINE)
    image.header.set_slope_inter(0.5, 0)
    nibabel.save(image, tmp_path / "m.nii")
    with pytest.raises(InputError, match=r"holds float32 values.*without scaling"):
        read_label_volume(tmp_path / "m.nii")


def test_pairs(tmp_path: Path) -> None:
    image = ArrayVolume(np.zeros((2, 3, 4)))
    check_volume_pair(image, ArrayVolume(np.zeros((2, 3, 4, 2))), "a", "b")
    with pytest.raises(InputError, match=r"b: is 2 x 3 x 5 voxels .* its image a is 2 x 3 x 4; export it"):
        check_volume_pair(image, ArrayVolume(np.zeros((2, 3, 5))), "a", "b")
    with pytest.raises(InputError, match="axes are in another order"):
        check_volume_pair(image, ArrayVolume(np.zeros((4, 3, 2))), "a", "b")


@pytest.mark.parametrize(
    ("row", "column", "change", "gap"),
    [(0, 3, 1e-3, None), (0, 3, 4.0, "4 mm"), (1, 1, 1e-4, None), (2, 2, 1e-2, "0.03 mm"), (0, 0, 1e-2, "0.01 mm")],
)
def test_pairs_lie_at_one_place(row: int, column: int, change: float, gap: str | None) -> None:
    other = AFFINE.copy()
    other[row, column] += change
    image, label = ArrayVolume(VALUES, affine=AFFINE), ArrayVolume(VALUES, affine=other)
    if gap is None:
        check_volume_pair(image, label, "a", "b")
        return
    with pytest.raises(InputError, match=f"b: lies elsewhere than its image a: voxels are up to {gap} apart; resample"):
        check_volume_pair(image, label, "a", "b")
    check_volume_pair(image, ArrayVolume(VALUES), "a", "b")


def test_turned_labels_do_not_fit(tmp_path: Path) -> None:
    pytest.importorskip("nibabel", reason="NIfTI needs the extra volumes")
    ras = anatomy("uint8")
    image = open_volume(save_nifti(tmp_path / "v.nii", ras, AFFINE))
    label = open_volume(save_nifti(tmp_path / "m.nii", ras, turned(AFFINE, (0, 0, 5))))
    with pytest.raises(InputError, match="lies elsewhere"):
        check_volume_pair(image, label, "a", "b")
    label = open_volume(save_nifti(tmp_path / "m.nii", *reordered(ras, AFFINE, *ORDERS[13])))
    check_volume_pair(image, label, "a", "b")


def test_the_nerve_cord(shared_data: Path) -> None:
    path = shared_data / "em_drosophila_vnc" / "labels.tif"
    if not path.is_file():
        pytest.skip("no em_drosophila_vnc")
    label = read_label_volume(path, num_classes=6)
    np.testing.assert_array_equal(label, tifffile.imread(path))
    check_volume_pair(open_volume(path.parent / "raw.tif"), open_volume(path), "raw.tif", path)
