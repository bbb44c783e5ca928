"""Every kind has what a bench needs."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest

from patchforest.bench.kind import without_effect
from patchforest.bench.kinds import KINDS
from patchforest.bench.settings import Settings


@pytest.mark.parametrize("name", KINDS)
def test_it_reads_options_that_there_are(name: str) -> None:
    kind = KINDS[name]
    assert set(kind.options) <= {f.name for f in fields(Settings)}
    assert kind.title
    assert "\n" not in kind.title
    assert ("tune" in kind.options) == (kind.tune is not None)
    assert ("sets" in kind.options) >= bool(kind.sets)


def test_the_docs_have_a_line_for_every_kind() -> None:
    text = (Path(__file__).resolve().parents[2] / "docs" / "cli.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \|", text.split("## bench")[1].split("\n## ")[0], re.M)
    assert set(rows) == set(KINDS)


def test_options_without_effect_are_found() -> None:
    kind = KINDS["organs"]
    assert without_effect(kind, ("data", "out", "jobs", "threads", "seeds", "sets", "sizes")) == ["sets", "sizes"]
