"""``patchforest demo``: the whole road on generated data, in about three minutes on two cores."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from patchforest.cli.terminal import Terminal


def command(
    context: typer.Context,
    out: Annotated[Path, typer.Option(help="Folder for data, models and report.")] = Path("patchforest-demo"),
    minutes: Annotated[float, typer.Option(help="Training time of each of the two models.", min=0.001)] = 0.75,
) -> None:
    """Train and compare two models.

    Simulates X-ray slices of road cores, trains a model on adaptive patches and its twin on a uniform grid with as
    many tokens for as long, segments unseen slices, and writes report.html. It shows what came out.
    """
    from patchforest.report.demo import HEADER, run_demo

    terminal: Terminal = context.obj
    result = run_demo(out, minutes=minutes, tell=terminal.say, quiet=terminal.quiet)
    terminal.table(HEADER, [row.cells() for row in result.rows], title="Means over the unseen slices of this run")
    terminal.say(f"report: {result.report}")
