"""DICOM series, written by pydicom: order, place, values, and every way in which a series is not whole."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest

from patchforest.errors import InputError
from patchforest.io.dicom import open_dicom
from patchforest.io.volume import is_volume, open_volume
from tests.io.volumes import save_series, save_slice

pydicom = pytest.importorskip("pydicom", reason="DICOM needs the extra volumes")
PLANES = np.random.default_rng(0).integers(0, 3000, (6, 5, 7)).astype(np.uint16)


def test_slices_are_ordered_by_place(tmp_path: Path) -> None:
    for seed in range(3):
        files = save_series(tmp_path / f"s{seed}", PLANES, seed=seed)
        (tmp_path / f"s{seed}" / "DICOMDIR").write_bytes(b"index")
        (tmp_path / f"s{seed}" / "notes.txt").write_text("notes")
        for path in (tmp_path / f"s{seed}", files[3]):
            source = open_dicom(path)
            assert source.shape == (6, 5, 7, 1)
            assert source.spacing == pytest.approx((2.5, 1.25, 0.75))
            read = source.read()
            assert read.dtype == np.int32
            np.testing.assert_array_equal(read[..., 0], PLANES.astype(np.int32) - 1024)
            np.testing.assert_allclose(source.affine @ (0, 0, 0, 1), (30, 40, 100, 1))
            np.testing.assert_allclose(source.affine @ (5, 4, 6, 1), (30 - 6 * 0.75, 40 - 4 * 1.25, 112.5, 1))
    assert len(pickle.dumps(source)) < 5000
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(source)).read((1, 2, 3)), read[1:, 2:, 3:])


@pytest.mark.parametrize(("bits", "dtype"), [(12, "int16"), (16, "int32")])
def test_bits_that_are_used_decide_the_type(tmp_path: Path, bits: int, dtype: str) -> None:
    save_series(tmp_path / "s", PLANES, BitsStored=bits, HighBit=bits - 1)
    assert open_dicom(tmp_path / "s").read().dtype == dtype


def test_scaling_a_slice(tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    for k, plane in enumerate(PLANES):
        save_slice(
            tmp_path / "s" / f"{k}", plane, (0, 0, k), RescaleSlope=f"{0.5 + k / 8}", RescaleIntercept="3",
        )  # fmt: skip
    read = open_dicom(tmp_path / "s").read()
    assert read.dtype == np.float32
    np.testing.assert_array_equal(read[4, ..., 0], PLANES[4].astype(np.float32) + 3)
    np.testing.assert_array_equal(read[0, ..., 0], PLANES[0] * np.float32(0.5) + 3)


def test_whole_intercepts_of_their_own(tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    for k, plane in enumerate(PLANES):
        save_slice(tmp_path / "s" / f"{k}", plane, (0, 0, k), RescaleIntercept=10 * k)
    expected = PLANES.astype(int) + 10 * np.arange(6)[:, None, None]
    np.testing.assert_array_equal(open_dicom(tmp_path / "s").read()[..., 0], expected)


def test_values_without_scaling_and_signed(tmp_path: Path) -> None:
    planes = PLANES.astype(np.int16) - 1000
    save_series(tmp_path / "s", planes, RescaleSlope=None, RescaleIntercept=None)
    read = open_dicom(tmp_path / "s").read()
    assert read.dtype == np.int16
    np.testing.assert_array_equal(read[..., 0], planes)


PLACES = {
    "sagittal": ([0, 1, 0, 0, 0, -1], (-1, 0, 0)),
    "coronal": ([1, 0, 0, 0, 0, -1], (0, 1, 0)),
    "feet first": ([-1, 0, 0, 0, 1, 0], (0, 0, -1)),
    "oblique": ([0.8, 0.6, 0, 0, 0, -1], (-0.6, 0.8, 0)),
}


@pytest.mark.parametrize("name", PLACES)
def test_other_directions(tmp_path: Path, name: str) -> None:
    """Every voxel's value stands where DICOM's own formula puts it."""
    directions, normal = PLACES[name]
    (tmp_path / "s").mkdir()
    place = {}
    for k, plane in enumerate(PLANES):
        origin = np.array([10.0, -20, 30]) + 2.5 * k * np.array(normal)
        save_slice(tmp_path / "s" / f"{k}.dcm", plane, origin, ImageOrientationPatient=directions, RescaleIntercept=0)
        for row, column in np.ndindex(*plane.shape):
            lps = origin + column * 0.75 * np.array(directions[:3]) + row * 1.25 * np.array(directions[3:])
            place[tuple(np.round(lps * (-1, -1, 1), 3) + 0.0)] = plane[row, column]
    source = open_dicom(tmp_path / "s")
    read = source.read()[..., 0]
    assert read.size == len(place)
    for index in np.ndindex(*read.shape):
        world = source.affine @ (*index, 1)
        assert place[tuple(np.round(world[:3], 3) + 0.0)] == read[index]
    towards = source.affine[:3, :3] / source.spacing
    assert (towards[2, 0] > 0.9) == (abs(towards[2, 0]) > 0.9)
    assert towards[1, 1] < -0.5
    assert towards[0, 2] < -0.5


def test_a_tilted_gantry_shears(tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    for k, plane in enumerate(PLANES):
        save_slice(tmp_path / "s" / f"{k}", plane, (0, 0.5 * k, 2 * k))
    np.testing.assert_allclose(open_dicom(tmp_path / "s").affine[:3, 0], (0, -0.5, 2))


def test_compressed_slices(tmp_path: Path) -> None:
    save_series(tmp_path / "s", PLANES, compress="1.2.840.10008.1.2.5", RescaleIntercept=0)
    np.testing.assert_array_equal(open_dicom(tmp_path / "s").read()[..., 0], PLANES)


def test_a_compression_without_codec(tmp_path: Path) -> None:
    files = save_series(tmp_path / "s", PLANES)
    data = pydicom.dcmread(files[2])
    data.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.4.70"
    data.PixelData = pydicom.encaps.encapsulate([data.PixelData])
    data["PixelData"].is_undefined_length = True
    data.save_as(files[2])
    decoder = pydicom.pixels.get_decoder(data.file_meta.TransferSyntaxUID)
    message = "cannot be decoded" if decoder.is_available else r"compressed as JPEG Lossless.* no codec"
    with pytest.raises(InputError, match=message):
        open_dicom(tmp_path / "s").read()


def test_missing_doubled_and_unequal_slices(tmp_path: Path) -> None:
    files = save_series(tmp_path / "s", PLANES)
    files[2].rename(tmp_path / "away")
    with pytest.raises(InputError, match=r"lacks 1 slice between 102.50 mm \(\d+.dcm\) and 107.50 mm"):
        open_dicom(tmp_path / "s")
    (tmp_path / "away").rename(files[2])
    (tmp_path / "s" / "copy.dcm").write_bytes(files[4].read_bytes())
    with pytest.raises(
        InputError, match=r"has two slices at 110.00 mm \((copy.dcm and \d+.dcm|\d+.dcm and copy.dcm)\)"
    ):
        open_dicom(tmp_path / "s")
    (tmp_path / "s" / "copy.dcm").unlink()
    save_slice(files[3], PLANES[3], (-30, -40, 108.2))
    with pytest.raises(InputError, match=r"has slices 2.500 mm apart, but 3.200 mm between 105.00 mm"):
        open_dicom(tmp_path / "s")
    save_slice(files[3], PLANES[3], (-28, -40, 107.5))
    with pytest.raises(InputError, match=r"beside the line of the others at 107.50 mm .* by 2.00 mm"):
        open_dicom(tmp_path / "s")
    save_slice(files[3], PLANES[3][:4], (-30, -40, 107.5))
    with pytest.raises(InputError, match=r"slices of 5 x 7 u2 and 4 x 7 u2: at 100.00 and 107.50 mm"):
        open_dicom(tmp_path / "s")
    save_slice(files[3], PLANES[3], (-30, -40, 107.5), PixelSpacing=[1.25, 0.8])
    with pytest.raises(InputError, match=r"other directions or spacings: at 100.00 and 107.50 mm"):
        open_dicom(tmp_path / "s")


def test_small_differences_between_places_are_no_gap(tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    for k, plane in enumerate(PLANES):
        save_slice(tmp_path / "s" / f"{k}", plane, (0, 0, round(k * 2 / 3, 2)))
    assert open_dicom(tmp_path / "s").spacing[0] == pytest.approx(2 / 3, abs=1e-3)


def test_series_that_lie_together(tmp_path: Path) -> None:
    save_series(tmp_path / "s", PLANES)
    other = save_slice(tmp_path / "s" / "scout.dcm", PLANES[0], (0, 0, 0), SeriesInstanceUID="9", SliceThickness=3)
    with pytest.raises(
        InputError, match=r"holds 2 DICOM series \(6 like 000.dcm thorax, 1 like scout.dcm thorax\); give"
    ):
        open_dicom(tmp_path / "s")
    assert open_dicom(tmp_path / "s" / "003.dcm").shape == (6, 5, 7, 1)
    assert open_dicom(other).shape == (1, 5, 7, 1)
    assert open_dicom(other).spacing[0] == 3


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"ImagePositionPatient": None}, "no slice of a volume: it has no ImagePositionPatient"),
        ({"PixelSpacing": None, "ImageOrientationPatient": None}, "ImageOrientationPatient, PixelSpacing"),
        ({"NumberOfFrames": 2}, "of several frames; convert .*dcm2niix"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "in PALETTE COLOR"),
        ({"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB"}, "in RGB"),
        ({"Rows": 60000, "Columns": 60000}, "says it is a slice"),
        ({"Rows": 500}, "is truncated: 500 x 7 pixels in"),
        ({"Rows": None}, "damaged DICOM header"),
        ({"BitsStored": 40}, "impossible DICOM header"),
        ({"PixelSpacing": [0, 1]}, "impossible DICOM header"),
        ({"ImageOrientationPatient": [1, 0, 0, 1, 0, 0]}, "impossible directions"),
        ({"RescaleSlope": 0}, "impossible DICOM header"),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_files_that_are_no_slice(tmp_path: Path, fields: dict, message: str) -> None:
    path = save_slice(tmp_path / "a.dcm", PLANES[0], (0, 0, 0), SliceThickness=1, **fields)
    with pytest.raises(InputError, match=message) as caught:
        open_dicom(path)
    assert "\n" not in str(caught.value)


def test_a_damaged_description(tmp_path: Path) -> None:
    path = save_slice(tmp_path / "a.dcm", PLANES[0], (0, 0, 0), SliceThickness=1)
    data = path.read_bytes()
    path.write_bytes(data.replace(b"\x08\x00\x3e\x10LO", b"\x08\x00\x3e\x10L_"))
    with pytest.raises(InputError, match=r"damaged DICOM header .SeriesDescription"):
        open_dicom(tmp_path)


def test_one_slice_needs_a_thickness(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="without a thickness"):
        open_dicom(save_slice(tmp_path / "a.dcm", PLANES[0], (0, 0, 0)))


def test_files_among_the_slices(tmp_path: Path) -> None:
    files = save_series(tmp_path / "s", PLANES)
    data = files[5].read_bytes()
    files[5].write_bytes(b"")
    with pytest.raises(InputError, match=r"\d+.dcm: lies in a DICOM series and is no DICOM file"):
        open_dicom(tmp_path / "s")
    files[5].write_bytes(data[:-1])
    with pytest.raises(InputError):
        open_dicom(tmp_path / "s").read()
    files[5].write_bytes(data[:200])
    with pytest.raises(InputError):
        open_dicom(tmp_path / "s").read()


def test_slides_are_no_volumes(tmp_path: Path) -> None:
    save_slice(tmp_path / "a.dcm", PLANES[0], (0, 0, 0))
    assert is_volume(tmp_path)
    assert is_volume(tmp_path / "a.dcm")
    data = (tmp_path / "a.dcm").read_bytes()
    slide = data.replace(b"1.2.840.10008.5.1.4.1.1.2\0", b"1.2.840.10008.5.1.4.1.1.77.1.6")
    (tmp_path / "a.dcm").write_bytes(slide)
    assert not is_volume(tmp_path)
    assert not is_volume(tmp_path / "a.dcm")
    with pytest.raises(InputError, match="is a DICOM slide, not a volume; open it as an image"):
        open_volume(tmp_path / "a.dcm")
    with pytest.raises(InputError, match="folder without a DICOM series"):
        open_volume(tmp_path)


def test_without_pydicom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_series(tmp_path / "s", PLANES)
    monkeypatch.setitem(__import__("sys").modules, "pydicom", None)
    with pytest.raises(InputError, match=r"pydicom is not installed; .*\[volumes\]"):
        open_dicom(tmp_path / "s")
