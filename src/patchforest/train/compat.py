"""Lightning, imported where it is needed, even beside a torchvision that does not fit the installed torch."""

from __future__ import annotations

from patchforest.nn.compat import require


def require_lightning() -> None:
    """Make ``import lightning.pytorch`` work, or raise InputError that names the extra to install."""
    require("lightning.pytorch", user="training", extra="train")
