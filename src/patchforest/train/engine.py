"""Lightning itself, for the modules that build upon its classes: imported beside whatever torchvision there is."""

from __future__ import annotations

from patchforest.train.compat import require_lightning

require_lightning()

import lightning.pytorch as lightning  # noqa: E402
from lightning.fabric.plugins import CheckpointIO  # noqa: E402

__all__ = ["CheckpointIO", "lightning"]
