"""The front of the command line: quick, lazy, one line an error, flags anywhere."""

import subprocess
import sys
import warnings

import pytest

import patchforest
from patchforest.cli import main as front
from tests.cli.conftest import Run

HEAVY = ["torch", "lightning", "numpy", "cv2", "matplotlib", "tifffile", "PIL", "tensorboard"]


def _python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("arguments", [["--help"], ["train", "--help"], ["--version"], ["forest"]])
def test_help_and_usage_import_nothing_heavy(arguments: list[str]) -> None:
    code = f"import sys; from patchforest.cli.main import main; main({arguments}); print(*sys.modules, file=sys.stderr)"
    done = _python(code)
    assert done.returncode == 0, done.stderr
    assert not set(HEAVY) & set(done.stderr.split())
    assert "patchforest" in done.stdout + done.stderr


def test_importing_the_package_needs_no_torch() -> None:
    done = _python("import patchforest, sys; dir(patchforest); print(*sys.modules)")
    assert not {"torch", "cv2", "numpy", *HEAVY} & set(done.stdout.split())


def test_a_recipe_is_resolved_without_torch() -> None:
    arguments = ["train", "--print-config", "--set", "train.max_steps=1", "--set", "forest.budget=9"]
    run = f"from patchforest.cli.main import main; main({arguments})"
    code = f"import sys; {run}; print('torch' in sys.modules, file=sys.stderr)"
    done = _python(code)
    assert "max_steps: 1" in done.stdout
    assert done.stderr.strip() == "False"


def test_no_arguments_and_help_list_every_verb(run: Run) -> None:
    for arguments in ([], ["--help"], ["-h"]):
        ended = run(*arguments)
        assert ended.code == 0
        for verb in ("demo", "forest", "train", "predict", "evaluate", "doctor"):
            assert f"\n  {verb} " in ended.out


def test_version(run: Run) -> None:
    assert run("--version").out == f"patchforest {patchforest.__version__}\n"


@pytest.mark.parametrize(
    "arguments", [["forrest"], ["forest"], ["--nope"], ["forest", "x.png", "--budget", "many"], ["forest", "-x.png"]]
)
def test_wrong_usage_ends_in_one_line_and_2(run: Run, arguments: list[str]) -> None:
    ended = run(*arguments)
    assert ended.code == 2
    assert len(ended.err.splitlines()) == len(ended.errors) == 1
    assert "--help`" in ended.err


def test_debug_shows_the_traceback_wherever_it_stands(run: Run) -> None:
    for arguments in (["--debug", "forest", "nope.png"], ["forest", "nope.png", "--debug"]):
        ended = run(*arguments)
        assert ended.code == 3
        assert "Traceback" in ended.err
        assert len(ended.errors) == 1


def test_flags_behind_a_double_dash_are_file_names(run: Run) -> None:
    ended = run("forest", "--", "--debug")
    assert ended.code == 3
    assert "--debug: " in ended.errors[0]


def test_a_bug_is_called_one(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise KeyError("x")

    monkeypatch.setattr("patchforest.report.environment.describe_environment", broken)
    ended = run("doctor")
    assert ended.code == 1
    assert "bug in patchforest: KeyError" in ended.errors[0]


def test_an_interrupt_is_130(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("patchforest.report.environment.describe_environment", interrupted)
    assert run("doctor").code == 130


def test_our_warnings_are_one_line_and_others_stay_away(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def warning() -> None:
        warnings.warn_explicit("low\ndetail", UserWarning, front.__file__, 1)
        warnings.warn_explicit("chatter", UserWarning, "/elsewhere/library.py", 1)
        raise SystemExit

    monkeypatch.setattr("patchforest.report.environment.describe_environment", warning)
    warnings.simplefilter("always")
    ended = run("doctor")
    assert ended.err == "warning: low detail\n"
    assert ended.code == 0
