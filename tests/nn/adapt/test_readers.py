"""Parts read from modules built by hand, one a kind: positions and prefix are the very numbers put in."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from patchforest.nn.adapt.readers import READERS, find_parts

WIDTH, PATCH, GRID, PREFIX = 6, 4, (2, 3), 2


class Block(nn.Module):
    def forward(self, x: Tensor, attn_mask: Tensor | None = None) -> Tensor:
        return x


class Projection(nn.Module):
    """Patches to tokens in rows, as a convolution as wide as its stride."""

    def __init__(self) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, WIDTH, PATCH, PATCH)
        self.grid_size = GRID

    def forward(self, image: Tensor) -> Tensor:
        return self.proj(image).flatten(2).transpose(1, 2)


class Embedding(Projection):
    """The same with prefix tokens before and positions upon all, and some dropout."""

    def __init__(self, prefix: int = PREFIX) -> None:
        super().__init__()
        self.tokens = nn.Parameter(torch.randn(1, prefix, WIDTH))
        self.positions = nn.Parameter(torch.randn(1, prefix + 6, WIDTH))
        self.dropout = nn.Dropout(0.9)
        self.n_patches = 6

    def placed(self, tokens: Tensor) -> Tensor:
        return self.dropout(torch.cat([self.tokens, tokens], 1) + self.positions)

    def forward(self, image: Tensor) -> Tensor:
        return self.placed(super().forward(image))


class Naflex(Embedding):
    def forward(self, image: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        return super().forward(image), None


class Timm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.patch_embed, self.blocks = Projection(), nn.ModuleList([Block(), Block()])
        self.inner = Embedding()
        self.norm_pre = nn.LayerNorm(WIDTH)
        del self.inner.proj

    def _pos_embed(self, tokens: Tensor) -> Tensor:
        return self.inner.placed(tokens)


def timm() -> tuple[nn.Module, Embedding]:
    model = Timm()
    return model, model.inner


def holder(name: str, embedding: Embedding, **more: object) -> tuple[nn.Module, Embedding]:
    """A module with the embedding under a name, and two blocks."""
    model = nn.Module()
    setattr(model, name, embedding)
    model.blocks = nn.ModuleList([Block(), Block()])
    for key, value in more.items():
        setattr(model, key, value)
    return model, embedding


KINDS: dict[str, Callable[[], tuple[nn.Module, Embedding]]] = {
    "timm": timm,
    "naflex": lambda: holder("embeds", Naflex()),
    "transformers": lambda: holder("embeddings", Embedding(), config=SimpleNamespace(image_size=(8, 12))),
}


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize("kind", KINDS)
def test_positions_and_prefix_are_those_put_in(kind: str) -> None:
    model, embedding = KINDS[kind]()
    parts = find_parts(model)
    torch.testing.assert_close(parts.table, embedding.positions[0, PREFIX:].detach().view(*GRID, WIDTH))
    torch.testing.assert_close(parts.prefix, (embedding.tokens + embedding.positions[:, :PREFIX])[0].detach())
    assert parts.weight.shape == (WIDTH, 3, PATCH, PATCH)
    assert len(parts.blocks) == 2
    assert isinstance(parts.before, nn.LayerNorm) == (kind == "timm")


@pytest.mark.parametrize("kind", KINDS)
def test_a_grid_that_is_named_counts(kind: str) -> None:
    parts = find_parts(KINDS[kind]()[0], grid=[3, 2])
    assert parts.table.shape == (3, 2, WIDTH)


def test_monai_keeps_its_class_token_beside_and_says_no_grid() -> None:
    token = nn.Parameter(torch.randn(1, 1, WIDTH))
    model, embedding = holder("patch_embedding", Embedding(prefix=0), cls_token=token)
    with pytest.raises(ValueError, match=r"its 6 positions are no grid of \(2, 2\); say grid="):
        find_parts(model)
    parts = find_parts(model, grid=GRID)
    torch.testing.assert_close(parts.table, embedding.positions[0].detach().view(*GRID, WIDTH))
    torch.testing.assert_close(parts.prefix, token[0].detach())


def test_windows_of_sam_have_a_raster_of_positions_or_none() -> None:
    model, _ = holder("patch_embed", Embedding(prefix=0))
    model.blocks[0].window_size = 2
    assert not find_parts(model).table.any()
    assert find_parts(model).table.shape == (*GRID, WIDTH)
    model.pos_embed = nn.Parameter(torch.randn(1, 5, 4, WIDTH))
    parts = find_parts(model, grid=GRID)  # the raster says its own
    torch.testing.assert_close(parts.table, model.pos_embed[0])
    assert parts.prefix is None


def test_the_outermost_module_is_read_and_others_around_it_are_not() -> None:
    outer, embedding = timm()
    outer.teacher = timm()[0]
    around = nn.ModuleDict({"text": nn.Linear(3, 3), "vision": outer})
    torch.testing.assert_close(find_parts(around).table.flatten(0, 1), embedding.positions[0, PREFIX:].detach())
    with pytest.raises(ValueError, match="found no plain vision transformer in Linear"):
        find_parts(nn.Linear(3, 3))


def test_every_module_goes_back_to_its_own_mode() -> None:
    model, _ = timm()
    model.train()
    model.blocks[1].eval()
    before = [m.training for m in model.modules()]
    find_parts(model)
    assert [m.training for m in model.modules()] == before
    model.rope = nn.Identity()
    with pytest.raises(ValueError, match=r"relative or rotary positions \(rope\)"):
        find_parts(model)
    assert [m.training for m in model.modules()] == [*before, True]


def test_what_no_resampled_projection_can_do_is_refused() -> None:
    model, embedding = holder("embeds", Naflex())
    embedding.norm_input = nn.LayerNorm(3 * PATCH**2)
    with pytest.raises(ValueError, match="normalises pixels patch by patch"):
        find_parts(model)


@pytest.mark.parametrize("name", ["rope", "rel_pos_h", "relative_position_bias_table", "rotary_emb"])
def test_positions_that_no_leaf_can_read_are_refused_by_name(name: str) -> None:
    for kind in KINDS.values():
        model, _ = kind()
        model.blocks[0].register_parameter(name, nn.Parameter(torch.zeros(1)))
        with pytest.raises(ValueError, match=name):
            find_parts(model)


def test_every_kind_is_told_by_one_reader_alone() -> None:
    made = [*(kind()[0] for kind in KINDS.values()), holder("patch_embedding", Embedding(prefix=0))[0]]
    for model in made:
        assert sum(tells(model) for tells in READERS) == 1
