"""Lightning, imported where it is needed, even beside a torchvision that does not fit the installed torch.

A torchvision built for another torch fails at import with ``operator torchvision::nms does not exist`` and takes
torchmetrics and Lightning with it (pytorch/vision#9085). Declaring the operators' schemas first makes all of them work;
nothing of ours calls those operators.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys

import torch

from patchforest.errors import InputError

_libraries: list[torch.library.Library] = []  # a fragment that is garbage-collected takes its operators with it


def require_lightning() -> None:
    """Make ``import lightning.pytorch`` work, or raise InputError that names the extra to install."""
    if importlib.util.find_spec("lightning") is None:
        raise InputError("training", "needs the package lightning", "pip install 'patchforest[train]'")
    if importlib.util.find_spec("torchvision") is not None:
        import_torchvision()
    importlib.import_module("lightning.pytorch")


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
