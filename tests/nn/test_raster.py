"""The torch forests equal the NumPy ones, differentiate correctly, and padding has no influence."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from patchforest.nn.raster import ForestBatch, _canvas, gather_batch, paint_batch, paint_features, resample_matrix
from patchforest.tree.forest import build_forest
from patchforest.tree.gather import gather
from patchforest.tree.paint import paint
from patchforest.tree.paint import resample_matrix as numpy_matrix
from tests.forests import random_forest

SHAPES = [(64, 64), (96, 64), (37, 53), (1, 70), (130, 9)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("patch", [4, 8, 16])
def test_gather_equals_numpy(rng: np.random.Generator, shape: tuple[int, int], patch: int) -> None:
    forests = [random_forest(rng, shape, budget=b) for b in (36, 50)]
    images = rng.random((2, *shape, 3)).astype(np.float32)
    batch = ForestBatch.stack(forests)
    got = gather_batch(torch.from_numpy(images).permute(0, 3, 1, 2), batch, patch)
    for b, forest in enumerate(forests):
        expected = gather(images[b], forest, patch).patches
        np.testing.assert_allclose(got[b, : len(forest)].numpy(), expected, atol=2e-6)
        assert not got[b, len(forest) :].any()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("q", [1, 3, 8, 16])
@pytest.mark.parametrize("mode", ["nearest", "bilinear"])
def test_paint_equals_numpy(rng: np.random.Generator, shape: tuple[int, int], q: int, mode: str) -> None:
    forests = [random_forest(rng, shape, budget=b) for b in (36, 50)]
    batch = ForestBatch.stack(forests)
    values = rng.random((*batch.size_BL.shape, 2, q, q))
    got = paint_batch(torch.from_numpy(values), batch, mode)
    for b, forest in enumerate(forests):
        np.testing.assert_allclose(got[b].numpy(), paint(values[b, : len(forest)], forest, mode), atol=1e-12)


def test_gather_and_paint_in_3d_equal_numpy(rng: np.random.Generator) -> None:
    shape = (20, 33, 24)
    forest = random_forest(rng, shape, cell=4, budget=60)
    volume = rng.random(shape)
    batch = ForestBatch.stack([forest])
    got = gather_batch(torch.from_numpy(volume)[None, None], batch, 4)
    np.testing.assert_allclose(got[0].numpy(), gather(volume, forest, 4).patches, atol=1e-6)
    values = rng.random((len(forest), 1, 2, 2, 2))
    for mode in ("nearest", "bilinear"):
        painted = paint_batch(torch.from_numpy(values)[None], batch, mode)[0].numpy()
        np.testing.assert_allclose(painted, paint(values, forest, mode), atol=1e-12)


def test_paint_is_the_adjoint_of_gather_weighted_by_area(rng: np.random.Generator) -> None:
    forests = [random_forest(rng, (96, 64), budget=b) for b in (36, 50)]
    batch = ForestBatch.stack(forests)
    image = torch.from_numpy(rng.normal(size=(2, 3, 96, 64)))
    values = torch.from_numpy(rng.normal(size=(*batch.size_BL.shape, 3, 8, 8)))
    weight = (batch.size_BL / 8).square() * batch.valid_BL
    raster_side = (paint_batch(values, batch) * image).sum()
    token_side = (weight[..., None, None, None] * values * gather_batch(image, batch, 8)).sum()
    torch.testing.assert_close(raster_side, token_side)


@pytest.mark.parametrize(("q", "size"), [(3, 8), (8, 8), (16, 8), (5, 16), (1, 4), (12, 8)])
@pytest.mark.parametrize("mode", ["nearest", "bilinear"])
def test_line_matrices_agree(q: int, size: int, mode: str) -> None:
    np.testing.assert_allclose(resample_matrix(q, size, mode).numpy(), numpy_matrix(q, size, mode), atol=1e-12)


def test_gather_gradient_is_exact(rng: np.random.Generator) -> None:
    batch = ForestBatch.stack([random_forest(rng, (16, 24), cell=4, budget=b) for b in (8, 14)])
    image = torch.from_numpy(rng.random((2, 1, 16, 24))).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: gather_batch(x, batch, 4), (image,))
    values = torch.from_numpy(rng.random((*batch.size_BL.shape, 1, 2, 2))).requires_grad_()
    assert torch.autograd.gradcheck(lambda v: paint_batch(v, batch, "bilinear"), (values,))


def test_padding_gets_no_gradient(rng: np.random.Generator) -> None:
    batch = ForestBatch.stack([random_forest(rng, (64, 64), budget=b) for b in (10, 40)])
    values = torch.rand((*batch.size_BL.shape, 1, 2, 2), requires_grad=True)
    paint_batch(values, batch).sum().backward()
    assert values.grad is not None
    assert not values.grad[~batch.valid_BL].any()
    assert values.grad[batch.valid_BL].min() > 0


@pytest.mark.parametrize("stride", [1, 2, 4, 8, 16, 32])
@pytest.mark.parametrize("shape", [(96, 64), (37, 53)])
def test_painted_features_are_the_covering_leaf_or_the_mean(
    rng: np.random.Generator, stride: int, shape: tuple[int, int]
) -> None:
    forests = [random_forest(rng, shape, budget=b) for b in (20, 40)]
    batch = ForestBatch.stack(forests)
    states = torch.from_numpy(rng.random((*batch.size_BL.shape, 3)))
    got = paint_features(states, batch, stride)
    assert got.shape == (2, 3, -(-shape[0] // stride), -(-shape[1] // stride))
    full = paint_batch(states[..., None, None], batch)
    whole = (shape[0] // stride, shape[1] // stride)  # blocks that lie inside the image
    for b in range(2):
        for r in range(whole[0]):
            for c in range(whole[1]):
                block = full[b, :, r * stride : (r + 1) * stride, c * stride : (c + 1) * stride]
                torch.testing.assert_close(got[b, :, r, c], block.mean((1, 2)))


@pytest.mark.parametrize("stride", [2, 4])
def test_painted_grids_inside_leaves(rng: np.random.Generator, stride: int) -> None:
    batch = ForestBatch.stack([random_forest(rng, (96, 72), budget=30)])
    values = torch.from_numpy(rng.random((1, batch.size_BL.shape[1], 3, 2, 2)))
    flat = values.permute(0, 1, 3, 4, 2).reshape(1, -1, 12)
    got = paint_features(flat, batch, stride, sub=2)
    full = paint_batch(values, batch)
    torch.testing.assert_close(got, full[..., ::stride, ::stride])


def test_constant_per_leaf_picture_is_recovered(rng: np.random.Generator) -> None:
    forest = random_forest(rng, (128, 128), budget=50)
    constants = rng.permutation(len(forest)).astype(np.float32)
    picture = paint(np.broadcast_to(constants[:, None, None, None], (len(forest), 1, 8, 8)), forest)
    patches = gather_batch(torch.from_numpy(picture)[None], ForestBatch.stack([forest]), 8)[0, :, 0]
    np.testing.assert_array_equal(patches.numpy(), np.broadcast_to(constants[:, None, None], patches.shape))


def test_stack_and_gather_refuse_what_does_not_fit(rng: np.random.Generator) -> None:
    one, other = random_forest(rng, (64, 64)), random_forest(rng, (64, 96))
    with pytest.raises(ValueError, match="share shape"):
        ForestBatch.stack([one, other])
    with pytest.raises(ValueError, match="cut for"):
        gather_batch(torch.zeros(1, 1, 32, 32), ForestBatch.stack([one]), 8)
    with pytest.raises(ValueError, match="power of two"):
        gather_batch(torch.zeros(1, 1, 64, 64), ForestBatch.stack([one]), 6)
    with pytest.raises(ValueError, match="stride"):
        ForestBatch.stack([one]).at_stride(3)
    for stride in (3, 12, 0):
        with pytest.raises(ValueError, match="stride"):
            paint_features(torch.zeros(1, len(one), 2), ForestBatch.stack([one]), stride)
    grid = ForestBatch.stack([build_forest(np.ones((8, 8)), shape=(64, 64), cell=8, uniform=8)])
    with pytest.raises(ValueError, match="cubic"):  # also where leaves are q pixels long and need no resampling
        paint_batch(torch.zeros(1, 64, 1, 8, 8), grid, "cubic")
    for length in (len(one) - 1, len(one) + 1):
        with pytest.raises(ValueError, match=f"values must be .1, {len(one)}, K, q, q."):
            paint_batch(torch.zeros(1, length, 1, 8, 8), ForestBatch.stack([one]))


@pytest.mark.parametrize(
    ("shape", "root"), [((65, 65), 64), ((100, 40), 1024), ((9, 300), 64), ((130, 70), 8), ((33, 1), 32)]
)
@pytest.mark.parametrize("mode", ["nearest", "bilinear"])
def test_painting_takes_little_more_than_the_image(
    rng: np.random.Generator, shape: tuple[int, int], root: int, mode: str
) -> None:
    """Leaves longer than the image are painted as far as the image goes; no axis grows by a leaf or more."""
    detail = np.zeros(tuple(-(-s // 8) for s in shape), np.float32)
    detail[0, 0] = 1.0
    roots = int(np.prod([-(-s // root) for s in shape]))
    forests = [
        build_forest(detail, shape=shape, cell=8, root=root, budget=roots),
        build_forest(detail, shape=shape, cell=8, root=root, threshold=0.0),
    ]
    for forest in forests:
        batch = ForestBatch.stack([forest])
        for axis, length in zip(_canvas(batch), shape):
            inside = forest.size[forest.size < length]
            assert length <= axis < length + (inside.max() if len(inside) else 1)
        for q in (4, 5):
            values = rng.random((1, len(forest), 2, q, q))
            got = paint_batch(torch.from_numpy(values), batch, mode)[0].numpy()
            np.testing.assert_allclose(got, paint(values[0], forest, mode), atol=1e-12)


def test_leaves_by_size(rng: np.random.Generator) -> None:
    forests = [random_forest(rng, (96, 64), budget=b) for b in (10, 31, 40)]
    batch = ForestBatch.stack(forests)
    for one, stride in ((batch, 1), (batch.at_stride(4), 4), (batch.at_stride(4).at_stride(2), 8)):
        seen = []
        for size, b, leaf in one.by_size:
            rows, columns = torch.nonzero((one.size_BL == size) & one.valid_BL, as_tuple=True)
            assert torch.equal(rows, b)
            assert torch.equal(columns, leaf)
            seen.append(size * stride)
        assert seen == sorted({int(s) for f in forests for s in f.size})


@pytest.mark.parametrize(("shape", "cell"), [((64, 64), 8), ((37, 53), 8), ((9, 20, 14), 4)])
def test_area_is_that_inside_the_image(rng: np.random.Generator, shape: tuple[int, ...], cell: int) -> None:
    forests = [random_forest(rng, shape, cell=cell, budget=b) for b in (40, 60)]
    area = ForestBatch.stack(forests).area_BL
    for b, forest in enumerate(forests):
        np.testing.assert_array_equal(area[b, : len(forest)].numpy(), forest.area)
        assert not area[b, len(forest) :].any()


def test_batches_join_and_come_apart(rng: np.random.Generator) -> None:
    forests = [random_forest(rng, (70, 90), budget=n) for n in (12, 40, 25)]
    joined = ForestBatch.join([ForestBatch.stack(forests[:1]), ForestBatch.stack(forests[1:])])
    stacked = ForestBatch.stack(forests)
    for name in ("origin_BLn", "size_BL", "valid_BL", "index", "place_B4"):
        torch.testing.assert_close(getattr(joined, name), getattr(stacked, name))
    for again, forest in zip(joined.unstack(), forests, strict=True):
        for name in ("origin", "size", "level"):
            np.testing.assert_array_equal(getattr(again, name), getattr(forest, name))
        assert (again.shape, again.root, again.cell) == (forest.shape, forest.root, forest.cell)
