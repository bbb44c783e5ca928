"""Label files: the class numbers that were meant, or one line with file, fault and remedy."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image

from patchforest.errors import InputError
from patchforest.io.label import check_pair, read_label


def saved(path: Path, values: np.ndarray) -> Path:
    """A picture file from rows of numbers."""

    Image.fromarray(values).save(path)
    return path


@pytest.fixture
def grey(tmp_path: Path) -> Path:
    return saved(tmp_path / "m.png", np.array([[0, 1, 2], [2, 1, 0]], np.uint8))


def test_class_numbers_come_back(tmp_path: Path, grey: Path) -> None:
    label = read_label(grey, num_classes=3)
    assert label.tolist() == [[0, 1, 2], [2, 1, 0]]
    assert label.dtype == np.uint8
    assert label.flags.c_contiguous
    deep = np.array([[0, 1], [300, 65535]], np.uint16)
    cv2.imwrite(str(tmp_path / "d.png"), deep)
    tifffile.imwrite(tmp_path / "d.tif", deep, tile=(16, 16))
    np.save(tmp_path / "d.npy", deep)
    for suffix in ("png", "tif", "npy"):
        assert read_label(tmp_path / f"d.{suffix}").tolist() == deep.tolist()
        assert read_label(tmp_path / f"d.{suffix}").dtype == np.uint16
    np.save(tmp_path / "small.npy", np.array([[0, 3]], np.int64))
    assert read_label(tmp_path / "small.npy").dtype == np.uint8


def test_palette_masks_give_indices(tmp_path: Path) -> None:
    picture = Image.fromarray(np.array([[0, 1, 2, 1]], np.uint8)).convert("P")
    picture.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0])
    picture.save(tmp_path / "m.png")
    assert Image.open(tmp_path / "m.png").mode == "P"
    assert read_label(tmp_path / "m.png", num_classes=3).tolist() == [[0, 1, 2, 1]]


def test_one_bit_masks_give_0_and_1(tmp_path: Path) -> None:
    bits = np.array([[True, False, True]])
    Image.fromarray(bits).save(tmp_path / "m.png")
    tifffile.imwrite(tmp_path / "m.tif", bits, photometric="minisblack")
    np.save(tmp_path / "m.npy", bits)
    for suffix in ("png", "tif", "npy"):
        assert read_label(tmp_path / f"m.{suffix}", num_classes=2).tolist() == [[1, 0, 1]]
    tifffile.imwrite(tmp_path / "m.tif", bits, photometric="miniswhite")
    with pytest.raises(InputError, match="counts from white"):
        read_label(tmp_path / "m.tif")


def test_colour_masks(tmp_path: Path) -> None:
    grey = np.array([[0, 1], [2, 1]], np.uint8)
    same = np.repeat(grey[..., None], 4, axis=2)
    assert read_label(saved(tmp_path / "a.png", same[..., :3])).tolist() == grey.tolist()
    same[..., 3] = 255
    assert read_label(saved(tmp_path / "a.png", same)).tolist() == grey.tolist()
    assert read_label(saved(tmp_path / "a.png", same[..., 2:])).tolist() == grey.tolist()
    same[0, 0, 3] = 9
    with pytest.raises(InputError, match="transparency"):
        read_label(saved(tmp_path / "a.png", same))
    colours = np.zeros((3, 4, 3), np.uint8)
    colours[0, 1] = (255, 0, 0)
    colours[1, 2] = (0, 128, 0)
    with pytest.raises(InputError, match=r"colour mask \(\(0, 128, 0\), \(255, 0, 0\)\); save class numbers"):
        read_label(saved(tmp_path / "a.png", colours))
    many = np.arange(36, dtype=np.uint8).reshape(3, 4, 3)
    with pytest.raises(InputError, match=r"\(0, 1, 2\), .*\(12, 13, 14\), \.\.\.\)"):
        read_label(saved(tmp_path / "a.png", many))


def test_0_and_255_ask_for_a_map(tmp_path: Path) -> None:
    path = saved(tmp_path / "m.png", np.array([[0, 255]], np.uint8))
    for num_classes in (None, 2, 5):
        with pytest.raises(InputError, match=r"m.png: holds 255 .* \(values 0 and 255\); set `label_map: \{255: 1\}`"):
            read_label(path, num_classes=num_classes)
    assert read_label(path, label_map={255: 1}, num_classes=2).tolist() == [[0, 1]]
    assert read_label(path, label_map={"255": 1}).tolist() == [[0, 1]]
    assert read_label(path, num_classes=256).tolist() == [[0, 255]]
    with pytest.raises(InputError, match=r"only the value 255; set `label_map"):
        read_label(saved(tmp_path / "full.png", np.full((2, 2), 255, np.uint8)))
    assert read_label(saved(tmp_path / "empty.png", np.zeros((2, 2), np.uint8)), num_classes=2).sum() == 0


def test_label_map(tmp_path: Path, grey: Path) -> None:
    assert read_label(grey, label_map={0: 2, 2: 0}, num_classes=3).tolist() == [[2, 1, 0], [0, 1, 2]]
    assert read_label(grey, label_map={0: 0, "other": 1}, num_classes=2).tolist() == [[0, 1, 1], [1, 1, 0]]
    assert read_label(grey, label_map={2: 1, "other": 0}).tolist() == [[0, 0, 1], [1, 0, 0]]
    assert read_label(grey, label_map={1: 300}, num_classes=301).tolist() == [[0, 300, 2], [2, 300, 0]]
    path = saved(tmp_path / "v.png", np.array([[0, 1, 7, 8, 9, 10, 11, 12]], np.uint8))
    with pytest.raises(InputError, match=r"values 8, 9, 10, 11, 12, neither in label_map nor a class number; add them"):
        read_label(path, label_map={7: 1}, num_classes=2)
    with pytest.raises(InputError, match=r"value 2, neither"):
        read_label(grey, label_map={1: 1})
    with pytest.raises(InputError, match=r"holds value 2, but class numbers go from 0 to 1"):
        read_label(grey, label_map={2: 5, 0: 0, 1: 1}, num_classes=2)
    np.save(tmp_path / "n.npy", np.array([[-1, 0, 70000]]))
    assert read_label(tmp_path / "n.npy", label_map={-1: 0, 0: 1, 70000: 2}).tolist() == [[0, 1, 2]]


@pytest.mark.parametrize(
    "label_map", [{"background": 0}, {0.5: 1}, {True: 1}, {1: -1}, {1: 65536}, {1: "1"}, {1: True}]
)
def test_maps_that_make_no_sense(grey: Path, label_map: dict) -> None:
    with pytest.raises(ValueError, match="label_map: "):
        read_label(grey, label_map=label_map)


def test_numbers_out_of_range_are_listed(tmp_path: Path, grey: Path) -> None:
    with pytest.raises(InputError, match=r"m.png: holds value 2, but class numbers go from 0 to 1; correct the mask"):
        read_label(grey, num_classes=2)
    np.save(tmp_path / "n.npy", np.array([[-1, 0]]))
    with pytest.raises(InputError, match=r"holds value -1, but class numbers go from 0"):
        read_label(tmp_path / "n.npy")
    for bad in (np.array([[0.0, 1.0]]), np.array([[np.nan]])):
        np.save(tmp_path / "n.npy", bad)
        with pytest.raises(InputError, match="holds float64 values, but class numbers are whole"):
            read_label(tmp_path / "n.npy")


def test_smoothed_and_instance_masks(tmp_path: Path, rng: np.random.Generator) -> None:
    disc = np.zeros((64, 64), np.uint8)
    cv2.circle(disc, (32, 32), 20, 255, -1)
    smooth = saved(tmp_path / "s.png", cv2.GaussianBlur(disc, (5, 5), 0))
    with pytest.raises(InputError, match=r"different values up to 255 for 2 classes; if it is anti-aliased"):
        read_label(smooth, num_classes=2)
    with pytest.raises(InputError, match=r"neither in label_map"):
        read_label(smooth, label_map={255: 1}, num_classes=2)
    Image.fromarray(disc).save(tmp_path / "m.jpg")
    with pytest.raises(InputError, match="is a JPEG, whose compression changes class numbers"):
        read_label(tmp_path / "m.jpg", label_map={255: 1})
    instances = saved(tmp_path / "i.png", rng.integers(0, 40, (30, 30)).astype(np.uint8))
    with pytest.raises(InputError, match=r"label_map: \{0: 0, other: 1\}"):
        read_label(instances, num_classes=2)
    expected = np.asarray(Image.open(instances)) > 0
    np.testing.assert_array_equal(read_label(instances, label_map={0: 0, "other": 1}, num_classes=2), expected)


def test_orientation_of_masks_is_honoured(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.array([[1, 2, 3]], np.uint8)).save(tmp_path / "m.png", exif=exif)
    assert read_label(tmp_path / "m.png").tolist() == [[1], [2], [3]]


def test_sizes_must_agree() -> None:
    check_pair((4, 5, 3), (4, 5), "a.png", "b.png")
    with pytest.raises(InputError, match=r"b.png: is 4 x 6 pixels .* its image a.png is 4 x 5; export the mask"):
        check_pair((4, 5, 3), (4, 6), "a.png", "b.png")
    with pytest.raises(InputError, match="one of them is turned"):
        check_pair((4, 5, 3), (5, 4), "a.png", "b.png")


def test_real_masks(shared_data: Path) -> None:
    glas = sorted((shared_data / "glas" / "masks").glob("*.png"))[0]
    with pytest.raises(InputError, match=str(glas)):
        read_label(glas, num_classes=2)
    binary = read_label(glas, label_map={0: 0, "other": 1}, num_classes=2)
    np.testing.assert_array_equal(binary, np.asarray(Image.open(glas)) > 0)
    nuclei = sorted((shared_data / "monuseg" / "instances").glob("*.png"))[0]
    assert read_label(nuclei).dtype == np.uint16
    assert read_label(nuclei).max() > 255
    lesions = sorted((shared_data / "idrid" / "masks").glob("*.png"))[0]
    np.testing.assert_array_equal(read_label(lesions, num_classes=6), np.asarray(Image.open(lesions)))
