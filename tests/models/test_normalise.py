"""What networks see: values, and values against their surroundings."""

from __future__ import annotations

import pytest
import torch

from patchforest.models.normalise import CONTRAST, contrast, normalise, see, seen_channels, surroundings


def test_surroundings_are_means_near_by() -> None:
    assert torch.allclose(surroundings(torch.full((1, 2, 37, 50), 0.3), 16), torch.tensor(0.3))
    image = torch.zeros(1, 1, 96, 96)
    image[..., 40:56, 40:56] = 1.0
    found = surroundings(image, 16)
    assert found.shape == image.shape
    assert float(found.max()) == pytest.approx(1 / 9, rel=0.2)
    assert not found[..., :8, :8].any()


@pytest.mark.parametrize("shape", [(1, 1), (5, 70), (64, 33)])
def test_an_image_of_any_size_is_seen_as_it_is_and_against_its_surroundings(shape: tuple[int, int]) -> None:
    image = torch.rand(2, 3, *shape)
    seen = see(image, 32)
    assert seen.shape == (2, seen_channels(3, 32), *shape)
    assert torch.equal(seen[:, :3], normalise(image))
    assert torch.allclose(seen[:, 3:] * CONTRAST, image - surroundings(image, 32), atol=1e-6)


def test_light_that_changes_slowly_hardly_shows_in_the_contrast() -> None:
    image = torch.rand(1, 1, 256, 256) * 0.1
    light = torch.linspace(0, 0.5, 256).expand(1, 1, 256, 256)
    inside = (..., slice(64, -64), slice(64, -64))
    assert float((contrast(image + light, 16) - contrast(image, 16))[inside].abs().max()) * CONTRAST < 0.005


def test_without_surroundings_the_value_alone_is_seen() -> None:
    image = torch.rand(1, 3, 8, 8)
    assert torch.equal(see(image, 0), normalise(image))
    assert seen_channels(3, 0) == 3
