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


def test_grey_pen_marks_are_not_tissue() -> None:
    image = np.full((100, 100, 3), 240, np.uint8)
    image[20:40, 20:80] = (30, 30, 32)  # black ink has no colour
    image[60:80, 20:80] = (180, 90, 150)
    found = find_tissue(image)
    assert not found[15:45].any()
    assert found[62:78, 22:78].all()


@pytest.mark.parametrize("level", [0, 128, 240, 255])
def test_an_empty_slide_has_no_tissue(level: int) -> None:
    rng = np.random.default_rng(level)
    image = np.clip(level + rng.normal(0, 2, (150, 150, 3)), 0, 255).astype(np.uint8)
    assert not find_tissue(image).any()
    assert not find_tissue(np.full((40, 40, 3), level, np.uint8)).any()


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
