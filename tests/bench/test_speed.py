"""``speed``: what is planned, one contender from training to curve and parts, and the tables by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from patchforest.bench import speed
from patchforest.bench.settings import Settings
from patchforest.bench.speed import (
    ADAPTIVE,
    HALF,
    KIND,
    SHORT,
    UNETR,
    UNIFORM,
    all_foreground,
    entries,
    note,
    plan,
    tokens_of,
    work,
)
from patchforest.train.config import load_config
from tests.bench.conftest import RECIPES, row


@pytest.fixture
def small(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Grids of 4 × 4 patches of 8 pixels on images of 56 × 72."""
    monkeypatch.setattr(speed, "GRID", 4)
    monkeypatch.setattr(speed, "FEWER", 4)
    return replace(settings, sizes=(32,), steps=8)


@pytest.fixture
def large(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """As if the images were of 1100 × 1100 pixels."""
    monkeypatch.setattr(speed, "_shorter_side", lambda settings, name: 1100)
    return settings


def test_the_adaptive_model_differs_in_its_forest_alone(small: Settings) -> None:
    made = {e.model: e for e in entries(small)}
    assert list(made) == [UNIFORM, ADAPTIVE, SHORT]
    assert {e.label for e in made.values()} == {"discs 32"}
    uniform, adaptive = set(made[UNIFORM].changes), set(made[ADAPTIVE].changes)
    assert uniform - adaptive == {"forest.uniform=8"}
    assert adaptive - uniform == {"forest.budget=4"}
    assert made[SHORT].changes == made[ADAPTIVE].changes


def test_the_short_one_has_an_eighth_of_the_budget(small: Settings) -> None:
    steps = {c.name: [x for x in c.changes if "max_" in x] for c in plan(small)}
    assert steps == {UNIFORM: ["train.max_steps=8"], ADAPTIVE: ["train.max_steps=8"], SHORT: ["train.max_steps=1"]}
    minutes = {c.name: c.changes for c in plan(replace(small, steps=None))}
    assert "train.max_cpu_minutes=0.375" in minutes[SHORT]


def test_the_uniform_one_runs_on_half_of_the_schedule_only_where_it_is_asked_for(small: Settings) -> None:
    asked = replace(small, contenders=(UNIFORM, HALF, ADAPTIVE), steps=None, cpu_minutes=4.0)
    full, half, _ = entries(asked)
    assert full.changes == half.changes
    changes = {c.name: c.changes for c in plan(asked)}
    assert "train.max_cpu_minutes=2.0" in changes[HALF]
    assert "train.max_cpu_minutes=4.0" in changes[UNIFORM]


def test_all_are_validated_equally_often_in_their_training(small: Settings) -> None:
    every = plan(replace(small, contenders=(UNIFORM, HALF, ADAPTIVE, SHORT, UNETR)))
    assert len(every) == 5
    assert {x for c in every for x in c.changes if "validate_every" in x} == {"train.validate_every=0.05"}


def test_those_of_less_time_take_the_rates_of_their_long_ones(small: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    small.out.mkdir()
    (small.out / "learning_rates.json").write_text('{"rates": {"discs 32": {"adaptive": 0.02, "uniform": 0.03}}}')
    asked = replace(small, contenders=(UNIFORM, HALF, ADAPTIVE, SHORT))
    rates = {c.name: [x.removeprefix("train.lr=") for x in c.changes if "train.lr=" in x] for c in plan(asked)}
    assert rates == {UNIFORM: ["0.03"], HALF: ["0.03"], ADAPTIVE: ["0.02"], SHORT: ["0.02"]}
    tried: list[str] = []
    monkeypatch.setattr(speed, "tune", lambda kind, every, settings, tell: tried.extend(e.model for e in every))
    assert KIND.tune is not None
    KIND.tune(asked, print)
    assert tried == [UNIFORM, ADAPTIVE]


def test_every_contender_is_a_network_for_windows_of_its_size(large: Settings) -> None:
    for size, patch, downscale in ((64, 1, 17), (128, 2, 8), (512, 8, 2), (1024, 16, 1)):
        for e in entries(replace(large, sizes=(size,), contenders=(UNIFORM, UNETR))):
            config = load_config(large.recipe("discs"), (*e.changes, "train.max_steps=1"))
            assert config.model.patch == patch
            assert config.data.downscale == downscale
            assert 2 ** len(config.model.stem) <= patch
            if e.model == UNIFORM:
                assert tokens_of(config) == 64 * 64


@pytest.mark.parametrize(("downscale", "size"), [(8, 128), (2, 512), (1, 1024)])
def test_surroundings_are_as_wide_in_the_image_as_those_of_the_recipe(
    large: Settings, downscale: int, size: int
) -> None:
    path, asked = (
        large.recipe("discs"),
        replace(large, sizes=(size,), contenders=(UNIFORM, HALF, ADAPTIVE, SHORT, UNETR)),
    )
    assert {load_config(path, c.changes).model.surround for c in plan(asked)} == {0}
    raw = yaml.safe_load(path.read_text())
    raw["data"]["downscale"], raw["model"]["surround"] = 4, 8
    path.write_text(yaml.safe_dump(raw))
    for contender in plan(asked):
        config = load_config(path, contender.changes)
        assert config.data.downscale == downscale
        assert config.model.surround * downscale == 4 * 8


def test_sets_of_smaller_images_are_left_out(small: Settings) -> None:
    assert {e.label for e in entries(replace(small, sizes=(32, 64)))} == {"discs 32"}


@pytest.mark.parametrize("size", [65, 192, 63])
def test_a_size_that_no_grid_fits_is_refused(large: Settings, size: int) -> None:
    with pytest.raises(ValueError, match=rf"sizes must be 64 times a power of two, e.g. 512; got {size}"):
        entries(replace(large, sizes=(size,)))


def test_full_form_has_the_papers_tokens_and_width(large: Settings) -> None:
    found = entries(replace(large, full=True))
    assert {e.label for e in found} == {"discs 512", "discs 1024"}
    assert {e.model for e in found} == {UNIFORM, ADAPTIVE, SHORT, UNETR}
    for e in found:
        config = load_config(large.recipe("discs"), e.changes)
        assert (config.model.width, config.model.depth, config.model.heads) == (768, 12, 12)
        assert tokens_of(replace(config, forest=None) if e.model == UNETR else config) in (16384, 1024)


def test_one_contender_from_training_to_its_parts(small: Settings) -> None:
    contender = next(c for c in plan(small) if c.name == ADAPTIVE)
    result = work(contender, contender.folder(small.out))
    assert result["steps"] == 8
    assert result["images"] == 16
    assert result["tokens"] == 4
    assert len(result["curve"]) == 8  # as often as there are steps
    assert all(0 <= dice <= 1 for _, dice in result["curve"])
    assert 0 < result["all_foreground"] < 1
    for name in ("training", "prediction", "input", "encoder", "rest"):
        assert result[name] > 0, name
    assert not (contender.folder(small.out) / "run" / "checkpoints").exists()


def test_all_foreground_by_hand(tmp_path: Path) -> None:
    import numpy as np

    from patchforest.bench.training import Trained
    from patchforest.data.layout import Case, CaseList
    from patchforest.io.write import write_image, write_mask

    mask = np.zeros((10, 10), np.uint8)
    mask[:5] = 1
    write_mask(tmp_path / "m.png", mask)
    write_image(tmp_path / "i.png", np.zeros((10, 10, 3), np.uint8))
    config = load_config(RECIPES / "hrf.yaml")
    cases = [Case("a", tmp_path / "i.png", tmp_path / "m.png")]
    done = Trained(config, None, tmp_path, CaseList(tuple(cases), None, "paired", tmp_path), cases, {})  # type: ignore[arg-type]
    assert all_foreground(done) == pytest.approx(2 * 50 / 150)
    many = replace(config, data=replace(config.data, classes=("background", "a", "b")))
    assert all_foreground(replace(done, config=many)) is None


def result(curve: list[tuple[float, float]], times: float, **more: Any) -> dict[str, Any]:
    """What a contender that needs ``times`` seconds an image leaves."""
    parts = dict.fromkeys(("training", "prediction", "input", "encoder", "rest"), times)
    common = {"tokens": 64, "peak_mib": 900.0, "images": 8, "all_foreground": 0.3, "train_seconds": 100.0}
    return {"curve": curve, **common, **parts, **more}


def test_the_tables_by_hand(settings: Settings) -> None:
    rows = [
        row(UNIFORM, label="a 512", **result([(40.0, 0.5)], 8)),
        row(ADAPTIVE, label="a 512", **result([(5.0, 0.4), (10.0, 0.6)], 2)),
        row(UNIFORM, label="b 512", **result([(90.0, 0.5)], 9)),
        row(ADAPTIVE, label="b 512", **result([(10.0, 0.5)], 1)),
        row(UNIFORM, label="c 512", **result([(90.0, 0.5)], 8)),
        row(ADAPTIVE, label="c 512", **result([(10.0, 0.4)], 8)),
        row(UNIFORM, label="d 512", **result([(90.0, 0.2)], 8)),
        row(ADAPTIVE, label="d 512", **result([(10.0, 0.4)], 8)),
    ]
    made = note(rows, settings)
    costs, ratios = made.tables
    assert [len(r) for t in made.tables for r in t.rows] == [len(t.header) for t in made.tables for _ in t.rows]
    assert costs.rows[1][-1] == "10.0"
    assert costs.rows[5][-1] == "not reached"
    adaptive = {r[0]: r[2:] for r in ratios.rows if r[1] == ADAPTIVE}
    assert adaptive["a 512"][:2] == ("4.0 × (1 of 1 seeds)", "4.0 ×")
    assert adaptive["c 512"][0] == "< 0.9 × (not reached)"
    assert adaptive["d 512"][0] == "the uniform model learned nothing"
    mean = adaptive["**geometric mean**"][:2]
    assert mean == ("< 3.2 × (1 of 3 rows a bound)", "2.4 ×")  # ∛(4 · 9 · 0.9); ⁴√(4 · 9 · 1 · 1)
    reached = note([r for r in rows if r.contender.set in ("a 512", "b 512")], settings).tables[1].rows[-1]
    assert reached[:3] == ("**geometric mean**", ADAPTIVE, "6.0 × (2 rows)")
    nothing = note(rows[-2:], settings).tables[1].rows[-1]
    assert nothing[2] == "– (0 rows)"
    assert list(made.charts) == ["a-512", "b-512", "c-512", "d-512"]
    assert ADAPTIVE in made.charts["a-512"]


def test_a_seed_that_was_never_there_makes_its_row_a_bound(settings: Settings) -> None:
    rows = [
        row(UNIFORM, label="a 512", **result([(90.0, 0.5)], 1)),
        row(ADAPTIVE, label="a 512", **result([(10.0, 0.5)], 1)),
        row(UNIFORM, label="a 512", seed=1, **result([(50.0, 0.5)], 1)),
        row(ADAPTIVE, label="a 512", seed=1, **result([(10.0, 0.4)], 1, train_seconds=12.5)),
        row(UNIFORM, label="a 512", seed=2, **result([(50.0, 0.2)], 1)),  # no better than all foreground
        row(ADAPTIVE, label="a 512", seed=2, **result([(10.0, 0.4)], 1)),
    ]
    lines = {r[0]: r[2] for r in note(rows, settings).tables[1].rows if r[1] == ADAPTIVE}
    assert lines == {  # √(9 · 1): what is never there saves nothing
        "a 512": "< 3.0 × (1 of 2 seeds)",
        "**geometric mean**": "< 3.0 × (1 of 1 rows a bound)",
    }


def test_half_of_the_schedule_is_the_uniform_models_time_where_it_was_sooner_there(settings: Settings) -> None:
    rows = [
        row(UNIFORM, label="a 512", **result([(40.0, 0.5), (80.0, 0.6)], 1)),
        row(HALF, label="a 512", **result([(20.0, 0.5), (40.0, 0.7)], 1)),
        row(ADAPTIVE, label="a 512", **result([(10.0, 0.6)], 1)),
    ]
    made = note(rows, settings)
    assert [r[2] for r in made.tables[1].rows if r[0] == "a 512"] == [
        "0.5 × (1 of 1 seeds)", "1.0 × (1 of 1 seeds)", "4.0 × (1 of 1 seeds)",
    ]  # fmt: skip
    assert "on half of it" in made.lines[1]
