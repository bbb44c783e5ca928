"""Who competes: every contender as settings of a recipe that it changes, and nothing else about it differs."""

from __future__ import annotations

from patchforest.train.config import RunConfig

LARGEST = 512
"""U-Nets train on windows of the recipe's extent, but of no more pixels a side than this."""

GROWTH = 4
"""Leaves of the second look of refined contenders for every leaf of the first."""

SCORER_SHARE = 1 / 6
"""Of the budget, which the scorer of ``SHF, scorer`` trains for; its model has the rest."""

SCORED = "SHF, scorer"
RATE_OF = {
    SCORED: "SHF",
    "SHF, refined": "SHF",
    "SHF, refined by stem": "SHF",
    "APF-UNETR, refined": "APF-UNETR",
    "U-Net 1x": "U-Net 4x",
    "U-Net 2x": "U-Net 4x",
}
"""Whose tuned learning rate a contender takes that was not tuned itself."""

PAPER = ("model.width=768", "model.depth=12", "model.heads=12")
"""ViT-B, of the full form."""


def contenders_of(recipe: RunConfig, *, full: bool = False) -> dict[str, tuple[str, ...]]:
    """Changes of a recipe for every contender, by the name users know it by.

    The recipe itself is the adaptive contender, APF-UNETR. Models on pixels see the window of the recipe at its
    down-scaling, U-Nets also at others. SHF, whose mask comes from its tokens alone and whose step is the cheapest, has
    twice as many of them, none shorter than its 16 × 16 answers. Refined ones look twice, at a quarter of their tokens
    first, or, by stem, with the convolutions alone. ``full`` gives all of them the sizes of their papers.
    """
    side = equal_side(recipe)
    assert recipe.forest is not None
    assert recipe.forest.budget is not None
    budget = recipe.forest.budget
    vit = PAPER if full else ()
    features = {"unetr": 16, "transunet": 64 if full else 16, "swin_unetr": 48 if full else 12}
    shf = (*vit, "model.patch=8", "forest.cell=16")
    twice = ("model.name=refined", f"model.growth={GROWTH}")
    return {
        "U-Net 1x": _unet(recipe, 1, full),
        "U-Net 2x": _unet(recipe, 2, full),
        "U-Net 4x": _unet(recipe, 4, full),
        "UNETR": (*vit, "model.name=unetr", "model.patch=16", f"model.features={features['unetr']}"),
        "TransUNet": (*vit, "model.name=transunet", f"model.features={features['transunet']}"),
        "Swin UNETR": ("model.name=swin_unetr", f"model.features={features['swin_unetr']}"),
        "APF-UNETR": vit,
        "APF-UNETR, uniform grid": (*vit, f"forest.uniform={side}"),
        "SHF": (*shf, "model.name=shf", f"forest.budget={2 * budget}"),
        "SHF, refined": (*shf, *twice, "model.readout=token", f"forest.budget={max(2 * budget // GROWTH, 1)}"),
        "SHF, refined by stem": (
            *shf,
            "model.name=refined",
            "model.look=stem",
            "model.readout=token",
            f"forest.budget={2 * budget}",
        ),
        "APF-UNETR, refined": (*vit, *twice, f"forest.budget={max(budget // GROWTH, 1)}"),
    }


SCORER = (
    "model.name=scorer",
    "model.stem=[16,32,48,64,64]",
    "model.downscale=2",
    "model.surround=16",
    "model.norm=batch",
    "model.patch=8",
    "forest.cell=16",
    "train.batch=4",
    "augment.affine=0.5",
)
"""Changes of a recipe for the scorer of ``SHF, scorer``: on the same images, averaged by two."""


def equal_side(recipe: RunConfig) -> int:
    """Side of the leaves of a uniform grid that has as many tokens as the recipe's forest, or the next fewer.

    Raises
    ------
    ValueError : the recipe has no forest of a given budget.
    """
    if recipe.forest is None or recipe.forest.budget is None:
        raise ValueError("the recipe must have a forest with a budget of tokens; set forest.budget")
    height, width = recipe.data.window_shape
    side = recipe.forest.cell
    while -(-height // side) * -(-width // side) > recipe.forest.budget:
        side *= 2
    return side


def downscaled(recipe: RunConfig, downscale: int) -> tuple[str, ...]:
    """Changes of a recipe that average its images by another factor; surroundings stay as wide in the image."""
    surround = recipe.model.surround and max(recipe.model.surround * recipe.data.downscale // downscale, 2)
    return (f"data.downscale={downscale}", f"model.surround={surround}")


def _unet(recipe: RunConfig, downscale: int, full: bool) -> tuple[str, ...]:
    height, width = (min(s * recipe.data.downscale // downscale, LARGEST) for s in recipe.data.window_shape)
    return (
        "model.name=unet",
        f"model.width={64 if full else 16}",
        "model.depth=4",
        *downscaled(recipe, downscale),
        f"data.window={height if height == width else [height, width]}",
    )
