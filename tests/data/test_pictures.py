"""The door decides by size, scale and kind of labels; the labelled pixels are the same either way."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from patchforest.data import pictures
from patchforest.data.load import Picture
from patchforest.data.pictures import check_picture, open_picture
from patchforest.data.slides import SlidePicture
from patchforest.errors import InputError
from patchforest.io.scale import Scale
from tests.data.test_slides import case, slide


def test_size_decides_and_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slide(tmp_path, shape=(300, 400))
    for options in ({}, {"scale": Scale(mpp=1.0)}, {"downscale": 2}):
        monkeypatch.setattr(pictures, "LARGE", 1 << 26)
        held = open_picture(case(tmp_path), **options)  # type: ignore[arg-type]
        monkeypatch.setattr(pictures, "LARGE", 100)
        lazy = open_picture(case(tmp_path), **options)  # type: ignore[arg-type]
        assert isinstance(held, Picture)
        assert isinstance(lazy, SlidePicture)
        assert held.shape == lazy.shape
        for a, b in zip(held.read(20, 30, 40, 50), lazy.read(20, 30, 40, 50)):
            assert np.array_equal(a, b)


def test_the_scale_of_a_held_picture_is_known(tmp_path: Path) -> None:
    slide(tmp_path, shape=(100, 120), mpp=0.5)
    plain, half = open_picture(case(tmp_path)), open_picture(case(tmp_path), scale=Scale(mpp=1.0))
    assert isinstance(plain, Picture)
    assert isinstance(half, Picture)
    assert (plain.mpp, half.mpp) == (0.5, 1.0)


def test_checks_of_small_images_are_those_of_loading(tmp_path: Path) -> None:
    slide(tmp_path, shape=(60, 80))
    check_picture(case(tmp_path), num_classes=2, channels=3)
    with pytest.raises(InputError, match="holds value 1"):
        check_picture(case(tmp_path), num_classes=1)
    with pytest.raises(InputError, match="only level 0"):
        check_picture(case(tmp_path), scale=Scale(level=9))
