"""Damaged files end in pixels or in one line: a part of the run of ``benchmarks/mutants.py``, and whether that sees."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

REPO = Path(__file__).resolve().parents[2]
OUR_OWN = ("our model", "our parts", "our prepared item")


@pytest.fixture(scope="module")
def mutants() -> ModuleType:
    spec = importlib.util.spec_from_file_location("mutants", REPO / "benchmarks" / "mutants.py")
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules["mutants"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def failures(results: list[Any], kinds: tuple[str, ...]) -> list[str]:
    return [f"{r.number} {r.specimen}, {r.change}: {r.outcome}: {r.text}" for r in results if r.outcome in kinds]


def test_two_hundred_mutants_of_every_format(mutants: ModuleType) -> None:
    specimens = {k: s for k, s in mutants.available(None).items() if k not in OUR_OWN}
    results = list(mutants.run(200, 20261120, specimens))
    assert not failures(results, mutants.FAILURES)
    assert {r.specimen for r in results} == set(specimens)
    assert sum(r.outcome == "refused" for r in results) > 60
    assert sum(r.outcome == "different" for r in results) > 10


def test_sixty_mutants_of_our_own_files(mutants: ModuleType) -> None:
    specimens = {k: s for k, s in mutants.available(None).items() if k in OUR_OWN}
    results = list(mutants.run(60, 20261120, specimens))
    assert not failures(results, mutants.FAILURES)
    assert sum(r.outcome == "refused" for r in results) > 40


def test_a_mutant_is_the_same_in_every_run(mutants: ModuleType, tmp_path: Path) -> None:
    original = tmp_path / "original.png"
    mutants.SPECIMENS["PNG 8 bit"].make(original)
    seen = set()
    for number in range(40):
        for name in ("a", "b"):
            mutants.write_mutant(original, tmp_path / name, 1, number)
        data = (tmp_path / "a").read_bytes()
        assert data == (tmp_path / "b").read_bytes() != original.read_bytes()
        seen.add(data)
    assert len(seen) > 35
    mutants.write_mutant(original, tmp_path / "b", 2, 39)
    assert (tmp_path / "b").read_bytes() != data


def test_every_misfortune_is_seen_and_charged_to_its_file(mutants: ModuleType, tmp_path: Path) -> None:
    trap = mutants.Specimen("tests.io.traps:read_trap", "", lambda path: None)
    child = mutants.Child(tmp_path)

    def outcome(kind: str, seconds: float = 60.0) -> Any:
        path = tmp_path / kind
        path.write_text(kind)
        found = child.examine(mutants._task(trap, path, seconds))
        return mutants._result(0, "trap", "flipped", found, truth, replace(trap, checked=kind == "unseen"))

    try:
        (tmp_path / "same").write_text("same")
        truth = child.examine(mutants._task(trap, tmp_path / "same", 60.0))
        for kind in (*mutants.FAILURES, "different", "refused", "same", "noisy"):
            found = outcome(kind, 3.0 if kind == "hang" else 60.0)
            assert found.outcome == ("same" if kind == "noisy" else kind), found
            assert found.noisy == (kind == "noisy")
            assert outcome("same").outcome == "same"
    finally:
        child.close()
