"""What a foreign transformer is made of: projection, positions, prefix tokens, blocks, norms.

Positions and prefix tokens are not looked up by name: the model's own embedding is run on a blank image of the size it
was made for with the projection silenced, and what comes out is them, however the library keeps them.

Dimension letters: D width, C channels, T prefix tokens, G positions, g grid entries along an axis, p patch side. A
volume has one axis more.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass

from torch import Tensor, nn

from patchforest.nn.adapt.blocks import optional

PROJECTIONS = (nn.Conv2d, nn.Conv3d, nn.Linear)
UNPADDED = ("valid", (0, 0), (0, 0, 0))


@dataclass(frozen=True, eq=False)
class Parts:
    """The parts of a transformer, as the library keeps them.

    Attributes
    ----------
    weight : (D, C, p, p) of the patch projection.
    bias : (D,), or None.
    table : (g, g, D) positions.
    prefix : (T, D) class and register tokens with their positions, or None.
    embed_norm : between projection and positions.
    dropout, before : after positions: dropout, then a norm.
    blocks : the transformer's.
    norm : after the last block.
    essential : the parameters that all of this is made of: what a file of weights must hold.
    """

    weight: Tensor
    bias: Tensor | None
    table: Tensor
    prefix: Tensor | None
    embed_norm: nn.Module
    dropout: nn.Module
    before: nn.Module
    blocks: list[nn.Module]
    norm: nn.Module
    essential: list[nn.Parameter]


def parts_of(
    module: nn.Module,
    embed: nn.Module,
    weight: Tensor,
    bias: Tensor | None,
    grid: tuple[int, ...],
    sequence: Tensor,
    *,
    before: tuple[str, ...],
) -> Parts:
    """Of ``sequence`` (1, T + G, D), what ``embed`` adds to a blank image, the first T are prefix tokens."""
    prefix = sequence.shape[1] - math.prod(grid) if isinstance(sequence, Tensor) and sequence.ndim == 3 else -1
    if prefix < 0:
        raise ValueError(f"the embedding of {type(module).__name__} does not give one token a patch of its own image")
    dropouts = [getattr(module, "pos_drop", None), *embed.modules()]
    blocks, first, last = blocks_of(module), optional(module, *before), optional(module, "norm", "layernorm")
    held = [embed, first, *blocks, last]
    return Parts(
        weight=weight,
        bias=bias,
        table=sequence[0, prefix:].unflatten(0, grid),
        prefix=sequence[0, :prefix] if prefix else None,
        embed_norm=optional(embed, "norm"),
        dropout=next((m for m in dropouts if isinstance(m, nn.Dropout)), nn.Identity()),
        before=first,
        blocks=blocks,
        norm=last,
        essential=[*module.parameters(recurse=False), *(p for m in held for p in m.parameters())],
    )


def grid_of(says: object, weight: Tensor) -> tuple[int, ...]:
    """Entries of the position table along every axis, as an embedding or a configuration says them."""
    for name in ("grid_size", "pos_embed_grid_size"):
        if getattr(says, name, None) is not None:
            return tuple(getattr(says, name))
    sides = tuple(weight.shape[2:])
    size = getattr(says, "image_size", None)
    if size is None:
        return (1,) * len(sides)
    sizes = (size,) * len(sides) if isinstance(size, int) else tuple(size)
    return tuple(s // p for s, p in zip(sizes, sides, strict=True))


def blocks_of(module: nn.Module) -> list[nn.Module]:
    """Blocks under any of the names that libraries give them."""
    for path in ("blocks", "layers", "layer", "encoder.layers", "encoder.layer"):
        held: object = module
        for name in path.split("."):
            held = getattr(held, name, None)
        if isinstance(held, nn.ModuleList | nn.Sequential) and len(held):
            return list(held)
    return []


def projection_of(embed: nn.Module) -> tuple[Tensor, Tensor | None]:
    """(D, C, p, p) weight and bias of the one projection of patches in an embedding."""
    found = [m for m in embed.modules() if isinstance(m, PROJECTIONS)]
    if len(found) == 1 and isinstance(found[0], nn.Linear):
        return _of_linear(embed, found[0])
    if len(found) != 1 or found[0].kernel_size != found[0].stride or found[0].padding not in UNPADDED:
        raise ValueError(
            f"{type(embed).__name__} is no single projection of patches (a convolution as wide as its stride), so it "
            "has no weights to resample"
        )
    return found[0].weight, found[0].bias


def _of_linear(embed: nn.Module, linear: nn.Linear) -> tuple[Tensor, Tensor | None]:
    """Of flattened patches: timm's NaFlexEmbeds says side and layout, MONAI's perceptron its rearrangement."""
    lengths = next((m.axes_lengths for m in embed.modules() if hasattr(m, "axes_lengths")), None)
    if isinstance(lengths, dict):
        sides = tuple(lengths[k] for k in sorted(lengths))
    else:
        sides = tuple(embed.patch_size)  # type: ignore[arg-type]
    channels = linear.in_features // math.prod(sides)
    if getattr(embed, "channels_last", True):
        return linear.weight.unflatten(1, (*sides, channels)).movedim(-1, 1), linear.bias
    return linear.weight.unflatten(1, (channels, *sides)), linear.bias


def blank_image(weight: Tensor, grid: tuple[int, ...]) -> Tensor:
    """A blank image of the size that a model was made for."""
    sides = [g * p for g, p in zip(grid, weight.shape[2:], strict=True)]
    return weight.new_zeros(1, weight.shape[1], *sides)


def silenced(embed: nn.Module) -> nn.Module:
    """A copy of an embedding that adds nothing for the pixels, so that a blank image gives what it adds besides."""
    embed = copy.deepcopy(embed)
    for module in embed.modules():
        if isinstance(module, PROJECTIONS):
            nn.init.zeros_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    if isinstance(getattr(embed, "norm", None), nn.Module):
        embed.norm = nn.Identity()
    return embed
