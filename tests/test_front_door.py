"""`import patchforest` is quick, needs no torch, and every name it promises is there."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

import patchforest

SOURCE = Path(__file__).resolve().parents[1] / "src"


def python(code: str) -> str:
    """Standard output of a fresh interpreter that sees the package."""
    path = os.pathsep.join(filter(None, [str(SOURCE), os.environ.get("PYTHONPATH", "")]))
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "PYTHONPATH": path},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def exists(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def test_import_is_light_and_quick() -> None:
    code = (
        "import time; start = time.perf_counter(); import patchforest; seconds = time.perf_counter() - start;"
        "import sys; heavy = {'torch', 'cv2', 'lightning', 'matplotlib', 'PIL', 'tifffile', 'scipy', 'pandas'};"
        "print(sorted(heavy & set(sys.modules)), seconds)"
    )
    best = min(float(python(code).removeprefix("[]")) for _ in range(3))  # best of three: the machine may be busy
    assert best < 1.0


def test_whole_process_under_a_second() -> None:
    """With the interpreter's own start, which is what a person waits for."""
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        python("import patchforest")
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < 1.0


def test_cutting_a_forest_needs_no_torch() -> None:
    """The journey without a model, in an interpreter where torch cannot be imported."""
    code = """
import sys
sys.modules["torch"] = None
import numpy as np
import patchforest as pf
image = np.random.default_rng(0).integers(0, 255, (70, 45, 3), np.uint8)
detail = pf.detail_map(image, cell=8)
forest = pf.build_forest(detail, cell=8, shape=(70, 45), budget=24)
sequence = pf.gather(image, forest, patch=8)
raster = pf.paint(sequence.patches, forest)
again = pf.decode_forest(pf.encode_forest(forest))
print(len(forest) <= 24, raster.shape, len(again) == len(forest), sequence.patches.shape[1:])
"""
    assert python(code) == "True (3, 70, 45) True (3, 8, 8)"


def test_no_command_line_import_of_torch() -> None:
    if not exists("patchforest.cli.main"):
        pytest.skip("there is no command line yet")
    assert python("import patchforest.cli.main, sys; print('torch' in sys.modules)") == "False"


def test_help_is_quick_and_needs_no_torch() -> None:
    if not exists("patchforest.cli.main"):
        pytest.skip("there is no command line yet")
    code = """
import sys
sys.modules["torch"] = None
sys.argv = ["patchforest", "--help"]
from patchforest.cli.main import main
try:
    main()
except SystemExit as stop:
    assert stop.code in (0, None), stop.code
"""
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        text = python(code)
        seconds.append(time.perf_counter() - start)
    for verb in ("demo", "forest", "train", "predict", "evaluate", "doctor"):
        assert verb in text
    assert min(seconds) < 1.5  # with the interpreter's start and typer's


@pytest.mark.parametrize("name", patchforest.__all__)
def test_every_promised_name_resolves(name: str) -> None:
    home = patchforest._HOME.get(name, "patchforest")
    if not exists(home):
        pytest.skip(f"{home} does not exist yet")
    value = getattr(patchforest, name)
    assert value is not None
    if home != "patchforest":
        assert value.__module__ == home  # lives where the door says, not in a re-export


def test_promised_functions_of_the_issue_are_there() -> None:
    promised = "open_image detail_map build_forest gather paint encode_forest decode_forest label_ceiling load_model"
    assert set(promised.split()) <= set(patchforest.__all__)
    assert set(patchforest.__all__) <= set(dir(patchforest))


def test_type_checkers_see_the_same_names() -> None:
    """The names under TYPE_CHECKING are those that are imported on use."""
    text = (SOURCE / "patchforest" / "__init__.py").read_text(encoding="utf-8")
    for name, home in patchforest._HOME.items():
        assert f"from {home} import {name} as {name}" in text


def test_an_unknown_name_is_named() -> None:
    with pytest.raises(AttributeError, match=r"no attribute 'gathre'.*gather"):
        patchforest.gathre  # noqa: B018


def test_names_are_imported_once() -> None:
    assert patchforest.Forest is patchforest.Forest
    assert "Forest" in vars(patchforest)
