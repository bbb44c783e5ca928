"""The bench of classes: who competes with how many tokens, a small run from data to note, and learning rates."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from patchforest.bench import classes
from patchforest.bench.classes import KIND, MOST, OPTIONAL, contenders_of, entries
from patchforest.bench.run import Row
from patchforest.bench.settings import Settings
from patchforest.bench.training import headline
from patchforest.bench.tune import inner_split, pick
from patchforest.train.config import load_config
from tests.bench.conftest import RECIPES, row


@pytest.mark.parametrize("name", ["needle", "glas_grades"])
def test_contenders_are_valid_and_see_as_much_as_fits(name: str) -> None:
    path = RECIPES / f"{name}.yaml"
    recipe = load_config(path)
    assert recipe.forest is not None
    assert recipe.forest.budget is not None
    for model, changes in contenders_of(recipe).items():
        config = load_config(path, changes)
        height, width = config.data.window_shape
        if model.startswith("ViT"):
            tokens = [-(-height // p) * -(-width // p) for p in (config.model.patch, config.model.patch // 2)]
            assert tokens[0] <= MOST
            assert model == "ViT, down-scaled" or tokens[1] > MOST
            assert config.data.downscale * height >= recipe.data.downscale * recipe.data.window_shape[0]
        if model == "APF-ViT, uniform grid":
            assert config.forest is not None
            side = config.forest.uniform
            assert side is not None
            assert -(-height // side) * -(-width // side) <= recipe.forest.budget
        same = ("width", "depth", "heads")
        assert all(getattr(config.model, f) == getattr(recipe.model, f) for f in same)
        assert config.augment == recipe.augment


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Two steps on eight generated images for every contender."""
    monkeypatch.setattr(classes, "COUNT", 8)
    return Settings(
        data=tmp_path,
        out=tmp_path / "out",
        recipes=RECIPES,
        sets=("needle",),
        seeds=(0,),
        steps=2,
        sizes=(320,),
        contenders=("APF-ViT", "ViT, down-scaled"),
        changes=("model.width=16", "model.depth=1", "train.batch=2"),
    )


def test_optional_contenders_run_only_where_asked_for(small: Settings) -> None:
    usual = entries(replace(small, contenders=()), "haystack")
    assert set(usual) == set(contenders_of(load_config(RECIPES / "needle.yaml"))) - set(OPTIONAL)
    assert list(entries(replace(small, contenders=OPTIONAL[:1]), "needle")) == [OPTIONAL[0]]
    with pytest.raises(ValueError, match="no contender 'GPT'"):
        entries(replace(small, contenders=("GPT",)), "needle")


def test_from_generated_images_to_the_note(small: Settings) -> None:
    """In this process; how contenders are run in theirs is the same for every bench."""
    contenders = KIND.plan(small)
    assert [c.name for c in contenders] == list(small.contenders)
    before = torch.get_num_threads()
    rows = [Row(c, KIND.work(c, c.folder(small.out))) for c in contenders]
    torch.set_num_threads(before)
    by_name = {r.contender.name: r.result for r in rows}
    assert by_name["ViT, down-scaled"]["tokens"] == (320 // 8) ** 2 / 4
    for found in by_name.values():
        assert found["images"] == 4
        assert 0 <= found["accuracy"] <= 1
        assert found["AUC"] is None or 0 <= found["AUC"] <= 1
        assert found["predict_seconds"] > 0
        assert len(found["per_case"]) == 2
        assert headline(found)[0] == "AUC"
    written = KIND.note(rows, small)
    assert [cells[0] for cells in written.tables[0].rows] == list(small.contenders)
    assert written.tables[0].title == "needle (2 validation images)"
    assert {n["contender"] for n in written.numbers} == set(small.contenders)


def test_rates_are_chosen_on_training_images(small: Settings) -> None:
    data = classes.made("needle", small)
    assert data is not None
    recipe = load_config(RECIPES / "needle.yaml")
    inner = inner_split(recipe, "needle", small, data=data)
    assert "of its 6 training cases" in inner.words
    lists = [(small.out / "tune" / data.name / f"{part}.txt").read_text().split() for part in ("train", "validation")]
    assert len({*lists[0], *lists[1]}) == 6
    scored = [(rate, row("ViT", kind="tune", label="needle", AUC=auc)) for rate, auc in ((1e-3, 0.6), (3e-3, 0.8))]
    assert pick([*scored, (1e-2, row("ViT", kind="tune", label="needle", AUC=None))])["needle", "ViT"][0] == 3e-3


def test_an_undefined_auc_is_a_dash(small: Settings) -> None:
    result = {
        "AUC": None, "accuracy": 1.0, "cross_entropy": 0.2, "tokens": 9.0, "predict_seconds": 0.1, "peak_mib": 100.0,
        "parameters": 1000, "images": 8, "lr": 1e-3, "per_case": {"a": 0.9},
    }  # fmt: skip
    found = KIND.note([row("ViT", label="needle", kind="classes", **result)], small)
    assert found.tables[0].rows[0][1:3] == ("–", "–")
