"""Tissue on glass is found; glass alone, however noisy, has none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from patchforest.tree.tissue import find_tissue


@pytest.mark.parametrize("glass", [255, 243, 225])
@pytest.mark.parametrize("stain", [(170, 80, 140), (90, 60, 140), (150, 110, 70)])
def test_tissue_and_nothing_else(glass: int, stain: tuple[int, int, int]) -> None:
    rng = np.random.default_rng(glass)
    image = np.full((200, 300, 3), glass, np.float64)
    image[60:120, 100:220] = stain
    image += rng.normal(0, 3, image.shape)
    found = find_tissue(image.clip(0, 255).astype(np.uint8))
    truth = np.zeros((200, 300), bool)
    truth[60:120, 100:220] = True
    assert found.dtype == bool
    assert found[truth].mean() > 0.99
    assert not found[:50].any()
    assert (found & ~truth).mean() < 0.01


@pytest.mark.parametrize(
    "other",
    [(200, 205, 228), (230, 215, 228), (20, 20, 20), (120, 90, 60), (180, 180, 180)],
    ids=["counterstain", "pale stroma", "ink", "pigment", "grey"],
)
def test_what_lies_between_two_stains_is_tissue(other: tuple[int, int, int]) -> None:
    rng = np.random.default_rng(1)
    image = np.full((120, 200, 3), 243.0)
    image[20:100, 20:90], image[20:100, 110:180] = (110, 70, 140), other
    found = find_tissue((image + rng.normal(0, 2, image.shape)).clip(0, 255).astype(np.uint8))
    assert found[22:98, 112:178].mean() > 0.99
    assert found[22:98, 22:88].all()
    assert not found[:16].any()


@pytest.mark.parametrize("level", [225, 240, 255])
def test_an_empty_slide_has_no_tissue(level: int) -> None:
    rng = np.random.default_rng(level)
    image = np.clip(level + rng.normal(0, 2, (150, 150, 3)), 0, 255).astype(np.uint8)
    assert not find_tissue(image).any()
    assert not find_tissue(np.full((40, 40, 3), level, np.uint8)).any()


def test_without_glass_all_is_tissue() -> None:
    rng = np.random.default_rng(0)
    stained = np.clip((170, 90, 150) + rng.normal(0, 20, (80, 90, 3)), 0, 255).astype(np.uint8)
    assert find_tissue(stained).all()
    fluorescence = np.zeros((80, 90, 3), np.uint8)
    fluorescence[20:40, 20:40, 2] = 220
    assert find_tissue(fluorescence).all()


def test_specks_are_left_out() -> None:
    image = np.full((100, 100, 3), 240, np.uint8)
    image[50, 50] = image[20, 70:72] = (120, 20, 90)
    assert not find_tissue(image).any()


def test_images_without_glass_are_tissue_everywhere() -> None:
    assert find_tissue(np.zeros((5, 6, 1), np.uint8)).all()
    assert find_tissue(np.zeros((5, 6, 3), np.uint16)).shape == (5, 6)
    assert find_tissue(np.zeros((5, 6, 4), np.uint8)).all()


def test_a_real_slide(shared_data: Path) -> None:
    from patchforest.io.open import open_image
    from patchforest.io.scale import thumbnail

    found = find_tissue(thumbnail(open_image(shared_data / "wsi" / "CMU-1-Small-Region.svs"), 512))
    assert 0.1 < found.mean() < 0.9
