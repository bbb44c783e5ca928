"""Names of the classes of a data set, as its own description tells them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from patchforest.data.tables import parse_fields, read_json, read_text
from patchforest.errors import InputError


def read_classes(root: Path) -> tuple[str, ...] | None:
    """Class names of a data set, background first, or None; InputError where they are no plain list of names."""
    if (root / "dataset.json").is_file():
        description = read_json(root / "dataset.json")
        if "classes" in description:
            return _names(root / "dataset.json", description["classes"])
        if "labels" in description:
            return _nnunet_classes(root / "dataset.json", description["labels"])
    if (root / "dataset.yaml").is_file():
        description = parse_fields(root / "dataset.yaml", yaml.safe_load, "YAML")
        if "classes" in description:
            return _names(root / "dataset.yaml", description["classes"])
    if (root / "classes.txt").is_file():
        lines = [line.strip() for line in read_text(root / "classes.txt").splitlines()]
        return _names(root / "classes.txt", [line for line in lines if line])
    return None


def _names(path: Path, value: Any) -> tuple[str, ...]:
    good = isinstance(value, list) and len(value) > 1 and all(isinstance(v, str) and v for v in value)
    if not good or len(set(value)) != len(value):
        raise InputError(path, "has classes that are no list of different names", "list them, background first")
    return tuple(value)


def _nnunet_classes(path: Path, labels: Any) -> tuple[str, ...]:
    """Names in order of their numbers. Regions (several numbers a name) and nnU-Net's ignore label are refused."""
    if not isinstance(labels, dict) or not all(type(v) is int for v in labels.values()):
        raise InputError(path, "has labels that are not one number a name", 'write {"background": 0, "vessel": 1}')
    if "ignore" in labels:
        raise InputError(path, "has an ignore label, which we cannot read yet", "map its pixels to a class")
    if sorted(labels.values()) != list(range(len(labels))) or len(labels) < 2:
        raise InputError(path, f"numbers its labels {sorted(labels.values())}", "number them 0, 1, 2, ...")
    return tuple(sorted(labels, key=labels.__getitem__))
