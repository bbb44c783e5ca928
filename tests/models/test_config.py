"""The configuration is frozen and says what it needs."""

from __future__ import annotations

from dataclasses import FrozenInstanceError

import pytest

from patchforest.models.config import ModelConfig


def test_defaults_are_the_recommended_ones_and_frozen() -> None:
    config = ModelConfig()
    assert (config.patch, config.cell, config.q, config.readout, config.embedding) == (8, 8, None, "paint", "place")
    assert config.spatial == 2
    with pytest.raises(FrozenInstanceError):
        config.width = 1  # type: ignore[misc]
