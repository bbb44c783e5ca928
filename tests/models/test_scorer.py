"""The scorer's shapes at any size, its place among the models, and that averaging outside it changes nothing."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from patchforest.models.build import MODELS, build_model, scores_leaves
from patchforest.models.config import ModelConfig
from patchforest.models.scorer import BLOCKS, Scorer

SMALL = ModelConfig(name="scorer", stem=(4, 8, 8), downscale=2)


def scorer(config: ModelConfig = SMALL) -> Scorer:
    torch.manual_seed(0)
    network = build_model(config).eval()
    assert isinstance(network, Scorer)
    return network


@pytest.mark.parametrize("shape", [(64, 96), (61, 33), (1, 9)])
@pytest.mark.parametrize("downscale", [1, 2, 4])
def test_one_answer_a_square_at_any_size(shape: tuple[int, int], downscale: int) -> None:
    network = scorer(ModelConfig(name="scorer", stem=(4, 8, 8, 8), downscale=downscale))
    assert network.stride == 4 * downscale
    image = torch.rand(2, 3, *shape)
    output = network.output(image)
    assert output.stride == network.stride
    assert output.logits.shape == (2, len(BLOCKS), *(-(-s // network.stride) for s in shape))
    assert torch.equal(network(image), output.logits.sigmoid())


def test_an_image_averaged_before_gives_the_same() -> None:
    network, image = scorer(), torch.rand(1, 3, 48, 64)
    torch.testing.assert_close(network.logits(F.avg_pool2d(image, 2)), network.output(image).logits)


def test_it_starts_by_expecting_little() -> None:
    assert float(scorer()(torch.rand(1, 3, 64, 64)).detach().mean()) < 0.1


def test_it_scores_leaves_and_others_do_not() -> None:
    assert [name for name, kind in MODELS.items() if scores_leaves(kind)] == ["scorer"]
    with pytest.raises(ValueError, match=r"at least two stages; got stem \[8\]"):
        build_model(ModelConfig(name="scorer", stem=(8,)))


@pytest.mark.parametrize("downscale", [0, 3, 6])
def test_its_squares_must_fit_leaves(downscale: int) -> None:
    with pytest.raises(ValueError, match=f"power of two, e.g. 4; got {downscale}"):
        Scorer(ModelConfig(name="scorer", stem=(4, 8), downscale=downscale))
