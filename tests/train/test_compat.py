"""Lightning loads, and its absence names the extra."""

from __future__ import annotations

import importlib.util
import sys

import pytest

from patchforest.errors import InputError
from patchforest.train import compat


def test_missing_lightning_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"training.*pip install 'patchforest\[train\]'"):
        compat.require_lightning()


def test_present_lightning_is_imported() -> None:
    compat.require_lightning()
    assert "lightning.pytorch" in sys.modules
