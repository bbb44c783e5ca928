"""``doctor``: versions and extras, and a fault where something needed is absent."""

import importlib.metadata

import pytest

from tests.cli.conftest import Run


def test_versions_devices_and_extras_are_listed(run: Run) -> None:
    import torch

    ended = run("doctor")
    assert ended.code == 0
    for word in (torch.__version__, "devices:  cpu", "train", "unlocks", "patchforest train"):
        assert word in ended.out


def test_an_absent_dependency_is_a_fault(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.metadata.version

    def version(name: str) -> str:
        if name == "tifffile":
            raise importlib.metadata.PackageNotFoundError(name)
        return real(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    ended = run("doctor")
    assert ended.code == 3
    assert "pip install tifffile" in ended.errors[0]
