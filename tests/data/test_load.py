"""Decoded cases: mask and image agree, down-scaling is area average and majority, and errors name the file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from patchforest.data.layout import Case
from patchforest.data.load import check_case, load_case, shrink_image, shrink_label
from patchforest.errors import InputError
from patchforest.io.write import write_image, write_mask


def case(tmp_path: Path, image: np.ndarray, label: np.ndarray) -> Case:
    np.save(tmp_path / "a.npy", image) if image.dtype.kind == "f" else write_image(tmp_path / "a.png", image)
    write_mask(tmp_path / "m.png", label)
    return Case("a", tmp_path / ("a.npy" if image.dtype.kind == "f" else "a.png"), tmp_path / "m.png")


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("shape", [(12, 8, 3), (13, 7, 1), (1, 5, 2), (3, 3, 6)])
def test_shrunk_image_is_the_area_average(rng: np.random.Generator, dtype: type, shape: tuple[int, ...]) -> None:
    image: np.ndarray = (rng.random(shape) * (1 if dtype is np.float32 else 255)).astype(dtype)
    small = shrink_image(image, 4)
    assert small.shape == (-(-shape[0] // 4), -(-shape[1] // 4), shape[2])
    assert small.dtype == dtype
    padded = np.pad(image, ((0, -shape[0] % 4), (0, -shape[1] % 4), (0, 0)), mode="edge")
    for r in range(small.shape[0]):
        for c in range(small.shape[1]):
            mean = padded[4 * r : 4 * r + 4, 4 * c : 4 * c + 4].reshape(16, -1).mean(0)
            assert np.abs(small[r, c] - mean).max() <= (1e-6 if dtype is np.float32 else 0.5)
    assert shrink_image(image, 1) is image


def test_shrunk_label_is_the_majority(rng: np.random.Generator) -> None:
    label = rng.integers(0, 4, (14, 9)).astype(np.uint8)
    small = shrink_label(label, 3)
    padded = np.pad(label, ((0, 1), (0, 0)), mode="edge")
    for r in range(5):
        for c in range(3):
            counts = np.bincount(padded[3 * r : 3 * r + 3, 3 * c : 3 * c + 3].ravel(), minlength=4)
            assert small[r, c] == counts.argmax()
    assert small.dtype == np.uint8
    assert shrink_label(label, 1) is label


def test_case_is_read_mapped_and_shrunk(tmp_path: Path) -> None:
    image = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    label = np.repeat(np.array([[0, 7], [9, 0]], np.uint8), 2, 0).repeat(2, 1)
    picture = load_case(case(tmp_path, image, label), label_map={0: 0, "other": 1}, num_classes=2, downscale=2)
    assert picture.image.shape == (2, 2, 3)
    assert picture.label.tolist() == [[0, 1], [1, 0]]
    assert picture.nbytes == 16


def test_errors_name_the_file(tmp_path: Path) -> None:
    grey, label = np.zeros((4, 5), np.uint8), np.zeros((4, 4), np.uint8)
    with pytest.raises(InputError, match=r"m\.png.*4 x 4.*4 x 5"):
        load_case(case(tmp_path, grey, label))
    with pytest.raises(InputError, match="has no mask"):
        load_case(Case("a", tmp_path / "a.png", None))
    with pytest.raises(InputError, match=r"m\.png.*3"):
        load_case(case(tmp_path, grey, np.full((4, 5), 3, np.uint8)), num_classes=2)


def test_floats_of_unknown_range_need_a_window(tmp_path: Path) -> None:
    item = case(tmp_path, np.full((4, 4, 1), 300.0, np.float32), np.zeros((4, 4), np.uint8))
    with pytest.raises(InputError, match=r"a\.npy.*intensity_window"):
        load_case(item)
    assert load_case(item, intensity_window=(-100, 400)).image.max() == 300
    with pytest.raises(ValueError, match="at least 1"):
        load_case(item, intensity_window=(0, 400), downscale=0)


def test_checking_raises_what_loading_would(tmp_path: Path) -> None:
    for name in ("good", "size", "value"):
        (tmp_path / name).mkdir()
    good = case(tmp_path / "good", np.zeros((4, 4), np.uint8), np.eye(4, dtype=np.uint8))
    check_case(good, num_classes=2)
    for bad, match in (
        (replace(good, label=None), "no mask"),
        (case(tmp_path / "size", np.zeros((4, 5), np.uint8), np.eye(4, dtype=np.uint8)), "4 x 4.*4 x 5"),
        (case(tmp_path / "value", np.zeros((4, 4), np.uint8), np.full((4, 4), 3, np.uint8)), "3"),
    ):
        with pytest.raises(InputError, match=match) as loaded:
            load_case(bad, num_classes=2)
        with pytest.raises(InputError) as checked:
            check_case(bad, num_classes=2)
        assert str(checked.value) == str(loaded.value)


def test_an_image_with_other_channels_than_the_first_is_found_before_training(tmp_path: Path) -> None:
    grey = case(tmp_path, np.zeros((4, 5, 1), np.uint8), np.zeros((4, 5), np.uint8))
    check_case(grey, channels=1)
    with pytest.raises(InputError, match=r"a\.png.*has 1 channels where the first training image has 3"):
        check_case(grey, channels=3)
