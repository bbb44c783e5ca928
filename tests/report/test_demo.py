"""The demonstration, very small: equal tokens, figures that are those of the run, parts kept."""

from dataclasses import replace
from pathlib import Path

import pytest

from patchforest.report import demo
from patchforest.report.demo import DemoSize, demo_configs, run_demo
from patchforest.train.evaluate import Evaluation

TINY = DemoSize(train=(2, 64), tests=((1, 64), (1, 96)), window=32, leaf=16, batch=1, width=16)


def test_the_twins_differ_in_their_forest_only() -> None:
    configs = demo_configs(0.5, DemoSize())
    adaptive, uniform = configs["adaptive"], configs["uniform"]
    assert replace(uniform, forest=adaptive.forest) == adaptive
    assert adaptive.forest is not None
    assert adaptive.forest.budget == 64
    assert uniform.forest is not None
    assert (adaptive.data.window // (uniform.forest.uniform or 0)) ** 2 == adaptive.forest.budget


def test_the_table_and_the_report_are_those_of_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Evaluation] = []

    def recording(*arguments: object, **options: object) -> Evaluation:
        seen.append(real(*arguments, **options))  # type: ignore[arg-type]
        return seen[-1]

    real = demo.evaluate
    monkeypatch.setattr(demo, "evaluate", recording)
    told: list[str] = []
    result = run_demo(tmp_path / "demo", minutes=0.002, size=TINY, tell=told.append, quiet=True)
    assert [(row.model, row.image) for row in result.rows] == [
        ("adaptive", "64²"),
        ("adaptive", "96²"),
        ("uniform", "64²"),
        ("uniform", "96²"),
    ]
    assert [row.dice for row in result.rows] == [evaluation.dice for evaluation in seen]
    for adaptive, uniform in zip(result.rows[:2], result.rows[2:]):
        assert 0 <= uniform.tokens - adaptive.tokens <= 3  # a budget is met to within one split
    page = result.report.read_text(encoding="utf-8")
    for row in result.rows:
        assert "".join(f"<td>{cell}</td>" for cell in row.cells()) in page
    assert len(told) == 4
    stamp = (tmp_path / "demo" / "adaptive" / "best" / "model.safetensors").stat().st_mtime_ns
    again = run_demo(tmp_path / "demo", minutes=0.002, size=TINY, tell=told.append, quiet=True)
    assert [row.dice for row in again.rows] == [row.dice for row in result.rows]
    assert (tmp_path / "demo" / "adaptive" / "best" / "model.safetensors").stat().st_mtime_ns == stamp
