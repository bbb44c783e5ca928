"""One bench from settings to note: what is refused, what failed, and what is noted of the rest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from patchforest.bench import bench
from patchforest.bench.bench import run_bench
from patchforest.bench.contender import Contender
from patchforest.bench.kind import Kind
from patchforest.bench.note import Note
from patchforest.bench.run import Row
from patchforest.bench.settings import Settings


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kind of two contenders, whose work is known beforehand."""

    def plan(settings: Settings) -> list[Contender]:
        return [Contender("toy", name, "m") for name in settings.sets]

    def run_all(contenders: Sequence[Contender], out: Path, **_: object) -> list[Row]:
        return [Row(c, {}, "exit code 1: no") if c.set == "bad" else Row(c, {"Dice": 1.0}) for c in contenders]

    def note(rows: Sequence[Row], settings: Settings) -> Note:
        return Note("Toy", (f"{len(rows)} rows of {', '.join(settings.sets)}",), ())

    monkeypatch.setattr(bench, "run_all", run_all)
    kind = Kind("toys", ("sets",), plan, lambda contender, folder: {}, note, sets=("good", "bad"))
    monkeypatch.setitem(bench.KINDS, "toy", kind)


@pytest.mark.usefixtures("toy")
def test_what_failed_is_listed_and_the_rest_is_noted(settings: Settings) -> None:
    told: list[str] = []
    outcome = run_bench("toy", replace(settings, sets=()), tell=told.append)
    assert outcome.failed == ("bad, m, seed 0: exit code 1: no",)
    assert outcome.note is not None
    text = outcome.note.read_text()
    assert "1 rows of good, bad" in text
    assert "- bad, m, seed 0: exit code 1: no" in text
    assert told[0].startswith("toy: 2 runs")


@pytest.mark.usefixtures("toy")
def test_nothing_is_noted_where_all_failed(settings: Settings) -> None:
    outcome = run_bench("toy", replace(settings, sets=("bad",)))
    assert outcome.note is None
    assert len(outcome.failed) == 1


@pytest.mark.usefixtures("toy")
def test_what_cannot_be(settings: Settings) -> None:
    with pytest.raises(ValueError, match="there is no bench 'toys'; there are quality"):
        run_bench("toys", settings)
    with pytest.raises(ValueError, match="nothing to tune in bench toy"):
        run_bench("toy", replace(settings, tune=True))
    with pytest.raises(ValueError, match="nothing to run in bench speed; give other sets or sizes"):
        run_bench("speed", replace(settings, sizes=(2048,)))
    with pytest.raises(ValueError, match="no contender 'U-Net 3x'; there are U-Net 1x"):
        run_bench("quality", replace(settings, contenders=("U-Net 3x",)))
