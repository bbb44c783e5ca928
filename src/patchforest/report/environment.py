"""On what a number was measured: versions, processor, memory, devices, and which install extras are there."""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass

from patchforest import __version__

CORE = (
    "torch",
    "numba",
    "numpy",
    "opencv-python-headless",
    "pillow",
    "tifffile",
    "safetensors",
    "pydantic",
    "PyYAML",
    "typer",
    "rich",
)
EXTRAS = {
    "train": (("lightning", "tensorboard"), "patchforest train, patchforest demo"),
    "backbones": (("timm", "transformers", "torchvision"), "transformers of timm and Hugging Face as backbones"),
    "medical": (("monai", "einops"), "Swin UNETR, MONAI's ViT as a backbone"),
    "cluster": (("dask", "distributed"), "patchforest prepare --cluster"),
    "volumes": (("nibabel", "pydicom", "pynrrd"), "NIfTI and NRRD volumes, DICOM series"),
    "wsi": (("openslide-python", "openslide-bin", "zarr"), "slides of every scanner, DICOM slides, Zarr and OME-Zarr"),
}
"""Extra → (distributions it brings, what it unlocks)."""


@dataclass(frozen=True)
class Extra:
    """One install extra: the version of each of its distributions, None where absent, and what the whole unlocks."""

    name: str
    versions: dict[str, str | None]
    unlocks: str

    @property
    def complete(self) -> bool:
        """Whether everything it unlocks can be used."""
        return None not in self.versions.values()


@dataclass(frozen=True)
class Environment:
    """Where we run.

    Attributes
    ----------
    versions : of patchforest, Python and the core dependencies; None where absent.
    processor, cores, threads : its name, the cores this process may use, and the threads PyTorch uses.
    memory_gib : of the machine, or None where the system does not say.
    devices : ``cpu`` and the accelerators PyTorch sees, by name.
    faults : what is installed but broken, one line each.
    """

    versions: dict[str, str | None]
    platform: str
    processor: str
    cores: int
    threads: int | None
    memory_gib: float | None
    devices: tuple[str, ...]
    extras: tuple[Extra, ...]
    faults: tuple[str, ...]

    @property
    def line(self) -> str:
        """Hardware and the versions that matter for timing, in a line for reports and result notes."""
        torch = self.versions.get("torch")
        return (
            f"{self.processor}, {self.cores} cores, {', '.join(self.devices)}; Python {self.versions['python']}, "
            f"torch {torch}, patchforest {self.versions['patchforest']}"
        )


def describe_environment() -> Environment:
    """Looks at this machine and this Python; imports torch, and never fails because something is absent or broken."""
    versions: dict[str, str | None] = {"patchforest": __version__, "python": platform.python_version()}
    versions.update(_versions(CORE))
    faults = [f"{name} is not installed; run: pip install {name}" for name, v in versions.items() if v is None]
    threads: int | None = None
    devices: tuple[str, ...] = ("cpu",)
    try:
        torch = importlib.import_module("torch")
    except (ImportError, OSError) as error:  # OSError: a shared library of another build
        if versions["torch"] is not None:
            faults.append(f"torch is installed but does not import: {' '.join(str(error).split())}")
    else:
        threads, devices = torch.get_num_threads(), _devices(torch)
    extras = tuple(Extra(name, _versions(parts), what) for name, (parts, what) in EXTRAS.items())
    return Environment(
        versions=versions,
        platform=platform.platform(),
        processor=_processor(),
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        threads=threads,
        memory_gib=_memory_gib(),
        devices=devices,
        extras=extras,
        faults=tuple(faults),
    )


def choose_device(name: str = "auto", *, threads: int | None = None) -> str:
    """The PyTorch device of a name (``auto``: a GPU if there is one), after setting the number of CPU threads.

    Raises
    ------
    ValueError : no such device here.
    """
    import torch

    if threads is not None:
        torch.set_num_threads(threads)
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError):  # unknown name, or a device that this build or machine lacks
        here = ", ".join(_devices(torch))
        raise ValueError(f"there is no device {name!r} here; there is {here}") from None
    return name


def _versions(distributions: Sequence[str]) -> dict[str, str | None]:
    found: dict[str, str | None] = {}
    for name in distributions:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = None
    if found.get("opencv-python-headless", "") is None:  # the variant with windows serves as well
        found["opencv-python-headless"] = _versions(["opencv-python"])["opencv-python"]
    return found


def _devices(torch: object) -> tuple[str, ...]:
    names = ["cpu"]
    cuda = torch.cuda  # type: ignore[attr-defined]
    if cuda.is_available():
        for index in range(cuda.device_count()):
            gib = cuda.get_device_properties(index).total_memory / 2**30
            names.append(f"cuda:{index} {cuda.get_device_name(index)} ({gib:.0f} GiB)")
    if torch.backends.mps.is_available():  # type: ignore[attr-defined]
        names.append("mps")
    return tuple(names)


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            names = [line.split(":", 1)[1].strip() for line in file if line.startswith("model name")]
    except OSError:
        names = []
    return names[0] if names else platform.processor() or platform.machine()


def _memory_gib() -> float | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    except (ValueError, OSError, AttributeError):
        return None
