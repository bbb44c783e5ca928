"""Settings: budgets, recipes by name, and the command that says them again."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path

import pytest

from patchforest.bench.settings import Settings
from patchforest.errors import InputError

PLAIN = Settings(Path("/secret/data"), Path("/secret/out"))


@pytest.mark.parametrize(("given", "share", "change"), [
    ({}, 1.0, "train.max_cpu_minutes=2.0"),
    ({}, 0.5, "train.max_cpu_minutes=1.0"),
    ({"full": True}, 1.0, "train.max_minutes=2.0"),
    ({"full": True, "cpu_minutes": 3.0}, 1.0, "train.max_cpu_minutes=3.0"),
    ({"cpu_minutes": 0.4}, 1.0, "train.max_cpu_minutes=0.4"),
    ({"minutes": 4.0}, 0.125, "train.max_minutes=0.5"),
    ({"steps": 10}, 0.5, "train.max_steps=5"),
    ({"steps": 2}, 0.125, "train.max_steps=1"),
])  # fmt: skip
def test_a_budget_is_a_change_of_a_recipe(given: dict, share: float, change: str) -> None:
    assert replace(PLAIN, **given).budget(2.0, share=share) == change


@pytest.mark.parametrize(("given", "word"), [
    ({"steps": 3, "minutes": 1.0}, "one of"), ({"jobs": 0}, "at least 1"), ({"threads": 0}, "at least 1"),
    ({"seeds": ()}, "one seed"),
])  # fmt: skip
def test_what_does_not_fit_is_refused(given: dict, word: str) -> None:
    with pytest.raises(ValueError, match=word):
        replace(PLAIN, **given)


def test_a_recipe_that_is_not_there(settings: Settings) -> None:
    assert settings.recipe("discs").is_file()
    with pytest.raises(InputError, match="no such recipe; --recipes names their folder; it holds discs"):
        settings.recipe("disks")


def test_the_command_says_what_was_given_and_no_place() -> None:
    settings = replace(
        PLAIN, sets=("a", "b"), contenders=("APF-UNETR, uniform grid", "SHF"), seeds=(0, 1, 2), cpu_minutes=0.5,
        rates=(1e-3,), tune=True, changes=("train.lr=1",), jobs=2,
    )  # fmt: skip
    command = settings.command("quality")
    assert "secret" not in command
    assert shlex.split(command)[7:] == [
        "--sets", "a,b", "--contender", "APF-UNETR, uniform grid", "--contender", "SHF", "--seeds", "0,1,2",
        "--cpu-minutes", "0.5", "--jobs", "2", "--rates", "0.001", "--tune", "--set", "train.lr=1",
    ]  # fmt: skip
    assert PLAIN.command("speed") == "patchforest bench speed --data DATA --out OUT"
