"""``patchforest evaluate``: scores of a trained model on labelled cases, with what they cost and what was possible."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from patchforest.cli import boundary
from patchforest.cli.options import InputMpp, Level, Mag, Mpp, label_map_of, scale_of
from patchforest.cli.predict import Precision, window_size
from patchforest.cli.terminal import Terminal

if TYPE_CHECKING:
    from patchforest.train.evaluate import Evaluation
    from patchforest.train.evaluate_classes import ClassEvaluation


def command(
    context: typer.Context,
    run: Annotated[Path, typer.Argument(help="Run folder of `train`, or model folder.", show_default=False)],
    data: Annotated[Path, typer.Option(help="Folder, or CSV, of images and masks.", show_default=False)],
    out: Annotated[Path, typer.Option(help="Folder for summary.json and cases.csv.", show_default=False)],
    split: Annotated[
        Path | None,
        typer.Option(help="Text file of case ids, or: validation, train (the run's own parts) [default: all]."),
    ] = None,
    layout: Annotated[str, typer.Option(help="auto, paired, nnunet or csv.")] = "auto",
    label_map: Annotated[
        list[str] | None,
        typer.Option(metavar="VALUE=CLASS", help="e.g. 255=1 [default: as in training]. Repeatable."),
    ] = None,
    targets: Annotated[
        str | None, typer.Option(help="CSV with the class of each image [default: as in training].", show_default=False)
    ] = None,
    target: Annotated[
        str | None, typer.Option(help="Its column of classes [default: as in training].", show_default=False)
    ] = None,
    level: Level = None,
    mpp: Mpp = None,
    mag: Mag = None,
    input_mpp: InputMpp = None,
    window: Annotated[
        str, typer.Option(help="auto, whole, or the side in pixels of the windows an image is seen in.")
    ] = "auto",
    trees: Annotated[int, typer.Option(help="Average over so many forests.", min=1)] = 1,
    flips: Annotated[bool, typer.Option("--flips", help="Average over the four mirror images.")] = False,
    precision: Annotated[Precision, typer.Option(help="Of the computation.")] = "fp32",
    threads: Annotated[int | None, typer.Option(help="CPU threads [default: all].", min=1)] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...")] = "auto",
    report: Annotated[bool, typer.Option(help="Write report.html with some of the cases.")] = True,
) -> None:
    """Score a model on labelled images.

    Prints and writes, per case and class: Dice, IoU, boundary F at 2 pixels, HD95, and the label ceiling, tokens and
    seconds; of a model of classes accuracy, AUC and the probabilities of every image. A case that cannot be read is
    reported and the rest goes on (exit code 4).
    """
    side = window_size(window)
    scale = scale_of(level, mpp, mag, input_mpp)
    from patchforest.infer.options import PredictOptions
    from patchforest.io.scale import AS_STORED
    from patchforest.models.bundle import load_spec
    from patchforest.report.environment import choose_device
    from patchforest.report.evaluation import evaluate_run

    terminal: Terminal = context.obj
    if load_spec(run).of_images:
        from patchforest.report.class_evaluation import evaluate_class_run

        idle = [n for n, given in (("--label-map", label_map is not None), ("--window", window != "auto")) if given]
        if idle:
            terminal.warn(f"no effect on a model of classes, which sees images as a whole: {', '.join(idle)}")
        told = evaluate_class_run(
            run,
            data,
            out,
            split=split,
            layout=layout,
            targets=targets,
            target=target,
            scale=None if scale == AS_STORED else scale,
            device=choose_device(device, threads=threads),
            report=report,
            trees=trees,
            flips=flips,
            precision=precision,
            tell=terminal.say,
        )
        _print_classes(terminal, told, out)
        return
    if targets is not None or target is not None:
        terminal.warn("no effect on a model of masks: --targets, --target")
    result = evaluate_run(
        run,
        data,
        out,
        split=split,
        layout=layout,
        label_map=label_map_of(label_map),
        scale=None if scale == AS_STORED else scale,
        device=choose_device(device, threads=threads),
        report=report,
        tell=terminal.say,
        options=PredictOptions(window=side, trees=trees, flips=flips, precision=precision),
    )
    _print(terminal, result, out)


def _print(terminal: Terminal, result: Evaluation, out: Path) -> None:
    from patchforest.report.evaluation import CLASS_HEADER, class_rows, cost_line

    for reason in result.failed.values():
        terminal.error(reason)
    if result.cases:
        terminal.table(CLASS_HEADER, class_rows(result), title=f"Means over {len(result.cases)} cases")
        terminal.say(cost_line(result))
    _end(terminal, result, out)


def _print_classes(terminal: Terminal, result: ClassEvaluation, out: Path) -> None:
    from patchforest.report.class_evaluation import CLASS_HEADER, class_rows, score_line

    for reason in result.failed.values():
        terminal.error(reason)
    if result.cases:
        terminal.table(CLASS_HEADER, class_rows(result), title=f"{len(result.cases)} images")
        terminal.say(score_line(result))
    _end(terminal, result, out)


def _end(terminal: Terminal, result: Evaluation | ClassEvaluation, out: Path) -> None:
    terminal.say(f"written: {out / 'summary.json'}, {out / 'cases.csv'}")
    if result.failed:
        raise typer.Exit(boundary.SOME_FAILED if result.cases else boundary.BAD_INPUT)
