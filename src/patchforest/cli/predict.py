"""``patchforest predict``: full-resolution masks and colour overlays for image files and folders."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from patchforest.cli import boundary
from patchforest.cli.options import InputMpp, Level, Mag, Memory, Mpp, Shard, bytes_of, scale_of, shard_of
from patchforest.cli.terminal import Terminal

if TYPE_CHECKING:
    from patchforest.infer.class_run import ClassRun
    from patchforest.infer.folder import Summary

Format = Literal["auto", "png", "tiff", "ome-tiff", "ome-zarr", "nifti", "nrrd"]
Precision = Literal["fp32", "bf16", "fp16"]
Packing = Literal["plain", "gz"]
_SECONDS, PREEMPTED = 5, 75
_SUFFIX = {
    "auto": "auto", "png": ".png", "tiff": ".tif", "ome-tiff": ".ome.tif", "ome-zarr": ".ome.zarr",
    "nifti": ".nii.gz", "nrrd": ".nrrd",
}  # fmt: skip


def command(
    context: typer.Context,
    run: Annotated[Path, typer.Argument(help="Run folder of `train`, or model folder.", show_default=False)],
    inputs: Annotated[
        list[Path], typer.Argument(help="Images, slides, volumes, or folders of them.", show_default=False)
    ],
    out: Annotated[Path, typer.Option(help="Folder to write masks and overlays to.", show_default=False)],
    format: Annotated[
        Format, typer.Option(help="Of the masks: auto is PNG, pyramidal TIFF for slides, a volume's own.")
    ] = "auto",
    geojson: Annotated[
        Packing | None, typer.Option(help="Also write outlines for QuPath: plain, or gz.", show_default=False)
    ] = None,
    probabilities: Annotated[bool, typer.Option("--probabilities", help="Also write them, 8 bits a class.")] = False,
    overlays: Annotated[bool, typer.Option(help="Also draw the masks over the images.")] = True,
    level: Level = None,
    mpp: Mpp = None,
    mag: Mag = None,
    input_mpp: InputMpp = None,
    spacing: Annotated[
        tuple[float, float, float] | None,
        typer.Option(help="PLANE ROW COLUMN: millimetres a voxel, of volumes whose file does not say."),
    ] = None,
    window: Annotated[
        str, typer.Option(help="auto, whole, or the side in pixels of the windows an image is seen in.")
    ] = "auto",
    tissue: Annotated[
        bool | None,
        typer.Option(help="Leave out windows of a slide without tissue [default: as trained].", show_default=False),
    ] = None,
    trees: Annotated[int, typer.Option(help="Average over so many forests.", min=1)] = 1,
    flips: Annotated[bool, typer.Option("--flips", help="Average over the four mirror images.")] = False,
    precision: Annotated[Precision, typer.Option(help="Of the computation.")] = "fp32",
    memory: Memory = "2GB",
    shard: Shard = "1/1",
    isolate: Annotated[
        bool, typer.Option("--isolate", help="Decode files in a process of its own, with limits on memory and time.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Do finished images again.")] = False,
    threads: Annotated[int | None, typer.Option(help="CPU threads [default: all].", min=1)] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...")] = "auto",
) -> None:
    """Segment images with a trained model.

    Writes a mask of exactly each image's size, and a colour overlay of it. Images may be larger than memory. A bad
    image is reported and the rest goes on (exit code 4); what is already done is skipped, what was interrupted goes on.
    A model of classes writes classes.csv: the class of each image, and the probabilities of all.
    """
    size, scale, part, most = (
        window_size(window),
        scale_of(level, mpp, mag, input_mpp),
        shard_of(shard),
        bytes_of(memory),
    )
    from functools import partial

    from patchforest.infer.folder import predict_many
    from patchforest.infer.outputs import Outputs
    from patchforest.io.isolate import isolated_volume, open_isolated
    from patchforest.io.open import open_image
    from patchforest.io.volume import open_volume
    from patchforest.models.bundle import load_model, load_spec
    from patchforest.report.environment import choose_device
    from patchforest.report.overlay import draw_overlay
    from patchforest.report.palette import class_colours
    from patchforest.train.progress import Progress

    terminal: Terminal = context.obj
    if load_spec(run).of_images:
        given = {
            "--format": format != "auto",
            "--geojson": geojson is not None,
            "--probabilities": probabilities,
            "--spacing": spacing is not None,
            "--window": size != "auto",
            "--tissue": tissue is not None,
        }
        if any(given.values()):
            idle = ", ".join(name for name, there in given.items() if there)
            terminal.warn(f"no effect on a model of classes, which sees images as a whole: {idle}")
        from patchforest.infer.class_run import classify_many

        told = classify_many(
            load_model(run, choose_device(device, threads=threads)),
            inputs,
            out,
            scale=scale,
            shard=part,
            trees=trees,
            flips=flips,
            precision=precision,
            overwrite=overwrite,
            open_source=open_isolated if isolate else open_image,
            tell=terminal.say,
        )
        _finish_classes(terminal, told)
        return
    bundle = load_model(run, choose_device(device, threads=threads))
    outputs = Outputs(
        format=_SUFFIX[format],
        probabilities=probabilities,
        polygons=None if geojson is None else ".geojson" + (".gz" if geojson == "gz" else ""),
        colours=class_colours(len(bundle.spec.classes)),
        draw=partial(draw_overlay, window=bundle.spec.intensity_window) if overlays else None,
    )
    with _stoppable(terminal), Progress("predict", quiet=terminal.quiet) as progress:
        summary = predict_many(
            bundle,
            inputs,
            out,
            outputs=outputs,
            scale=scale,
            spacing=spacing,
            shard=part,
            memory=most,
            open_source=open_isolated if isolate else open_image,
            open_volume_source=isolated_volume if isolate else open_volume,
            overwrite=overwrite,
            tell=terminal.say,
            progress=_Slow(progress.update),
            window=size,
            trees=trees,
            flips=flips,
            precision=precision,
            tissue=tissue,
        )
    _finish(terminal, summary, out)


@contextmanager
def _stoppable(terminal: Terminal) -> Iterator[None]:
    """Let SIGTERM and Ctrl-C end the block: all that is whole stays, and the exit code says there is more to do."""

    def stop(number: int, _: object) -> None:
        terminal.warn("stopped; the same command goes on from here")
        raise SystemExit(boundary.INTERRUPTED if number == signal.SIGINT else PREEMPTED)

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Slow:
    """Progress on an image, told when it has taken some seconds already: of small ones their last line is enough."""

    def __init__(self, update: Callable[[float, str], None]) -> None:
        self._update, self._name, self._start = update, "", 0.0

    def __call__(self, name: str, share: float) -> None:
        if name != self._name:
            self._name, self._start = name, time.monotonic()
        elif time.monotonic() - self._start > _SECONDS and share < 1:
            self._update(share, name)


def window_size(text: str) -> str | int:
    """``auto``, ``whole`` or a side in pixels, as ``infer.predict`` takes it; anything else is wrong usage."""
    if text in ("auto", "whole"):
        return text
    if text.isdecimal() and int(text) > 0:
        return int(text)
    raise typer.BadParameter(f"--window is auto, whole or a number of pixels; got {text!r}")


def _finish_classes(terminal: Terminal, run: ClassRun) -> None:
    for reason in run.failed.values():
        terminal.error(reason)
    failed = f", {len(run.failed)} failed" if run.failed else ""
    terminal.say(f"{len(run.told)} images in {run.table}{failed}; {run.seconds:.1f} s")
    if run.failed:
        raise typer.Exit(boundary.SOME_FAILED if run.told else boundary.BAD_INPUT)


def _finish(terminal: Terminal, summary: Summary, out: Path) -> None:
    for reason in summary.failed.values():
        terminal.error(reason)
    skipped = f", {len(summary.skipped)} were there already" if summary.skipped else ""
    failed = f", {len(summary.failed)} failed" if summary.failed else ""
    failed = (f", {len(summary.empty)} without tissue" if summary.empty else "") + failed
    terminal.say(f"{len(summary.done)} masks written to {out}{skipped}{failed}; {summary.seconds:.1f} s")
    if summary.failed:
        raise typer.Exit(boundary.SOME_FAILED if summary.done or summary.skipped else boundary.BAD_INPUT)
