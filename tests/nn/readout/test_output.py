"""Dense outputs become full-resolution logits of exactly the image's size."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from patchforest.nn.raster import ForestBatch, paint_batch
from patchforest.nn.readout.output import RasterMask, TokenMask, start_with_background
from tests.forests import random_forest


@pytest.mark.parametrize("mode", ["nearest", "bilinear"])
def test_token_mask_is_painted(rng: np.random.Generator, mode: str) -> None:
    batch = ForestBatch.stack([random_forest(rng, (40, 52), budget=20)])
    logits = torch.rand(1, batch.size_BL.shape[1], 2, 4, 4)
    torch.testing.assert_close(TokenMask(logits, batch).raster((40, 52), mode), paint_batch(logits, batch, mode))


@pytest.mark.parametrize(("shape", "stride"), [((9, 13), 2), ((16, 16), 4), ((5, 5), 1)])
def test_raster_mask_repeats_and_crops(shape: tuple[int, int], stride: int) -> None:
    logits = torch.rand(1, 3, -(-shape[0] // stride), -(-shape[1] // stride))
    nearest = RasterMask(logits, stride).raster(shape, "nearest")
    rows, columns = torch.arange(shape[0]) // stride, torch.arange(shape[1]) // stride
    torch.testing.assert_close(nearest, logits[:, :, rows][..., columns])
    assert RasterMask(logits, stride).raster(shape).shape == (1, 3, *shape)


@pytest.mark.parametrize("classes", [1, 4])
def test_new_heads_say_background(classes: int) -> None:
    head = torch.nn.Linear(5, classes * 9)
    start_with_background(head, classes)
    logits = head(torch.zeros(1, 5)).view(classes, 9)
    share = logits.sigmoid()[0] if classes == 1 else 1 - logits.softmax(0)[0]
    torch.testing.assert_close(share, torch.full((9,), share[0].item()))
    assert 0 < share[0] < 0.4


def test_an_unknown_mode_is_refused() -> None:
    with pytest.raises(ValueError, match="cubic"):
        RasterMask(torch.zeros(1, 1, 4, 4), 2).raster((8, 8), "cubic")
