"""How a model looks at an image or a volume: one value for all who pass it on."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class PredictOptions:
    """What ``infer.predict.predict``, ``infer.slide.predict_slide`` and ``infer.volume.predict_volume`` may be asked.

    Attributes
    ----------
    trees : average over so many forests: the fixed one, then random ones.
    flips : average over the image and its mirror images.
    window : ``"whole"``, a side in pixels, or ``"auto"``.
    precision : ``fp32``, ``bf16`` or ``fp16`` autocast.
    tissue : leave windows without tissue out; None: as the model was trained. Without effect on volumes.
    """

    trees: int = 1
    flips: bool = False
    window: str | int = "auto"
    precision: str = "fp32"
    tissue: bool | None = None


DEFAULTS = PredictOptions()
"""One forest, no mirror images, windows as they fit."""
