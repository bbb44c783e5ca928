"""Every script in examples/ runs by itself on data it makes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from patchforest.io.open import open_image

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


def test_no_example_is_forgotten() -> None:
    assert sorted(p.name for p in EXAMPLES.glob("*.py")) == ["journey.py"]


@pytest.mark.parametrize("budget", [300])
def test_journey_draws_its_five_panels(tmp_path: Path, budget: int) -> None:
    picture = tmp_path / "journey.png"
    command = [sys.executable, str(EXAMPLES / "journey.py"), "--out", str(picture), "--budget", str(budget)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "leaves for" in done.stdout
    assert "label ceiling" in done.stdout
    panel, gap = 400, 12
    assert open_image(picture).shape == (panel, 5 * panel + 4 * gap, 3)
