"""ViT on a grid of patches: its size by formula, other image sizes than its own, and that it learns."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from patchforest.models.config import ModelConfig
from patchforest.models.vit import ViT

SMALL = ModelConfig(name="vit", classes=3, width=16, depth=2, heads=2, patch=8, window=(32, 48))


def wanted(c: ModelConfig) -> int:
    """Parameters by hand: embedding, table, blocks, last norm, head."""
    assert c.window is not None
    places = -(-c.window[0] // c.patch) * -(-c.window[1] // c.patch)
    embed = c.channels * c.patch**2 * c.width + c.width + places * c.width
    block = 12 * c.width**2 + 13 * c.width
    return embed + c.depth * block + 2 * c.width + (c.width + 1) * c.classes


@pytest.mark.parametrize("change", [{}, {"channels": 5}, {"patch": 16, "width": 24, "depth": 3, "window": (30, 50)}])
def test_number_of_parameters(change: dict) -> None:
    config = replace(SMALL, **change)
    assert sum(p.numel() for p in ViT(config).parameters()) == wanted(config)


def test_vit_b_is_of_the_published_size() -> None:
    config = ModelConfig(name="vit", classes=1000, width=768, depth=12, heads=12, patch=16, window=(224, 224))
    with torch.device("meta"):
        number = sum(p.numel() for p in ViT(config).parameters())
    assert (
        number == wanted(config) == 86_567_656 - 2 * 768
    )  # timm's vit_base_patch16_224 less class token and its place


def test_other_sizes_than_its_own() -> None:
    model = ViT(SMALL).eval()
    for shape in ((32, 48), (31, 47), (64, 40), (8, 8)):
        assert model(torch.rand(2, 3, *shape)).shape == (2, 3)
    assert model.num_tokens((31, 47)) == model.num_tokens((32, 48)) == 24


def test_places_count() -> None:
    torch.manual_seed(0)
    model = ViT(SMALL).eval()
    image = torch.rand(1, 3, 32, 48)
    assert not torch.allclose(model(image), model(image.flip(3)), atol=1e-4)
    with torch.no_grad():
        model.embed.table.zero_()
    moved = torch.cat([image[..., 8:], image[..., :8]], 3)  # without places only the set of patches counts
    torch.testing.assert_close(model(image), model(moved), atol=1e-5, rtol=1e-4)


def test_without_a_window_it_is_refused() -> None:
    with pytest.raises(ValueError, match="set window"):
        ViT(replace(SMALL, window=None))


@pytest.mark.parametrize("pooling", ["tokens", "attention"])
def test_learns_where_a_square_is(pooling: str) -> None:
    torch.manual_seed(0)
    model = ViT(replace(SMALL, classes=2, pooling=pooling))
    image, label = 0.2 * torch.rand(8, 3, 32, 48), torch.arange(8) % 2
    for k in range(8):
        left = 4 + 24 * int(label[k])
        image[k, :, 8 : 8 + 2 * k + 4, left : left + 16] += 0.7
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    for _ in range(100):
        loss = F.cross_entropy(model(image), label)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.1
    assert all(p.grad is not None for p in model.parameters())
