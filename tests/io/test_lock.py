"""One holder at a time; locks die with their holder and leave no file."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from patchforest.errors import InputError
from patchforest.io.lock import is_held, locked


def test_one_at_a_time(tmp_path: Path) -> None:
    path, inside, most = tmp_path / ".lock", 0, []

    def work() -> None:
        nonlocal inside
        with locked(path, wait=True):
            inside += 1
            most.append(inside)
            time.sleep(0.01)
            inside -= 1

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] * 8
    assert not path.exists()


def test_who_does_not_wait_is_told(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    assert not is_held(path)
    with locked(path, wait=False):
        assert is_held(path)
        with pytest.raises(InputError, match="another process is at this very job"), locked(path, wait=False):
            pass
    assert not is_held(path)
    with locked(path, wait=False):
        pass


def test_a_killed_holder_holds_nothing(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    code = (
        "import sys, time; from pathlib import Path; from patchforest.io.lock import locked\n"
        "with locked(Path(sys.argv[1]), wait=False):\n    print('held', flush=True); time.sleep(60)"
    )
    holder = subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    assert is_held(path)
    os.kill(holder.pid, signal.SIGKILL)
    holder.communicate()
    assert path.exists()
    assert not is_held(path)
    with locked(path, wait=False):
        pass
    assert not path.exists()
