"""The image as the network sees it: windows equal the whole, tissue is asked in the frame's pixels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from patchforest.errors import InputError
from patchforest.infer.working import Tissue, WorkingImage, as_source, hold, shrink
from patchforest.io.open import open_image
from patchforest.io.write import write_image
from patchforest.tree.window import unit_range
from patchforest.values import Region
from tests.infer.fakes import Bright, fake


@pytest.mark.parametrize("downscale", [1, 2, 5])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_windows_are_parts_of_the_whole(downscale: int, dtype: type, rng: np.random.Generator) -> None:
    pixels = rng.integers(0, np.iinfo(dtype).max, (53, 71, 3), endpoint=True).astype(dtype)
    image = WorkingImage(as_source(pixels), fake(Bright(), downscale=downscale).spec)
    whole = shrink(unit_range(pixels), downscale)
    assert image.frame == whole.shape[:2]
    for _ in range(20):
        row, column = int(rng.integers(image.frame[0])), int(rng.integers(image.frame[1]))
        side = int(rng.integers(1, image.frame[0] - row + 1)), int(rng.integers(1, image.frame[1] - column + 1))
        part = image.read(Region((row, column), side))
        assert np.array_equal(part, whole[row : row + side[0], column : column + side[1]])


def test_tissue_in_windows() -> None:
    mask = np.zeros((10, 20), bool)
    mask[4, 7] = True
    tissue = Tissue(mask, (1000, 2000))
    assert tissue
    assert tissue.within(Region((400, 700), (1, 1)))
    assert tissue.within(Region((0, 0), (1000, 2000)))
    assert tissue.within(Region((500, 800), (50, 50)))  # the pixel beside it
    assert not tissue.within(Region((650, 700), (300, 100)))
    assert not tissue.within(Region((400, 1000), (100, 500)))
    assert not Tissue(np.zeros((3, 3), bool), (9, 9))


def test_errors(rng: np.random.Generator) -> None:
    spec = fake(Bright()).spec
    with pytest.raises(InputError, match=r"a\.png: has 1 channels, the model was trained on 3"):
        WorkingImage(as_source(np.zeros((4, 4), np.uint8)), spec, "a.png")
    with pytest.raises(InputError, match=r"b: has shape \(2, 2, 2, 2\)"):
        as_source(np.zeros((2, 2, 2, 2), np.uint8), "b")
    wild = WorkingImage(as_source(rng.normal(0, 400, (8, 8, 3))), spec, "ct.npy")
    with pytest.raises(InputError, match=r"ct\.npy: .*window"):
        wild.read(Region((0, 0), (8, 8)))


def test_what_is_decoded_as_a_whole_is_held_or_refused_first(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", np.full((300, 400, 3), 9, np.uint8))
    source = open_image(tmp_path / "a.png")
    held = hold(source, 1 << 20, "a.png")
    assert np.array_equal(held.read(0, 10, 10, 5, 5), source.read(0, 10, 10, 5, 5))
    assert hold(held, 1 << 20) is held  # bands of rows are read as they are
    with pytest.raises(InputError, match=r"a\.png: is decoded as a whole, 0 MiB.*vips tiffsave a\.png"):
        hold(source, 1000, "a.png")
