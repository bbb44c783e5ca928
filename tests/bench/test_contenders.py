"""Every contender of every recipe is a configuration that a network can be built of, and differs in what it should."""

from __future__ import annotations

from pathlib import Path

import pytest

from patchforest.bench.contenders import LARGEST, SCORER, contenders_of, downscaled, equal_side
from patchforest.bench.quality import SETS
from patchforest.train.config import load_config, parse_config
from tests.bench.conftest import RECIPES

NAMES = list(contenders_of(load_config(RECIPES / "glas.yaml")))


ON_PIXELS = {"U-Net 1x", "U-Net 2x", "U-Net 4x", "UNETR", "TransUNet", "Swin UNETR"}


@pytest.mark.parametrize("recipe", SETS)
@pytest.mark.parametrize("name", NAMES)
def test_a_network_of_it_can_be_built(recipe: str, name: str) -> None:
    torch = pytest.importorskip("torch")
    path = RECIPES / f"{recipe}.yaml"
    config = load_config(path, contenders_of(load_config(path))[name])
    if name == "Swin UNETR":
        pytest.importorskip("monai", reason="Swin UNETR is MONAI's (extra medical)")
        if recipe != "swiss_drone":
            return  # slow to build, and the same for every recipe of two classes
    from patchforest.data.layout import CaseList
    from patchforest.train.fit import resolve

    with torch.device("meta"):  # resolving builds the network
        config = resolve(config, CaseList((), None, "paired", Path()), 3)
    assert (config.forest is None) == (name in ON_PIXELS)


def test_full_sizes_are_those_of_the_papers() -> None:
    recipe = load_config(RECIPES / "hrf.yaml")
    every = contenders_of(recipe, full=True)
    assert list(every) == NAMES
    for name in ("UNETR", "TransUNet", "APF-UNETR", "APF-UNETR, uniform grid", "SHF", "SHF, refined"):
        config = load_config(RECIPES / "hrf.yaml", every[name])
        assert (config.model.width, config.model.depth, config.model.heads) == (768, 12, 12), name


@pytest.mark.parametrize(("window", "cell", "budget", "side"), [
    (256, 8, 256, 16), (256, 8, 1024, 8), (256, 8, 1023, 16), (384, 8, 144, 32), (256, 16, 64, 32), (40, 8, 16, 16),
])  # fmt: skip
def test_a_uniform_grid_has_as_many_tokens_or_fewer(window: int, cell: int, budget: int, side: int) -> None:
    raw = {"data": {"window": window}, "forest": {"cell": cell, "budget": budget}, "train": {"max_steps": 1}}
    assert equal_side(parse_config(raw)) == side


def test_without_a_budget_there_is_no_equal_grid() -> None:
    raw = {"forest": {"uniform": 8}, "train": {"max_steps": 1}}
    with pytest.raises(ValueError, match=r"set forest\.budget"):
        equal_side(parse_config(raw))


def test_u_nets_see_the_extent_of_the_recipe_up_to_a_limit() -> None:
    recipe = load_config(RECIPES / "hrf.yaml")  # 384 at 2x: 768 pixels of the file
    seen = {n: load_config(RECIPES / "hrf.yaml", c).data for n, c in contenders_of(recipe).items() if "U-Net" in n}
    assert {n: (d.downscale, d.window) for n, d in seen.items()} == {
        "U-Net 1x": (1, LARGEST), "U-Net 2x": (2, 384), "U-Net 4x": (4, 192)
    }  # fmt: skip


@pytest.mark.parametrize("recipe", SETS)
def test_a_scorer_sees_what_its_model_sees(recipe: str) -> None:
    path = RECIPES / f"{recipe}.yaml"
    whole = load_config(path)
    scorer, model = load_config(path, SCORER), load_config(path, contenders_of(whole)["SHF"])
    assert scorer.data == model.data
    assert scorer.forest is not None
    assert model.forest is not None
    assert scorer.forest.cell == model.forest.cell
    assert 2 * scorer.model.patch == 2 * model.model.patch == scorer.forest.cell


def test_u_nets_see_pixels_against_surroundings_as_wide_in_the_image() -> None:
    path = RECIPES / "hrf.yaml"
    recipe = load_config(path)
    assert recipe.model.surround
    for name in ("U-Net 1x", "U-Net 2x", "U-Net 4x"):
        config = load_config(path, contenders_of(recipe)[name])
        assert config.model.surround * config.data.downscale == recipe.model.surround * recipe.data.downscale
    plain = RECIPES / "glas.yaml"
    assert load_config(plain, contenders_of(load_config(plain))["U-Net 4x"]).model.surround == 0


@pytest.mark.parametrize(("downscale", "surround"), [(1, 64), (2, 32), (3, 21), (4, 16), (64, 2), (200, 2)])
def test_surroundings_follow_the_factor_down_to_the_least_there_is(downscale: int, surround: int) -> None:
    path = RECIPES / "hrf.yaml"  # 32 at 2x
    config = load_config(path, downscaled(load_config(path), downscale))
    assert (config.data.downscale, config.model.surround) == (downscale, surround)
