"""Networks whose right answer is known, and bundles around them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from patchforest.models.build import build_model
from patchforest.models.bundle import Bundle, ModelSpec
from patchforest.models.config import ModelConfig
from patchforest.nn.raster import ForestBatch
from patchforest.nn.readout.output import RasterMask
from patchforest.values import ForestPolicy


class Bright(nn.Module):
    """Foreground where the first channel is above one half; remembers the places it was shown."""

    needs_forest = False

    def __init__(self, gain: float = 50.0) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(gain))
        self.places: list[list[float]] = []

    def output(self, image: Tensor, forest: ForestBatch | None) -> RasterMask:
        """Logits of every pixel."""
        return RasterMask(logits=self(image, forest), stride=1)

    def forward(self, image: Tensor, forest: ForestBatch | None) -> Tensor:
        if forest is not None:
            self.places += forest.place_B4.tolist()
            assert forest.shape == tuple(image.shape[2:])
        return (image[:, :1] - 0.5) * self.gain


class FixedWindow(Bright):
    """``Bright`` that wants windows of the training size; remembers the shapes it was shown."""

    fixed_window = True

    def __init__(self) -> None:
        super().__init__()
        self.shapes: set[tuple[int, ...]] = set()

    def forward(self, image: Tensor, forest: ForestBatch | None) -> Tensor:
        self.shapes.add(tuple(image.shape[2:]))
        return super().forward(image, forest)


class Constant(nn.Module):
    """The same logits everywhere."""

    needs_forest = False

    def __init__(self, *logits: float) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.tensor(logits))

    def forward(self, image: Tensor, forest: ForestBatch | None) -> Tensor:
        return self.logits.view(1, -1, 1, 1).expand(len(image), -1, *image.shape[2:])


def fake(
    network: nn.Module,
    *,
    window: int | tuple[int, int] = 64,
    downscale: int = 1,
    forest: bool = False,
    classes: int = 2,
    mpp: float | None = None,
) -> Bundle:
    """A bundle around a network for RGB images."""
    policy = ForestPolicy(criterion="gradient", budget=28, window=window) if forest else None
    names = tuple(f"class{k}" for k in range(classes))
    spec = ModelSpec(ModelConfig(), policy, names, window=window, downscale=downscale, mpp=mpp)
    return Bundle(network=network, spec=spec)


def tiny(name: str, *, classes: int = 2, window: int = 64, downscale: int = 1, seed: int = 0) -> Bundle:
    """A small untrained model of the package: ``shf``, ``apf_unetr`` or ``unet``."""
    torch.manual_seed(seed)
    outputs = 1 if classes == 2 else classes
    if name == "unet":
        config, policy = ModelConfig(name="unet", width=4, depth=2, classes=outputs), None
    else:
        config = ModelConfig(name=name, width=16, depth=1, heads=2, stem=(8, 8), classes=outputs)
        policy = ForestPolicy(criterion="gradient", budget=28, window=window)
    spec = ModelSpec(config, policy, tuple(f"class{k}" for k in range(classes)), window=window, downscale=downscale)
    return Bundle(network=build_model(config).eval(), spec=spec)
