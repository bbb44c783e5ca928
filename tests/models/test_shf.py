"""SHF: token masks, painted at the image's size for every side from 1 to 70."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from patchforest.models.config import ModelConfig
from patchforest.models.shf import SHF
from patchforest.models.trunk import PatchBatch
from patchforest.nn.raster import ForestBatch
from patchforest.nn.readout.output import TokenMask
from patchforest.tree.cut import cut_forest
from patchforest.tree.gather import gather
from patchforest.values import ForestPolicy


@pytest.mark.parametrize("readout_q", [None, 4])
def test_any_size(rng: np.random.Generator, readout_q: int | None) -> None:
    model = SHF(ModelConfig(name="shf", width=8, depth=1, heads=2, stem=(4, 4), q=readout_q)).eval()
    assert model.readout.q == (readout_q or 16)
    policy = ForestPolicy(budget=16, window=64)
    for side in range(1, 71, 3):
        shape = (side, 71 - side)
        forest = ForestBatch.stack([cut_forest(rng.integers(0, 255, (*shape, 3), dtype=np.uint8), policy)])
        with torch.inference_mode():
            assert model(torch.rand(1, 3, *shape), forest).shape == (1, 1, *shape)


def test_it_answers_for_patches_as_for_the_image(rng: np.random.Generator) -> None:
    model = SHF(ModelConfig(name="shf", width=8, depth=1, heads=2, stem=())).eval()
    image = rng.random((40, 56, 3), np.float32)
    forest = cut_forest(image, ForestPolicy(budget=20, criterion="random"))
    batch, pixels = ForestBatch.stack([forest]), torch.from_numpy(image.transpose(2, 0, 1))[None]
    patches = PatchBatch(torch.from_numpy(gather(image, forest, 8).patches)[None])
    with torch.inference_mode():
        wanted, got = model.output(pixels, batch), model.output(patches, batch)
    assert isinstance(wanted, TokenMask)
    assert isinstance(got, TokenMask)
    torch.testing.assert_close(got.logits, wanted.logits, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("stem", [(), (4,), (4, 4)])
def test_any_volume(rng: np.random.Generator, stem: tuple[int, ...]) -> None:
    config = ModelConfig(
        name="shf", width=8, depth=1, heads=2, stem=stem, patch=4, cell=4, channels=2, classes=3, spatial=3
    )
    model = SHF(config).eval()
    for shape in ((1, 1, 1), (1, 9, 70), (20, 16, 5), (7, 40, 33)):
        forest = cut_forest(
            rng.integers(0, 255, (*shape, 2), dtype=np.uint8), ForestPolicy(budget=150, cell=4, root=16), spatial=3
        )
        batch = ForestBatch.stack([forest])
        with torch.inference_mode():
            assert model(torch.rand(1, 2, *shape), batch).shape == (1, 3, *shape)
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
            assert model(torch.rand(1, 2, *shape), batch).shape == (1, 3, *shape)


def test_patches_of_a_volume_are_read_as_the_volume_is(rng: np.random.Generator) -> None:
    model = SHF(ModelConfig(name="shf", width=8, depth=1, heads=2, stem=(), patch=4, cell=4, channels=1, spatial=3))
    volume = rng.random((13, 20, 28, 1), np.float32)
    forest = cut_forest(volume, ForestPolicy(budget=40, criterion="random", cell=4), spatial=3)
    batch, voxels = ForestBatch.stack([forest]), torch.from_numpy(volume.transpose(3, 0, 1, 2))[None]
    patches = PatchBatch(torch.from_numpy(gather(volume, forest, 4).patches)[None])
    with torch.inference_mode():
        wanted, got = model.eval().output(voxels, batch), model.output(patches, batch)
    torch.testing.assert_close(got.logits, wanted.logits, atol=1e-5, rtol=1e-4)
