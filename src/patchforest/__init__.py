"""patchforest: adaptive patches for transformers on very large images.

The journey, one function an arrow: ``open_image`` → ``detail_map`` → ``build_forest`` → ``gather`` → a model →
``paint``. Names are imported on first use, so ``import patchforest`` needs neither torch nor OpenCV.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOME = {
    "InputError": "patchforest.errors",
    "Forest": "patchforest.values",
    "ForestPolicy": "patchforest.values",
    "ImageSource": "patchforest.values",
    "PatchSequence": "patchforest.values",
    "Region": "patchforest.values",
    "open_image": "patchforest.io.open",
    "detail_map": "patchforest.tree.detail",
    "build_forest": "patchforest.tree.forest",
    "coarsen": "patchforest.tree.forest",
    "balance": "patchforest.tree.forest",
    "cut_forest": "patchforest.tree.cut",
    "gather": "patchforest.tree.gather",
    "stream_forest": "patchforest.tree.stream",
    "stream_gather": "patchforest.tree.stream_gather",
    "ReducedImage": "patchforest.tree.reduced",
    "paint": "patchforest.tree.paint",
    "label_ceiling": "patchforest.tree.ceiling",
    "encode_forest": "patchforest.tree.serial",
    "decode_forest": "patchforest.tree.serial",
    "adapt": "patchforest.nn.adapt.adapt",
    "load_model": "patchforest.models.bundle",
    "save_model": "patchforest.models.bundle",
    "predict": "patchforest.infer.predict",
    "classify": "patchforest.infer.classify",
    "predict_volume": "patchforest.infer.volume",
    "components_of": "patchforest.infer.components",
    "polygons_of": "patchforest.infer.polygons",
    "open_volume": "patchforest.io.volume",
    "VolumeSource": "patchforest.values",
}

__all__ = sorted([*_HOME, "__version__"])

if TYPE_CHECKING:
    from patchforest.errors import InputError as InputError
    from patchforest.infer.classify import classify as classify
    from patchforest.infer.components import components_of as components_of
    from patchforest.infer.polygons import polygons_of as polygons_of
    from patchforest.infer.predict import predict as predict
    from patchforest.infer.volume import predict_volume as predict_volume
    from patchforest.io.open import open_image as open_image
    from patchforest.io.volume import open_volume as open_volume
    from patchforest.models.bundle import load_model as load_model
    from patchforest.models.bundle import save_model as save_model
    from patchforest.nn.adapt.adapt import adapt as adapt
    from patchforest.tree.ceiling import label_ceiling as label_ceiling
    from patchforest.tree.cut import cut_forest as cut_forest
    from patchforest.tree.detail import detail_map as detail_map
    from patchforest.tree.forest import balance as balance
    from patchforest.tree.forest import build_forest as build_forest
    from patchforest.tree.forest import coarsen as coarsen
    from patchforest.tree.gather import gather as gather
    from patchforest.tree.paint import paint as paint
    from patchforest.tree.reduced import ReducedImage as ReducedImage
    from patchforest.tree.serial import decode_forest as decode_forest
    from patchforest.tree.serial import encode_forest as encode_forest
    from patchforest.tree.stream import stream_forest as stream_forest
    from patchforest.tree.stream_gather import stream_gather as stream_gather
    from patchforest.values import Forest as Forest
    from patchforest.values import ForestPolicy as ForestPolicy
    from patchforest.values import ImageSource as ImageSource
    from patchforest.values import PatchSequence as PatchSequence
    from patchforest.values import Region as Region
    from patchforest.values import VolumeSource as VolumeSource


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'patchforest' has no attribute {name!r}; it has {', '.join(__all__)}")
    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
