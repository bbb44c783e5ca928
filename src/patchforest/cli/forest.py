"""``patchforest forest``: draw the forest over an image and say what it costs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from patchforest.cli.options import InputMpp, Level, Mag, Mpp, scale_of
from patchforest.cli.terminal import Terminal

if TYPE_CHECKING:
    from patchforest.report.forest_run import ForestRun


def command(
    context: typer.Context,
    image: Annotated[Path, typer.Argument(help="PNG, JPEG or TIFF image.", show_default=False)],
    budget: Annotated[int | None, typer.Option(help="Number of leaves [default: 1024].", min=1)] = None,
    threshold: Annotated[float | None, typer.Option(help="Split where a node has more detail than this.")] = None,
    uniform: Annotated[int | None, typer.Option(help="Side of all leaves in pixels: a plain grid.", min=1)] = None,
    cell: Annotated[int, typer.Option(help="Side of the smallest possible leaf in pixels.", min=1)] = 8,
    root: Annotated[int | None, typer.Option(help="Side of a root in pixels [default: largest that fits].")] = None,
    max_depth: Annotated[int | None, typer.Option(help="Most splits below a root.", min=0)] = None,
    criterion: Annotated[
        str, typer.Option(help="edges, canny, gradient, variance, random or uniform.", show_default=True)
    ] = "edges",
    scorer: Annotated[
        Path | None, typer.Option(help="Run folder of a trained scorer, in place of a criterion.", show_default=False)
    ] = None,
    window: Annotated[
        tuple[float, float] | None,
        typer.Option(help="LOW HIGH: pixel values for black and white where the image is not 8-bit."),
    ] = None,
    level: Level = None,
    mpp: Mpp = None,
    mag: Mag = None,
    input_mpp: InputMpp = None,
    out: Annotated[Path, typer.Option(help="PNG to write.")] = Path("forest.png"),
    max_side: Annotated[int, typer.Option(help="Longest side of the picture in pixels.", min=16)] = 1600,
) -> None:
    """Draw the forest over an image.

    Prints its leaves per level, what it costs against a uniform grid, and the time each step took.
    """
    if sum(option is not None for option in (budget, threshold, uniform)) > 1:
        raise typer.BadParameter("give one of --budget, --threshold and --uniform", ctx=context)
    if (budget, threshold, uniform) == (None, None, None):
        budget = 1024
    if scorer is not None and str(context.get_parameter_source("criterion")) != "ParameterSource.DEFAULT":
        raise typer.BadParameter("give one of --criterion and --scorer", ctx=context)
    scale = scale_of(level, mpp, mag, input_mpp)
    from patchforest.report.forest_run import draw_forest_of
    from patchforest.values import ForestPolicy

    policy = ForestPolicy(
        criterion=criterion if scorer is None else "scorer",
        scorer=None if scorer is None else str(scorer),
        cell=cell,
        root=root,
        budget=budget,
        threshold=threshold,
        uniform=uniform,
        max_depth=max_depth,
    )
    run = draw_forest_of(image, policy, out=out, window=window, scale=scale, max_side=max_side)
    _print(context.obj, image, out, run)


def _print(terminal: Terminal, image: Path, out: Path, run: ForestRun) -> None:
    summary = run.summary
    height, width = run.forest.shape
    terminal.say(f"{image}: {height} × {width} pixels, {run.image_shape[2]} channels, {run.image_dtype}")
    rows = [[str(n.level), f"{n.size} px", f"{n.leaves:,}", f"{n.area:.1%}"] for n in summary.levels]
    terminal.table(["level", "leaf side", "leaves", "of the image"], rows)
    terminal.say(
        f"{summary.tokens:,} tokens; a uniform grid of {summary.smallest}-pixel leaves has {summary.uniform_tokens:,}: "
        f"{summary.fewer:.1f} times as many, {summary.attention_ratio:,.0f} times the pairs for full attention"
    )
    terminal.say("seconds: " + ", ".join(f"{name} {seconds:.3f}" for name, seconds in run.seconds.items()))
    terminal.say(f"drawn in {out}")
