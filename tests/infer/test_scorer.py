"""What a scorer says of an image becomes scores of nodes, whoever asks; a scorer is no model of masks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from patchforest.errors import InputError
from patchforest.infer.predict import predict
from patchforest.infer.scorer import LeafScorer, load_scorer, require_same_view, scorer_of, scorer_q
from patchforest.models.build import build_model
from patchforest.models.bundle import Bundle, ModelSpec, fingerprint, load_model, save_model
from patchforest.models.config import ModelConfig
from patchforest.models.scorer import Scorer
from patchforest.tree.cut import cut_forest
from patchforest.tree.refine import share_scores
from patchforest.values import ForestPolicy, NodeScorer

CLASSES = ("background", "vessel")


def scorer_bundle(seed: int = 0) -> Bundle:
    torch.manual_seed(seed)
    model = ModelConfig(name="scorer", stem=(4, 8, 8), downscale=2)
    return Bundle(build_model(model).eval(), ModelSpec(model, ForestPolicy(budget=16), CLASSES, window=64))


def mask_spec() -> ModelSpec:
    model = ModelConfig(width=8, depth=1, heads=2, stem=(4, 4))
    policy = ForestPolicy(criterion="scorer", scorer="runs/of/mine", budget=12, window=64)
    return ModelSpec(model, policy, CLASSES, window=64)


def mask_bundle(folder: Path, seed: int = 0) -> Bundle:
    torch.manual_seed(1)
    save_model(folder, build_model(mask_spec().model), mask_spec(), scorer_bundle(seed))
    return load_model(folder)


@pytest.mark.parametrize("shape", [(64, 96), (61, 43)])
def test_scores_are_those_of_the_shares(shape: tuple[int, int]) -> None:
    bundle, image = scorer_bundle(), np.random.default_rng(0).random((*shape, 3)).astype(np.float32)
    scorer = LeafScorer(bundle, 4)
    assert isinstance(scorer, NodeScorer)
    expected = bundle.network(torch.from_numpy(image.transpose(2, 0, 1))[None])[0].detach().numpy()
    shares = scorer.shares(image)
    np.testing.assert_allclose(shares, expected, atol=1e-5)
    wanted = share_scores(shares, 8, shape=shape, cell=8, root=32, q=4)
    for found, level in zip(scorer.scores(image, cell=8, root=32), wanted, strict=True):
        np.testing.assert_array_equal(found, level)


def test_bytes_and_floats_are_one_image_and_the_network_keeps_its_mode() -> None:
    bundle = scorer_bundle()
    bundle.network.train()
    scorer, pixels = LeafScorer(bundle, 16), np.random.default_rng(1).integers(0, 256, (61, 43, 3)).astype(np.uint8)
    by_bytes, unit = scorer.shares(pixels), pixels.astype(np.float32) / 255
    np.testing.assert_allclose(by_bytes, scorer.shares(unit), atol=1e-5)
    assert bundle.network.training
    network = bundle.network.eval()
    assert isinstance(network, Scorer)
    in_training = network.output(torch.from_numpy(unit.transpose(2, 0, 1))[None]).logits.sigmoid()[0]
    np.testing.assert_allclose(by_bytes, in_training.detach().numpy(), atol=1e-5)
    with pytest.raises(ValueError, match="trained on 3 channels; the image has 1"):
        scorer.shares(pixels[..., 0])


def test_a_model_brings_its_scorer_along(tmp_path: Path) -> None:
    bundle = mask_bundle(tmp_path)
    assert (tmp_path / "scorer" / "model.safetensors").is_file()
    assert bundle.spec.forest is not None
    assert bundle.spec.forest.scorer == "scorer"  # the place of the training run is nobody's business
    own = scorer_of(bundle)
    assert own is not None
    assert own.q == scorer_q(bundle.spec.model) == 16
    image = np.random.default_rng(2).random((64, 64, 3)).astype(np.float32)
    for a, b in zip(own.shares(image), LeafScorer(scorer_bundle(), 16).shares(image), strict=True):
        np.testing.assert_array_equal(a, b)
    forest = predict(bundle, image, window="whole").forest
    assert forest is not None
    assert np.array_equal(forest.origin, cut_forest(image, bundle.spec.forest, criterion=own).origin)
    assert fingerprint(bundle) != fingerprint(mask_bundle(tmp_path / "other", seed=1))
    assert scorer_of(scorer_bundle()) is None


def test_a_model_without_its_scorer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="pass scorer="):
        save_model(tmp_path, build_model(mask_spec().model), mask_spec())
    mask_bundle(tmp_path / "a")
    (tmp_path / "a" / "scorer" / "model.safetensors").unlink()
    with pytest.raises(InputError, match=r"scorer/model\.safetensors: is missing"):
        load_model(tmp_path / "a")
    spec = replace(mask_spec(), forest=ForestPolicy(budget=8))
    mask_bundle(tmp_path / "b")
    save_model(tmp_path / "b" / "scorer", build_model(spec.model), spec)
    with pytest.raises(InputError, match="holds the model apf_unetr, no scorer"):
        load_model(tmp_path / "b")
    with pytest.raises(InputError, match=r"no scorer; train one with model\.name=scorer"):
        load_scorer(tmp_path / "b" / "scorer")


def test_a_scorer_makes_no_masks() -> None:
    with pytest.raises(InputError, match="cuts forests and makes no masks"):
        predict(scorer_bundle(), np.zeros((64, 64, 3), np.uint8))


def test_a_scorer_sees_images_as_its_model() -> None:
    own = scorer_bundle().spec
    require_same_view(own, mask_spec(), "runs/scorer")
    for change in ({"downscale": 2}, {"mpp": 0.5}, {"level": 1}, {"intensity_window": (0.0, 9.0)}):
        name = next(iter(change))
        with pytest.raises(InputError, match=rf"runs/scorer: .* trained at {name} .*data\.{name}="):
            require_same_view(own, replace(mask_spec(), **change), "runs/scorer")
    grey = replace(mask_spec(), model=replace(mask_spec().model, channels=1))
    with pytest.raises(InputError, match="reads 3 channels, the images have 1"):
        require_same_view(own, grey, "runs/scorer")
