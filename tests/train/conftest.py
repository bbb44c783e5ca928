"""The small data set and one finished run, made once."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from patchforest.train.fit import fit
from tests.train.runs import config, make_data


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of six small labelled images."""
    return make_data(tmp_path_factory.mktemp("discs") / "data")


@pytest.fixture(scope="session")
def finished(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run folder of 24 undisturbed steps."""
    before = torch.get_num_threads()
    run = fit(config(), data, tmp_path_factory.mktemp("runs") / "finished", quiet=True)
    torch.set_num_threads(before)
    return run
