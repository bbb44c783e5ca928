"""The names in a run folder; what the recorder writes is tested with whole runs in test_fit."""

from __future__ import annotations

from pathlib import Path

from patchforest.train.recorder import RunFolder


def test_names_lie_in_the_run_folder() -> None:
    folder = RunFolder(Path("run"))
    names = (folder.config, folder.split, folder.best, folder.last, folder.checkpoints, folder.metrics, folder.done)
    assert len(set(names)) == 7
    assert all(p.parent == Path("run") for p in names)
