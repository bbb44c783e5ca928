"""The documents are true: their examples run, their commands and options exist, and none is left out."""

from __future__ import annotations

import doctest
import re
from pathlib import Path

import numpy as np
import pytest
import typer
import yaml

REPO = Path(__file__).resolve().parents[1]
PAGES = [REPO / "README.md", REPO / "CONTRIBUTING.md", REPO / "CHANGELOG.md", *sorted((REPO / "docs").glob("*.md"))]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to run in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_journey_runs(folder: Path) -> None:
    pytest.importorskip("torch")
    text = (REPO / "docs" / "journey.md").read_text(encoding="utf-8")
    test = doctest.DocTestParser().get_doctest(text, {}, "journey.md", None, 0)
    assert len(test.examples) > 30
    report: list[str] = []
    result = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE).run(test, out=report.append)
    assert result.failed == 0, "".join(report)


def test_the_readme_runs(folder: Path) -> None:
    """Its opening example, as it stands, on an image and a model of the names it uses."""
    pytest.importorskip("torch")
    from patchforest.io.write import write_image
    from patchforest.models.build import build_model
    from patchforest.models.bundle import ModelSpec, save_model
    from patchforest.models.config import ModelConfig
    from patchforest.values import ForestPolicy

    write_image("slice.png", np.random.default_rng(0).integers(0, 256, (300, 210, 3), np.uint8))
    config = ModelConfig(name="shf", width=16, depth=1, heads=2, stem=())
    spec = ModelSpec(config, ForestPolicy(budget=64, window=128), ("background", "gland"), window=128)
    save_model("runs/glas", build_model(config), spec)

    blocks = re.findall(r"```python\n(.*?)```", (REPO / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == 1
    assert len([line for line in blocks[0].splitlines() if line.strip()]) <= 12
    names: dict[str, np.ndarray] = {}
    exec(compile(blocks[0], "README.md", "exec"), names)
    assert names["prediction"].mask.shape == (300, 210)  # type: ignore[attr-defined]
    assert names["again"].shape == (3, 300, 210)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_lead_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    headings = {
        re.sub(r"[^\w -]", "", h).strip().lower().replace(" ", "-") for h in re.findall(r"^#+ (.+)$", text, re.M)
    }
    for target in re.findall(r"\]\(([^)]+)\)", text):
        if target.startswith("#"):
            assert target[1:] in headings, target
        elif "://" not in target:
            assert (page.parent / target.split("#")[0]).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_named_files_and_targets_exist(page: Path) -> None:
    """Recipes, tests and make targets that a page names."""
    text = page.read_text(encoding="utf-8")
    for name in re.findall(r"\b(?:recipes|tests)/[\w./]+\.(?:yaml|py)", text):
        assert (REPO / name).is_file(), name
    targets = set(re.findall(r"^([a-z]+):", (REPO / "Makefile").read_text(encoding="utf-8"), re.M))
    for line in re.findall(r"`make ([a-z ]+)", text) + re.findall(r"^    make ([a-z ]+)", text, re.M):
        assert set(line.split()) <= targets, line


def commands() -> dict[str, set[str]]:
    """Verb → its options, as the program has them."""
    from patchforest.cli.main import app

    group = typer.main.get_command(app)
    return {
        name: {o for p in command.params for o in [*p.opts, *p.secondary_opts] if o.startswith("--")} - {"--help"}
        for name, command in group.commands.items()  # type: ignore[attr-defined]
    }


def test_every_option_is_documented_and_every_documented_option_exists() -> None:
    text = (REPO / "docs" / "cli.md").read_text(encoding="utf-8")
    parts = dict(re.findall(r"^## (\w+)\n(.*?)(?=^## |\Z)", text, re.M | re.DOTALL))
    known = commands()
    assert set(parts) == set(known)
    for verb, options in known.items():
        rows = "\n".join(line for line in parts[verb].splitlines() if line.startswith("|"))
        assert set(re.findall(r"--[a-z][a-z-]+", rows)) == options, verb


def test_command_lines_use_options_that_exist() -> None:
    known = commands()
    for page in PAGES:
        for verb, rest in re.findall(r"^    patchforest (\w+)(.*)$", page.read_text(encoding="utf-8"), re.M):
            assert verb in known, (page.name, verb)
            assert set(re.findall(r"--[a-z][a-z-]+", rest)) <= known[verb], (page.name, verb, rest)


def test_documented_settings_exist() -> None:
    from patchforest.train.config import config_dict, load_config

    settings = config_dict(load_config(None, ["train.max_minutes=1", "forest.budget=64"]))
    text = (REPO / "docs" / "cli.md").read_text(encoding="utf-8")
    rows = "\n".join(line for line in text.split("**Recipe.**")[1].split("## predict")[0].splitlines())
    keys = re.findall(r"`((?:data|forest|model|train|augment)\.[a-z_*]+)`", rows)
    assert len(keys) > 20
    for key in keys:
        room, name = key.split(".")
        assert name == "*" or name in settings[room], key


@pytest.mark.parametrize("recipe", sorted((REPO / "recipes").glob("*.yaml")), ids=lambda p: p.name)
def test_recipes_load(recipe: Path) -> None:
    """Every recipe is a valid configuration and says its command, expected time and score."""
    from patchforest.train.config import load_config

    load_config(recipe, [])
    text = recipe.read_text(encoding="utf-8")
    assert f"--recipe recipes/{recipe.name}" in text
    assert isinstance(yaml.safe_load(text), dict)


def test_no_machine_paths_and_no_hosts() -> None:
    """What CI and users read names no path of our machines and no registry."""
    files = [*PAGES, REPO / "Makefile", REPO / ".ci" / "run", REPO / "pyproject.toml", REPO / "constraints.txt"]
    results = [p for p in (REPO / "benchmarks" / "results").iterdir() if p.suffix in (".json", ".md", ".csv")]
    for path in files + results + [REPO / ".pre-commit-config.yaml"]:
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"(?<![\w.])/(work|root|home|tmp)/", text), path.name
        assert "index-url" not in text, path.name
        assert "https://" not in text, path.name
