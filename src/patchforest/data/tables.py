"""Small text files of a data set, read strictly: CSV tables, JSON and YAML descriptions; and lists for messages."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import yaml

from patchforest.errors import InputError


def some(names: Iterable[object], most: int = 5) -> str:
    """The first few names and how many more there are, for messages."""
    items = [str(n) for n in names]
    return ", ".join(items[:most]) + (f" and {len(items) - most} more" if len(items) > most else "")


def read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as fault:
        reason = fault.strerror if isinstance(fault, OSError) else "not UTF-8 text"
        raise InputError(path, f"cannot be read ({reason})", "give a UTF-8 text file") from fault


def read_csv(path: Path) -> list[dict[str, str]]:
    """Rows as {lower-case column: stripped text}; every column in every row."""
    lines = read_text(path).splitlines()
    try:
        table = [[cell.strip() for cell in row] for row in csv.reader(lines, strict=True) if any(row)]
    except csv.Error as fault:
        raise InputError(path, f"is no CSV ({fault})", "separate the columns by commas") from fault
    header = [name.lower() for name in table[0]] if table else []
    return [dict(zip(header, row + [""] * (len(header) - len(row)))) for row in table[1:]]


def read_json(path: Path) -> dict[str, Any]:
    return parse_fields(path, json.loads, "JSON")


def parse_fields(path: Path, parse: Callable[[str], Any], kind: str) -> dict[str, Any]:
    text = read_text(path)
    try:
        value = parse(text)
    except (ValueError, yaml.YAMLError, RecursionError) as fault:
        raise InputError(path, f"is no valid {kind} ({str(fault)[:80]})", "correct it") from fault
    if not isinstance(value, dict):
        raise InputError(path, f"holds a {type(value).__name__}, not named fields", "see the documentation of layouts")
    return value
