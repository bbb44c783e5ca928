"""``demo``: passes its options on and prints the rows it gets."""

from pathlib import Path

import pytest

from patchforest.report.demo import MINUTES, DemoResult, DemoRow
from tests.cli.conftest import Run


def test_what_the_run_gave_is_printed(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, object] = {}

    def run_demo(out: Path, **options: object) -> DemoResult:
        asked.update(options, out=out)
        row = DemoRow("uniform", "1024²", 4096.0, 1.234, 0.56789, None)
        return DemoResult((row,), out / "report.html")

    monkeypatch.setattr("patchforest.report.demo.run_demo", run_demo)
    ended = run("demo", "--out", tmp_path / "d", "--minutes", 0.25)
    assert ended.code == 0
    assert asked["minutes"] == 0.25
    assert asked["out"] == tmp_path / "d"
    for cell in ("uniform", "1024²", "4,096", "1.23", "0.5679", "–", "label ceiling", "report.html"):
        assert cell in ended.out
    run("demo", "--out", tmp_path / "d")
    assert asked["minutes"] == MINUTES


def test_a_folder_of_something_else_is_refused(run: Run, tmp_path: Path) -> None:
    (tmp_path / "data" / "train" / "images").mkdir(parents=True)
    (tmp_path / "data" / "train" / "images" / "mine.png").write_bytes(b"x")
    ended = run("demo", "--out", tmp_path, "--minutes", 0.01)
    assert ended.code == 3
    assert "mine.png" in ended.errors[0]
    assert len(ended.errors) == 1
