"""Grids of patches: padding, tokens row by row, a table of positions that carries to other grids."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from patchforest.nn.grid import GridEmbed, as_raster, padded


@pytest.mark.parametrize("multiple", [1, 4, 16])
def test_padding_repeats_the_edge_to_whole_multiples(multiple: int, rng: np.random.Generator) -> None:
    for least in (1, 24, 33):
        height, width = (int(s) for s in rng.integers(1, 40, 2))
        image = torch.rand(2, 3, height, width)
        out = padded(image, multiple, least=multiple * (-(-least // multiple)))
        assert all(s % multiple == 0 and s >= least for s in out.shape[2:])
        assert all(o - s < multiple or o < least + multiple for o, s in zip(out.shape[2:], image.shape[2:]))
        over = [(0, o - s) for o, s in zip(out.shape[2:], image.shape[2:])]
        assert np.array_equal(out.numpy(), np.pad(image.numpy(), [(0, 0), (0, 0), *over], mode="edge"))
    assert padded(image, 1) is image


def test_tokens_are_linear_in_their_patch_and_know_their_place() -> None:
    torch.manual_seed(0)
    embed = GridEmbed(2, 5, 4, window=(9, 16))
    assert embed.table.shape == (1, 5, 3, 4)
    raster = torch.rand(1, 2, 12, 16)
    tokens = embed(raster)
    for row in range(3):
        for column in range(4):
            patch = raster[0, :, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4]
            wanted = embed.pixels.weight.flatten(1) @ patch.flatten() + embed.pixels.bias
            wanted += embed.table[0, :, row, column]
            torch.testing.assert_close(tokens[0, 4 * row + column], wanted)
    assert torch.equal(as_raster(tokens, (3, 4))[0, :, 2, 1], tokens[0, 9])


def test_the_table_is_interpolated_to_other_grids() -> None:
    embed = GridEmbed(1, 1, 2, window=(16, 16))
    with torch.no_grad():
        embed.table.mul_(50)
        embed.pixels.weight.zero_()
        embed.pixels.bias.zero_()
    table = embed.table[0, 0].detach().numpy()
    for grid in ((12, 20), (8, 16), (5, 8)):
        wanted = cv2.resize(table, grid[::-1], interpolation=cv2.INTER_CUBIC)
        got = as_raster(embed(torch.rand(1, 1, 2 * grid[0], 2 * grid[1])), grid)[0, 0].detach().numpy()
        np.testing.assert_allclose(got, wanted, atol=1e-4)
