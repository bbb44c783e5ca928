"""The token loss is the loss of the painted full-resolution mask, to float64 accuracy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from patchforest.nn.raster import ForestBatch, gather_batch
from patchforest.nn.readout.output import RasterMask, TokenMask
from patchforest.train.losses import segmentation_loss, token_loss
from patchforest.tree.paint import paint
from tests.forests import random_forest


def raster_loss(logits: np.ndarray, label: np.ndarray, weight: float, eps: float) -> float:
    """Dice + cross-entropy of (B, K, H, W) or (B, K, D, H, W) float64 logits written out over pixels."""
    known = label >= 0
    if logits.shape[1] == 1:
        p = 1 / (1 + np.exp(-logits[:, 0]))
        y = (label > 0).astype(float)
        cross = -(y * np.log(p) + (1 - y) * np.log(1 - p))
        pairs = [(p, y)]
    else:
        e = np.exp(logits - logits.max(1, keepdims=True))
        p = e / e.sum(1, keepdims=True)
        y = np.stack([(label == k).astype(float) for k in range(logits.shape[1])], 1)
        cross = -(y * np.log(p)).sum(1)
        pairs = [(p[:, k], y[:, k]) for k in range(logits.shape[1])]
    dice = [(2 * (p * y)[known].sum() + eps) / (p[known].sum() + y[known].sum() + eps) for p, y in pairs]
    return weight * cross[known].mean() + (1 - weight) * (1 - np.mean(dice))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("q", [1, 4, 8, 16])
@pytest.mark.parametrize("shape", [(64, 64), (37, 90)])
@pytest.mark.parametrize("ignored", [False, True])
def test_token_loss_is_raster_loss(
    rng: np.random.Generator, channels: int, q: int, shape: tuple[int, int], ignored: bool
) -> None:
    batch = ForestBatch.stack([random_forest(rng, shape, budget=b) for b in (10, 30)])
    label = rng.integers(-1 if ignored else 0, max(channels, 2), (2, *shape))
    logits = torch.from_numpy(rng.normal(size=(*batch.size_BL.shape, channels, q, q)))
    output = TokenMask(logits, batch)
    got = segmentation_loss(output, torch.from_numpy(label), weight=0.3, eps=0.7).item()
    painted = output.raster(shape, "nearest").numpy()
    assert got == pytest.approx(raster_loss(painted, label, 0.3, 0.7), abs=1e-9)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("q", [1, 2, 4, 8])
@pytest.mark.parametrize("shape", [(16, 32, 16), (7, 21, 18), (1, 20, 9), (16, 16, 21)])
def test_token_loss_of_volumes_is_that_of_the_painted_volume(
    rng: np.random.Generator, channels: int, q: int, shape: tuple[int, int, int]
) -> None:
    forests = [random_forest(rng, shape, cell=4, root=16, budget=b) for b in (20, 70)]
    batch = ForestBatch.stack(forests)
    label = rng.integers(-1, max(channels, 2), (2, *shape))
    logits = torch.from_numpy(rng.normal(size=(*batch.size_BL.shape, channels, q, q, q))).requires_grad_()
    got = segmentation_loss(TokenMask(logits, batch), torch.from_numpy(label), weight=0.3, eps=0.7)
    painted = np.stack([paint(v[: len(f)].detach().numpy(), f) for v, f in zip(logits, forests)])
    assert got.item() == pytest.approx(raster_loss(painted, label, 0.3, 0.7), abs=1e-9)
    got.backward()
    assert logits.grad is not None
    assert not logits.grad[~batch.valid_BL].any()
    for _ in range(3):  # against central differences
        b = int(rng.integers(2))
        place = (b, *(int(rng.integers(n)) for n in (len(forests[b]), channels, q, q, q)))
        step = torch.zeros_like(logits)
        step[place] = 1e-5
        with torch.no_grad():
            ends = [
                segmentation_loss(TokenMask(logits + s * step, batch), torch.from_numpy(label), weight=0.3, eps=0.7)
                for s in (1, -1)
            ]
        assert logits.grad[place].item() == pytest.approx((ends[0] - ends[1]).item() / 2e-5, abs=1e-8)


def test_half_precision_volumes(rng: np.random.Generator) -> None:
    batch = ForestBatch.stack([random_forest(rng, (8, 16, 16), cell=4, budget=20)])
    logits = torch.randn(*batch.size_BL.shape, 3, 8, 8, 8)
    label = torch.from_numpy(rng.integers(0, 3, (1, 8, 16, 16)))
    wanted = segmentation_loss(TokenMask(logits, batch), label)
    got = segmentation_loss(TokenMask(logits.bfloat16(), batch), label)
    assert got.dtype == torch.float32
    assert got.item() == pytest.approx(wanted.item(), rel=5e-3)


@pytest.mark.parametrize("channels", [1, 3])
def test_shares_of_volumes_give_the_same_loss_as_labels(rng: np.random.Generator, channels: int) -> None:
    batch = ForestBatch.stack([random_forest(rng, (16, 32, 16), cell=4, budget=b) for b in (20, 50)])
    label = rng.integers(0, max(channels, 2), (2, 16, 32, 16))
    output = TokenMask(torch.from_numpy(rng.normal(size=(*batch.size_BL.shape, channels, 4, 4, 4))), batch)
    kinds = [label >= 0, *([label > 0] if channels == 1 else [label == k for k in range(channels)])]
    shares = gather_batch(torch.from_numpy(np.stack(kinds, 1).astype(float)), batch, 4)
    wanted = segmentation_loss(output, torch.from_numpy(label)).item()
    assert token_loss(output, shares).item() == pytest.approx(wanted, abs=1e-12)


@pytest.mark.parametrize("channels", [1, 4])
@pytest.mark.parametrize("stride", [1, 2, 4])
def test_coarse_raster_loss_is_full_raster_loss(rng: np.random.Generator, channels: int, stride: int) -> None:
    shape = (30, 45)
    logits = torch.from_numpy(rng.normal(size=(2, channels, -(-shape[0] // stride), -(-shape[1] // stride))))
    label = rng.integers(-1, max(channels, 2), (2, *shape))
    output = RasterMask(logits, stride)
    painted = output.raster(shape, "nearest").numpy()
    got = segmentation_loss(output, torch.from_numpy(label)).item()
    assert got == pytest.approx(raster_loss(painted, label, 0.5, 1.0), abs=1e-9)


def test_padding_leaves_get_no_gradient(rng: np.random.Generator) -> None:
    batch = ForestBatch.stack([random_forest(rng, (64, 64), budget=b) for b in (10, 40)])
    logits = torch.randn(*batch.size_BL.shape, 1, 4, 4, requires_grad=True)
    segmentation_loss(TokenMask(logits, batch), torch.ones(2, 64, 64, dtype=torch.long)).backward()
    assert logits.grad is not None
    assert not logits.grad[~batch.valid_BL].any()
    assert (logits.grad[batch.valid_BL] != 0).all()


def test_all_ignored_is_finite(rng: np.random.Generator) -> None:
    logits = torch.randn(1, 1, 8, 8, requires_grad=True)
    loss = segmentation_loss(RasterMask(logits, 2), torch.full((1, 16, 16), -1))
    loss.backward()
    assert torch.isfinite(loss)
    assert logits.grad is not None
    assert not logits.grad.any()


def test_half_precision_logits_are_summed_in_float32() -> None:
    logits = torch.zeros(1, 1, 64, 64, dtype=torch.bfloat16)
    loss = segmentation_loss(RasterMask(logits, 4), torch.zeros(1, 256, 256, dtype=torch.long))
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(0.5 * np.log(2) + 0.5 * (1 - 1 / (0.5 * 256 * 256 + 1)), rel=1e-4)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int64])
def test_any_integer_labels(rng: np.random.Generator, dtype: torch.dtype) -> None:
    output = RasterMask(torch.from_numpy(rng.normal(size=(1, 3, 8, 8))), 2)
    label = torch.from_numpy(rng.integers(0, 3, (1, 16, 16)))
    assert segmentation_loss(output, label.to(dtype)) == segmentation_loss(output, label)


def test_labels_that_do_not_fit_are_refused(rng: np.random.Generator) -> None:
    batch = ForestBatch.stack([random_forest(rng, (32, 64), budget=10)])
    token = TokenMask(torch.zeros(*batch.size_BL.shape, 3, 4, 4), batch)
    raster = RasterMask(torch.zeros(1, 3, 16, 32), 2)
    for output in (token, raster):
        for shape in ((1, 64, 32), (1, 34, 64), (2, 32, 64)):
            with pytest.raises(ValueError, match="not of the images"):
                segmentation_loss(output, torch.zeros(shape, dtype=torch.long))
        with pytest.raises(ValueError, match=r"class number 3.*3 outputs.*classes"):
            segmentation_loss(output, torch.full((1, 32, 64), 3))
