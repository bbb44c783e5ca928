"""Foreign libraries load beside a torchvision that does not fit, and their absence names the extra."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

from patchforest.errors import InputError
from patchforest.nn import compat


def test_a_missing_library_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"the model: needs the package nowhere.*pip install 'patchforest\[odd\]'"):
        compat.require("nowhere.inside", user="the model", extra="odd")


def test_a_present_library_is_given_once_torchvision_is_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(compat, "import_torchvision", lambda: seen.append("torchvision"))
    assert compat.require("json", user="the model", extra="odd") is json
    assert seen == ["torchvision"]


def test_a_torchvision_for_another_torch_is_made_to_import(tmp_path: Path) -> None:
    package = tmp_path / "torchvision"
    package.mkdir()
    lines = ("import torch", "@torch.library.register_fake('torchvision::nms')", "def f(d, s, t): return d", "ok = 1")
    (package / "__init__.py").write_text("\n".join(lines))
    code = (
        "from patchforest.nn.compat import import_torchvision\n"
        "try:\n    import torchvision\n    raise SystemExit('the stand-in is not broken')\n"
        "except RuntimeError as error:\n    assert 'torchvision::nms' in str(error), error\n"
        "import_torchvision()\nimport torchvision\nassert torchvision.ok == 1\n"
    )
    source = str(Path(compat.__file__).parents[2])
    path = {"PYTHONPATH": f"{tmp_path}:{source}", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", code], env=path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-800:]
