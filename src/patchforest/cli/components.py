"""``patchforest components``: the connected components of masks, counted and measured."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from patchforest.cli import boundary
from patchforest.cli.terminal import Terminal

if TYPE_CHECKING:
    from patchforest.infer.component_run import ComponentRun

_CONNECTIVITIES = (4, 8, 6, 18, 26)
_HEADER = (
    "class",
    "components",
    "size",
    "share",
    "mean",
    "median",
    "D10",
    "D50",
    "D90",
    "unit",
    "on border",
    "dropped",
)


def command(
    context: typer.Context,
    masks: Annotated[
        list[Path], typer.Argument(help="Masks or volumes of class numbers, or folders.", show_default=False)
    ],
    out: Annotated[Path, typer.Option(help="Folder for tables, summary.json and sizes.png.", show_default=False)],
    connectivity: Annotated[
        int | None, typer.Option(help="4 or 8 in images, 6, 18 or 26 in volumes [default: 4 and 6].")
    ] = None,
    classes: Annotated[
        list[str] | None,
        typer.Option(
            "--class", metavar="NUMBER[=NAME]", help="Only this class, e.g. 1=stone [default: all]. Repeatable."
        ),
    ] = None,
    min_size: Annotated[int, typer.Option(help="Smaller ones are dropped: pixels or voxels.", min=1)] = 1,
    mpp: Annotated[float | None, typer.Option(help="Microns a pixel [default: as the file says].")] = None,
    spacing: Annotated[
        tuple[float, float, float] | None,
        typer.Option(help="PLANE ROW COLUMN: millimetres a voxel [default: as the file says]."),
    ] = None,
    labels: Annotated[bool, typer.Option("--labels", help="Also write labels.tif, every pixel's number.")] = False,
) -> None:
    """Count and measure connected components.

    Writes one line a component (size, place, box, diameter, axes, perimeter or surface), the sizes by class and their
    distribution, for images and volumes larger than memory. A bad mask is reported and the rest goes on (exit code 4).
    """
    if connectivity not in (None, *_CONNECTIVITIES):
        raise typer.BadParameter(f"--connectivity is one of {', '.join(map(str, _CONNECTIVITIES))}; got {connectivity}")
    for option, lengths in (("--mpp", () if mpp is None else (mpp,)), ("--spacing", spacing or ())):
        if not all(math.isfinite(length) and length > 0 for length in lengths):
            raise typer.BadParameter(f"{option} must be above 0; got {' '.join(map(str, lengths))}")
    names = _classes(classes or [])
    from patchforest.infer.component_run import ComponentOptions, measure_masks
    from patchforest.report.size_plot import write_size_plot

    terminal: Terminal = context.obj
    options = ComponentOptions(
        connectivity=connectivity,
        classes=tuple(names),
        names={number: name for number, name in names.items() if name},
        min_size=min_size,
        mpp=mpp,
        spacing=spacing,
        labels=labels,
    )
    run = measure_masks(masks, out, options, tell=terminal.say)
    write_size_plot(out / "sizes.png", run.total)
    _finish(terminal, run, options.mpp, options.spacing, out)


def _classes(given: list[str]) -> dict[int, str]:
    """``["1=stone", "2"]`` as names by number, "" for none."""
    names: dict[int, str] = {}
    for text in given:
        number, equals, name = text.partition("=")
        if not number.isdecimal() or not 1 <= int(number) <= 65535 or (equals and not name.strip()):
            raise typer.BadParameter(f"--class takes a number from 1 to 65535, or NUMBER=NAME; got {text!r}")
        names[int(number)] = name.strip()
    return names


def _finish(
    terminal: Terminal, run: ComponentRun, mpp: float | None, spacing: tuple[float, float, float] | None, out: Path
) -> None:
    for reason in run.failed.values():
        terminal.error(reason)
    axes = {len(mask.shape) for mask in run.measured.values()} or {2, 3}
    if mpp is not None and 2 not in axes:
        terminal.warn("--mpp has no effect: it is for images, and these are volumes")
    if spacing is not None and 3 not in axes:
        terminal.warn("--spacing has no effect: it is for volumes, and these are images")
    count = f"{len(run.measured)} mask{'' if len(run.measured) == 1 else 's'}"
    if run.measured:
        terminal.table(_HEADER, _rows(run), title=f"{count}; diameters, D10 to D90 by area or volume")
    failed = f", {len(run.failed)} failed" if run.failed else ""
    terminal.say(f"{count} measured in {out}{failed}; {run.seconds:.1f} s")
    if run.failed:
        raise typer.Exit(boundary.SOME_FAILED if run.measured else boundary.BAD_INPUT)


def _rows(run: ComponentRun) -> list[list[str]]:
    from patchforest.report.size_plot import length_text

    rows = []
    for grade in run.total:
        lengths = [grade.mean, grade.by_number(50), *(grade.by_measure(p) for p in (10, 50, 90))]
        rows.append(
            [
                grade.name,
                f"{len(grade):,}",
                f"{grade.pixels:,}",
                f"{grade.pixels / grade.of_pixels:.2%}",
                *map(length_text, lengths),
                grade.unit,
                f"{grade.on_border:,}",
                f"{grade.dropped:,}",
            ]
        )
    return rows
