"""``patchforest predict``: full-resolution masks and colour overlays for image files and folders."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from patchforest.cli import boundary
from patchforest.cli.terminal import Terminal

if TYPE_CHECKING:
    from patchforest.infer.folder import Summary

Format = Literal["png", "tiff"]
Precision = Literal["fp32", "bf16", "fp16"]


def command(
    context: typer.Context,
    run: Annotated[Path, typer.Argument(help="Run folder of `train`, or model folder.", show_default=False)],
    inputs: Annotated[list[Path], typer.Argument(help="Images, or folders of images.", show_default=False)],
    out: Annotated[Path, typer.Option(help="Folder to write masks and overlays to.", show_default=False)],
    format: Annotated[Format, typer.Option(help="Of the masks.")] = "png",
    window: Annotated[
        str, typer.Option(help="auto, whole, or the side in pixels of the windows an image is seen in.")
    ] = "auto",
    trees: Annotated[int, typer.Option(help="Average over so many forests.", min=1)] = 1,
    flips: Annotated[bool, typer.Option("--flips", help="Average over the four mirror images.")] = False,
    precision: Annotated[Precision, typer.Option(help="Of the computation.")] = "fp32",
    overlays: Annotated[bool, typer.Option(help="Also draw the masks over the images.")] = True,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Do finished images again.")] = False,
    threads: Annotated[int | None, typer.Option(help="CPU threads [default: all].", min=1)] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...")] = "auto",
) -> None:
    """Segment images with a trained model.

    Writes a mask of exactly each image's size, and a colour overlay of it. A bad image is reported and the rest goes
    on (exit code 4); what is already done is skipped.
    """
    size = window_size(window)
    from functools import partial

    from patchforest.infer.folder import predict_many
    from patchforest.models.bundle import load_model
    from patchforest.report.environment import choose_device
    from patchforest.report.overlay import draw_overlay

    terminal: Terminal = context.obj
    bundle = load_model(run, choose_device(device, threads=threads))
    summary = predict_many(
        bundle,
        inputs,
        out,
        suffix=".png" if format == "png" else ".tif",
        draw=partial(draw_overlay, window=bundle.spec.intensity_window) if overlays else None,
        overwrite=overwrite,
        tell=terminal.say,
        window=size,
        trees=trees,
        flips=flips,
        precision=precision,
    )
    _finish(terminal, summary, out)


def window_size(text: str) -> str | int:
    """``auto``, ``whole`` or a side in pixels, as ``infer.predict`` takes it; anything else is wrong usage."""
    if text in ("auto", "whole"):
        return text
    if text.isdecimal() and int(text) > 0:
        return int(text)
    raise typer.BadParameter(f"--window is auto, whole or a number of pixels; got {text!r}")


def _finish(terminal: Terminal, summary: Summary, out: Path) -> None:
    for reason in summary.failed.values():
        terminal.error(reason)
    skipped = f", {len(summary.skipped)} were there already" if summary.skipped else ""
    failed = f", {len(summary.failed)} failed" if summary.failed else ""
    terminal.say(f"{len(summary.done)} masks written to {out}{skipped}{failed}; {summary.seconds:.1f} s")
    if summary.failed:
        raise typer.Exit(boundary.SOME_FAILED if summary.done or summary.skipped else boundary.BAD_INPUT)
