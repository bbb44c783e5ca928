"""Shared fixtures: the optional folder of real data, and single-threaded determinism."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

REPO = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real labelled data; tests that need it are skipped where it is absent."""
    folder = Path(os.environ.get("PATCHFOREST_DATA", REPO.parent / "shared" / "data"))
    if not (folder / "glas" / "images").is_dir():
        pytest.skip(f"no real data at {folder.name}/ (set PATCHFOREST_DATA to the folder that holds glas/, hrf/, ...)")
    return folder


@pytest.fixture
def rng() -> np.random.Generator:
    """A seeded generator, fresh for every test."""
    return np.random.default_rng(20261120)
