"""``organs``: every contender reads the recipe of volumes, as slices or whole, and the tables hold every organ."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from patchforest.bench.organs import contenders, entries, note, plan
from patchforest.bench.settings import Settings
from patchforest.train.config import load_config
from tests.bench.conftest import RECIPES, row

NAMES = ("U-Net", "UNETR", "TransUNet", "Swin UNETR", "APF-UNETR", "SHF, octree")


@pytest.fixture
def organs(settings: Settings) -> Settings:
    """The recipe of the project, and a data folder of its name."""
    (settings.data / "ct_totalseg").mkdir()
    return replace(settings, recipes=RECIPES, sets=())


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_it_builds(organs: Settings, name: str, full: bool) -> None:
    torch = pytest.importorskip("torch")
    if name == "Swin UNETR":
        pytest.importorskip("monai", reason="Swin UNETR is MONAI's (extra medical)")
    from patchforest.data.layout import CaseList
    from patchforest.models.build import build_model
    from patchforest.train.fit import resolve

    changes = contenders(replace(organs, full=full))[name]
    with torch.device("meta"):
        config = resolve(load_config(RECIPES / "ct_organs.yaml", changes), CaseList((), None, "paired", Path()), 1)
        network = build_model(config.model)
    assert config.volume is not None
    assert config.volume.axes == (() if name == "SHF, octree" else (0,))
    assert config.model.spatial == (3 if name == "SHF, octree" else 2)
    assert network.needs_forest == (name in ("APF-UNETR", "SHF, octree"))


def test_the_adaptive_one_reads_a_quarter_of_the_patches(organs: Settings) -> None:
    every = {n: load_config(RECIPES / "ct_organs.yaml", c) for n, c in contenders(organs).items()}
    assert tuple(every) == NAMES
    forest = every["APF-UNETR"].forest
    assert forest is not None
    assert forest.cell == every["APF-UNETR"].model.patch == every["UNETR"].model.patch == 4
    assert forest.budget == 24 * 24 // 4


def test_lists_are_found_wherever_the_recipes_lie(organs: Settings) -> None:
    for contender in plan(organs):
        config = load_config(contender.recipe, contender.changes)
        assert config.data.train == str(RECIPES / "ct_train.txt")
        assert Path(str(config.data.validation)).is_file()
        assert config.train.max_steps == 2
    assert [e.model for e in entries(replace(organs, contenders=("UNETR",)))] == ["UNETR"]


def test_tables_hold_every_organ(organs: Settings) -> None:
    result = {
        "BoundaryF2": 0.5, "ceiling": None, "tokens": 0.0, "predict_seconds": 12.0, "peak_mib": 700.0,
        "parameters": 2_000_000, "steps": 9,
    }  # fmt: skip
    rows = [
        row("U-Net", kind="organs", Dice=0.4, per_class={"liver": 0.6, "bone": 0.2}, **result),
        row("U-Net", kind="organs", seed=1, Dice=0.5, per_class={"liver": 0.8, "bone": 0.2}, **result),
        row("UNETR", kind="organs", Dice=0.3, per_class={"liver": 0.5, "bone": 0.1}, **{**result, "tokens": 576.0}),
    ]
    made = note(rows, organs)
    means, each = made.tables
    assert [len(r) for t in made.tables for r in t.rows] == [len(t.header) for t in made.tables for _ in t.rows]
    assert means.rows[0][:5] == ("U-Net", "0.450 ± 0.071", "0.400 0.500", "0.500", "–")
    assert means.rows[1][5] == "576"
    assert each.header == ("contender", "liver", "bone")
    assert each.rows[0] == ("U-Net", "0.700 ± 0.141", "0.200 ± 0.000")
