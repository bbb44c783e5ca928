"""``patchforest bench``: contenders side by side in one run; JSON, table and plot, resumed by the same command."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from patchforest.cli import boundary
from patchforest.cli.terminal import Terminal


def command(
    context: typer.Context,
    kind: Annotated[
        str, typer.Argument(help="What to show, e.g. quality; any other word lists the kinds.", show_default=False)
    ],
    data: Annotated[Path, typer.Option(help="Folder that holds a folder for each data set.", show_default=False)],
    out: Annotated[Path, typer.Option(help="Folder for runs, results and note.", show_default=False)],
    recipes: Annotated[Path, typer.Option(help="Folder of recipes, SET.yaml each.")] = Path("recipes"),
    sets: Annotated[str | None, typer.Option(help="Data sets, e.g. glas,hrf [default: those of the kind].")] = None,
    contenders: Annotated[
        list[str] | None, typer.Option("--contender", help="Only this one, e.g. 'U-Net 2x'. Repeatable.")
    ] = None,
    sizes: Annotated[str | None, typer.Option(help="Sides of images, e.g. 512,1024 [default: of the kind].")] = None,
    seeds: Annotated[str, typer.Option(help="Seeds, e.g. 0,1,2.")] = "0,1",
    cpu_minutes: Annotated[
        float | None, typer.Option(help="Training of each in CPU minutes [default: the kind's].", show_default=False)
    ] = None,
    minutes: Annotated[
        float | None, typer.Option(help="Training of each in wall-clock minutes instead.", show_default=False)
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Training of each in steps instead.", show_default=False)] = None,
    jobs: Annotated[int, typer.Option(help="Contenders at a time, each in a process of its own.", min=1)] = 1,
    threads: Annotated[int, typer.Option(help="CPU threads of each.", min=1)] = 1,
    tune: Annotated[
        bool, typer.Option("--tune", help="Only choose each one's learning rate, on training cases alone.")
    ] = False,
    rates: Annotated[str, typer.Option(help="Learning rates that --tune tries.")] = "0.001,0.003",
    full: Annotated[bool, typer.Option("--full", help="Sizes of the papers, for a GPU.")] = False,
    changes: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change a setting of every recipe. Repeatable."),
    ] = None,
) -> None:
    """Compare contenders in one run.

    Each is trained or measured in a process of its own; what is finished is kept in OUT/runs.jsonl, and the same
    command goes on from there. Writes KIND.json, KIND.md and KIND-*.svg into OUT. A contender that fails is listed
    and the rest goes on (exit code 4).
    """
    from patchforest.bench.bench import run_bench
    from patchforest.bench.kind import without_effect
    from patchforest.bench.kinds import KINDS
    from patchforest.bench.settings import Settings

    if kind not in KINDS:
        raise typer.BadParameter(f"there is no bench {kind!r}; there are {', '.join(KINDS)}")
    given = [
        name
        for name in context.params
        if name != "kind" and str(context.get_parameter_source(name)) != "ParameterSource.DEFAULT"
    ]
    idle = without_effect(KINDS[kind], given)
    if idle:
        raise typer.BadParameter(f"--{idle[0].replace('_', '-')} has no effect on bench {kind}; leave it out")
    settings = Settings(
        data=data,
        out=out,
        recipes=recipes,
        sets=_words(sets),
        contenders=tuple(contenders or ()),
        sizes=tuple(map(_whole, _words(sizes))),
        seeds=tuple(map(_whole, _words(seeds))),
        cpu_minutes=cpu_minutes,
        minutes=minutes,
        steps=steps,
        jobs=jobs,
        threads=threads,
        rates=tuple(map(_number, _words(rates))),
        tune=tune,
        full=full,
        changes=tuple(changes or ()),
    )
    terminal: Terminal = context.obj
    outcome = run_bench(kind, settings, tell=terminal.say)
    for line in outcome.failed:
        terminal.error(line)
    if outcome.note is not None:
        terminal.say(outcome.note.read_text(encoding="utf-8"))
        terminal.say(f"written: {outcome.note}")
    if outcome.failed:
        raise typer.Exit(boundary.SOME_FAILED)


def _words(text: str | None) -> tuple[str, ...]:
    return tuple(word.strip() for word in (text or "").split(",") if word.strip())


def _whole(word: str) -> int:
    if not word.isdecimal():
        raise typer.BadParameter(f"{word!r} is no whole number; write e.g. 0,1,2")
    return int(word)


def _number(word: str) -> float:
    try:
        return float(word)
    except ValueError:
        raise typer.BadParameter(f"{word!r} is no number; write e.g. 1e-3,3e-3") from None
