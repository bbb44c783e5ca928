"""HIPT: its size by formula, crops that belong to their regions, edges, and that all levels learn."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from patchforest.models.config import ModelConfig
from patchforest.models.hipt import HIPT

SMALL = ModelConfig(name="hipt", classes=2, width=16, depth=2, heads=2, patch=4, crop=16, region=32)


def block(width: int, ratio: int = 4) -> int:
    """Parameters of one transformer block."""
    return 4 * width**2 + 4 * width + 4 * width + 2 * ratio * width**2 + (ratio + 1) * width


def wanted(c: ModelConfig) -> int:
    """Parameters by hand, level by level."""
    half, side = c.width // 2, c.region // c.crop
    first = c.channels * c.patch**2 * c.width + c.width + (c.crop // c.patch) ** 2 * c.width
    first += c.width + c.depth * block(c.width) + 2 * c.width
    second = c.width * half + half + side**2 * half + half + max(c.depth // 2, 1) * block(half) + 2 * half
    third = half**2 + half + 2 * block(half, 1) + 2 * half
    pool = 2 * (half**2 + half) + half + 1
    return first + second + third + pool + half**2 + half + half * c.classes + c.classes


@pytest.mark.parametrize("change", [{}, {"channels": 5, "classes": 6}, {"depth": 1, "crop": 8, "region": 64}])
def test_number_of_parameters(change: dict) -> None:
    config = replace(SMALL, **change)
    assert sum(p.numel() for p in HIPT(config).parameters()) == wanted(config)


def test_the_published_size() -> None:
    """ViT-S/16 of 256 px crops, 21.7 M with its class token and table; ViT-XS of 256 crops, 2.8 M."""
    config = ModelConfig(name="hipt", classes=2, width=384, depth=12, heads=6, patch=16)
    with torch.device("meta"):
        model = HIPT(config)
    count = [sum(p.numel() for p in m.parameters()) for m in (model.patches, model.crops)]
    assert (
        count[0] == 21_665_664 + 59 * 384
    )  # timm's vit_small_patch16_224 without head; 16² places for 14² and the class token's
    assert 2.7e6 < count[1] < 2.9e6
    assert sum(p.numel() for p in model.parameters()) == wanted(config)


def test_crops_lie_in_their_regions_and_stop_at_the_edge() -> None:
    model = HIPT(SMALL).eval()
    image = torch.arange(12).repeat_interleave(16).float().view(1, 1, 1, -1).expand(1, 3, 48, -1)  # 3 × 12 crops
    model.patches = torch.nn.AdaptiveAvgPool2d(1)  # type: ignore[assignment]
    crops, exists = model._crops(image)
    assert crops.shape == (1, 12, 4, 3)  # 2 × 6 regions of 2 × 2 crops
    assert crops[0, 0, :, 0].tolist() == [0, 1, 0, 1]
    assert crops[0, 5, :, 0].tolist() == [10, 11, 10, 11]
    assert exists[0, :6].all()
    assert exists[0, 6:].tolist() == [[True, True, False, False]] * 6


def test_any_size_and_no_order_of_regions() -> None:
    torch.manual_seed(0)
    model = HIPT(SMALL).eval()
    for shape in ((32, 32), (33, 70), (5, 5), (64, 96)):
        assert model(torch.rand(2, 3, *shape)).shape == (2, 2)
    assert model.num_tokens((33, 70)) == 3 * 5 * 16
    image = torch.rand(1, 3, 32, 96)
    turned = torch.cat([image[..., 32:], image[..., :32]], 3)
    torch.testing.assert_close(model(image), model(turned), atol=1e-5, rtol=1e-4)
    inside = torch.cat([image[..., 16:32], image[..., :16], image[..., 32:]], 3)  # within a region places count
    assert not torch.allclose(model(image), model(inside), atol=1e-6)


def test_what_does_not_exist_has_no_say() -> None:
    """A fifth column of crops opens a region of one column: its absent crops must not be read."""
    torch.manual_seed(0)
    model = HIPT(SMALL).eval().double()
    image = torch.rand(1, 3, 32, 80, dtype=torch.float64)
    before = model(image)
    with torch.no_grad():
        model.crops.embed.table[:, [1, 3]] += 7 * torch.rand(1, 2, 8)  # type: ignore[operator]
        changed = model(image)
        alone = model(image[..., 64:])
        model.crops.embed.table[:, [1, 3]] += 5  # type: ignore[operator]
    assert not torch.allclose(before, changed)
    torch.testing.assert_close(alone, model(image[..., 64:]))


@pytest.mark.parametrize(
    ("change", "match"),
    [({"crop": 18}, "multiple"), ({"region": 40}, "multiple"), ({"width": 20, "heads": 4}, "half of width")],
)
def test_sides_that_do_not_fit(change: dict, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        HIPT(replace(SMALL, **change))


def test_all_levels_learn() -> None:
    torch.manual_seed(0)
    model = HIPT(SMALL)
    image, label = 0.2 * torch.rand(8, 3, 64, 64), torch.arange(8) % 2
    for k in range(8):  # where in its region the bright crop lies
        row, column = 32 * (k % 4 // 2), 32 * (k // 4)
        shift = 16 * int(label[k])
        image[k, :, row : row + 16, column + shift : column + shift + 16] += 0.7
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    for _ in range(80):
        loss = F.cross_entropy(model(image), label)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for n, p in model.named_parameters() if "score.b" not in n)
    model.eval()
    assert F.cross_entropy(model(image), label).item() < 0.2
