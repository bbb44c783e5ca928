"""``patchforest verify``: every byte of a prepared folder read again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from patchforest.cli import boundary
from patchforest.cli.terminal import Terminal


def command(
    context: typer.Context,
    prepared: Annotated[Path, typer.Argument(help="Folder that `prepare` wrote.", show_default=False)],
    inputs: Annotated[
        Path | None,
        typer.Option(help="Folder, or CSV, it was made from: also say which inputs changed.", show_default=False),
    ] = None,
) -> None:
    """Read every byte of prepared items again.

    Names every damaged or missing file, and with --inputs every image and mask that changed since (exit code 3).
    """
    from patchforest.data.layout import find_cases
    from patchforest.data.manifest import read_manifest, verify_prepared

    terminal: Terminal = context.obj
    cases = None
    if inputs is not None:
        cases = [c for c in find_cases(inputs).cases if c.split != "test"]
    faults = verify_prepared(prepared, cases)
    for fault in faults:
        terminal.error(str(fault))
    if faults:
        raise typer.Exit(boundary.BAD_INPUT)
    found = read_manifest(prepared)
    failed = [c for c in found.cases if c.failed is not None]
    listed = f"; {len(failed)} images had failed, e.g. {failed[0].failed}" if failed else ""
    terminal.say(f"{prepared}: {len(found.cases) - len(failed)} images, {found.variants} items each, all whole{listed}")
