"""Progress as plain lines; the terminal's bar only has to start and stop."""

from __future__ import annotations

import sys

import pytest

from patchforest.train.progress import Progress


def test_log_gets_a_line_every_twentieth(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress("run") as progress:
        for step in range(201):
            progress.update(step / 200, f"step {step}")
        progress.line("50 % [not markup]")
    lines = capsys.readouterr().err.splitlines()
    assert 20 <= len(lines) <= 23
    assert lines[0].endswith("run:   0 % step 0")
    assert lines[-2].endswith("100 % step 200")
    assert lines[-1].endswith("50 % [not markup]")


def test_quiet_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress("run", quiet=True) as progress:
        progress.update(0.5, "x")
        progress.line("y")
    assert capsys.readouterr() == ("", "")


def test_bar_on_a_terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with Progress("run") as progress:
        progress.update(0.5, "loss 1")
        progress.line("a line [stays]")
    assert "a line [stays]" in capsys.readouterr().err
