"""Which libraries' transformers are understood, by their structure: one reader a kind, outermost module first."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from patchforest.nn.adapt.blocks import check_block, first_of
from patchforest.nn.adapt.parts import (
    PROJECTIONS,
    Parts,
    blank_image,
    blocks_of,
    grid_of,
    parts_of,
    projection_of,
    silenced,
)


def find_parts(model: nn.Module, grid: Sequence[int] | None = None) -> Parts:
    """The parts of the first module in ``model``, outermost first, that is built like a plain vision transformer.

    Parameters
    ----------
    grid : (rows, columns) of the pretrained positions, for a model that does not say and whose grid is not square.

    Raises
    ------
    ValueError : no such module; positions that are relative or rotary; a patch embedding that is no single projection.
    """
    with _evaluating(model), torch.no_grad():
        for module in model.modules():
            for kind, read in READERS.items():
                if kind(module):
                    check_block(blocks_of(module)[0])
                    return read(module, None if grid is None else tuple(grid))
    raise ValueError(
        f"found no plain vision transformer in {type(model).__name__}; there must be blocks behind a patch embedding, "
        "as in timm's VisionTransformer and NaFlexVit, transformers' ViT, DINOv2 and SAM, and MONAI's ViT"
    )


def _is_windowed(module: nn.Module) -> bool:
    """SAM's encoder: ``patch_embed``, absolute positions as a raster, blocks with windows."""
    blocks = blocks_of(module)
    return hasattr(module, "patch_embed") and bool(blocks) and hasattr(blocks[0], "window_size")


def _read_windowed(module: nn.Module, grid: tuple[int, ...] | None) -> Parts:
    embed = first_of(module, "patch_embed")
    weight, bias = projection_of(embed)
    table = getattr(module, "pos_embed", None)
    if isinstance(table, Tensor) and table.ndim == 4:
        sequence = table.flatten(1, 2)
        grid = tuple(table.shape[1:3])
    else:
        grid = grid or grid_of(embed, weight)
        sequence = weight.new_zeros(1, math.prod(grid), len(weight))
    return parts_of(module, embed, weight, bias, grid, sequence, before=())


def _is_timm(module: nn.Module) -> bool:
    return hasattr(module, "patch_embed") and hasattr(module, "_pos_embed") and bool(blocks_of(module))


def _read_timm(module: nn.Module, grid: tuple[int, ...] | None) -> Parts:
    _refuse_relative(module)
    embed = first_of(module, "patch_embed")
    weight, bias = projection_of(embed)
    grid = grid or grid_of(embed, weight)
    tokens = embed(blank_image(weight, grid))
    sequence = module._pos_embed(torch.zeros_like(tokens))  # type: ignore[operator]
    return parts_of(module, embed, weight, bias, grid, sequence, before=("norm_pre",))


def _is_naflex(module: nn.Module) -> bool:
    return hasattr(module, "embeds") and bool(blocks_of(module))


def _read_naflex(module: nn.Module, grid: tuple[int, ...] | None) -> Parts:
    _refuse_relative(module)
    embed = first_of(module, "embeds")
    if getattr(embed, "norm_input", None) is not None:
        raise ValueError("its patch embedding normalises pixels patch by patch, which no resampled projection can")
    weight, bias = projection_of(embed)
    grid = grid or grid_of(embed, weight)
    sequence = silenced(embed)(blank_image(weight, grid))[0]
    return parts_of(module, embed, weight, bias, grid, sequence, before=("norm_pre",))


def _is_transformers(module: nn.Module) -> bool:
    embed = getattr(module, "embeddings", None)
    sees = isinstance(embed, nn.Module) and any(isinstance(m, PROJECTIONS) for m in embed.modules())
    return sees and bool(blocks_of(module))


def _read_transformers(module: nn.Module, grid: tuple[int, ...] | None) -> Parts:
    _refuse_relative(module)
    embed = first_of(module, "embeddings")
    weight, bias = projection_of(embed)
    grid = grid or grid_of(module.config, weight)
    sequence = silenced(embed)(blank_image(weight, grid))
    return parts_of(module, embed, weight, bias, grid, sequence, before=("pre_layrnorm", "pre_layernorm"))


def _is_monai(module: nn.Module) -> bool:
    return hasattr(module, "patch_embedding") and bool(blocks_of(module))


def _read_monai(module: nn.Module, grid: tuple[int, ...] | None) -> Parts:
    _refuse_relative(module)
    embed = first_of(module, "patch_embedding")
    weight, bias = projection_of(embed)
    n = weight.ndim - 2
    count = int(embed.n_patches)  # type: ignore[arg-type]
    grid = grid or (round(count ** (1 / n)),) * n
    if math.prod(grid) != count:
        raise ValueError(
            f"its {count} positions are no grid of {grid}; say grid=(rows, columns) of the image it is for"
        )
    sequence = silenced(embed)(blank_image(weight, grid))
    token = getattr(module, "cls_token", None)
    if token is not None:
        sequence = torch.cat([token, sequence], 1)
    return parts_of(module, embed, weight, bias, grid, sequence, before=())


READERS: dict[Callable[[nn.Module], bool], Callable[[nn.Module, tuple[int, ...] | None], Parts]] = {
    _is_windowed: _read_windowed,
    _is_timm: _read_timm,
    _is_naflex: _read_naflex,
    _is_transformers: _read_transformers,
    _is_monai: _read_monai,
}


def _refuse_relative(module: nn.Module) -> None:
    names = [*(n for n, _ in module.named_modules()), *(n for n, _ in module.named_parameters())]
    odd = next((n for n in names if re.search(r"rope|rotary|rel_pos|relative_pos", n)), None)
    if odd is not None:
        raise ValueError(
            f"{type(module).__name__} has relative or rotary positions ({odd}), which are not read at leaves; use a "
            "model with a table of positions"
        )


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Without dropout while its embedding is run; every module goes back to its own mode."""
    training = [m for m in model.modules() if m.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True
