"""Patch weights at other sides and channels: what they answer, against averaging written out and least squares."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from patchforest.nn.adapt.projection import Projection, resample_weight


def answers(weight: torch.Tensor, patches: torch.Tensor) -> torch.Tensor:
    """(N, D) of patches (N, C, p, p)."""
    return patches.flatten(1) @ weight.flatten(1).T


def test_the_pretrained_side_gives_the_very_weights() -> None:
    weight = torch.randn(5, 3, 14, 14)
    assert resample_weight(weight, 14) is weight


@pytest.mark.parametrize(("side", "patch"), [(16, 8), (16, 4), (8, 16), (14, 16), (14, 8), (16, 12), (3, 1)])
def test_constant_patches_get_the_same_answer_at_every_side(side: int, patch: int) -> None:
    torch.manual_seed(0)
    weight, values = torch.randn(5, 3, side, side, dtype=torch.float64), torch.rand(4, 3, 1, 1, dtype=torch.float64)
    before = answers(weight, values.expand(-1, -1, side, side))
    after = answers(resample_weight(weight, patch), values.expand(-1, -1, patch, patch))
    torch.testing.assert_close(after, before)


def test_finer_patches_get_the_answer_of_their_averages() -> None:
    torch.manual_seed(0)
    weight, fine = torch.randn(5, 3, 8, 8, dtype=torch.float64), torch.rand(6, 3, 16, 16, dtype=torch.float64)
    torch.testing.assert_close(answers(resample_weight(weight, 16), fine), answers(weight, F.avg_pool2d(fine, 2)))


@pytest.mark.parametrize("patch", [4, 3])
def test_coarser_patches_get_the_best_answer_there_is(patch: int) -> None:
    """Least squares over a basis of all patches of the old side, solved without any structure."""
    torch.manual_seed(0)
    side = 8 if patch == 4 else 4
    weight = torch.randn(5, 1, side, side, dtype=torch.float64)
    basis = torch.eye(side * side, dtype=torch.float64).view(-1, 1, side, side)
    fine = side * patch
    seen = F.avg_pool2d(F.interpolate(basis, size=(fine, fine)), fine // patch)  # area average, also where uneven
    wanted = torch.linalg.lstsq(seen.flatten(1), answers(weight, basis), driver="gelsd").solution.T
    torch.testing.assert_close(resample_weight(weight, patch).flatten(1), wanted)


def test_volumes_are_resampled_along_three_axes() -> None:
    weight, volume = torch.randn(2, 1, 4, 4, 4), torch.rand(3, 1, 8, 8, 8)
    torch.testing.assert_close(
        answers(resample_weight(weight, 8), volume), answers(weight, F.avg_pool3d(volume, 2)), atol=1e-4, rtol=1e-4
    )


def rgb() -> Projection:
    torch.manual_seed(0)
    weight, bias = torch.randn(5, 3, 4, 4, dtype=torch.float64), torch.randn(5, dtype=torch.float64)
    mean = torch.tensor([0.485, 0.456, 0.406], dtype=torch.float64)
    return Projection(weight, bias, mean, torch.tensor([0.229, 0.224, 0.225], dtype=torch.float64))


def projected(p: Projection, patches: torch.Tensor) -> torch.Tensor:
    each = (slice(None), None, None)
    return answers(p.weight, (patches - p.mean[each]) / p.std[each]) + p.bias


def test_a_grey_image_gives_what_grey_in_all_channels_gave() -> None:
    grey = torch.rand(6, 1, 4, 4, dtype=torch.float64)
    one = rgb().with_channels(1)
    assert one.weight.shape == (5, 1, 4, 4)
    torch.testing.assert_close(projected(one, grey), projected(rgb(), grey.expand(-1, 3, -1, -1)))


def test_more_channels_take_turns() -> None:
    five = rgb().with_channels(5)
    torch.testing.assert_close(five.weight[:, 3], rgb().weight[:, 0] * 3 / 5)
    assert five.std.tolist() == pytest.approx([0.229, 0.224, 0.225, 0.229, 0.224])
    assert rgb().with_channels(3).weight.shape[1] == 3
    alike = rgb()
    weight = alike.weight[:, :1].expand(-1, 3, -1, -1)
    alike = Projection(weight, alike.bias, alike.mean[:1].expand(3), alike.std[:1].expand(3))
    image = torch.rand(6, 1, 4, 4, dtype=torch.float64)
    more = projected(alike.with_channels(6), image.expand(-1, 6, -1, -1))
    torch.testing.assert_close(more, projected(alike, image.expand(-1, 3, -1, -1)))
