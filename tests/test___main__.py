"""``python -m patchforest`` is the command, exit codes included."""

from __future__ import annotations

import subprocess
import sys

import pytest

from patchforest import __version__


@pytest.mark.parametrize(("arguments", "code", "said"), [(["--version"], 0, __version__), (["fly"], 2, "fly")])
def test_it_is_the_command(arguments: list[str], code: int, said: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "patchforest", *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == code
    assert said in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
