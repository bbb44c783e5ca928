"""Positions of a pretrained grid, read where leaves lie.

The grid is stretched over the frame: the whole image (``framed``) or what the network sees of it. Its entry (i, j) of
h × w stands for the centre of its cell, at ((i + ½) · H / h, (j + ½) · W / w) pixels of a frame of H × W. So an image
of the size that the model was made for, cut into leaves of the pretrained patch, reads every entry once, as it is.

Dimension letters: B batch, L leaves, D width, n spatial axes, g grid entries along an axis, G in all.
"""

from __future__ import annotations

import torch
from torch import Tensor

from patchforest.nn.raster import ForestBatch

SHARPNESS = -0.75
"""Of the cubic kernel: that of ``torch.nn.functional.interpolate``, which pretrained models are resized with."""


def leaf_places(forest: ForestBatch, grid: tuple[int, ...], *, framed: bool) -> Tensor:
    """(B, L, n) leaf centres in entries of the grid: entry i of an axis is at i, the frame spans −½ to g − ½."""
    centre_BLn = forest.center_BLn
    n = centre_BLn.shape[-1]
    sizes_B1n = torch.tensor(forest.shape, device=centre_BLn.device, dtype=torch.float32).expand(len(centre_BLn), 1, n)
    if framed and forest.place_B4.shape[1] == 2 * n:
        centre_BLn = centre_BLn + forest.place_B4[:, None, :n]
        sizes_B1n = forest.place_B4[:, None, n:]
    entries = torch.tensor(grid, device=centre_BLn.device, dtype=torch.float32)
    return torch.minimum(centre_BLn * entries / sizes_B1n, entries) - 0.5


def read_table(table: Tensor, place_BLn: Tensor) -> Tensor:
    """(B, L, D) entries of a table (g, g, D), interpolated bicubically at ``leaf_places``; exact at whole numbers.

    Beyond the outermost entries the table goes on as it ends.
    """
    grid = table.shape[:-1]
    with torch.autocast(table.device.type, enabled=False):
        weight_BLG = torch.ones(*place_BLn.shape[:2], 1, device=table.device)
        for axis, entries in enumerate(grid):
            along_BLg = _cubic_weights(place_BLn[..., axis], entries)
            weight_BLG = (weight_BLG[..., :, None] * along_BLg[..., None, :]).flatten(2)
        return weight_BLG.to(table.dtype) @ table.flatten(0, -2)


def _cubic_weights(place_BL: Tensor, entries: int) -> Tensor:
    """(B, L, g) weights of the entries of one axis: the cubic kernel, what falls beyond the ends given to the ends."""
    every = torch.arange(-2, entries + 2, device=place_BL.device)
    away = (place_BL[..., None] - every).abs()
    near = ((SHARPNESS + 2) * away - (SHARPNESS + 3)) * away**2 + 1
    far = SHARPNESS * (((away - 5) * away + 8) * away - 4)
    weight = torch.where(away <= 1, near, torch.where(away < 2, far, 0.0))
    fold = torch.eye(entries, device=place_BL.device)[every.clamp(0, entries - 1)]
    return weight @ fold
