"""``patchforest doctor``: what is installed, what it runs on, and what each extra unlocks."""

from __future__ import annotations

import typer

from patchforest.cli import boundary
from patchforest.cli.terminal import Terminal


def command(context: typer.Context) -> None:
    """Print versions, devices and extras; compile the kernels.

    Says which extras are installed and what each unlocks.
    """
    from patchforest.infer.warm import warm_masks
    from patchforest.report.environment import describe_environment
    from patchforest.tree.warm import warm

    terminal: Terminal = context.obj
    here = describe_environment()
    terminal.table(["component", "version"], [[name, v or "missing"] for name, v in here.versions.items()])
    memory = "unknown" if here.memory_gib is None else f"{here.memory_gib:.1f} GiB"
    terminal.say(f"system:   {here.platform}")
    terminal.say(f"computer: {here.processor}, {here.cores} cores usable, {memory} memory")
    terminal.say(f"devices:  {', '.join(here.devices)}; PyTorch uses {here.threads} threads")
    terminal.say(f"kernels:  compiled or found in the cache in {warm() + warm_masks():.1f} s")
    rows = []
    for extra in here.extras:
        parts = ", ".join(f"{name} {version or 'missing'}" for name, version in extra.versions.items())
        state = "ready" if extra.complete else f"pip install 'patchforest[{extra.name}]'"
        rows.append([extra.name, state, parts, extra.unlocks])
    terminal.table(["extra", "state", "parts", "unlocks"], rows)
    for fault in here.faults:
        terminal.error(fault)
    if here.faults:
        raise typer.Exit(boundary.BAD_INPUT)
