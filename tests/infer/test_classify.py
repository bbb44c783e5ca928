"""An image's classes: the network's own answer, averaged over trees and flips, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from patchforest.errors import InputError
from patchforest.infer.classify import classify
from patchforest.io.write import write_image
from patchforest.models.build import build_model
from patchforest.models.bundle import Bundle, ModelSpec, save_model
from patchforest.models.config import ModelConfig
from patchforest.nn.raster import ForestBatch
from patchforest.tree.cut import cut_forest
from patchforest.values import Array, ForestPolicy

SMALL = {"width": 16, "depth": 1, "heads": 2, "stem": (), "classes": 3, "window": (48, 64), "crop": 16, "region": 32}
POLICY = ForestPolicy(budget=20, criterion="gradient", window=56)


def bundle(name: str = "apf_vit", **changes: object) -> Bundle:
    """An untrained model of three classes."""
    torch.manual_seed(0)
    config = ModelConfig(name=name, **{**SMALL, **changes})  # type: ignore[arg-type]
    policy = POLICY if name == "apf_vit" else None
    spec = ModelSpec(config, policy, ("a", "b", "c"), window=(48, 64))
    return Bundle(build_model(config).eval(), spec)


@pytest.fixture
def image(rng: np.random.Generator) -> Array:
    """A picture that is no window's size."""
    return rng.integers(0, 256, (45, 70, 3), dtype=np.uint8)


@pytest.mark.parametrize(("name", "tokens"), [("vit", 6 * 9), ("hipt", 3 * 5 * 4)])
def test_the_networks_own_answer(name: str, tokens: int, image: Array) -> None:
    model = bundle(name)
    said = classify(model, image)
    with torch.inference_mode():
        logits = model.network(torch.from_numpy(image.transpose(2, 0, 1) / np.float32(255))[None])
    np.testing.assert_allclose(said.probability, logits.softmax(1)[0].numpy(), atol=1e-6)
    assert said.probability.sum() == pytest.approx(1)
    assert said.tokens == tokens


def test_trees_and_flips_are_averaged(image: Array) -> None:
    model = bundle()
    unit = image.astype(np.float32) / 255
    wanted, tokens = [], 0
    for flip in ((), (0,), (1,), (0, 1)):
        turned = np.ascontiguousarray(np.flip(unit, flip))
        for tree in range(2):
            forest = cut_forest(turned, POLICY, rng=np.random.default_rng(tree) if tree else None)
            with torch.inference_mode():
                logits = model.network(
                    torch.from_numpy(turned.transpose(2, 0, 1).copy())[None], ForestBatch.stack([forest])
                )
            wanted.append(logits.softmax(1)[0].numpy())
            tokens += len(forest)
    said = classify(model, image, trees=2, flips=True)
    np.testing.assert_allclose(said.probability, np.mean(wanted, 0), atol=1e-5)
    assert said.tokens == tokens
    once = classify(model, image)
    np.testing.assert_allclose(once.probability, wanted[0], atol=1e-5)


def test_from_files_and_down_scaled(image: Array, tmp_path: Path) -> None:
    model = bundle("vit", window=(24, 32))
    spec = ModelSpec(model.spec.model, None, model.spec.classes, window=(24, 32), downscale=2)
    save_model(tmp_path / "model", model.network, spec)
    write_image(tmp_path / "image.png", image)
    said = classify(tmp_path / "model", tmp_path / "image.png")
    assert said.tokens == 3 * 5
    np.testing.assert_allclose(said.probability, classify(Bundle(model.network, spec), image).probability, atol=1e-6)


def test_what_is_refused(image: Array) -> None:
    model = bundle("vit")
    with pytest.raises(ValueError, match="trees"):
        classify(model, image, trees=0)
    with pytest.raises(InputError, match="1 channels"):
        classify(model, image[..., 0])
    with torch.no_grad():
        model.network.head.bias[0] = float("nan")  # type: ignore[index, union-attr]
    with pytest.raises(InputError, match="not finite"):
        classify(model, image)
    config = ModelConfig(name="shf", width=8, depth=1, heads=2, stem=())
    masks = Bundle(build_model(config).eval(), ModelSpec(config, POLICY, ("rest", "thing")))
    with pytest.raises(InputError, match="makes masks, not classes"):
        classify(masks, image)
