"""NRRD volumes, written by pynrrd or line by line."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest

from patchforest.errors import InputError
from patchforest.io.nrrd import open_nrrd
from tests.io.volumes import AFFINE, SIZE, anatomy, save_nrrd, shown, turned

nrrd = pytest.importorskip("nrrd", reason="NRRD needs the extra volumes")


def text(path: Path, header: str, data: bytes = b"") -> Path:
    path.write_bytes(header.encode() + b"\n\n" + data)
    return path


@pytest.mark.parametrize("encoding", ["raw", "gzip", "bzip2"])
@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "uint16", "int32", "uint32", "float32", "float64"])
@pytest.mark.parametrize("suffix", [".nrrd", ".nhdr"])
def test_types_and_encodings(tmp_path: Path, encoding: str, dtype: str, suffix: str) -> None:
    ras = anatomy("uint8").clip(0, 120).astype(dtype)
    source = open_nrrd(save_nrrd(tmp_path / f"v{suffix}", ras, AFFINE, encoding=encoding))
    read = source.read()
    assert read.dtype == dtype
    np.testing.assert_array_equal(read, shown(ras))
    assert source.spacing == pytest.approx((2.5, 1.25, 0.75))
    np.testing.assert_allclose(source.grid.affine, AFFINE)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(source)).read((1, 1, 1)), read[1:, 1:, 1:])


@pytest.mark.parametrize("place", [0, 3])
def test_channels(tmp_path: Path, place: int) -> None:
    ras = anatomy(channels=2)
    kinds = ["domain"] * 3
    kinds.insert(place, "vector")
    lps = np.diag([-1, -1, 1, 1]) @ AFFINE
    directions = np.insert(lps[:3, :3].T, place, np.nan, axis=0)
    path = save_nrrd(
        tmp_path / "v.nrrd", np.moveaxis(ras, 3, place), AFFINE, kinds=kinds, **{"space directions": directions}
    )
    source = open_nrrd(path)
    assert source.shape == (*SIZE[::-1], 2)
    np.testing.assert_array_equal(source.read(), shown(ras))
    nrrd.write(str(path), np.moveaxis(ras, 3, place), {"kinds": kinds})
    np.testing.assert_array_equal(open_nrrd(path).read(), ras.transpose(2, 1, 0, 3))


@pytest.mark.parametrize(
    ("space", "signs"),
    [("RAS", (1, 1, 1)), ("left-anterior-superior", (-1, 1, 1)), ("LPS", (-1, -1, 1))],
)
def test_spaces(tmp_path: Path, space: str, signs: tuple[int, int, int]) -> None:
    oblique = turned(AFFINE, (5, 10, -15))
    world = np.diag([*signs, 1]) @ oblique
    fields = {"space": space, "space directions": world[:3, :3].T, "space origin": world[:3, 3]}
    source = open_nrrd(save_nrrd(tmp_path / "v.nrrd", anatomy(), oblique, **fields))
    np.testing.assert_allclose(source.grid.affine, oblique, atol=1e-9)


def test_without_a_known_place_it_is_shown_as_stored(tmp_path: Path) -> None:
    ras, path = anatomy(), tmp_path / "v.nrrd"
    directions = AFFINE[:3, :3].T
    for fields, spacing in [
        ({}, None),
        ({"spacings": [0.75, 1.25, 2.5]}, (2.5, 1.25, 0.75)),
        ({"spacings": [0.75, np.nan, 2.5]}, None),
        ({"spacings": [750.0, 1250, 2500], "units": ["um"] * 3}, (2.5, 1.25, 0.75)),
        ({"space dimension": 3, "space directions": directions, "space origin": [0, 0, 0]}, (2.5, 1.25, 0.75)),
        ({"space": "scanner-xyz", "space directions": -directions, "space origin": [0, 0, 0]}, (2.5, 1.25, 0.75)),
    ]:
        nrrd.write(str(path), ras, fields)
        source = open_nrrd(path)
        np.testing.assert_array_equal(source.read()[..., 0], ras.T)
        assert source.affine is None
        assert source.spacing == (None if spacing is None else pytest.approx(spacing))


def test_units_of_the_space(tmp_path: Path) -> None:
    for name, factor in (("mm", 1), ("cm", 10), ("µm", 1e-3)):
        path = save_nrrd(tmp_path / "v.nrrd", anatomy(), AFFINE)
        data = path.read_bytes()
        path.write_bytes(
            data.replace(b"\nencoding", f'\nspace units: "{name}" "{name}" "{name}"\nencoding'.encode(), 1)
        )
        assert open_nrrd(path).spacing == pytest.approx(tuple(factor * s for s in (2.5, 1.25, 0.75)))
    for units, message in (('"ell" "ell" "ell"', "measures in 'ell'"), ('"mm" "mm" "cm"', "several units")):
        path.write_bytes(data.replace(b"\nencoding", f"\nspace units: {units}\nencoding".encode(), 1))
        with pytest.raises(InputError, match=message):
            open_nrrd(path)


PLAIN = "NRRD0004\ntype: uchar\ndimension: 3\nsizes: 2 3 4\nencoding: raw"


def test_skips_and_line_ends(tmp_path: Path) -> None:
    data, path = bytes(range(24)), tmp_path / "v.nrrd"
    expected = np.arange(24).reshape(4, 3, 2)
    for header, body in [
        (PLAIN, data),
        (PLAIN + "\nbyte skip: 5", b"12345" + data),
        (PLAIN + "\nline skip: 2", b"a\nb\n" + data),
        (PLAIN + "\nlineskip: 1\nbyteskip: 2", b"a\nbc" + data),
        (PLAIN + "\nbyte skip: -1", b"anything" * 200 + data),
        (PLAIN + "\n# a remark\nkey:=value: more", data),
    ]:
        np.testing.assert_array_equal(open_nrrd(text(path, header, body)).read()[..., 0], expected)
    path.write_bytes(PLAIN.replace("\n", "\r\n").encode() + b"\r\n\r\n" + data)
    np.testing.assert_array_equal(open_nrrd(path).read()[..., 0], expected)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("sizes: 2 3 4", "sizes: 2 3 5"), "truncated"),
        (("sizes: 2 3 4", "sizes: 2 3 -4"), "has 3 axes"),
        (("sizes: 2 3 4", "sizes: 2 3 1e18"), "truncated"),
        (("sizes: 2 3 4", "sizes: 2 3"), "damaged NRRD header .2 sizes"),
        (("sizes: 2 3 4", "sizes: nan 3 4"), "damaged NRRD header|has 3 axes"),
        (("sizes: 2 3 4", "size: 2 3 4"), "damaged NRRD header .lacks 'sizes'"),
        (("dimension: 3\nsizes: 2 3 4", "dimension: 2\nsizes: 6 4"), "has 2 axes"),
        (("dimension: 3\nsizes: 2 3 4", "dimension: 4\nsizes: 2 3 2 2"), "has 4 axes of which 4"),
        (("type: uchar", "type: block"), "values of type 'block'"),
        (("type: uchar", "type: short"), "lacks 'endian'"),
        (("NRRD0004", "NRRD0009"), "damaged NRRD header"),
        (("encoding: raw", "encoding: ascii"), "encoded as ascii"),
        (("encoding: raw", "encoding: raw\nbyte skip: -7"), r"byte skip -7"),
        (("encoding: raw", "encoding: raw\nencoding: raw"), "Duplicate"),
        (("encoding: raw", "encoding: raw\nspace: LPS\nspace directions: (1,0,0) (2,0,0) (0,0,1)"), "impossible space"),
        (("encoding: raw", "encoding: raw\nspace: LPST\nspace directions: (1,0,0,0) (0,1,0,0) (0,0,1,0)"), "damaged"),
        (("encoding: raw", "encoding: raw\nspace directions: (1,0,0) none (0,0,1)"), "of which 2 are of space"),
        (("encoding: raw", "no colon"), "damaged NRRD header"),
    ],
)
def test_bad_headers(tmp_path: Path, change: tuple[str, str], message: str) -> None:
    path = text(tmp_path / "v.nrrd", PLAIN.replace(*change), bytes(24))
    with pytest.raises(InputError, match=message) as caught:
        open_nrrd(path).read()
    assert "\n" not in str(caught.value)


def test_a_header_without_end(tmp_path: Path) -> None:
    (tmp_path / "v.nrrd").write_bytes(b"NRRD0004\n" + b"# " + b"x" * (1 << 21))
    with pytest.raises(InputError, match="without an end"):
        open_nrrd(tmp_path / "v.nrrd")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("../secret.raw", "outside its folder"),
        ("link.raw", "outside its folder"),
        ("sub/../../secret.raw", "outside its folder"),
        ("/etc/passwd", "outside its folder"),
        ("LIST", "several data files"),
        ("v%03d.raw 1 4 1", "several data files"),
        ("absent.raw", "lacks its data file absent.raw"),
        (".", "lacks its data file"),
    ],
)
def test_data_files_stay_in_the_folder(tmp_path: Path, name: str, message: str) -> None:
    folder = tmp_path / "a"
    folder.mkdir()
    (tmp_path / "secret.raw").write_bytes(bytes(24))
    (folder / "link.raw").symlink_to("../secret.raw")
    with pytest.raises(InputError, match=message):
        open_nrrd(text(folder / "v.nhdr", f"{PLAIN}\ndata file: {name}"))


def test_data_files_below_the_folder(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "v.raw").write_bytes(bytes(range(24)))
    for name in ("sub/v.raw", str(tmp_path / "sub" / "v.raw")):
        source = open_nrrd(text(tmp_path / "v.nhdr", f"{PLAIN}\ndata file: {name}"))
        assert source.read().sum() == 276
    (tmp_path / "sub" / "v.raw").write_bytes(bytes(23))
    with pytest.raises(InputError, match=r"v.raw: is truncated"):
        open_nrrd(tmp_path / "v.nhdr")


def test_without_pynrrd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "nrrd", None)
    with pytest.raises(InputError, match=r"nrrd is not installed; .*\[volumes\]"):
        open_nrrd(text(tmp_path / "v.nrrd", PLAIN, bytes(24)))
