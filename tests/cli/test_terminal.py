"""What is printed: one line an error, nothing when quiet, tables that survive a pipe and any text."""

import pytest

from patchforest.cli.terminal import Terminal


def test_errors_are_one_line_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    Terminal(quiet=True).error("a:\n b")
    out, err = capsys.readouterr()
    assert (out, err) == ("", "error: a: b\n")


def test_quiet_drops_lines_and_tables(capsys: pytest.CaptureFixture[str]) -> None:
    quiet = Terminal(quiet=True)
    quiet.say("x")
    quiet.table(["a"], [["b"]])
    assert capsys.readouterr().out == ""


def test_tables_keep_long_cells_and_take_brackets_as_text(capsys: pytest.CaptureFixture[str]) -> None:
    long = "case_" + "0123456789" * 12
    Terminal().table(["case", "[red]Dice"], [[long, "[/nothing] 0.5"]])
    out = capsys.readouterr().out
    assert long in out
    assert "[red]Dice" in out
    assert "[/nothing] 0.5" in out
