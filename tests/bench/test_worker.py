"""A worker does the work of its kind, says it in one line, and does not outlive the bench that started it."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from patchforest.bench import kinds, worker
from patchforest.bench.contender import Contender


def test_the_last_line_is_the_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def work(contender: Contender, folder: Path) -> dict[str, Any]:
        print("chatter")
        return {"name": contender.name, "folder": folder.name, "there": folder.is_dir()}

    monkeypatch.setattr(kinds, "work_of", {"toy": work}.get)
    monkeypatch.setattr(sys, "stdin", io.StringIO(Contender("toy", "set", "a").to_json()))
    monkeypatch.setattr(sys, "argv", ["worker", str(tmp_path / "new" / "folder"), str(os.getppid())])
    monkeypatch.setattr(worker, "end_with", lambda parent: None)
    worker.main()
    said = capsys.readouterr().out.splitlines()
    assert json.loads(said[-1]) == {"name": "a", "folder": "folder", "there": True}


def test_it_ends_with_its_parent(tmp_path: Path) -> None:
    child = "import sys; from patchforest.bench.worker import end_with; end_with(int(sys.argv[1]))"
    parent = (
        f"import os, subprocess, sys; print(subprocess.Popen([sys.executable, '-c', {child!r}, str(os.getpid())]).pid)"
    )
    with open(tmp_path / "pid", "w") as file:
        subprocess.run([sys.executable, "-c", parent], stdout=file, check=True)
    pid, deadline = int((tmp_path / "pid").read_text()), time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return
        time.sleep(0.05)
    os.kill(pid, 9)
    pytest.fail("it outlived its parent")
