"""TransUNet: parameters by formula and as published, standardised weights, skips, any size."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from patchforest.models.config import ModelConfig
from patchforest.models.transunet import StandardConv, TransUNet, Unit, group_norm
from patchforest.nn.readout.output import RARE
from tests.models.baselines import answers_any_size, learns_a_square
from tests.models.test_unetr import vit_count

SMALL = ModelConfig(name="transunet", width=16, depth=2, heads=2, features=4, window=(64, 64))


def unit(a: int, b: int, stride: int) -> int:
    inner = b // 4
    body = a * inner + 9 * inner * inner + inner * b + 2 * (2 * inner + b)  # and scale and shift of three norms
    return body + (a * b + 2 * b if stride > 1 or a != b else 0)


def conv(a: int, b: int) -> int:
    return 9 * a * b + 2 * b


@pytest.mark.parametrize("base", [4, 12, 64])
def test_parameters_by_formula(base: int) -> None:
    c = replace(SMALL, channels=5, classes=3, features=base, window=(100, 40))
    d = c.width
    stem = 49 * 5 * base + 2 * base
    widths = [base, 4 * base, 8 * base, 16 * base]
    units = 0
    for a, b, count, stride in zip(widths, widths[1:], (3, 4, 9), (1, 2, 2)):
        units += unit(a, b, stride) + (count - 1) * unit(b, b, 1)
    tokens = 16 * base * d + d + 7 * 3 * d
    last = min(base, 16)
    up = conv(d, 8 * base)
    for a, skip, b in ((8, 8, 4), (4, 4, 2), (2, 1, 1)):
        up += conv((a + skip) * base, b * base) + conv(b * base, b * base)
    up += conv(base, last) + conv(last, last)
    with torch.device("meta"):
        model = TransUNet(c)
    assert sum(p.numel() for p in model.parameters()) == stem + units + tokens + vit_count(d, 2) + up + 27 * last + 3


def test_full_size_has_the_parameters_of_the_paper() -> None:
    config = ModelConfig(name="transunet", width=768, depth=12, heads=12, features=64, window=(224, 224), classes=9)
    with torch.device("meta"):
        assert round(sum(p.numel() for p in TransUNet(config).parameters()) / 1e6, 2) == 105.28


def test_any_size() -> None:
    config = replace(SMALL, channels=5, classes=3, window=(32, 48))
    answers_any_size(config, [(32, 48), (37, 51), (1, 70), (3, 2)])


def test_learns_a_square() -> None:
    model = learns_a_square(SMALL, steps=25)
    assert model.head.kernel_size == (3, 3)
    assert TransUNet(replace(SMALL, classes=3)).head.bias.tolist() == [RARE, 0, 0]


def test_weights_are_standardised_for_each_output() -> None:
    torch.manual_seed(0)
    layer, x = StandardConv(3, 4, 3, stride=2), torch.randn(1, 3, 9, 9)
    weight = torch.stack([(w - w.mean()) / (w.var(correction=0) + 1e-5).sqrt() for w in layer.weight])
    wanted = F.conv2d(x, weight, stride=2, padding=1)
    torch.testing.assert_close(layer(x), wanted)


def test_units_activate_after_the_sum() -> None:
    torch.manual_seed(0)
    same, x = Unit(8, 8, 1).eval(), torch.randn(1, 8, 6, 6)
    assert same.skip is None
    assert torch.equal(same(x), F.relu(same.body(x) + x))
    assert Unit(8, 16, 2)(x).shape == (1, 16, 3, 3)


@pytest.mark.parametrize(("channels", "groups"), [(64, 32), (1024, 32), (16, 8), (12, 2), (5, 1), (2, 1)])
def test_groups_divide_and_hold_two_channels(channels: int, groups: int) -> None:
    assert group_norm(channels).num_groups == groups


def test_skips_come_from_their_strides() -> None:
    model = TransUNet(SMALL).eval()
    given: list[tuple[int, ...]] = []
    for block in model.up:
        block.register_forward_pre_hook(lambda module, inputs: given.append(tuple(inputs[0].shape[1:])))
    model(torch.rand(1, 3, 64, 32))
    assert given == [(32 + 32, 8, 4), (16 + 16, 16, 8), (8 + 4, 32, 16), (4, 64, 32)]


def test_without_a_window_it_is_refused() -> None:
    with pytest.raises(ValueError, match="set window"):
        TransUNet(replace(SMALL, window=None))
