"""``quality`` from the command line to its note; its tables; and that a finished run is not done again."""

from __future__ import annotations

import json
from pathlib import Path

from patchforest.bench.contenders import contenders_of
from patchforest.bench.kinds import work_of
from patchforest.bench.quality import by_contender, entries, note, plain, plan
from patchforest.bench.run import Row
from patchforest.bench.settings import Settings
from patchforest.io.atomic import write_json
from patchforest.train.config import load_config
from tests.bench.conftest import row
from tests.cli.conftest import Run, run  # noqa: F401

RESULT = {
    "BoundaryF2": 0.5, "ceiling": 0.99, "tokens": 16.0, "seconds": 1.0, "predict_seconds": 0.25, "per_case": {"a": 0.5},
    "peak_mib": 700.0, "parameters": 1_500_000, "steps": 2, "lr": 3e-3,
}  # fmt: skip


def test_two_contenders_are_trained_scored_and_noted(settings: Settings, run: Run) -> None:  # noqa: F811
    command = (
        "bench", "quality", "--data", settings.data, "--out", settings.out, "--recipes", settings.recipes, "--sets",
        "discs", "--contender", "SHF", "--contender", "UNETR", "--seeds", "0", "--steps", "2", "--jobs", "2",
    )  # fmt: skip
    ended = run(*command)
    assert ended.code == 0, ended.err
    found = json.loads((settings.out / "quality.json").read_text())
    assert [r["contender"] for r in found["results"]] == ["SHF", "UNETR"]
    for result in found["results"]:
        assert result["steps"] == 2
        assert 0 <= result["Dice"] <= 1
        assert result["tokens"] > 0
        assert set(result["per_case"]) == {"case0", "case5"} or len(result["per_case"]) == 2
        assert result["configuration"]["train"]["validate_cases"] == 0
    assert "--steps 2 --jobs 2" in found["command"]
    page = (settings.out / "quality.md").read_text()
    assert "| SHF | 0." in page
    assert str(settings.out) not in page
    assert (settings.out / "quality-discs.svg").read_text().startswith("<svg")
    before = (settings.out / "runs.jsonl").read_bytes()
    again = run(*command)
    assert "2 of 2 were finished before" in again.out
    assert (settings.out / "runs.jsonl").read_bytes() == before


def test_a_scorer_has_its_share_of_the_budget_and_cuts_the_forests(settings: Settings, run: Run) -> None:  # noqa: F811
    rates = {"rates": {"discs": {"SHF": 0.02}}}
    write_json(settings.out / "learning_rates.json", rates)
    one = Settings(**{**vars(settings), "seeds": (0,), "contenders": ("SHF, scorer",), "steps": 4})
    (made,) = plan(one)
    assert {"train.max_steps=3", "train.lr=0.02", "model.name=shf"} <= set(made.changes)
    assert {"train.max_steps=1", "model.name=scorer", "train.seed=0"} <= set(made.scorer)
    result = work_of(made.kind)(made, made.folder(settings.out))
    assert result["steps"] == 3
    assert result["configuration"]["forest"]["criterion"] == "scorer"
    assert str(settings.out) not in json.dumps(plain(Row(made, result)))
    alone = json.loads((made.folder(settings.out) / "run" / "done.json").read_text())["train_seconds"]
    assert result["train_seconds"] > alone


def test_the_plan_goes_by_seeds_then_sets(settings: Settings) -> None:
    both = Settings(**{**vars(settings), "seeds": (3, 4), "contenders": ("U-Net 2x", "SHF")})
    made = plan(both)
    assert [(c.seed, c.name) for c in made] == [(3, "U-Net 2x"), (3, "SHF"), (4, "U-Net 2x"), (4, "SHF")]
    assert "train.max_steps=2" in made[0].changes
    assert "train.seed=3" in made[0].changes


def test_tuned_rates_are_used_and_said(settings: Settings) -> None:
    settings.out.mkdir()
    rates = {"rates": {"discs": {"SHF": 0.02}}}
    (settings.out / "learning_rates.json").write_text(json.dumps(rates))
    made = {c.name: c.changes for c in plan(settings)}
    assert "train.lr=0.02" in made["SHF"]
    assert not any(c.startswith("train.lr") for c in made["UNETR"])
    rows = [row("SHF", Dice=0.5, **RESULT)]
    assert note(rows, settings).lines[-1] == "Learning rates: tuned, see learning_rates.json."
    some = note([*rows, row("UNETR", Dice=0.5, **RESULT)], settings).lines[-1]
    assert some.endswith("These are not, and have the recipe's: discs, UNETR.")
    assert "not tuned" in note([row("UNETR", Dice=0.5, **RESULT)], settings).lines[-1]


def test_a_table_shows_mean_spread_and_every_seed(settings: Settings) -> None:
    rows = [row("A", seed=s, Dice=d, **RESULT) for s, d in ((1, 0.6), (0, 0.5))] + [row("B", Dice=0.9, **RESULT)]
    made = note(rows, settings)
    (table,) = made.tables
    assert table.rows[0][:3] == ("A", "0.550 ± 0.071", "0.500 0.600")
    assert table.rows[1][:3] == ("B", "0.900", "0.900")
    assert len({len(r) for r in table.rows} | {len(table.header)}) == 1
    assert list(made.charts) == ["discs"]
    assert made.charts["discs"].index(">B<") < made.charts["discs"].index(">A<")  # the best on top
    assert [list(v) for v in by_contender(rows).values()] == [[rows[1], rows[0]], [rows[2]]]


def test_the_json_names_no_place_of_this_machine(settings: Settings) -> None:
    rows = [row("A", Dice=0.5, **RESULT)]
    assert "recipe" not in note(rows, settings).numbers[0]
    assert Path("data") not in note(rows, settings).numbers[0].values()


def test_a_scorer_is_no_contender_where_none_is_trained(settings: Settings) -> None:
    recipe = load_config(settings.recipe("discs"))
    assert "SHF, scorer" not in contenders_of(recipe)
    assert entries(settings, "discs")["SHF, scorer"] == contenders_of(recipe)["SHF"]
