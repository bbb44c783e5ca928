"""The small data set of the training tests, prepared, and a run's settings for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from patchforest.data.prepare import JobOptions
from patchforest.train.config import RunConfig, parse_config
from patchforest.train.prepare import prepare_run
from tests.train.runs import settings


def token_settings(**train: Any) -> dict[str, Any]:
    """``tests.train.runs.settings`` for a model that reads leaves alone."""
    raw = settings(**train)
    raw["model"] = {**raw["model"], "stem": [], "q": 8}
    raw["augment"] = {"affine": 0.0, "noise": 0.0, "blur": 0.0}
    raw["forest"] = {**raw["forest"], "fresh": False}
    return raw


def token_config(**train: Any) -> RunConfig:
    """``token_settings`` parsed."""
    return parse_config(token_settings(**train))


def prepared(data: Path, out: Path, raw: dict[str, Any] | None = None, variants: int = 1) -> Path:
    """A folder prepared of ``data``."""
    config = parse_config(raw or token_settings())
    assert prepare_run(config, data, out, variants=variants, options=JobOptions(workers=1)).complete
    return out
