"""Swin UNETR in 2-D, as MONAI builds it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from patchforest.models.config import ModelConfig
from patchforest.models.normalise import see, seen_channels
from patchforest.nn.compat import require
from patchforest.nn.grid import padded
from patchforest.nn.raster import ForestBatch
from patchforest.nn.readout.output import DenseOutput, RasterMask, start_with_background

STRIDE = 32


class SwinUNETR(nn.Module):
    """MONAI's ``SwinUNETR`` with ``spatial_dims=2``: ``features`` is its feature size, the rest is MONAI's.

    That is patch 2, depths (2, 2, 2, 2), heads (3, 6, 12, 24), attention in windows of 7; ``dropout`` in the
    transformer. The image is padded to multiples of 32 inside, and to 64 at least (instance norms need two pixels at
    stride 32). Source: Hatamizadeh et al. 2022. Needs the extra ``medical``.

    Attributes
    ----------
    fixed_window : it has no table of positions, but is customarily shown windows of the training size.
    """

    needs_forest = False
    fixed_window = True

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        require("einops", user="swin_unetr", extra="medical")  # MONAI itself misses it only at the first image
        module = require("monai.networks.nets.swin_unetr", user="swin_unetr", extra="medical")
        if config.features % 12:
            raise ValueError(f"features of swin_unetr must be a multiple of 12; got {config.features}")
        self.surround = config.surround
        with _NumbersAreReal():
            self.network = module.SwinUNETR(
                seen_channels(config.channels, config.surround),
                config.classes,
                feature_size=config.features,
                depths=(2, 2, 2, 2),
                drop_rate=config.dropout,
                spatial_dims=2,
            )
        start_with_background(self.network.out.conv.conv, config.classes)

    def output(self, image_BCHW: Tensor, forest: ForestBatch | None = None) -> DenseOutput:
        """Logits at stride 1, for the loss."""
        height, width = image_BCHW.shape[2:]
        logits = self.network(padded(see(image_BCHW, self.surround), STRIDE, least=2 * STRIDE))
        return RasterMask(logits=logits[..., :height, :width], stride=1)

    def forward(self, image_BCHW: Tensor, forest: ForestBatch | None = None) -> Tensor:
        height, width = image_BCHW.shape[2:]
        return self.output(image_BCHW).raster((height, width))


class _NumbersAreReal(TorchFunctionMode):
    """``linspace`` gives numbers on the meta device too, where MONAI reads its rates of stochastic depth."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        more = {"device": "cpu"} if func is torch.linspace else {}
        return func(*args, **{**(kwargs or {}), **more})
