"""Small contenders, rows and settings for every test of the benches."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from patchforest.bench.contender import Contender
from patchforest.bench.run import Row
from patchforest.bench.settings import Settings
from tests.train.runs import make_data

RECIPES = Path(__file__).resolve().parents[2] / "recipes"


def row(name: str, *, seed: int = 0, label: str = "discs", kind: str = "quality", **result: Any) -> Row:
    """What came of a contender."""
    return Row(Contender(kind, label, name, seed=seed), result)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Of a bench on six tiny images of discs, two steps for each contender."""
    make_data(tmp_path / "data" / "discs")
    recipe = {
        "data": {"classes": ["background", "disc"], "window": 32, "folds": 3},
        "forest": {"criterion": "gradient", "cell": 8, "budget": 16},
        "model": {"name": "apf_unetr", "width": 16, "depth": 1, "heads": 2, "stem": [4, 4], "stride": 2},
        "train": {"max_steps": 2, "batch": 2},
    }
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes" / "discs.yaml").write_text(yaml.safe_dump(recipe))
    return Settings(
        data=tmp_path / "data", out=tmp_path / "out", recipes=tmp_path / "recipes", sets=("discs",), seeds=(0,), steps=2
    )
