"""The door for volumes: content decides, all orders are shown alike, and no damage ends in another exception."""

from __future__ import annotations

import os
import pickle
import warnings
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from patchforest.errors import InputError
from patchforest.io.volume import is_volume, open_volume, open_volume_source
from patchforest.values import VolumeSource
from tests.io.test_open import mutated
from tests.io.volumes import AFFINE, ORDERS, SIZE, anatomy, reordered, save, save_nrrd, save_series, shown, turned


def need(*modules: str) -> None:
    for module in modules:
        pytest.importorskip(module, reason="needs the extra volumes")


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".nrrd"])
@pytest.mark.parametrize(("order", "signs"), ORDERS)
def test_every_order_in_every_format(
    tmp_path: Path, suffix: str, order: tuple[int, ...], signs: tuple[int, ...]
) -> None:
    need("nibabel", "nrrd")
    ras = anatomy()
    stored, affine = reordered(ras, AFFINE, order, signs)
    source = open_volume(save(tmp_path / f"v{suffix}", stored, affine))
    assert isinstance(source, VolumeSource)
    assert source.shape == (*SIZE[::-1], 1)
    np.testing.assert_array_equal(source.read(), shown(ras))
    np.testing.assert_array_equal(source.read((1, 2, 3), (3, 4, 2)), shown(ras)[1:4, 2:6, 3:5])
    np.testing.assert_allclose(source.spacing, (2.5, 1.25, 0.75), rtol=1e-6)
    expected = [[0, 0, -0.75, -27.0], [0, -1.25, 0, 26.5], [2.5, 0, 0, -804.5], [0, 0, 0, 1]]
    np.testing.assert_allclose(source.affine, expected, atol=1e-4)


@pytest.mark.parametrize("suffix", [".nii.gz", ".nrrd"])
def test_oblique_volumes(tmp_path: Path, suffix: str, rng: np.random.Generator) -> None:
    need("nibabel", "nrrd")
    ras = anatomy("float32")
    for angles in ((12, -20, 7), (45, 0, 0), (80, 100, -30)):
        oblique, read = turned(AFFINE, angles), []
        for k in rng.permutation(48)[:8]:
            source = open_volume(save(tmp_path / f"v{suffix}", *reordered(ras, oblique, *ORDERS[k])))
            read.append((source.read(), source.affine))
        for voxels, affine in read[1:]:
            np.testing.assert_array_equal(voxels, read[0][0])
            np.testing.assert_allclose(affine, read[0][1], atol=1e-3)


def test_content_decides_not_the_suffix(tmp_path: Path) -> None:
    need("nibabel", "nrrd", "pydicom")
    files = {name: save(tmp_path / name, anatomy(), AFFINE) for name in ("a.nii", "a.nii.gz", "a.nrrd")}
    np.save(tmp_path / "a.npy", np.zeros((5, 6, 7)))
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((5, 6, 7), np.uint8), photometric="minisblack")
    files |= {name: tmp_path / name for name in ("a.npy", "a.tif")}
    for name, path in files.items():
        assert is_volume(path), name
        path.rename(tmp_path / "v.txt")
        assert is_volume(str(tmp_path / "v.txt"))
        assert open_volume(str(tmp_path / "v.txt")).shape == (5, 6, 7, 1)
    series = save_series(tmp_path / "s", np.zeros((5, 6, 7), np.uint16))
    assert is_volume(tmp_path / "s")
    assert is_volume(series[0])
    assert open_volume(series[0]).shape == open_volume(tmp_path / "s").shape == (5, 6, 7, 1)


def test_arrays(tmp_path: Path, rng: np.random.Generator) -> None:
    path = tmp_path / "a.npy"
    for shape in ((4, 5, 6), (4, 5, 6, 2)):
        voxels = rng.normal(size=shape)
        np.save(path, np.asfortranarray(voxels))
        source = pickle.loads(pickle.dumps(open_volume(path)))
        np.testing.assert_array_equal(source.read(), voxels.reshape(4, 5, 6, -1))
        assert len(pickle.dumps(source)) < 2000
    for shape, volume in (((4, 5), False), ((40, 50, 3), False), ((40, 50, 5), True), ((4, 5, 6, 1), True)):
        np.save(path, np.zeros(shape, np.uint8))
        assert is_volume(path) is volume
    np.save(path, np.zeros((3, 4)))
    with pytest.raises(InputError, match=r"has shape .3, 4.; give a volume"):
        open_volume(path)
    np.save(path, np.array([[[None]]], dtype=object), allow_pickle=True)
    assert not is_volume(path)
    with pytest.raises(InputError, match="cannot be read as a NumPy array"):
        open_volume(path)


def test_what_is_no_volume(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((9, 9, 3), np.uint8)).save(tmp_path / "a.png")
    os.mkfifo(tmp_path / "pipe")
    cases = {
        "a.png": (None, "is a picture, not a volume; open it as an image"),
        "absent.nii": (None, "does not exist"),
        "pipe": (None, "is a pipe"),
        "empty.nii": (b"", "is empty"),
        "notes.nii": (b"hello\n", "is a text file"),
        "lfs.nii.gz": (b"version https://git-lfs.github.com/spec/v1\n", "git-LFS pointer"),
        "x.nii.gz": (b"\x1f\x8b" + bytes(30), "gzip-compressed"),
        "x.zip": (b"PK\x03\x04" + bytes(30), "zip or npz"),
        "head.nrrd": (b"NRRD0004\n", "damaged NRRD header|NRRD volume, and"),
        "a\0b": (None, "cannot be opened"),
        ".": (None, "is a folder without a DICOM series"),
    }
    for name, (data, message) in cases.items():
        if data is not None:
            (tmp_path / name).write_bytes(data)
        with pytest.raises(InputError, match=message) as caught:
            open_volume(tmp_path / name)
        assert "\n" not in str(caught.value)
        assert is_volume(tmp_path / name) is (name == "head.nrrd")


def originals(folder: Path) -> dict[str, Path]:
    """A volume in every format, larger than a header so that damage falls on voxels too."""
    ras = np.kron(anatomy("uint16"), np.ones((2, 2, 2), np.uint16))
    files = {name: save(folder / name, ras, AFFINE) for name in ("a.nii", "b.nii.gz", "c.nrrd")}
    files["d.nrrd"] = save_nrrd(folder / "d.nrrd", ras, AFFINE, encoding="raw")
    for name, settings in (("e.tif", {}), ("f.tif", {"compression": "zlib", "tile": (16, 16)})):
        files[name] = folder / name
        tifffile.imwrite(files[name], ras.T, photometric="minisblack", metadata=None, **settings)
    files["g.npy"] = folder / "g.npy"
    np.save(files["g.npy"], ras.T)
    files["h.dcm"] = save_series(folder / "s", ras.T[:1], SliceThickness=2)[0]
    return files


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.filterwarnings("ignore")
def test_mutants_end_in_whole_voxels_or_input_error(tmp_path: Path, seed: int) -> None:
    """320 damaged files in all; ``seed`` names the fourth that failed."""
    need("nibabel", "nrrd", "pydicom")
    rng, counts = np.random.default_rng(seed), {"read": 0, "refused": 0}
    for name, original in originals(tmp_path).items():
        data = original.read_bytes()
        path = tmp_path / name[0] / "mutant"
        path.parent.mkdir()
        for k in range(10):
            mutant = mutated(data, rng)
            path.write_bytes(mutant)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                try:
                    source = open_volume_source(path)
                    assert source.read().shape == source.shape, (name, k)
                    assert source.read().nbytes <= 64 * len(data), (name, k)
                    counts["read"] += 1
                    assert len(mutant) >= len(data), (name, k, "a truncated file was read")
                except InputError as fault:
                    counts["refused"] += "\n" not in str(fault)
    assert sum(counts.values()) == 80
    assert counts["refused"] > 25
    assert counts["read"] > 0


@pytest.mark.parametrize("name", ["ct_chest_512", "ct_small_3mm", "ct_torso_3mm"])
def test_real_volumes(shared_data: Path, name: str) -> None:
    need("nibabel")
    import nibabel

    path = shared_data / "ct_totalseg" / "images" / f"{name}.nii.gz"
    if not path.is_file():
        pytest.skip("no ct_totalseg")
    source, image = open_volume(path), nibabel.load(path)
    closest = nibabel.as_closest_canonical(image)
    expected = np.asarray(closest.dataobj).transpose(2, 1, 0)[:, ::-1, ::-1]
    read = source.read()
    np.testing.assert_array_equal(read[..., 0], expected)
    assert read.dtype == image.get_data_dtype()
    assert read.min() < -1000
    corner = source.affine @ (*np.subtract(source.shape[:3], 1), 1)
    np.testing.assert_allclose(corner, closest.affine @ (0, 0, source.shape[0] - 1, 1), atol=1e-3)
