"""What every baseline on plain pixels has to do."""

from __future__ import annotations

import torch
from torch import nn

from patchforest.models.build import build_model
from patchforest.models.config import ModelConfig
from patchforest.train.losses import segmentation_loss


def answers_any_size(config: ModelConfig, shapes: list[tuple[int, int]]) -> None:
    """Logits of exactly the image's size."""
    model = build_model(config).eval()
    for shape in shapes:
        image = torch.rand(2, config.channels, *shape)
        with torch.inference_mode():
            output = model.output(image)
            assert output.stride == 1
            assert output.logits.shape == (2, config.classes, *shape)
            assert torch.equal(model(image), output.raster(shape))


def learns_a_square(config: ModelConfig, *, steps: int = 40, lr: float = 5e-3) -> nn.Module:
    """The loss falls by 40 %, every parameter is reached by the gradient."""
    torch.manual_seed(0)
    model = build_model(config)
    image = 0.2 * torch.rand(2, config.channels, 64, 64)
    label = torch.zeros(2, 64, 64, dtype=torch.long)
    label[0, 8:32, 16:48] = label[1, 30:60, 4:30] = 1
    image += 0.6 * label[:, None]
    optimizer = torch.optim.AdamW(model.parameters(), lr)
    losses = []
    for _ in range(steps):
        loss = segmentation_loss(model.output(image), label)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.6 * losses[0]
    assert [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []
    return model
