"""U-Net: parameter count by formula, any size, any down-scaling."""

from __future__ import annotations

import pytest
import torch

from patchforest.models.config import ModelConfig
from patchforest.models.unet import UNet


def conv(a: int, b: int) -> int:
    return 9 * a * b + 2 * b  # weights, and scale and shift of the norm


def test_parameters_by_formula() -> None:
    model = UNet(ModelConfig(name="unet", width=16, depth=4))
    w = [16, 32, 64, 128, 256]
    down = sum(conv(a, b) + conv(b, b) for a, b in zip([3, *w], w))
    up = sum(conv(w[k] + w[k - 1], w[k - 1]) + conv(w[k - 1], w[k - 1]) for k in range(4, 0, -1))
    assert sum(p.numel() for p in model.parameters()) == down + up + 16 + 1


@pytest.mark.parametrize("downscale", [1, 2, 4])
@pytest.mark.parametrize("shape", [(64, 64), (37, 51), (1, 70), (3, 2)])
def test_any_size(downscale: int, shape: tuple[int, int]) -> None:
    model = UNet(ModelConfig(name="unet", width=4, depth=3, downscale=downscale, classes=3)).eval()
    output = model.output(torch.rand(1, 3, *shape))
    assert output.logits.shape[2:] == tuple(-(-s // downscale) for s in shape)
    assert model(torch.rand(1, 3, *shape)).shape == (1, 3, *shape)
