"""UNETR: parameters by formula, the same numbers as MONAI's, taps at quarters, any size and patch."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from patchforest.models.config import ModelConfig
from patchforest.models.trunk import normalise
from patchforest.models.unetr import UNETR
from tests.models.baselines import answers_any_size, learns_a_square

SMALL = ModelConfig(name="unetr", width=16, depth=4, heads=2, patch=8, features=4, window=(64, 64))


def vit_count(d: int, depth: int) -> int:
    """Per block two norms, qkv, the projection, and two layers of width 4d, all with biases; a norm at the end."""
    return depth * (2 * 2 * d + 3 * (d * d + d) + d * d + d + 4 * d * d + 4 * d + 4 * d * d + d) + 2 * d


def block_count(a: int, b: int) -> int:
    return 9 * a * b + 9 * b * b + (a * b if a != b else 0)


@pytest.mark.parametrize("channels", [1, 5])
def test_parameters_by_formula_at_patch_16(channels: int) -> None:
    c = replace(SMALL, width=32, depth=3, patch=16, features=16, classes=3, channels=channels, window=(96, 50))
    d, f = c.width, c.features
    tokens = d * channels * 16**2 + d + d * 6 * 4
    taps = (
        4 * d * 8 * f  # z9: one doubling, 8f
        + (4 * d * 4 * f + 4 * 4 * f * 4 * f + block_count(4 * f, 4 * f))  # z6: two, 4f
        + (4 * d * 2 * f + 2 * (4 * 2 * f * 2 * f + block_count(2 * f, 2 * f)))  # z3: three, 2f
    )
    rise = 4 * (d * 8 * f + 8 * f * 4 * f + 4 * f * 2 * f + 2 * f * f)
    merges = sum(block_count(2 * w, w) for w in (8 * f, 4 * f, 2 * f, f))
    wanted = tokens + vit_count(d, 3) + taps + rise + merges + block_count(channels, f) + 3 * f + 3
    assert sum(p.numel() for p in UNETR(c).parameters()) == wanted


@pytest.mark.parametrize("patch", [2, 4, 16, 32])
def test_any_size(patch: int) -> None:
    config = replace(SMALL, depth=2, patch=patch, channels=5, classes=3, window=(32, 32))
    answers_any_size(config, [(32, 32), (37, 51), (1, 70), (3, 2)])


@pytest.mark.parametrize("patch", [4, 16])
def test_learns_a_square(patch: int) -> None:
    learns_a_square(replace(SMALL, patch=patch), steps=25)


def test_taps_are_at_quarters_of_the_depth(monkeypatch: pytest.MonkeyPatch) -> None:
    model = UNETR(replace(SMALL, depth=12, patch=16)).eval()
    after: dict[int, Tensor] = {}
    for number, block in enumerate(model.encoder.blocks, start=1):
        block.register_forward_hook(lambda module, given, out, number=number: after.update({number: out}))
    handed: list[Tensor] = []
    monkeypatch.setattr(
        model.decoder, "forward", lambda rasters, image: handed.extend(rasters) or torch.zeros(1, 1, *image.shape[2:])
    )
    model(torch.rand(1, 3, 64, 32))
    wanted = [model.encoder.norm(after[12]), after[9], after[6], after[3]]
    for raster, state in zip(handed, wanted, strict=True):
        assert torch.equal(raster, state.transpose(1, 2).unflatten(2, (4, 2)))


def test_a_window_of_the_training_size_takes_the_table_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    model = UNETR(replace(SMALL, window=(37, 51))).eval()
    image = torch.rand(1, 3, 37, 51)
    before = model(image)
    monkeypatch.setattr("patchforest.nn.grid.F.interpolate", None)
    assert torch.equal(model(image), before)


def test_settings_without_which_it_cannot_be() -> None:
    for change, match in (({"window": None}, "set window"), ({"depth": 0}, "depth"), ({"patch": 24}, "patch")):
        with pytest.raises(ValueError, match=match):
            UNETR(replace(SMALL, **change))


def test_with_weights_of_monais_it_gives_the_same_logits() -> None:
    """MONAI taps blocks 4, 7, 10 of its zero-based list, has no bias at queries, and normalises the last state too."""
    pytest.importorskip("monai", reason="extra medical")
    from monai.networks.nets.unetr import UNETR as Reference

    torch.manual_seed(0)
    reference = Reference(2, 3, (48, 32), feature_size=4, hidden_size=12, mlp_dim=48, num_heads=3, spatial_dims=2)
    ours = UNETR(
        ModelConfig(
            name="unetr", channels=2, classes=3, width=12, depth=12, heads=3, patch=16, features=4, window=(48, 32)
        )
    )
    ours.taps = (10, 7, 4)
    theirs = reference.state_dict()
    used: set[str] = set()

    def take(name: str) -> Tensor:
        used.add(name)
        return theirs[name]

    def block(ours: str, name: str, *, skip: bool) -> dict[str, Tensor]:
        pairs = [("first", "conv1"), ("second", "conv2"), *([("skip", "conv3")] if skip else [])]
        return {f"{ours}.{a}.weight": take(f"{name}.{b}.conv.weight") for a, b in pairs}

    state = {
        "embed.pixels.weight": take("vit.patch_embedding.patch_embeddings.weight"),
        "embed.pixels.bias": take("vit.patch_embedding.patch_embeddings.bias"),
        "embed.table": take("vit.patch_embedding.position_embeddings").transpose(1, 2).unflatten(2, (3, 2)),
        "decoder.head.weight": take("out.conv.conv.weight"),
        "decoder.head.bias": take("out.conv.conv.bias"),
        **block("decoder.image", "encoder1.layer", skip=True),
    }
    layers = {"norm1": "norm1", "norm2": "norm2", "attention.out": "attn.out_proj", "mlp.0": "mlp.linear1",
              "mlp.2": "mlp.linear2"}  # fmt: skip
    names = {f"encoder.blocks.{k}.{a}": f"vit.blocks.{k}.{b}" for k in range(12) for a, b in layers.items()}
    for a, b in {**names, "encoder.norm": "vit.norm"}.items():
        state |= {f"{a}.{end}": take(f"{b}.{end}") for end in ("weight", "bias")}
    for k in range(12):
        state[f"encoder.blocks.{k}.attention.qkv.weight"] = take(f"vit.blocks.{k}.attn.qkv.weight")
        state[f"encoder.blocks.{k}.attention.qkv.bias"] = torch.zeros(36)
    for k in range(3):  # the latest tap first
        state[f"decoder.taps.{k}.0.weight"] = take(f"encoder{4 - k}.transp_conv_init.conv.weight")
        for more in range(k):
            inside = f"encoder{4 - k}.blocks.{more}"
            state[f"decoder.taps.{k}.{1 + 2 * more}.weight"] = take(f"{inside}.0.conv.weight")
            state |= block(f"decoder.taps.{k}.{2 + 2 * more}", f"{inside}.1", skip=False)
    for k in range(4):
        state[f"decoder.up.{k}.weight"] = take(f"decoder{5 - k}.transp_conv.conv.weight")
        state |= block(f"decoder.merge.{k}", f"decoder{5 - k}.conv_block", skip=True)
    ours.load_state_dict(state)
    image = torch.rand(2, 2, 48, 32)
    torch.testing.assert_close(ours.eval()(image), reference.eval()(normalise(image)), atol=1e-4, rtol=1e-4)
    cross = sum(v.numel() for n, v in theirs.items() if "cross" in n)  # of MONAI, and used by nothing here
    count, biases = sum(p.numel() for p in ours.parameters()), 12 * 36
    assert count - biases + cross == sum(p.numel() for p in reference.parameters())
    assert {n for n in theirs if n not in used and "cross" not in n} == set()
