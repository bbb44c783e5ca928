"""Every script in examples/ runs by itself on data it makes."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from patchforest.io.open import open_image

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


def test_no_example_is_forgotten() -> None:
    assert sorted(p.name for p in EXAMPLES.glob("*.py")) == ["adapt_timm.py", "cut_image.py", "journey.py"]


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


def test_an_image_is_cut_without_a_pixel_left_out(tmp_path: Path) -> None:
    command = [sys.executable, str(EXAMPLES / "cut_image.py")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "train_1, train_2, validation" in done.stdout
    parts = [open_image(tmp_path / "cut" / "images" / f"{n}.png").shape for n in ("train_1", "train_2", "validation")]
    assert [shape[:2] for shape in parts] == [(64, 192), (64, 192), (128, 192)]


def test_a_timm_model_reads_a_forest() -> None:
    if importlib.util.find_spec("timm") is None:
        pytest.skip("the extra backbones is not installed")
    command = [sys.executable, str(EXAMPLES / "adapt_timm.py")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout.split("features ")[1].split()[0]) < 1e-4
    assert "states (1, 254, 192), 4 taps" in done.stdout
