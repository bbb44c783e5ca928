"""Looking before the first step: volumes are not taken for images, every bad mask is counted."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from patchforest.data.layout import Case
from patchforest.errors import InputError
from patchforest.io.write import write_image, write_mask
from patchforest.models.config import ModelConfig, VolumeSpec
from patchforest.train.config import DataConfig, RunConfig, TrainConfig
from patchforest.train.inputs import channels_of, check_cases

CONFIG = RunConfig(data=DataConfig(classes=("a", "b")), model=ModelConfig(channels=3), train=TrainConfig(max_steps=1))


def case(folder: Path, name: str, mask: int = 1) -> Case:
    """An image and a mask of one value."""
    write_image(folder / f"{name}.png", np.zeros((8, 9, 3), np.uint8))
    write_mask(folder / f"{name}_m.png", np.full((8, 9), mask, np.uint8))
    return Case(name, folder / f"{name}.png", folder / f"{name}_m.png")


def test_channels(tmp_path: Path) -> None:
    assert channels_of(case(tmp_path, "a"), CONFIG) == 3
    np.save(tmp_path / "v.npy", np.zeros((6, 7, 8), np.uint8))
    volume = Case("v", tmp_path / "v.npy", None)
    assert channels_of(volume, replace(CONFIG, volume=VolumeSpec())) == 1
    with pytest.raises(InputError, match=r"v\.npy: is a volume.*volume\.window.*volume\.axes"):
        channels_of(volume, CONFIG)


def test_every_mask_is_looked_at(tmp_path: Path) -> None:
    good = case(tmp_path, "a")
    check_cases([good], CONFIG)
    bad = [case(tmp_path, name, 7) for name in "bcd"]
    with pytest.raises(InputError, match=r"b_m\.png.*2 more cases are bad too"):
        check_cases([good, *bad], CONFIG)
    np.save(tmp_path / "v.npy", np.zeros((6, 7, 8), np.uint8))
    with pytest.raises(InputError, match="has no mask"):
        check_cases([Case("v", tmp_path / "v.npy", None)], replace(CONFIG, volume=VolumeSpec()))
