"""Batched forests are those of the NumPy builder, leaf for leaf, and serve a training step."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from patchforest.models.build import build_model
from patchforest.models.config import ModelConfig
from patchforest.nn import forest as module
from patchforest.nn.detail import detail_map_batch
from patchforest.nn.forest import build_forest_batch
from patchforest.nn.raster import ForestBatch, gather_batch, paint_batch
from patchforest.train.losses import segmentation_loss
from patchforest.tree.forest import build_forest
from patchforest.tree.gather import gather

DEVICES = [
    "cpu",
    pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")),
]
SHAPES = [(64, 64), (128, 128), (96, 200), (37, 53), (1, 70), (130, 9), (5, 5), (250, 64)]


def details(rng: np.random.Generator, grid: tuple[int, ...]) -> np.ndarray:
    """(7, *grid) float32: heavy tails, few values, one value, one bright cell, fractions, nothing, counts."""
    out = np.zeros((7, *grid), np.float32)
    out[0] = rng.lognormal(0.0, 2.0, grid)
    out[1] = rng.integers(0, 3, grid)
    out[2] = 1.0
    out[3].reshape(-1)[rng.integers(out[3].size)] = 5.0
    out[4] = rng.integers(0, 4, grid) * np.float32(0.1)
    out[6] = rng.poisson(rng.choice([0.1, 6.0], grid))
    return out


def assert_same(got: ForestBatch, expected: ForestBatch) -> None:
    for name in ("valid_BL", "size_BL", "origin_BLn", "index", "place_B4"):
        mine, theirs = getattr(got, name).cpu(), getattr(expected, name)
        assert mine.dtype == theirs.dtype, name
        assert torch.equal(mine, theirs), name
    assert (got.shape, got.root, got.cell) == (expected.shape, expected.root, expected.cell)


def compare(maps: np.ndarray, device: str = "cpu", **given: Any) -> ForestBatch:
    """The batch for these maps, after a look at every leaf."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        got = build_forest_batch(torch.from_numpy(maps).to(device), **given)
        assert_same(got, ForestBatch.stack([build_forest(m, **given) for m in maps]))
    return got


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("cell", [8, 3])
def test_equals_the_numpy_builder(rng: np.random.Generator, shape: tuple[int, int], cell: int, device: str) -> None:
    grid = tuple(-(-s // cell) for s in shape)
    maps = details(rng, grid)
    roots = [None, cell, cell * 4, cell * 64]
    for root in roots:
        side = root or max(cell << k for k in range(12) if cell << k <= max(min(shape), cell))
        fewest = int(np.prod([-(-s // side) for s in shape]))
        budgets = {fewest, fewest + 1, fewest + 7, fewest + 50, int(np.prod(grid)), 10 * int(np.prod(grid)) + fewest}
        for budget in budgets:
            if budget >= fewest:
                compare(maps, device, shape=shape, cell=cell, root=root, budget=budget)
        for threshold in (-1.0, 0.0, 0.3, 1.0, 4.0, float(maps[0].sum()), float("inf")):
            compare(maps, device, shape=shape, cell=cell, root=root, threshold=threshold)
        both = {"budget": fewest + 20, "threshold": 2.0}
        compare(maps, device, shape=shape, cell=cell, root=root, **both)
        for depth in (0, 1, 2):
            compare(maps, device, shape=shape, cell=cell, root=root, budget=fewest + 30, max_depth=depth)
            compare(maps, device, shape=shape, cell=cell, root=root, threshold=0.0, max_depth=depth)


def test_every_budget(rng: np.random.Generator) -> None:
    shape = (60, 41)
    maps = details(rng, (15, 11))
    for root in (8, 32, 64):
        fewest = -(-60 // root) * -(-41 // root)
        for budget in range(fewest, 15 * 11 + 2):
            compare(maps[budget % 2 :: 2], shape=shape, cell=4, root=root, budget=budget)


@pytest.mark.parametrize("shape", [(20, 33, 24), (16, 16, 16), (5, 40, 9)])
def test_volumes(rng: np.random.Generator, shape: tuple[int, ...]) -> None:
    maps = details(rng, tuple(-(-s // 4) for s in shape))
    for root in (None, 4, 16):
        for budget in (300, 350, 1000):
            compare(maps, shape=shape, cell=4, root=root, budget=budget)
        compare(maps, shape=shape, cell=4, root=root, threshold=2.0)


def test_random_settings(rng: np.random.Generator) -> None:
    for _ in range(40):
        cell = int(rng.choice([1, 2, 5, 8]))
        shape = tuple(int(s) for s in rng.integers(1, 40 * cell, 2))
        root = cell << int(rng.integers(0, 7))
        fewest = int(np.prod([-(-s // root) for s in shape]))
        maps = details(rng, tuple(-(-s // cell) for s in shape))
        compare(maps, shape=shape, cell=cell, root=root, budget=fewest + int(rng.integers(0, 400)))
        compare(maps, shape=shape, cell=cell, root=root, threshold=float(rng.choice([0.0, 0.5, 3.0, 20.0])))


def test_sums_are_in_float64_in_the_builders_order(rng: np.random.Generator) -> None:
    """Sums of these values differ in their last bits when they are added in another order."""
    maps = (rng.permuted(np.tile([1e8, 1.0, 3e-9, 0.1], (4, 64)), axis=1)).reshape(4, 16, 16)
    for budget in range(1, 256, 15):
        compare(maps, shape=(128, 128), cell=8, root=128, budget=budget)


def test_long_thin_images_do_not_cost_a_square(rng: np.random.Generator) -> None:
    maps = rng.integers(0, 3, (2, 1, 4000)).astype(np.float32)
    compare(maps, shape=(8, 32_000), cell=8, budget=4000)
    compare(maps, shape=(5, 31_999), cell=8, root=64, threshold=3.0)


def test_gather_and_paint_on_the_result(rng: np.random.Generator) -> None:
    images = rng.random((3, 2, 75, 130)).astype(np.float32)
    maps = details(rng, (10, 17))[[0, 3, 6]]
    forest = compare(maps, shape=(75, 130), cell=8, threshold=3.0)
    assert len(set(forest.valid_BL.sum(1).tolist())) > 1
    got = gather_batch(torch.from_numpy(images), forest, 8)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for b in range(3):
            one = build_forest(maps[b], shape=(75, 130), cell=8, threshold=3.0)
            expected = gather(images[b].transpose(1, 2, 0), one, 8).patches
            np.testing.assert_allclose(got[b, : len(one)].numpy(), expected, atol=2e-6)
            assert not got[b, len(one) :].any()
    number = torch.arange(forest.size_BL.shape[1]).float().expand(3, -1)
    raster = paint_batch(number[..., None, None, None], forest)[:, 0]
    assert torch.equal(raster[:, ::8, ::8].long(), forest.index)


def test_place_is_kept() -> None:
    place = torch.tensor([[3.0, 4.0, 100.0, 90.0]] * 2, dtype=torch.float64)
    got = build_forest_batch(torch.ones(2, 8, 8), shape=(64, 64), budget=10, place=place)
    assert torch.equal(got.place_B4, place.float())


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", ["shf", "apf_unetr"])
def test_training_steps(rng: np.random.Generator, name: str, device: str) -> None:
    """Pixels to detail to forest to logits to loss to weights, twice, and the loss falls."""
    torch.manual_seed(0)
    model = build_model(ModelConfig(name=name, width=16, depth=1, heads=2, stem=(4, 4))).to(device)
    optimiser = torch.optim.Adam(model.parameters(), lr=0.01)
    image = torch.zeros(2, 3, 72, 64)
    image[0, :, 10:40, 20:50] = 1.0
    image[1, :, 30:60, 5:25] = 0.8
    image, label = image.to(device), (image[:, 0] > 0.5).long().to(device)
    losses = []
    for _ in range(6):
        forest = build_forest_batch(detail_map_batch(image), shape=(72, 64), budget=31)
        assert forest.valid_BL.sum(1).min() > 20
        loss = segmentation_loss(model.output(image, forest), label)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())
    assert losses[-1] < 0.9 * losses[0]


@pytest.mark.parametrize("shape", [(96, 128), (70, 50)])
def test_weighted_levels_equal_the_numpy_builder_on_weighted_pyramids(
    rng: np.random.Generator, shape: tuple[int, int]
) -> None:
    """Whole numbers, so that sums are the same in any order."""
    cell, root, weights = 8, 32, [1.0, 0.25]
    rows, columns = (-(-s // cell) for s in shape)
    for maps in (rng.integers(0, 6, (1, rows, columns)), rng.poisson(rng.choice([0.1, 6.0], (1, rows, columns)))):
        cells = np.pad(maps[0].astype(np.float64), ((0, -rows % 4), (0, -columns % 4)))
        sums = [cells.reshape(len(cells) // k, k, -1, k).sum((1, 3)) for k in (1, 2, 4)]
        pyramid = [
            (s * w)[: -(-shape[0] // (cell << k)), : -(-shape[1] // (cell << k))]
            for k, (s, w) in enumerate(zip(sums, [0.0, *weights[::-1]]))
        ]
        for budget in (15, 28, 60):
            expected = build_forest(pyramid, shape=shape, cell=cell, root=root, budget=budget)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                got = build_forest_batch(
                    torch.from_numpy(maps), shape=shape, cell=cell, root=root, budget=budget, weights=weights
                )
            assert_same(got, ForestBatch.stack([expected]))


@pytest.mark.parametrize("weights", [[1.0], [0.5, 1.0], [1.0, -1.0], [1.0, 1.0, 1.0]])
def test_weights_that_do_not_fit_are_refused(weights: list[float]) -> None:
    with pytest.raises(ValueError, match="weights must be 2 numbers"):
        build_forest_batch(torch.ones(1, 8, 8), shape=(64, 64), root=32, budget=16, weights=weights)


def test_works_after_inference_mode() -> None:
    """What is remembered of a size between calls must not be an inference tensor: it would break the next backward."""
    module._grid.cache_clear()
    with torch.inference_mode():
        build_forest_batch(torch.ones(1, 8, 8), shape=(64, 64), budget=16)
    forest = build_forest_batch(torch.ones(1, 8, 8), shape=(64, 64), budget=16)
    values = torch.rand(1, forest.size_BL.shape[1], 1, 2, 2, requires_grad=True)
    paint_batch(values, forest).sum().backward()
    assert values.grad is not None
    assert not forest.origin_BLn.is_inference()
    assert not module._grid((64, 64), 8, 64, torch.device("cpu")).at_hw.is_inference()


class Waits(TorchDispatchMode):
    """Counts the operations for which a host waits for its device (``tolist`` excepted, which CPU tensors hide)."""

    names = ("nonzero", "_unique2", "unique_dim", "masked_select", "equal", "_local_scalar_dense")

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func.__name__.split(".")[0] in self.names
        return func(*args, **(kwargs or {}))


def test_the_host_waits_a_few_times_whatever_the_images(rng: np.random.Generator) -> None:
    for shape, batch in (((64, 64), 1), ((160, 240), 5)):
        images = torch.from_numpy(rng.integers(0, 255, (batch, 3, *shape), dtype=np.uint8))
        with Waits() as detail_waits:
            maps = detail_map_batch(images)
        assert 2 <= detail_waits.count <= 5
        with Waits() as waits:
            forest = build_forest_batch(maps, shape=shape, budget=80)
            patches = gather_batch(images.float(), forest, 8)
            paint_batch(patches, forest, "bilinear")
            gather_batch(images.float()[..., ::8, ::8], forest.at_stride(8), 2)
        assert waits.count == 0


def test_warns_as_the_builder_does() -> None:
    maps = torch.zeros(3, 8, 8)
    maps[1:] = 1.0
    with pytest.warns(UserWarning, match="in 1 of 3 images the detail map ran out"):
        build_forest_batch(maps, shape=(64, 64), budget=40)
    with pytest.warns(UserWarning, match="in 1 of 3 images no root has more detail than 2"):
        build_forest_batch(maps, shape=(64, 64), threshold=2.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        build_forest_batch(maps[1:], shape=(64, 64), budget=40)
        build_forest_batch(maps[1:], shape=(64, 64), threshold=2.0)
        build_forest_batch(maps, shape=(64, 64), budget=40, threshold=0.5)
        build_forest_batch(maps, shape=(64, 64), budget=4)
        build_forest_batch(maps, shape=(64, 64), root=8, threshold=100.0)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({}, "budget= or threshold="),
        ({"budget": 3, "root": 32}, "below the 4 roots of side 32"),
        ({"budget": 9, "root": 48}, "root must be cell"),
        ({"budget": 9, "root": 24}, "root must be cell"),
        ({"budget": 9, "max_depth": -1}, "max_depth"),
        ({"threshold": float("nan")}, "NaN"),
        ({"budget": 9, "shape": (64, 60, 64)}, "must be"),
        ({"budget": 9, "shape": (64, 80)}, r"\(B, 8, 10\)"),
        ({"budget": 9, "shape": (64,)}, "2 or 3 positive"),
        ({"budget": 9, "cell": 0}, "cell"),
    ],
)
def test_says_what_does_not_fit(given: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        build_forest_batch(torch.ones(2, 8, 8), **{"shape": (64, 64), **given})


@pytest.mark.parametrize("bad", [-1.0, float("nan"), float("inf")])
def test_refuses_bad_detail(bad: float) -> None:
    maps = torch.ones(2, 8, 8)
    maps[1, 3, 4] = bad
    with pytest.raises(ValueError, match="finite and not negative"):
        build_forest_batch(maps, shape=(64, 64), budget=20)
    with pytest.raises(ValueError, match="finite and not negative"):
        build_forest_batch(maps, shape=(64, 64), threshold=1.0)
