"""How every network of ours sees pixel values."""

from __future__ import annotations

from torch import Tensor

MEAN, STD = 0.5, 0.25


def normalise(image: Tensor) -> Tensor:
    """Values in [0, 1] to about zero mean and unit spread: (x − 0.5) / 0.25."""
    return (image - MEAN) * (1 / STD)
