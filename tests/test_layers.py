"""Who may import whom. Every import in src/patchforest, also those inside functions, obeys the order of the rooms."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[1] / "src" / "patchforest"

BASE = {"values", "errors"}
MAY_IMPORT: dict[str, set[str]] = {
    "values": set(),
    "errors": set(),
    "tree": BASE,
    "io": BASE,
    "nn": BASE,
    "data": BASE | {"tree", "io"},
    "models": BASE | {"nn"},
    "infer": BASE | {"tree", "io", "nn", "models"},
    "train": BASE | {"tree", "io", "nn", "models", "data", "infer"},
    "report": BASE | {"tree", "io", "nn", "models", "data", "infer", "train"},
    "bench": BASE | {"tree", "io", "nn", "models", "data", "infer", "train", "report"},
    "cli": BASE | {"tree", "io", "nn", "models", "data", "infer", "train", "report", "bench"},
    "__main__": {"cli"},
}
"""Room → rooms on its left. A room may always import itself."""

EXCEPTIONS = {("models.bundle", "io.atomic")}
"""(module, module): a saved model is written by the one function that writes files."""

TORCH_FREE = {"values", "errors", "tree", "io", ""}
"""No torch (or anything that needs it) here, not even inside a function. "" is the package's own __init__."""

TORCH = {"torch", "lightning", "pytorch_lightning", "torchmetrics", "timm", "transformers", "monai", "torchvision"}

FRONT_DOOR_NAMES = {"__version__"}
"""What a room may take from the front door itself; everything else comes from the room where it lives."""


def modules(source: Path) -> dict[str, Path]:
    """Dotted name below the package → file; the package's own __init__ is ""."""
    found = {}
    for path in sorted(source.rglob("*.py")):
        parts = path.relative_to(source).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def _absolute(name: str, path: Path, node: ast.ImportFrom) -> str:
    """Full dotted name of the module that a (possibly relative) `from` names; "" where it leaves the package."""
    if not node.level:
        return node.module or ""
    package = ["patchforest", *filter(None, name.split("."))]
    package = package if path.name == "__init__.py" else package[:-1]
    if node.level > len(package):
        return ""
    return ".".join(package[: len(package) - (node.level - 1)] + ([node.module] if node.module else []))


def _type_checking(tree: ast.AST) -> set[ast.AST]:
    """Every node below an `if TYPE_CHECKING:`."""
    inside: set[ast.AST] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            for statement in node.body:
                inside.update(ast.walk(statement))
    return inside


def _in_functions(tree: ast.AST) -> set[ast.AST]:
    """Every node inside a function: what runs on use, not on import."""
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
    return {node for function in ast.walk(tree) if isinstance(function, kinds) for node in ast.walk(function)}


def imports(name: str, path: Path, known: set[str]) -> Iterator[tuple[int, str, bool]]:
    """(line, full dotted module or module.name, at module level and at run time) of every import in a file."""
    tree = ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
    late = _type_checking(tree) | _in_functions(tree)
    for node in ast.walk(tree):
        early = node not in late
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name, early
        elif isinstance(node, ast.ImportFrom):
            module = _absolute(name, path, node)
            for alias in node.names:
                whole = f"{module}.{alias.name}"
                is_module = whole.removeprefix("patchforest.") in known
                yield node.lineno, whole if is_module or module == "patchforest" else module, early
        elif isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in {"import_module", "__import__"}:
            for argument in node.args[:1]:
                if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
                    yield node.lineno, argument.value, early


def room_of(name: str) -> str:
    return name.split(".")[0]


def violations(source: Path) -> list[str]:
    """One line for every import that breaks the order, `file:line: what`."""
    known = modules(source)
    bad = []
    for name, path in known.items():
        room = room_of(name)
        if room not in MAY_IMPORT and room:
            bad.append(f"{path.name}: {name!r} is in no known room; give it a place in MAY_IMPORT")
            continue
        for line, target, early in imports(name, path, set(known)):
            where = f"{path.relative_to(source)}:{line}"
            top = target.split(".")[0]
            if top in TORCH and room in TORCH_FREE:
                bad.append(f"{where}: {room or 'the front door'} must not import {top}")
            if top != "patchforest":
                continue
            inner = target.removeprefix("patchforest").removeprefix(".")
            if room == "":
                if early:
                    bad.append(f"{where}: the front door imports {target} at once; it must wait until the name is used")
            elif room_of(inner) not in MAY_IMPORT:
                if inner not in FRONT_DOOR_NAMES and room != "cli":
                    bad.append(f"{where}: {room} reaches through the front door for {inner or 'patchforest'}")
            elif room_of(inner) != room and room_of(inner) not in MAY_IMPORT[room] and (name, inner) not in EXCEPTIONS:
                bad.append(f"{where}: {room} must not import {inner}")
    return bad


def import_cycle(source: Path) -> list[str]:
    """A cycle among the imports that run when a module is loaded, as a list of modules, or []."""
    known = modules(source)
    graph: dict[str, set[str]] = {}
    for name, path in known.items():
        early = {target for _, target, early in imports(name, path, set(known)) if early}
        inner = {target.removeprefix("patchforest").removeprefix(".") for target in early}
        graph[name] = {target for target in inner if target in known and target not in ("", name)}
    done: set[str] = set()

    def visit(name: str, trail: list[str]) -> list[str]:
        if name in trail:
            return [*trail[trail.index(name) :], name]
        if name in done:
            return []
        for target in sorted(graph[name]):
            if found := visit(target, [*trail, name]):
                return found
        done.add(name)
        return []

    for name in graph:
        if found := visit(name, []):
            return found
    return []


def test_imports_only_from_the_left() -> None:
    bad = violations(SOURCE)
    assert not bad, "\n" + "\n".join(bad)


def test_no_import_cycles() -> None:
    assert import_cycle(SOURCE) == []


def test_it_looks_at_the_real_package() -> None:
    """Guards against a test that passes because it found nothing to look at."""
    known = modules(SOURCE)
    assert {"", "values", "errors", "tree.forest", "tree.gather", "tree.paint"} <= set(known)
    seen = {t for n, p in known.items() for _, t, _ in imports(n, p, set(known))}
    assert "patchforest.values" in seen
    assert "numpy" in seen


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return root


GOOD = {
    "__init__.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from patchforest.tree.forest import f\n",
    "values.py": "import numpy\n",
    "errors.py": "",
    "tree/__init__.py": "",
    "tree/forest.py": "from patchforest.tree.order import g\nfrom ..values import Forest\n",
    "tree/order.py": "import numpy as np\n",
    "io/__init__.py": "",
    "io/atomic.py": "import os\n",
    "nn/__init__.py": "",
    "nn/raster.py": "import torch\nfrom patchforest.values import Forest\n",
    "models/__init__.py": "",
    "models/bundle.py": "from patchforest.io import atomic\nfrom patchforest.nn.raster import f\n",
    "report/page.py": "from patchforest import __version__\nfrom patchforest.tree import forest\n",
}


def test_a_good_package_passes(tmp_path: Path) -> None:
    assert violations(write(tmp_path, GOOD)) == []
    assert import_cycle(tmp_path) == []


@pytest.mark.parametrize(
    ("file", "text", "complaint"),
    [
        ("tree/bad.py", "from patchforest.io.open import open_image\n", "tree must not import io"),
        ("tree/bad.py", "def f():\n    import patchforest.nn.raster\n", "tree must not import nn.raster"),
        ("tree/bad.py", "def f():\n    import torch\n", "tree must not import torch"),
        ("io/bad.py", "from torch import nn\n", "io must not import torch"),
        ("io/bad.py", "import lightning.pytorch as pl\n", "io must not import lightning"),
        ("io/bad.py", "from ..tree.forest import build_forest\n", "io must not import tree.forest"),
        ("io/bad.py", "from .. import tree\n", "io must not import tree"),
        ("nn/bad.py", "from patchforest import tree\n", "nn must not import tree"),
        ("nn/bad.py", "import importlib\nimportlib.import_module('patchforest.io.open')\n", "nn must not import io"),
        ("data/bad.py", "from patchforest.nn import raster\n", "data must not import nn.raster"),
        ("models/bad.py", "from patchforest.io import atomic\n", "models must not import io.atomic"),
        ("models/bundle.py", "from patchforest.io.open import open_image\n", "models must not import io"),
        ("models/bad.py", "if True:\n    from patchforest.data import x\n", "models must not import data"),
        ("infer/bad.py", "from patchforest.data.layout import Case\n", "infer must not import data"),
        ("infer/bad.py", "import patchforest.train.fit\n", "infer must not import train"),
        ("train/bad.py", "from patchforest.report import html\n", "train must not import report"),
        ("report/bad.py", "from patchforest.cli.main import app\n", "report must not import cli"),
        ("tree/bad.py", "from patchforest import gather\n", "tree reaches through the front door for gather"),
        ("tree/bad.py", "import patchforest as pf\n", "tree reaches through the front door"),
        ("values.py", "from patchforest.tree.order import morton\n", "values must not import tree.order"),
        ("errors.py", "import torch\n", "errors must not import torch"),
        ("__init__.py", "from patchforest.tree.order import morton\n", "the front door imports patchforest.tree.order"),
        ("utils/misc.py", "x = 1\n", "in no known room"),
    ],
)
def test_a_bad_import_is_caught(tmp_path: Path, file: str, text: str, complaint: str) -> None:
    bad = violations(write(tmp_path, {**GOOD, file: text}))
    assert len(bad) == 1, bad
    assert complaint in bad[0]


def test_a_cycle_is_caught_and_a_late_import_is_none(tmp_path: Path) -> None:
    early = {"tree/order.py": "from patchforest.tree.forest import f\n"}
    assert sorted(set(import_cycle(write(tmp_path / "a", {**GOOD, **early})))) == ["tree.forest", "tree.order"]
    late = {"tree/order.py": "def g():\n    from patchforest.tree.forest import f\n"}
    assert import_cycle(write(tmp_path / "b", {**GOOD, **late})) == []
