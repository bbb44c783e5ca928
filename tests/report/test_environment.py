"""The environment: true versions, no crash where something is absent."""

import importlib.metadata

import pytest

from patchforest.report import environment


def test_versions_and_devices_are_those_of_this_process() -> None:
    import torch

    here = environment.describe_environment()
    assert here.versions["torch"] == torch.__version__
    assert here.devices[0] == "cpu"
    assert here.cores >= 1
    assert here.faults == ()
    assert torch.__version__ in here.line


def test_what_is_absent_is_named_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.metadata.version

    def version(name: str) -> str:
        if name in ("lightning", "tifffile"):
            raise importlib.metadata.PackageNotFoundError(name)
        return real(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    here = environment.describe_environment()
    assert not here.extras[0].complete
    assert here.faults == ("tifffile is not installed; run: pip install tifffile",)


def test_a_broken_torch_is_a_fault_not_a_crash(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str) -> None:
        raise OSError("libfoo.so:\n undefined symbol")

    monkeypatch.setattr(environment.importlib, "import_module", broken)
    here = environment.describe_environment()
    assert here.faults == ("torch is installed but does not import: libfoo.so: undefined symbol",)
    assert here.threads is None


def test_devices_are_chosen_or_refused() -> None:
    assert environment.choose_device("cpu", threads=1) == "cpu"
    for name in ("cuda:77", "no-such-device"):
        with pytest.raises(ValueError, match="there is cpu"):
            environment.choose_device(name)
