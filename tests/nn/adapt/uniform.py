"""Uniform forests, and models whose positions and biases show."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from patchforest.nn.raster import ForestBatch
from patchforest.tree.forest import build_forest


def uniform(shape: tuple[int, ...], side: int) -> ForestBatch:
    """One image cut into leaves of one side, in Z-order."""
    grid = tuple(-(-s // side) for s in shape)
    return ForestBatch.stack([build_forest(np.zeros(grid, np.float32), shape=shape, cell=side, threshold=-1.0)])


def in_rows(forest: ForestBatch) -> Tensor:
    """Numbers of the leaves of the only image, row by row, as grids of patches are flattened."""
    key = torch.zeros(forest.size_BL.shape[1], dtype=torch.int64)
    for axis, length in enumerate(forest.shape):
        key = key * length + forest.origin_BLn[0, :, axis]
    return torch.argsort(key)


def roughened(model: nn.Module) -> nn.Module:
    """The model with all that starts at zero or nearly so (positions, tokens, biases, scales) drawn anew."""
    torch.manual_seed(0)
    for parameter in model.parameters():
        if parameter.ndim not in (0, 2):
            nn.init.normal_(parameter, std=0.3)
    return model.eval()
