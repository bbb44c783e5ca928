"""Networks by name: ``model(image, forest)`` gives logits, a dense one's ``output`` what the loss takes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from torch import nn

from patchforest.models.apf import APFUNETR, APFViT
from patchforest.models.backbone import resolve_backbone
from patchforest.models.config import ModelConfig
from patchforest.models.hipt import HIPT
from patchforest.models.refined import LOOKS, Refined
from patchforest.models.scorer import Scorer
from patchforest.models.shf import SHF
from patchforest.models.swin_unetr import SwinUNETR
from patchforest.models.transunet import TransUNet
from patchforest.models.unet import UNet
from patchforest.models.unetr import UNETR
from patchforest.models.vit import ViT
from patchforest.nn.embed import check_norm

MODELS: dict[str, Callable[[ModelConfig], nn.Module]] = {
    "apf_unetr": APFUNETR,
    "shf": SHF,
    "refined": Refined,
    "apf_vit": APFViT,
    "vit": ViT,
    "hipt": HIPT,
    "unet": UNet,
    "unetr": UNETR,
    "transunet": TransUNet,
    "swin_unetr": SwinUNETR,
    "scorer": Scorer,
}
VOLUMETRIC = ("shf", "apf_vit")
"""Models that read octrees of volumes as well."""
BACKED = ("apf_unetr", "shf", "apf_vit")
"""Models whose transformer may be a foreign one."""


def build_model(config: ModelConfig) -> nn.Module:
    """The freshly initialised network of a configuration; ValueError for an unknown name or settings that clash."""
    if config.name not in MODELS:
        raise ValueError(f"unknown model {config.name!r}; there are {', '.join(MODELS)}")
    if config.backbone is not None and config.name not in BACKED:
        raise ValueError(f"{config.name} has no place for a backbone; {', '.join(BACKED)} have")
    config = resolve_backbone(config)
    sides = ("patch", "cell", "features", "growth", "stride", "downscale", "crop", "region")
    for name in ("channels", "classes", "width", "heads", *sides):
        if getattr(config, name) < 1:
            raise ValueError(f"{name} must be at least 1; got {getattr(config, name)}")
    if config.depth < 0 or min(config.stem, default=1) < 1:
        raise ValueError(f"depth and stem widths must not be negative; got {config.depth}, {config.stem}")
    if config.spatial not in (2, 3) or (config.spatial == 3 and config.name not in VOLUMETRIC):
        raise ValueError(
            f"spatial must be 2, or 3 for volumes with the models {', '.join(VOLUMETRIC)}; "
            f"got {config.spatial} for {config.name}"
        )
    if config.look not in LOOKS:
        raise ValueError(f"look must be one of {', '.join(LOOKS)}; got {config.look!r}")
    check_norm(config.norm, config.spatial)
    _check_surround(config)
    if config.window is not None and not _is_shape(config.window):
        raise ValueError(f"window must be (height, width) in pixels from 1 on; got {config.window}")
    if getattr(MODELS[config.name], "needs_forest", True):
        _check_sides(config)
    return MODELS[config.name](config)


def _check_surround(config: ModelConfig) -> None:
    if config.surround < 0 or config.surround == 1:
        raise ValueError(f"surround must be a side in pixels from 2 on, or 0; got {config.surround}")
    blind = config.spatial == 3 or config.name in ("vit", "hipt")
    stemless = getattr(MODELS[config.name], "needs_forest", True) and not config.stem
    if config.surround and (blind or stemless):
        who = f"{config.name} of volumes" if config.spatial == 3 else f"{config.name} without a stem" * stemless
        raise ValueError(f"surround has no effect on {who or config.name}; set it to 0")


def gives_classes(model: object) -> bool:
    """Whether a network, or its class, answers with one class an image, where others make masks."""
    return bool(getattr(model, "classifies", False))


def scores_leaves(model: object) -> bool:
    """Whether a network, or its class, says where leaves should be small, and nothing of an image's classes."""
    return bool(getattr(model, "scores_leaves", False))


def has_fixed_window(model: object) -> bool:
    """Whether a network, or its class, wants images of the training size: training sets ``ModelConfig.window`` for it,
    and ``infer`` shows it windows of that size, however small or large the image.
    """
    return bool(getattr(model, "fixed_window", False))


def _is_shape(window: object) -> bool:
    sides = window if isinstance(window, tuple) else ()
    return len(sides) == 2 and all(type(s) is int and s >= 1 for s in sides)


def _check_sides(config: ModelConfig) -> None:
    """Sides that must divide each other by powers of two, said before the first batch rather than in it."""
    sides = {"patch": config.patch}
    if config.name == "shf" or (config.name == "refined" and config.readout == "token"):
        sides["q"] = config.q or 2 * config.patch
    if config.name == "apf_unetr" and config.readout == "raster":
        sides["8 (the raster readout's stride)"] = 8
    for name, side in sides.items():
        big, small = max(side, config.cell), min(side, config.cell)
        if small < 1 or big % small or (big // small) & (big // small - 1):
            raise ValueError(f"{name} must be cell ({config.cell}) times or by a power of two; got {side}")


def apf_unetr(**settings: object) -> nn.Module:
    """APF-UNETR with the given fields of ``ModelConfig``."""
    return build_model(replace(ModelConfig(name="apf_unetr"), **settings))  # type: ignore[arg-type]


def shf(**settings: object) -> nn.Module:
    """SHF, decoder-free, with the given fields of ``ModelConfig``."""
    return build_model(replace(ModelConfig(name="shf"), **settings))  # type: ignore[arg-type]


def apf_vit(**settings: object) -> nn.Module:
    """APF-ViT for classification with the given fields of ``ModelConfig``; ``classes`` is the number of classes."""
    return build_model(replace(ModelConfig(name="apf_vit"), **settings))  # type: ignore[arg-type]
