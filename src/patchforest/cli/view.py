"""``patchforest view``: a folder that opens a slide of any size in a browser, with its layers to toggle."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from patchforest.cli.options import InputMpp, Level, Mag, Mpp, label_map_of, scale_of
from patchforest.cli.terminal import Terminal


def command(
    context: typer.Context,
    image: Annotated[Path, typer.Argument(help="Image or slide; or a folder of `view`, to serve.", show_default=False)],
    out: Annotated[Path | None, typer.Option(help="Folder to write.", show_default=False)] = None,
    prediction: Annotated[
        Path | None, typer.Option(help="Mask, or GeoJSON, of a prediction.", show_default=False)
    ] = None,
    truth: Annotated[Path | None, typer.Option(help="Mask, or GeoJSON, of the truth.", show_default=False)] = None,
    probability: Annotated[
        Path | None, typer.Option(help="Raster of foreground probabilities.", show_default=False)
    ] = None,
    classes: Annotated[
        str | None, typer.Option(metavar="NAME,NAME,...", help="Names by class number, background first.")
    ] = None,
    label_map: Annotated[
        list[str] | None, typer.Option(metavar="VALUE=CLASS", help="Of masks, e.g. 255=1. Repeatable.")
    ] = None,
    forest: Annotated[bool, typer.Option(help="Cut and show the forest.")] = True,
    budget: Annotated[int | None, typer.Option(help="Number of leaves [default: 4096].", min=1)] = None,
    uniform: Annotated[int | None, typer.Option(help="Side of all leaves in pixels: a plain grid.", min=1)] = None,
    cell: Annotated[int, typer.Option(help="Side of the smallest possible leaf in pixels.", min=1)] = 8,
    window: Annotated[
        tuple[float, float] | None,
        typer.Option(help="LOW HIGH: pixel values for black and white where the image is not 8-bit."),
    ] = None,
    level: Level = None,
    mpp: Mpp = None,
    mag: Mag = None,
    input_mpp: InputMpp = None,
    max_side: Annotated[
        int | None, typer.Option(help="Halve the image until no side is longer [default: full resolution].", min=16)
    ] = None,
    threads: Annotated[int | None, typer.Option(help="CPU threads [default: all].", min=1)] = None,
    serve: Annotated[bool, typer.Option("--serve", help="Serve it at 127.0.0.1 until Ctrl-C.")] = False,
    port: Annotated[int, typer.Option(help="Of --serve; 0: any that is free.", min=0, max=65535)] = 0,
) -> None:
    """Write a folder that shows a slide.

    Open its index.html by a double click: image, forest, prediction and truth at full resolution, without a server
    or a network. The folder can be copied anywhere; one that `view` wrote before is replaced.
    """
    if budget is not None and uniform is not None:
        raise typer.BadParameter("give one of --budget and --uniform", ctx=context)
    from patchforest.report.viewer import is_view

    terminal: Terminal = context.obj
    if is_view(image):
        if not serve or out is not None:
            raise typer.BadParameter("IMAGE is a folder of `view` already: open its index.html, or give --serve alone")
        _serve(terminal, image, port)
        return
    if out is None:
        raise typer.BadParameter("Missing option '--out'", ctx=context)
    scale = scale_of(level, mpp, mag, input_mpp)
    from patchforest.io.open import open_image
    from patchforest.io.scale import at_scale
    from patchforest.report.view_run import LayerFiles, view_image
    from patchforest.values import ForestPolicy

    names = [] if classes is None else [name.strip() for name in classes.split(",")]
    files = LayerFiles(prediction, truth, probability, names, label_map_of(label_map))
    policy = ForestPolicy(cell=cell, budget=None if uniform else budget or 4096, uniform=uniform)
    view = view_image(
        at_scale(open_image(image), scale, image),
        out,
        title=image.resolve().name,
        files=files,
        policy=policy if forest else None,
        window=window,
        max_side=max_side,
        threads=threads or os.cpu_count() or 1,
        tell=terminal.say,
    )
    terminal.say(f"{view.files:,} tiles, {view.bytes / 1e6:,.1f} MB; open {view.page}")
    if serve:
        _serve(terminal, out, port)


def _serve(terminal: Terminal, folder: Path, port: int) -> None:
    from patchforest.errors import InputError
    from patchforest.report.serve import ViewServer

    try:
        server = ViewServer(folder, port=port)
    except OSError as fault:
        raise InputError(
            f"port {port}", f"cannot be used ({fault.strerror or fault})", "choose another --port"
        ) from fault
    with server:
        terminal.say(f"serving {folder} at {server.url}, on this machine only; Ctrl-C ends it")
        with suppress(KeyboardInterrupt):
            server.serve_forever()
