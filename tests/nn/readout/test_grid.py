"""The decoder over a regular grid: levels by patch, norms, where the taps go."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from patchforest.nn.readout.grid import GridDecoder, InstanceResidual, instance_norm
from patchforest.nn.readout.output import RARE


@pytest.mark.parametrize("patch", [2, 4, 8, 16, 32, 64])
def test_any_power_of_two_reaches_full_resolution(patch: int) -> None:
    torch.manual_seed(0)
    decoder = GridDecoder(6, 2, 3, 4, patch=patch)
    doublings = patch.bit_length() - 1
    assert decoder.num_taps == {2: 0, 4: 1, 8: 2}.get(patch, 3)
    assert len(decoder.up) == doublings
    rasters = [torch.rand(1, 6, 2, 1) for _ in range(decoder.num_taps + 1)]
    out = decoder(rasters, torch.rand(1, 2, 2 * patch, patch))
    assert out.shape == (1, 3, 2 * patch, patch)
    out.sum().backward()
    assert all(p.grad is not None for p in decoder.parameters())


def test_widths_at_the_taps() -> None:
    for patch, widths in ((2, [4]), (4, [8, 4]), (8, [16, 8, 4]), (16, [32, 16, 8, 4]), (64, [32, 16, 8, 8, 8, 4])):
        assert [up.out_channels for up in GridDecoder(6, 2, 1, 4, patch=patch).up] == widths


@pytest.mark.parametrize("patch", [0, 1, 3, 12, 24])
def test_other_patches_are_refused(patch: int) -> None:
    with pytest.raises(ValueError, match=f"power of two from 2 on; got {patch}"):
        GridDecoder(6, 2, 1, 4, patch=patch)


def test_it_starts_with_background() -> None:
    assert GridDecoder(6, 2, 1, 4, patch=8).head.bias.tolist() == [-RARE]
    assert GridDecoder(6, 2, 3, 4, patch=8).head.bias.tolist() == [RARE, 0, 0]


@pytest.mark.parametrize("widths", [(5, 5), (3, 6)])
def test_the_residual_block_by_hand(widths: tuple[int, int]) -> None:
    torch.manual_seed(0)
    block, x = InstanceResidual(*widths), torch.randn(2, widths[0], 7, 9)
    assert (block.skip is None) == (widths[0] == widths[1])
    y = F.leaky_relu(F.instance_norm(F.conv2d(x, block.first.weight, padding=1)), 0.01)
    y = F.instance_norm(F.conv2d(y, block.second.weight, padding=1))
    y = y + (x if block.skip is None else F.instance_norm(F.conv2d(x, block.skip.weight)))
    torch.testing.assert_close(block(x), F.leaky_relu(y, 0.01))
    torch.testing.assert_close(instance_norm(x), F.instance_norm(x))
