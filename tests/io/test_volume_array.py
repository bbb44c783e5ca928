"""Arrays as volumes: boxes, scaling, finite values, pickling."""

from __future__ import annotations

import pickle
from functools import partial

import numpy as np
import pytest

from patchforest.errors import InputError
from patchforest.io.orientation import Grid, Layout
from patchforest.io.volume_array import ArrayVolume, StoredVolume, box_of, require_finite, scaled_dtype
from patchforest.values import VolumeSource


def loaded(voxels: np.ndarray) -> np.ndarray:
    return voxels


def stored(voxels: np.ndarray, **settings: object) -> StoredVolume:
    voxels = voxels if voxels.ndim == 4 else voxels[..., None]
    return StoredVolume(
        "v",
        partial(loaded, voxels),
        grid=Grid(voxels.shape[:3]),
        dtype=voxels.dtype,
        channels=voxels.shape[3],
        **settings,
    )


@pytest.mark.parametrize("dtype", ["u1", ">i2", "u4", "f2", "f4", ">f8"])
def test_boxes(rng: np.random.Generator, dtype: str) -> None:
    voxels = rng.integers(0, 100, (4, 5, 6, 2)).astype(dtype)
    source = ArrayVolume(voxels, spacing=(3, 2, 1))
    assert isinstance(source, VolumeSource)
    assert source.shape == (4, 5, 6, 2)
    assert source.spacing == (3, 2, 1)
    assert source.affine is None
    whole = source.read()
    np.testing.assert_array_equal(whole, voxels)
    assert whole.dtype == np.dtype(dtype).newbyteorder("=")
    assert whole.flags.c_contiguous
    assert whole.flags.writeable
    whole[:] = 0
    np.testing.assert_array_equal(source.read(), voxels)
    for _ in range(20):
        origin = tuple(int(rng.integers(0, n)) for n in (4, 5, 6))
        shape = tuple(int(rng.integers(1, n - o + 1)) for n, o in zip((4, 5, 6), origin))
        part = voxels[tuple(slice(o, o + s) for o, s in zip(origin, shape))]
        np.testing.assert_array_equal(source.read(origin, shape), part)
    np.testing.assert_array_equal(source.read((1, 2, 3)), voxels[1:, 2:, 3:])


def test_affine_of_an_array() -> None:
    affine = np.array([[0, 0, -1.0, 9], [0, -2.0, 0, 8], [3.0, 0, 0, 7], [0, 0, 0, 1]])
    source = ArrayVolume(np.zeros((4, 5, 6)), affine=affine)
    np.testing.assert_allclose(source.affine, affine)
    assert source.spacing == pytest.approx((3, 2, 1))
    with pytest.raises(ValueError, match="affine"):
        ArrayVolume(np.zeros((4, 5, 6)), affine=np.zeros((4, 4)))


def test_boxes_outside() -> None:
    for origin, shape in [((0, 0, 4), None), ((-1, 0, 0), (1, 1, 1)), ((0, 0, 0), (1, 1, 5)), ((0, 0, 0), (0, 1, 1))]:
        with pytest.raises(ValueError, match="box of"):
            box_of((2, 3, 4), origin, shape)


@pytest.mark.parametrize("shape", [(4,), (4, 4), (2, 2, 2, 2, 2), (0, 4, 4)])
def test_arrays_that_are_no_volume(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="has shape"):
        ArrayVolume(np.zeros(shape))


@pytest.mark.parametrize("dtype", ["c8", "M8[s]", "U3"])
def test_types_that_are_no_volume(dtype: str) -> None:
    with pytest.raises(InputError, match="no volume"):
        ArrayVolume(np.zeros((2, 2, 2), dtype))


def test_bool_is_0_and_255_for_images_and_stays_for_labels() -> None:
    source = ArrayVolume(np.array([[[True, False]]]))
    assert source.read().ravel().tolist() == [255, 0]
    assert source.stored().dtype == bool


def test_nan_is_counted_and_placed() -> None:
    voxels = np.zeros((4, 5, 6, 2), np.float32)
    voxels[1, 2, 3, 1] = voxels[3, 0, 0, 0] = np.nan
    source = ArrayVolume(voxels, "v.npy")
    with pytest.raises(InputError, match=r"v.npy: has 2 NaN or .* \(plane, row, column, channel\) \(1, 2, 3, 1\)"):
        source.read()
    with pytest.raises(InputError, match=r"has 1 NaN .* \(1, 2, 3, 1\)"):
        source.read((1, 1, 2))
    with pytest.raises(InputError, match=r"has 1 NaN .* \(3, 0, 0, 0\)"):
        source.read((2, 0, 0))
    assert source.read(shape=(1, 5, 6)).sum() == 0
    require_finite(np.full((2, 2), 3), "v")


@pytest.mark.parametrize(
    ("dtype", "slope", "inter", "expected"),
    [
        ("i2", 1, 0, "i2"),
        ("u2", 1, -1024, "i4"),
        ("u1", 1, -5, "i2"),
        ("i1", 1, 1, "i2"),
        ("u4", 1, -1, "i8"),
        ("u8", 1, -1, "f8"),
        ("i2", 1, 0.5, "f4"),
        ("i2", 2, 0, "f4"),
        ("i4", 2, 0, "f8"),
        ("f4", 2, 1, "f4"),
        ("f8", 2, 1, "f8"),
    ],
)
def test_scaling(rng: np.random.Generator, dtype: str, slope: float, inter: float, expected: str) -> None:
    voxels = np.abs(rng.normal(0, 50, (3, 4, 5))).astype(dtype)
    voxels.flat[0] = np.iinfo(dtype).max if voxels.dtype.kind in "iu" and dtype != "u8" else 1
    voxels.flat[1] = np.iinfo(dtype).min if voxels.dtype.kind in "iu" else 0
    read = stored(voxels, slope=slope, inter=inter).read()
    assert read.dtype == expected
    exact = voxels.transpose(2, 1, 0)[..., None].astype(np.float64) * slope + inter
    np.testing.assert_array_equal(read, exact.astype(expected))


def test_bits_stored_narrow_the_type() -> None:
    assert scaled_dtype(np.dtype("u2"), 1, -1024, 12) == "i2"
    assert scaled_dtype(np.dtype("i2"), 1, -1024, 16) == "i4"
    assert scaled_dtype(np.dtype("i2"), 1, -1024, 12) == "i2"


def test_pickles_carry_no_loaded_voxels() -> None:
    source = stored(np.zeros((20, 30, 40)))
    source.read()
    assert source._voxels is not None
    source._load = np.zeros  # type: ignore[assignment]
    assert len(pickle.dumps(source)) < 2000
    voxels = np.arange(24).reshape(2, 3, 4)
    again = pickle.loads(pickle.dumps(ArrayVolume(voxels)))
    np.testing.assert_array_equal(again.read()[..., 0], voxels)


def test_a_file_that_changed_is_noticed() -> None:
    source = stored(np.zeros((2, 3, 4)))
    source._load = partial(np.zeros, (2, 3, 5, 1))
    with pytest.raises(InputError, match="has changed"):
        source.read()


def test_layouts_are_applied() -> None:
    voxels = np.arange(24).reshape(2, 3, 4, 1)
    grid = Grid((2, 3, 4), Layout((0, 2, 1), (True, False, False)), spacing=(5, 6, 7))
    source = StoredVolume("v", partial(loaded, voxels), grid=grid, dtype=voxels.dtype)
    np.testing.assert_array_equal(source.read()[..., 0], voxels[::-1, :, :, 0].transpose(0, 2, 1))
    assert source.shape == (2, 4, 3, 1)
    assert source.spacing == (5, 7, 6)
