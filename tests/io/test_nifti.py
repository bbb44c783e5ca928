"""NIfTI volumes, written by nibabel or byte by byte."""

from __future__ import annotations

import gzip
import pickle
from pathlib import Path

import numpy as np
import pytest

from patchforest.errors import InputError
from patchforest.io.nifti import in_millimetres, open_nifti, parsed_header
from tests.io.volumes import AFFINE, SIZE, anatomy, save_nifti, shown, turned

nibabel = pytest.importorskip("nibabel", reason="NIfTI needs the extra volumes")


def edited(path: Path, **fields: object) -> Path:
    """The file with header fields set to other values; gzip stays gzip."""
    packed = path.name.endswith(".gz")
    data = path.read_bytes()
    data = gzip.decompress(data) if packed else data
    header = parsed_header(data, path)
    for name, value in fields.items():
        header[name] = value
    data = header.binaryblock + data[len(header.binaryblock) :]
    path.write_bytes(gzip.compress(data) if packed else data)
    return path


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    return save_nifti(tmp_path / "v.nii", anatomy(), AFFINE)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "int32", "float32", "float64"])
def test_types(tmp_path: Path, suffix: str, dtype: str) -> None:
    ras = anatomy(dtype)
    source = open_nifti(save_nifti(tmp_path / f"v{suffix}", ras, AFFINE))
    read = source.read()
    assert read.dtype == dtype
    np.testing.assert_array_equal(read, shown(ras))
    assert source.spacing == pytest.approx((2.5, 1.25, 0.75))
    np.testing.assert_array_equal(source.read((1, 2, 3), (2, 3, 1)), read[1:3, 2:5, 3:4])
    assert len(pickle.dumps(source)) < 4000
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(source)).read(), read)


def test_nifti_2_and_big_endian(tmp_path: Path) -> None:
    ras = anatomy()
    nibabel.save(nibabel.Nifti2Image(ras, AFFINE), tmp_path / "two.nii")
    header = nibabel.Nifti1Header(endianness=">")
    header.set_data_dtype(">i2")
    nibabel.save(nibabel.Nifti1Image(ras, AFFINE, header), tmp_path / "big.nii")
    assert (tmp_path / "big.nii").read_bytes()[:4] == b"\0\0\1\x5c"
    for name in ("two.nii", "big.nii"):
        np.testing.assert_array_equal(open_nifti(tmp_path / name).read(), shown(ras))


@pytest.mark.parametrize(
    ("slope", "inter", "dtype"),
    [
        (1, -1024, "int32"),
        (0, 7, "int16"),
        (np.nan, np.nan, "int16"),
        (1, 0, "int16"),
        (0.5, 3, "float32"),
        (2, 0, "float32"),
    ],
)
def test_scaling(volume: Path, slope: float, inter: float, dtype: str) -> None:
    source = open_nifti(edited(volume, scl_slope=slope, scl_inter=inter))
    read = source.read()
    assert read.dtype == dtype
    np.testing.assert_array_equal(read[..., 0], np.asarray(nibabel.load(volume).dataobj).T[:, ::-1, ::-1])
    np.testing.assert_array_equal(source.stored(), read)


def test_a_slope_with_an_impossible_intercept(volume: Path) -> None:
    with pytest.raises(InputError, match="damaged NIfTI header"):
        open_nifti(edited(volume, scl_slope=1, scl_inter=np.inf))


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_more_axes_are_channels(tmp_path: Path, suffix: str) -> None:
    ras = anatomy(channels=3)
    path = save_nifti(tmp_path / f"v{suffix}", ras, AFFINE)
    assert open_nifti(path).shape == (*SIZE[::-1], 3)
    np.testing.assert_array_equal(open_nifti(path).read(), shown(ras))
    save_nifti(path, ras[:, :, :, None], AFFINE)
    np.testing.assert_array_equal(open_nifti(path).read(), shown(ras))
    save_nifti(path, ras[:, :, 0, 0], AFFINE)
    assert open_nifti(path).shape == (1, 6, 7, 1)
    save_nifti(path, np.zeros((2, 2, 2, 2, 2), np.uint8), AFFINE)
    with pytest.raises(InputError, match=r"has 5 axes .*; save each time point"):
        open_nifti(path)


@pytest.mark.parametrize(("units", "factor"), [("meter", 1000), ("mm", 1), ("micron", 0.001), ("unknown", 1)])
def test_units(tmp_path: Path, units: str, factor: float) -> None:
    image = nibabel.Nifti1Image(anatomy(), AFFINE)
    image.header.set_xyzt_units(units)
    nibabel.save(image, tmp_path / "v.nii")
    source = open_nifti(tmp_path / "v.nii")
    assert source.spacing == pytest.approx(tuple(factor * s for s in (2.5, 1.25, 0.75)))
    assert source.affine[0, 3] == pytest.approx(factor * -27)
    np.testing.assert_allclose(in_millimetres(AFFINE, 2)[:3], AFFINE[:3] * 2)


def test_where_it_lies(tmp_path: Path) -> None:
    oblique, path = turned(AFFINE, (10, -20, 15)), tmp_path / "v.nii"
    ras = anatomy()
    for sform, qform in ((1, 0), (0, 1), (2, 1), (1, 3)):
        source = open_nifti(save_nifti(path, ras, oblique, sform=sform, qform=qform))
        np.testing.assert_array_equal(source.read(), shown(ras))
        place = source.affine @ (1, 2, 3, 1)
        np.testing.assert_allclose(place, oblique @ (6 - 3, 5 - 2, 1, 1), atol=1e-4)
    source = open_nifti(save_nifti(path, ras, AFFINE, sform=0, qform=0))
    assert source.affine is None
    assert source.spacing == pytest.approx((2.5, 1.25, 0.75))
    np.testing.assert_array_equal(source.read()[..., 0], ras.T)
    assert open_nifti(edited(path, pixdim=[1, 1, 0, 1, 1, 1, 1, 1])).spacing is None


def test_the_used_affine_is_the_one_of_nibabel(tmp_path: Path, rng: np.random.Generator) -> None:
    for _ in range(50):
        affine = turned(AFFINE, tuple(rng.uniform(-180, 180, 3)))
        path = save_nifti(tmp_path / "v.nii", anatomy(), affine, sform=int(rng.integers(0, 2)))
        source, image = open_nifti(path), nibabel.load(path)
        np.testing.assert_allclose(source.grid.affine, image.affine, atol=1e-6)
        index = tuple(int(rng.integers(0, n)) for n in source.shape[:3])
        world = source.affine @ (*index, 1)
        stored = np.rint(np.linalg.inv(image.affine) @ world)[:3].astype(int)
        assert source.read(index, (1, 1, 1)).item() == image.dataobj[tuple(stored)]


def test_two_places(tmp_path: Path) -> None:
    image = nibabel.Nifti1Image(anatomy(), AFFINE)
    other = AFFINE.copy()
    other[0, 3] += 4
    image.set_sform(AFFINE, 1)
    image.set_qform(other, 1)
    nibabel.save(image, tmp_path / "v.nii")
    with pytest.raises(InputError, match=r"its sform and its qform differ by up to 4 mm; keep .*set_qform\(None, 0\)"):
        open_nifti(tmp_path / "v.nii")
    image.set_qform(None, 0)  # as the message says
    nibabel.save(image, tmp_path / "v.nii")
    np.testing.assert_allclose(open_nifti(tmp_path / "v.nii").grid.affine, AFFINE)


def test_handedness_left_out_is_right(volume: Path) -> None:
    edited(volume, sform_code=0)
    data = bytearray(volume.read_bytes())
    data[76:80] = bytes(4)
    volume.write_bytes(data)
    np.testing.assert_allclose(open_nifti(volume).grid.affine, AFFINE)


BAD = {
    "negative size": ({"dim": [3, 7, -6, 5, 1, 1, 1, 1]}, "damaged NIfTI header .sizes"),
    "no axes": ({"dim": [0, 7, 6, 5, 1, 1, 1, 1]}, "damaged NIfTI header"),
    "nine axes": ({"dim": [9, 7, 6, 5, 1, 1, 1, 1]}, "damaged NIfTI header"),
    "huge": ({"dim": [4, 32767, 32767, 32767, 32767, 1, 1, 1]}, "truncated"),
    "less than there is": ({"dim": [3, 2, 2, 2, 1, 1, 1, 1]}, "holds .* bytes|cannot hold"),
    "complex": ({"datatype": 32}, "holds complex64"),
    "colours": ({"datatype": 128}, "holds RGB colours"),
    "no type": ({"datatype": 999}, "damaged NIfTI header"),
    "voxels in the header": ({"vox_offset": 12}, "damaged NIfTI header .voxels"),
    "voxels nowhere": ({"vox_offset": np.nan}, "damaged NIfTI header .voxels"),
    "voxels behind": ({"vox_offset": 1e6}, "truncated"),
    "units": ({"xyzt_units": 7}, "damaged NIfTI header .units"),
    "flat": ({"srow_x": [0, 0, 0, 0]}, "impossible sform"),
    "not finite": ({"srow_y": [0, np.inf, 0, 0]}, "impossible sform"),
    "quaternion": ({"sform_code": 0, "quatern_b": 5}, "damaged NIfTI header"),
}


@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_bad_headers(tmp_path: Path, name: str, suffix: str) -> None:
    path = edited(save_nifti(tmp_path / f"v{suffix}", anatomy(), AFFINE), **BAD[name][0])
    with pytest.raises(InputError, match=BAD[name][1]) as caught:
        open_nifti(path).read()
    assert "\n" not in str(caught.value)


def test_other_faults(tmp_path: Path, volume: Path) -> None:
    nibabel.save(nibabel.Nifti1Pair(anatomy(), AFFINE), tmp_path / "pair.img")
    with pytest.raises(InputError, match=r"two files .*; save it as one"):
        open_nifti(tmp_path / "pair.hdr")
    data = volume.read_bytes()
    for length in (300, 350, len(data) - 1):
        volume.write_bytes(data[:length])
        with pytest.raises(InputError, match="truncated"):
            open_nifti(volume).read()
    voxels = anatomy("float32")
    voxels[2, 1, 3] = np.nan
    with pytest.raises(InputError, match=r"has 1 NaN .* \(3, 4, 4, 0\)"):
        open_nifti(save_nifti(volume, voxels, AFFINE)).read()


def test_without_nibabel(volume: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "nibabel.nifti1", None)
    with pytest.raises(InputError, match=r"nibabel.* is not installed; .*pip install 'patchforest\[volumes\]'"):
        open_nifti(volume)
