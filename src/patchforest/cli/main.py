"""The ``patchforest`` command: its verbs, each a thin file that parses and calls; --help imports nothing heavy."""

from __future__ import annotations

import sys
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from patchforest import __version__
from patchforest.cli import (
    bench,
    boundary,
    components,
    demo,
    doctor,
    evaluate,
    forest,
    predict,
    prepare,
    train,
    verify,
    view,
)
from patchforest.cli.terminal import Terminal

_ANYWHERE = ("--debug", "--quiet")  # accepted before and after the verb
_WARNINGS = 3  # of a kind
_PACKAGE = str(Path(__file__).resolve().parents[1])

app = typer.Typer(
    name="patchforest",
    help="Adaptive patches for transformers on very large images: forest, training, full-resolution masks.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
VERBS: dict[str, Callable[..., None]] = {
    "demo": demo.command,
    "forest": forest.command,
    "prepare": prepare.command,
    "verify": verify.command,
    "train": train.command,
    "predict": predict.command,
    "evaluate": evaluate.command,
    "components": components.command,
    "bench": bench.command,
    "view": view.command,
    "doctor": doctor.command,
}
for _name, _command in VERBS.items():
    app.command(_name)(_command)


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"patchforest {__version__}")
        raise typer.Exit()


@app.callback(invoke_without_command=True)
def _settings(
    context: typer.Context,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print errors and warnings only.")] = False,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    context.obj = Terminal(quiet=quiet, debug=debug)
    if context.invoked_subcommand is None:
        print(context.get_help())


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command line (default: the process's own) and returns its exit code; see ``boundary`` for the codes."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    given = _flags_first(given)
    terminal = Terminal(debug="--debug" in given[: len(_ANYWHERE)])
    _print_any_file_name()
    with warnings.catch_warnings():
        warnings.showwarning = _one_line_warnings(terminal)
        try:
            result: Any = app(given, prog_name="patchforest", standalone_mode=False)
        except BaseException as error:  # the boundary: everything ends in a line and a code
            code, line = boundary.explain(error)
            if terminal.debug and line:
                traceback.print_exception(error)
            if line:
                terminal.error(line)
            return code
    return result if isinstance(result, int) else boundary.OK


def _flags_first(arguments: list[str]) -> list[str]:
    """The same command line with --debug and --quiet, wherever they stood before a ``--``, moved to its front."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    flags = [flag for flag in _ANYWHERE if flag in arguments[:end]]
    return flags + [a for a in arguments[:end] if a not in _ANYWHERE] + arguments[end:]


def _print_any_file_name() -> None:
    """Let names with stray bytes, or letters the terminal lacks, be printed escaped instead of raising."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def _one_line_warnings(terminal: Terminal) -> Any:
    """A ``warnings.showwarning`` that prints ours in a line; those of other libraries only with --debug.

    Of warnings from one place in the code the first few are printed: an image of a thousand windows is warned of once.
    """
    told: Counter[tuple[str, int]] = Counter()

    def show(
        message: Warning | str, category: type[Warning], filename: str, lineno: int, file: Any = None, line: Any = None
    ) -> None:
        if filename.startswith(_PACKAGE):
            told[filename, lineno] += 1
            if told[filename, lineno] <= _WARNINGS or terminal.debug:
                terminal.warn(str(message))
            if told[filename, lineno] == _WARNINGS:
                terminal.warn("further warnings of this kind are not shown; --debug shows them")
        elif terminal.debug:
            terminal.warn(f"{filename}:{lineno}: {category.__name__}: {message}")

    return show
