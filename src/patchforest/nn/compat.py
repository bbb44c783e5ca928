"""Foreign libraries, imported where they are needed, even beside a torchvision that does not fit the installed torch.

A torchvision built for another torch fails at import with ``operator torchvision::nms does not exist`` and takes timm,
torchmetrics and Lightning with it (pytorch/vision#9085). Declaring the operators' schemas first makes all of them work;
nothing of ours calls those operators.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from types import ModuleType

import torch

from patchforest.errors import InputError

_libraries: list[torch.library.Library] = []  # a fragment that is garbage-collected takes its operators with it


def require(name: str, *, user: str, extra: str) -> ModuleType:
    """The module of that name, whatever the torchvision beside it; InputError that names the extra where it is absent.

    ``user`` is what needs it, for the message.
    """
    package = name.partition(".")[0]
    if importlib.util.find_spec(package) is None:
        raise InputError(user, f"needs the package {package}", f"pip install 'patchforest[{extra}]'")
    if importlib.util.find_spec("torchvision") is not None:
        import_torchvision()
    return importlib.import_module(name)


def import_torchvision() -> None:
    """Import torchvision, declaring the operators of a build that does not match this torch."""
    try:
        importlib.import_module("torchvision")
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
        for name in [n for n in sys.modules if n.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        library = torch.library.Library("torchvision", "FRAGMENT")
        _libraries.append(library)
        for operator in ("nms", "qnms"):
            library.define(operator + "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        importlib.import_module("torchvision")
