"""Foreign transformers by name, as encoders of our models: ``timm:NAME``, ``hf:FOLDER`` or ``monai:vit``.

A resolved configuration holds all that its backbone is built from, so a saved model needs no file besides its own. What
comes from strangers' files builds nothing but plain transformers: no code, no weights and no address is taken from it.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from patchforest.errors import InputError
from patchforest.models.config import ModelConfig
from patchforest.models.normalise import MEAN, STD
from patchforest.nn.adapt.adapt import AdaptedEncoder, adapt
from patchforest.nn.compat import require

TIMM_SETTINGS = (  # noqa: SIM905
    "img_size patch_size embed_dim depth num_heads mlp_ratio init_values class_token reg_tokens "
    "drop_path_rate proj_drop_rate attn_drop_rate use_rel_pos window_size global_attn_indexes"
).split()
MONAI_SETTINGS = (  # noqa: SIM905
    "in_channels img_size patch_size hidden_size mlp_dim num_layers num_heads proj_type pos_embed_type "
    "classification dropout_rate qkv_bias"
).split()
PIXELS = ("image_mean", "image_std")
REFUSED = ("auto_map", "backbone", "backbone_config", "use_pretrained_backbone", "use_timm_backbone")
"""Settings of transformers that would fetch code or weights from elsewhere."""

DEEPEST = 1000


def resolve_backbone(config: ModelConfig) -> ModelConfig:
    """The configuration with everything that its backbone says written into it, and files no longer named.

    ``backbone_config`` becomes all that the library builds it from, with the mean and std of its pixel values; width
    and depth become the backbone's.

    Raises
    ------
    InputError : files missing or broken, a library that is not installed.
    ValueError : an unknown name or setting, or a model that cannot be adapted.
    """
    if config.backbone is None:
        return config
    family, name = _split(config)
    settings, file = dict(config.backbone_config or {}), None
    if family == "hf" and "model_type" not in settings:
        file = Path(name) / "config.json" if Path(name).is_dir() else Path(name)
        settings = {**_read_settings(file), **settings}
        name = str(settings["model_type"])
    if family == "monai":
        settings = {**_monai_defaults(config), **settings}
    config = replace(config, backbone=f"{family}:{name}", backbone_config=settings)
    with torch.device("meta"):  # takes no memory, whatever its widths
        try:
            original = build_original(config)
        except ValueError as error:
            if file is None or isinstance(error, InputError):
                raise
            raise InputError(file, str(error), "pass the config.json of a plain vision transformer") from None
        mean, std = _pixel_values(config, original)
        encoder = adapt_original(original, config)
    settings = {**settings, "image_mean": list(mean), "image_std": list(std)}
    return replace(config, backbone_config=settings, width=encoder.width, depth=encoder.depth)


def build_backbone(config: ModelConfig, *, stem_features: int = 0) -> AdaptedEncoder:
    """The freshly initialised backbone of a resolved configuration."""
    return adapt_original(build_original(config), config, stem_features=stem_features)


def adapt_original(original: nn.Module, config: ModelConfig, *, stem_features: int = 0) -> AdaptedEncoder:
    """A backbone as the encoder of a configuration's trunk, which shows it normalised pixel values."""
    if config.embedding == "index":
        raise ValueError("a backbone has positions of its own; set embedding to place or window")
    if config.dropout:
        raise ValueError("dropout is of our own transformer; set the backbone's in backbone_config")
    mean, std = _pixel_values(config, original)
    encoder = adapt(
        original,
        patch=config.patch,
        channels=config.channels,
        mean=[(m - MEAN) / STD for m in mean],
        std=[s / STD for s in std],
        framed=config.embedding == "place",
        stem_features=stem_features,
    )
    if encoder.embed.table.ndim - 1 != config.spatial:
        raise ValueError(f"{config.backbone} reads images; for volumes there is monai:vit")
    return encoder


def build_original(config: ModelConfig) -> nn.Module:
    """The foreign model of a configuration as its library makes it, freshly initialised."""
    family, name = _split(config)
    settings = {k: v for k, v in (config.backbone_config or {}).items() if k not in PIXELS}
    _check_depth(settings)
    try:
        return FAMILIES[family](name, settings, config)
    except (InputError, MemoryError):
        raise
    except Exception as error:  # whatever a foreign constructor ends in
        raise ValueError(f"backbone {config.backbone}: {' '.join(str(error).split())[:300]}") from None


def _timm(name: str, settings: dict[str, Any], config: ModelConfig) -> nn.Module:
    timm = require("timm", user=f"backbone timm:{name}", extra="backbones")
    known = timm.list_models()
    if name.partition(".")[0] not in known:
        near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
        raise ValueError(f"timm has no model {name!r}; near it are {', '.join(near) or 'none'}")
    _refuse_unknown(settings, TIMM_SETTINGS)
    return timm.create_model(name, pretrained=False, num_classes=0, **settings)


def _hugging_face(name: str, settings: dict[str, Any], config: ModelConfig) -> nn.Module:
    transformers = require("transformers", user=f"backbone hf:{name}", extra="backbones")
    _refuse_elsewhere(settings)
    kind = str(settings["model_type"])
    values = {k: v for k, v in settings.items() if k not in ("model_type", *PIXELS)}
    made = transformers.AutoConfig.for_model(kind, **values)
    idle = [k for k in values if k.endswith("_config") and isinstance(getattr(made, k, None), dict)]
    if idle:  # it is kept as it is, and the model has its library's default sizes
        raise ValueError(f"a {kind} has no {idle[0]}; name the model_type that the settings in it are of")
    return transformers.AutoModel.from_config(
        made, trust_remote_code=False, dtype=torch.float32, attn_implementation="sdpa"
    )


def _refuse_elsewhere(settings: dict[str, Any]) -> None:
    """ValueError for settings, also of a part such as vision_config, that would fetch code or weights."""
    refused = [k for k in REFUSED if settings.get(k)]
    kind = str(settings.get("model_type"))
    if refused or kind.startswith("timm"):
        raise ValueError(f"{(refused or [kind])[0]} would load a model from elsewhere; name that model itself")
    for part in settings.values():
        if isinstance(part, dict):
            _refuse_elsewhere(part)


def _monai(name: str, settings: dict[str, Any], config: ModelConfig) -> nn.Module:
    if name != "vit":
        raise ValueError(f"of MONAI there is monai:vit; got monai:{name}")
    for package in ("einops", "monai.networks.nets"):
        nets = require(package, user="backbone monai:vit", extra="medical")
    _refuse_unknown(settings, MONAI_SETTINGS)
    return nets.ViT(**{**_monai_defaults(config), **settings}, spatial_dims=config.spatial)


FAMILIES: dict[str, Callable[[str, dict[str, Any], ModelConfig], nn.Module]] = {
    "timm": _timm,
    "hf": _hugging_face,
    "monai": _monai,
}


def _monai_defaults(config: ModelConfig) -> dict[str, Any]:
    """MONAI's ViT has no sizes of its own: those of our transformer, positions for 16 patches along every axis."""
    return {
        "in_channels": config.channels,
        "img_size": 16 * config.patch,
        "patch_size": config.patch,
        "hidden_size": config.width,
        "mlp_dim": 4 * config.width,
        "num_layers": config.depth,
        "num_heads": config.heads,
    }


def _pixel_values(config: ModelConfig, original: nn.Module) -> tuple[Sequence[float], Sequence[float]]:
    """Mean and std of pixel values in [0, 1] that a backbone is used to: as set, as timm says, or ours for MONAI."""
    said = config.backbone_config or {}
    timm = getattr(original, "pretrained_cfg", None) or {}
    ours = {"mean": (MEAN,), "std": (STD,)} if config.backbone == "monai:vit" else {}
    mean, std = (said.get(f"image_{n}") or timm.get(n) or ours.get(n) for n in ("mean", "std"))
    if mean is None or std is None:
        raise InputError(
            f"backbone {config.backbone}",
            "does not say which pixel values it is used to",
            "set image_mean and image_std in model.backbone_config, or put its preprocessor_config.json beside it",
        )
    return mean, std


def _split(config: ModelConfig) -> tuple[str, str]:
    family, colon, name = (config.backbone or "").partition(":")
    if family not in FAMILIES or not colon or not name:
        raise ValueError(f"backbone must be timm:NAME, hf:FOLDER or monai:vit; got {config.backbone!r}")
    return family, name


def _read_settings(file: Path) -> dict[str, Any]:
    """Settings of a config.json that transformers saved, with the pixel values of the processor beside it."""
    settings = _read_json(file, "pass a folder with the config.json of a transformers model")
    if not isinstance(settings.get("model_type"), str):
        raise InputError(file, "does not say its model_type", "pass the config.json of a transformers model")
    processor = file.with_name("preprocessor_config.json")
    more = _read_json(processor, "restore or remove it") if processor.is_file() else {}
    settings |= {k: more[k] for k in PIXELS if k in more}
    return {k: v for k, v in settings.items() if k not in ("id2label", "label2id", "architectures", "_name_or_path")}


def _read_json(path: Path, hint: str) -> dict[str, Any]:
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(path, f"cannot be read ({error.strerror})", hint) from None
    except ValueError:
        raise InputError(path, "is no valid JSON", hint) from None
    if not isinstance(raw, dict):
        raise InputError(path, "holds no settings", hint)
    return raw


def _refuse_unknown(settings: dict[str, Any], known: Sequence[str]) -> None:
    unknown = sorted(set(settings) - set(known))
    if unknown:
        raise ValueError(f"unknown setting {unknown[0]!r} in backbone_config; known: {', '.join(known)}")


def _check_depth(settings: dict[str, Any]) -> None:
    """ValueError before as many blocks are made as a broken file says."""
    for name, value in settings.items():
        if isinstance(value, dict):
            _check_depth(value)
        elif ("layers" in name or name == "depth") and isinstance(value, int) and value > DEEPEST:
            raise ValueError(f"{name} of the backbone is {value}, above {DEEPEST}")
