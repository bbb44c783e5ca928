"""Networks by name."""

from __future__ import annotations

import pytest

from patchforest.models.build import (
    MODELS,
    VOLUMETRIC,
    apf_unetr,
    apf_vit,
    build_model,
    gives_classes,
    has_fixed_window,
    shf,
)
from patchforest.models.config import ModelConfig


@pytest.mark.parametrize("name", [name for name in MODELS if name != "swin_unetr"])  # needs an extra; see its own tests
def test_every_name_builds(name: str) -> None:
    model = build_model(ModelConfig(name=name, width=8, depth=2, heads=2, window=(64, 48)))
    assert model.needs_forest == (name not in ("unet", "unetr", "transunet", "vit", "hipt", "scorer"))
    assert has_fixed_window(model) == has_fixed_window(MODELS[name]) == (name in ("unetr", "transunet", "vit"))
    assert gives_classes(model) == gives_classes(MODELS[name]) == (name in ("apf_vit", "vit", "hipt"))
    assert hasattr(model, "output") != gives_classes(model)


def test_named_functions_take_the_fields() -> None:
    assert apf_unetr(width=8, depth=1, heads=2, readout="raster").unetr is not None
    assert shf(width=8, depth=1, heads=2, q=4).readout.q == 4
    assert apf_vit(width=8, depth=1, heads=2, classes=7).head.out_features == 7


def test_unknown_name_lists_the_known() -> None:
    with pytest.raises(ValueError, match="apf_unetr, shf"):
        build_model(ModelConfig(name="resnet"))


@pytest.mark.parametrize(
    "settings",
    [
        {"width": 0},
        {"heads": 0},
        {"depth": -1},
        {"stem": (8, 0)},
        {"patch": 6},
        {"q": 3, "name": "shf"},
        {"channels": 0},
        {"spatial": 3},
        {"spatial": 4, "name": "shf"},
        {"spatial": 3, "name": "unet"},
        {"window": (64,), "name": "unet"},
        {"window": (64, 0), "name": "unetr"},
        {"window": (64.0, 64), "name": "unetr"},
        {"window": "64", "name": "transunet"},
        {"patch": 12, "name": "unetr", "window": (64, 64)},
        {"depth": 0, "name": "unetr", "window": (64, 64)},
    ],
)
def test_settings_that_cannot_work_are_refused_before_the_first_batch(settings: dict) -> None:
    with pytest.raises(ValueError, match="must"):
        build_model(ModelConfig(**{"width": 8, "depth": 1, "heads": 2, **settings}))


def test_models_of_volumes_build_and_those_of_images_keep_their_weights() -> None:
    for name in VOLUMETRIC:
        build_model(ModelConfig(name=name, width=8, depth=1, heads=2, spatial=3, patch=4, cell=8))
    state = shf(width=8, depth=1, heads=2, stem=(4, 6), patch=4).state_dict()
    shapes = {
        "trunk.stem.stages.0.0.weight": (4, 3, 3, 3),
        "trunk.stem.stages.0.1.running_mean": (4,),
        "trunk.stem.stages.1.0.0.weight": (6, 4, 3, 3),
        "trunk.stem.stages.1.1.first.0.weight": (6, 6, 3, 3),
        "trunk.stem.stages.1.1.second.1.weight": (6,),
        "trunk.embed.pixels.weight": (8, 48),
        "trunk.embed.stem.weight": (8, 24),
        "trunk.embed.geometry.0.weight": (8, 50),
        "readout.head.3.weight": (64, 16),
    }
    assert {k: tuple(state[k].shape) for k in shapes} == shapes
