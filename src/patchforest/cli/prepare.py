"""``patchforest prepare``: images to sequences of patches on disk, once, for every training run that follows."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from patchforest.cli import boundary
from patchforest.cli.options import InputMpp, Level, Mag, Mpp, Shard, scale_settings, shard_of
from patchforest.cli.terminal import Terminal

if TYPE_CHECKING:
    from patchforest.data.prepare import JobOptions, Summary

PREEMPTED = 75


def command(
    context: typer.Context,
    data: Annotated[Path, typer.Option(help="Folder, or CSV, of images and masks.", show_default=False)],
    out: Annotated[Path, typer.Option(help="Folder to write or go on with.", show_default=False)],
    recipe: Annotated[
        Path | None, typer.Option(help="YAML or JSON recipe, that of the training.", show_default=False)
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change a setting, as for train. Repeatable."),
    ] = None,
    level: Level = None,
    mpp: Mpp = None,
    mag: Mag = None,
    input_mpp: InputMpp = None,
    variants: Annotated[int, typer.Option(help="Items an image: one fixed forest, the others random.", min=1)] = 1,
    workers: Annotated[int | None, typer.Option(help="Processes [default: one a core].", min=1)] = None,
    shard: Shard = "1/1",
    cluster: Annotated[
        str | None, typer.Option(help="Dask scheduler, tcp://HOST:PORT, or local.", show_default=False)
    ] = None,
    max_failures: Annotated[
        str, typer.Option(help="Number, or share in percent, of images that may fail before the job stops.")
    ] = "10%",
    timeout: Annotated[float, typer.Option(help="Seconds for one image.", min=0.001)] = 600.0,
) -> None:
    """Cut images into patches once.

    Writes every image as a sequence of patches with its labels, checked by a checksum, on all cores. `train --data`
    reads the folder in place of the images. A bad image is reported and the rest goes on (exit code 4). Stopped at any
    moment, the same command goes on; `verify` reads every byte again.
    """
    seen_at = scale_settings(level, mpp, mag, input_mpp)
    options = _options(workers, shard, cluster, max_failures, timeout)
    from patchforest.train.config import load_config
    from patchforest.train.prepare import prepare_run
    from patchforest.train.progress import Progress
    from patchforest.train.stop import StopRequest

    terminal: Terminal = context.obj
    config = load_config(recipe, [*(settings or []), *seen_at, "train.max_steps=1"])  # how long to train shapes no item
    with Progress("prepare", quiet=terminal.quiet) as progress, StopRequest().listening() as stop:
        summary = prepare_run(
            config,
            data,
            out,
            variants=variants,
            options=options,
            stop=stop,
            tell=progress.line,
            progress=progress.update,
        )
    _finish(terminal, summary, out, stop.signal)


def _options(workers: int | None, shard: str, cluster: str | None, max_failures: str, timeout: float) -> JobOptions:
    part = shard_of(shard)
    count, percent = max_failures.removesuffix("%"), max_failures.endswith("%")
    if not count.isdecimal() or (percent and int(count) > 100):
        raise typer.BadParameter(f"--max-failures is a number, or a share such as 10%; got {max_failures!r}")
    from patchforest.data.prepare import JobOptions

    return JobOptions(
        workers=workers,
        part=part,
        cluster=cluster,
        max_failures=None if percent else int(count),
        max_share=int(count) / 100 if percent else 0.0,
        timeout=timeout,
    )


def _finish(terminal: Terminal, summary: Summary, out: Path, received: int | None) -> None:
    if summary.notes:
        name, note = next(iter(summary.notes.items()))
        terminal.warn(f"{len(summary.notes)} images, e.g. {name}: {note}")
    for reason in summary.failed.values():
        terminal.error(reason)
    kept = f", {len(summary.kept)} were there already" if summary.kept else ""
    failed = f", {len(summary.failed)} failed" if summary.failed else ""
    terminal.say(f"{len(summary.done)} images prepared in {out}{kept}{failed}; {summary.seconds:.1f} s")
    if summary.stopped:
        terminal.warn("stopped; the same command goes on from here")
        raise typer.Exit(boundary.INTERRUPTED if received == signal.SIGINT else PREEMPTED)
    if not summary.complete:
        terminal.say("other parts of the array are not finished yet; the last one to finish writes prepared.json")
    if summary.failed:
        raise typer.Exit(boundary.SOME_FAILED if summary.done or summary.kept else boundary.BAD_INPUT)
