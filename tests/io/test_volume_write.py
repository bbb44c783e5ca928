"""Masks of volumes lie where their image does: against nibabel, pynrrd and world coordinates."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile

from patchforest.errors import InputError
from patchforest.io.volume import open_volume
from patchforest.io.volume_array import ArrayVolume
from patchforest.io.volume_label import check_volume_pair, read_label_volume
from patchforest.io.volume_write import write_volume, write_volume_mask
from tests.io.volumes import AFFINE, ORDERS, SIZE, anatomy, reordered, save, save_nifti, save_series, shown, turned

nibabel = pytest.importorskip("nibabel", reason="NIfTI needs the extra volumes")
nrrd = pytest.importorskip("nrrd", reason="NRRD needs the extra volumes")

RAS = anatomy("uint8")
MASK = shown(RAS)[..., 0]
PLACING = (
    "qform_code", "sform_code", "quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z",
    "srow_x", "srow_y", "srow_z", "pixdim", "xyzt_units",
)  # fmt: skip


def world_of(path: Path) -> dict[tuple[float, ...], int]:
    """Millimetres RAS of every voxel -> its value, as nibabel or pynrrd see a file."""
    if path.suffix == ".nrrd":
        voxels, header = nrrd.read(str(path))
        assert header["space"] == "left-posterior-superior"
        affine = np.eye(4)
        affine[:3, :3], affine[:3, 3] = header["space directions"].T, header["space origin"]
        affine = np.diag([-1, -1, 1, 1]) @ affine
    else:
        image = nibabel.load(path)
        voxels, affine = np.asarray(image.dataobj), image.affine
    return {
        tuple(np.round((affine @ (*index, 1))[:3], 2) + 0.0): int(voxels[index]) for index in np.ndindex(*voxels.shape)
    }


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".nrrd"])
@pytest.mark.parametrize(("order", "signs"), ORDERS)
def test_masks_of_every_order(tmp_path: Path, suffix: str, order: tuple[int, ...], signs: tuple[int, ...]) -> None:
    stored, affine = reordered(RAS, AFFINE, order, signs)
    path, out = save(tmp_path / f"v{suffix}", stored, affine), tmp_path / f"m{suffix}"
    source = open_volume(path)
    write_volume_mask(out, MASK, source)
    assert world_of(out) == world_of(path)
    np.testing.assert_array_equal(read_label_volume(out), MASK)
    check_volume_pair(source, open_volume(out), path, out)
    if suffix != ".nrrd":
        one, other = nibabel.load(path), nibabel.load(out)
        assert one.shape == other.shape
        for field in PLACING:
            np.testing.assert_array_equal(one.header[field], other.header[field])
    other_kind = tmp_path / ("w.nii.gz" if suffix == ".nrrd" else "w.nrrd")
    write_volume_mask(other_kind, MASK, source)
    assert world_of(other_kind) == world_of(path)


@pytest.mark.parametrize("codes", [(1, 0), (0, 2), (3, 4), (0, 0)])
@pytest.mark.parametrize("units", ["mm", "micron"])
def test_codes_and_units_are_kept_bit_by_bit(tmp_path: Path, codes: tuple[int, int], units: str) -> None:
    oblique = turned(AFFINE, (11, -7, 23))
    for kind, endian in ((nibabel.Nifti1Image, ">"), (nibabel.Nifti2Image, "<")):
        header = kind.header_class(endianness=endian)
        header.set_xyzt_units(units, "sec")
        image = kind(RAS, None, header)
        image.set_sform(oblique, codes[0])
        image.set_qform(oblique, codes[1])
        nibabel.save(image, tmp_path / "v.nii")
        source = open_volume(tmp_path / "v.nii")
        mask = source.read()[..., 0].astype(np.uint16) + 300
        write_volume_mask(tmp_path / "m.nii.gz", mask, source)
        one, other = nibabel.load(tmp_path / "v.nii"), nibabel.load(tmp_path / "m.nii.gz")
        assert type(one) is type(other)
        assert other.header.endianness == endian
        assert other.get_data_dtype().newbyteorder("=") == np.uint16
        for field in PLACING:
            np.testing.assert_array_equal(one.header[field], other.header[field])
        np.testing.assert_array_equal(one.affine, other.affine)
        np.testing.assert_array_equal(np.asarray(other.dataobj), RAS.astype(int) + 300)


def test_scaling_of_the_image_is_not_that_of_its_mask(tmp_path: Path) -> None:
    image = nibabel.Nifti1Image(RAS, AFFINE)
    image.header["cal_max"], image.header["intent_code"] = 5, 1001
    image.header.set_slope_inter(2, -7)
    nibabel.save(image, tmp_path / "v.nii")
    write_volume_mask(tmp_path / "m.nii", MASK, open_volume(tmp_path / "v.nii"))
    np.testing.assert_array_equal(np.asarray(nibabel.load(tmp_path / "m.nii").dataobj), RAS)
    header = nibabel.load(tmp_path / "m.nii").header
    assert (header["cal_max"], header["intent_code"]) == (0, 0)


@pytest.mark.parametrize("suffix", [".tif", ".tiff", ".npy"])
def test_formats_without_a_place_hold_what_is_shown(tmp_path: Path, suffix: str) -> None:
    source = open_volume(save(tmp_path / "v.nii", *reordered(RAS, AFFINE, *ORDERS[29])))
    out = tmp_path / f"m{suffix}"
    for mask in (MASK, MASK.astype(np.int64) + 1000, MASK > 50):
        write_volume_mask(out, mask, source)
        found = np.load(out) if suffix == ".npy" else tifffile.imread(out)
        np.testing.assert_array_equal(found, mask)
        assert found.dtype == (np.uint16 if mask.max() > 255 else np.uint8)
        np.testing.assert_array_equal(read_label_volume(out), mask)


@pytest.mark.parametrize("suffix", [".nii.gz", ".nii", ".nrrd", ".tif", ".npy"])
@pytest.mark.parametrize("channels", [0, 1, 3])
def test_probabilities(tmp_path: Path, suffix: str, channels: int, rng: np.random.Generator) -> None:
    path = save(tmp_path / "v.nii", *reordered(anatomy(channels=2), turned(AFFINE, (5, 5, 5)), *ORDERS[37]))
    source, out = open_volume(path), tmp_path / f"p{suffix}"
    voxels = rng.random((*SIZE[::-1], channels) if channels else SIZE[::-1])
    write_volume(out, voxels, source)
    read = open_volume(out).read()
    assert read.dtype == np.float32
    np.testing.assert_array_equal(read, voxels.astype(np.float32).reshape(*SIZE[::-1], -1))
    check_volume_pair(source, open_volume(out), path, out)


@pytest.mark.parametrize("suffix", [".nii.gz", ".nrrd", ".tif", ".npy"])
def test_images_without_a_place(tmp_path: Path, suffix: str) -> None:
    for spacing in ((2.5, 1.25, 0.75), None):
        source = ArrayVolume(MASK, spacing=spacing)
        out = tmp_path / f"m{suffix}"
        write_volume_mask(out, MASK, source)
        again = open_volume(out)
        np.testing.assert_array_equal(again.read()[..., 0], MASK)
        assert again.affine is None
        if suffix in (".nii.gz", ".nrrd") and spacing:
            assert again.spacing == pytest.approx(spacing)
    tifffile.imwrite(tmp_path / "v.tif", MASK, photometric="minisblack")
    write_volume_mask(out, MASK, open_volume(tmp_path / "v.tif"))
    np.testing.assert_array_equal(read_label_volume(out), MASK)


class Plain:
    """A source that knows its place but not how it is stored."""

    def __init__(self, affine: np.ndarray | None, spacing: tuple[float, float, float] | None) -> None:
        self.shape, self.affine, self.spacing = (*MASK.shape, 1), affine, spacing


@pytest.mark.parametrize("suffix", [".nii.gz", ".nrrd"])
def test_sources_that_say_only_where_they_are(tmp_path: Path, suffix: str) -> None:
    affine = open_volume(save_nifti(tmp_path / "v.nii", RAS, turned(AFFINE, (9, 8, 7)))).affine
    write_volume_mask(tmp_path / f"m{suffix}", MASK, Plain(affine, None))
    again = open_volume(tmp_path / f"m{suffix}")
    np.testing.assert_allclose(again.affine, affine, atol=1e-4)
    np.testing.assert_array_equal(again.read()[..., 0], MASK)
    write_volume_mask(tmp_path / f"m{suffix}", MASK, Plain(None, (3, 2, 1)))
    assert open_volume(tmp_path / f"m{suffix}").spacing == (3, 2, 1)


def test_sheared_axes_have_no_qform(tmp_path: Path) -> None:
    affine = AFFINE.copy()
    affine[1, 2] = 0.5
    save(tmp_path / "v.nrrd", RAS, affine)
    source = open_volume(tmp_path / "v.nrrd")
    write_volume_mask(tmp_path / "m.nii", MASK, source)
    header = nibabel.load(tmp_path / "m.nii").header
    assert (int(header["sform_code"]), int(header["qform_code"])) == (1, 0)
    check_volume_pair(source, open_volume(tmp_path / "m.nii"), "v", "m")


def test_masks_of_a_series(tmp_path: Path) -> None:
    pytest.importorskip("pydicom", reason="DICOM needs the extra volumes")
    save_series(tmp_path / "s", np.zeros((6, 5, 7), np.uint16))
    source = open_volume(tmp_path / "s")
    mask = np.zeros((6, 5, 7), np.uint8)
    mask[1, 2, 3] = 4
    for name in ("m.nii.gz", "m.nrrd"):
        write_volume_mask(tmp_path / name, mask, source)
        check_volume_pair(source, open_volume(tmp_path / name), "s", name)
        place = (30 - 3 * 0.75, 40 - 2 * 1.25, 102.5)
        assert [where for where, value in world_of(tmp_path / name).items() if value == 4] == [place]


def test_same_mask_same_bytes(tmp_path: Path) -> None:
    source = open_volume(save_nifti(tmp_path / "v.nii", RAS, AFFINE))
    for suffix in (".nii.gz", ".nrrd"):
        for name in ("a", "b"):
            write_volume_mask(tmp_path / f"{name}{suffix}", MASK, source)
        assert (tmp_path / f"a{suffix}").read_bytes() == (tmp_path / f"b{suffix}").read_bytes()


def test_faults(tmp_path: Path) -> None:
    source = ArrayVolume(MASK)
    for mask, message in [
        (MASK[1:], r"a mask of this volume is \(5, 6, 7\); got shape \(4, 6, 7\)"),
        (MASK[..., None], "got shape"),
        (MASK * 1.0, "whole class numbers"),
        (MASK.astype(int) - 300, "between 0 and 65535"),
        (MASK.astype(int) + 70000, "between 0 and 65535"),
    ]:
        with pytest.raises(ValueError, match=message):
            write_volume_mask(tmp_path / "m.nii", mask, source)
    with pytest.raises(ValueError, match="voxels of this volume"):
        write_volume(tmp_path / "m.nii", np.zeros((5, 6, 8)), source)
    for name in ("m.png", "m.gz", "m"):
        with pytest.raises(InputError, match=r"no volume format we write; end it in .nii.gz"):
            write_volume_mask(tmp_path / name, MASK, source)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["m.nii", "m.nii.gz", "m.nrrd", "m.tif", "m.npy"])
def test_a_failed_write_leaves_what_was_there(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / name).write_bytes(b"before")
    monkeypatch.setattr("patchforest.io.atomic._publish", lambda *_: (_ for _ in ()).throw(OSError(28, "full")))
    with pytest.raises(OSError, match="disk full"):
        write_volume_mask(tmp_path / name, MASK, ArrayVolume(MASK))
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_bytes() == b"before"


def test_without_nibabel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "nibabel.nifti1", None)
    with pytest.raises(InputError, match=r"nibabel.* is not installed; .*\[volumes\]"):
        write_volume_mask(tmp_path / "m.nii", MASK, ArrayVolume(MASK))


def test_labels_of_real_volumes(shared_data: Path, tmp_path: Path) -> None:
    path = shared_data / "ct_totalseg" / "images" / "ct_small_3mm.nii.gz"
    if not path.is_file():
        pytest.skip("no ct_totalseg")
    label = path.parents[1] / "labels" / path.name
    source, numbers = open_volume(path), read_label_volume(label)
    check_volume_pair(source, open_volume(label), path, label)
    write_volume_mask(tmp_path / "m.nii.gz", numbers, source)
    one, other = nibabel.load(label), nibabel.load(tmp_path / "m.nii.gz")
    np.testing.assert_array_equal(np.asarray(one.dataobj), np.asarray(other.dataobj))
    np.testing.assert_array_equal(nibabel.load(path).affine, other.affine)
