"""The one door to Lightning: the library's own classes, and an absence that names the extra."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import sys
from pathlib import Path

import pytest

from patchforest import train
from patchforest.errors import InputError
from patchforest.train import engine


def test_its_names_are_lightnings_own() -> None:
    from lightning.fabric.plugins import CheckpointIO

    assert engine.lightning is sys.modules["lightning.pytorch"]
    assert engine.CheckpointIO is CheckpointIO
    assert sorted(engine.__all__) == ["CheckpointIO", "lightning"]


def test_without_lightning_the_import_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.delitem(sys.modules, "patchforest.train.engine")
    with pytest.raises(InputError, match=r"training.*pip install 'patchforest\[train\]'"):
        importlib.import_module("patchforest.train.engine")


def test_no_other_module_of_the_room_imports_lightning_when_it_is_imported() -> None:
    found = []
    for path in sorted(Path(train.__path__[0]).glob("*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            named = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            named += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            found += [path.name for name in named if name.partition(".")[0] == "lightning"]
    assert set(found) == {"engine.py"}
