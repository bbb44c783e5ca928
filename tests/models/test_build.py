"""Networks by name."""

from __future__ import annotations

import numpy as np
import pytest
import torch

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
from patchforest.nn.raster import ForestBatch
from patchforest.tree.forest import build_forest


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


@pytest.mark.parametrize("name", ["apf_unetr", "shf", "refined", "unet", "unetr", "transunet", "swin_unetr"])
def test_dense_models_see_values_against_their_surroundings_where_told_to(name: str) -> None:
    if name == "swin_unetr":
        pytest.importorskip("monai")
    settings = ModelConfig(
        name=name, width=8, depth=2, heads=2, stem=(4, 8), patch=4, features=12, window=(64, 64), surround=16
    )
    model, image = build_model(settings).eval(), torch.full((1, 3, 64, 64), 0.3)
    told = (image, _forest(64)) if model.needs_forest else (image,)
    with torch.no_grad():
        for parameter in model.parameters():  # nothing starts at zero
            parameter.uniform_(-0.2, 0.2)
        flat = model(*told)
        image[..., 20:28, 20:28] += 0.02
        assert not torch.equal(model(*told), flat)
    assert 6 in {p.shape[1] for p in model.parameters() if p.ndim == 4}


@pytest.mark.parametrize("name", ["apf_unetr", "unet", "transunet"])
def test_an_instance_norm_makes_every_image_its_own_measure(name: str) -> None:
    settings = ModelConfig(name=name, width=8, depth=2, heads=2, stem=(4, 6), patch=4, window=(64, 64), norm="instance")
    model = build_model(settings)
    assert not any(isinstance(part, torch.nn.BatchNorm2d) for part in model.modules())
    image = torch.rand(2, 3, 64, 64)
    told = (_forest(64, batch=2),) if model.needs_forest else ()
    alone = (_forest(64),) if model.needs_forest else ()
    model.train()
    with torch.no_grad():
        assert torch.allclose(model(image, *told)[:1], model(image[:1], *alone), atol=1e-4)


def test_norms_that_there_are_not_are_refused() -> None:
    with pytest.raises(ValueError, match="norm must be one of batch, instance with 2 spatial axes; got 'layer'"):
        build_model(ModelConfig(norm="layer"))
    with pytest.raises(ValueError, match="norm must be one of batch with 3 spatial axes; got 'instance'"):
        build_model(ModelConfig(name="shf", norm="instance", spatial=3, patch=4, q=4))
    with pytest.raises(ValueError, match="surround must be a side in pixels from 2 on, or 0; got 1"):
        build_model(ModelConfig(surround=1))


def _forest(side: int, *, batch: int = 1) -> ForestBatch:
    detail = np.ones((side // 8, side // 8), np.float32)
    return ForestBatch.stack([build_forest(detail, shape=(side, side), cell=8, root=32, budget=16)] * batch)


@pytest.mark.parametrize(("wrong", "told"), [
    ({"name": "vit", "surround": 16}, "no effect on vit; set it to 0"),
    ({"name": "shf", "stem": (), "surround": 16}, "no effect on shf without a stem"),
    ({"name": "shf", "spatial": 3, "surround": 16, "patch": 4, "q": 4}, "no effect on shf of volumes"),
    ({"name": "unetr", "norm": "instanse"}, "norm must be one of batch, instance"),
    ({"look": "nowhere"}, "look must be one of leaves, stem"),
])  # fmt: skip
def test_settings_that_would_have_no_effect_are_refused(wrong: dict, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        build_model(ModelConfig(**{"window": (64, 64), **wrong}))
