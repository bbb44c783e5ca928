"""``patchforest train``: one recipe, one data folder, one run folder; the same command resumes it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from patchforest.cli.options import InputMpp, Level, Mag, Mpp, scale_settings
from patchforest.cli.terminal import Terminal


def command(
    context: typer.Context,
    recipe: Annotated[
        Path | None,
        typer.Option(
            help="YAML or JSON recipe [default: built-in settings, for so long as --set train.max_minutes=15 says].",
            show_default=False,
        ),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(help="Folder, or CSV, of images and masks; or a folder of `prepare`.", show_default=False),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Run folder to write or resume.", show_default=False)] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change a setting, e.g. --set train.lr=1e-3. Repeatable."),
    ] = None,
    level: Level = None,
    mpp: Mpp = None,
    mag: Mag = None,
    input_mpp: InputMpp = None,
    resume: Annotated[bool, typer.Option(help="Go on from the last checkpoint in the run folder.")] = True,
    report: Annotated[bool, typer.Option(help="Write report.html into the run folder at the end.")] = True,
    print_config: Annotated[
        bool, typer.Option("--print-config", help="Print the resolved settings as YAML and stop.")
    ] = False,
) -> None:
    """Train a model.

    The run folder gets the resolved config.yaml, the best and the last model, metrics.csv, TensorBoard logs and
    report.html. Stopped at any moment, the same command goes on from the last checkpoint.
    """
    import yaml

    from patchforest.train.config import config_dict, load_config

    config = load_config(recipe, [*(settings or []), *scale_settings(level, mpp, mag, input_mpp)])
    if print_config:
        print(yaml.safe_dump(config_dict(config), sort_keys=False, allow_unicode=True), end="")
        return
    if data is None or out is None:
        raise typer.BadParameter(f"Missing option {'--data' if data is None else '--out'!r}", ctx=context)
    from patchforest.train.fit import fit

    terminal: Terminal = context.obj
    run = fit(config, data, out, resume=resume, quiet=terminal.quiet)
    terminal.say(f"trained: {run}")
    from patchforest.data.manifest import is_prepared

    if report and is_prepared(data):
        terminal.say(
            f"no report.html: its pictures need the images; see them by `patchforest evaluate {run} --data IMAGES "
            "--split validation --out SCORES`"
        )
    elif report:
        from patchforest.report.run_report import report_run

        terminal.say(f"report: {report_run(run, data)}")
