"""How a run shows itself: a bar on a terminal, plain dated lines in a log."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress as Bar
    from rich.progress import TaskID


class Progress:
    """Progress of one run; use as a context. Lines go to standard error, so that output can be piped."""

    def __init__(self, description: str, *, quiet: bool = False, every: float = 0.05) -> None:
        self._description, self._quiet, self._every = description, quiet, every
        self._bar: Bar | None = None
        self._task: TaskID | None = None
        self._told = -1.0
        self._terminal = sys.stderr.isatty() and not quiet

    def __enter__(self) -> Progress:
        if self._terminal:
            from rich.console import Console
            from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn
            from rich.progress import Progress as Bar

            columns = TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn()
            self._bar = Bar(*columns, TextColumn("{task.fields[values]}"), console=Console(stderr=True))
            self._bar.start()
            self._task = self._bar.add_task(self._description, total=1.0, values="")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def update(self, progress: float, values: str) -> None:
        """Move the bar; in a log, a line every twentieth of the run. A smaller progress begins the next one."""
        if progress < self._told:
            self._told = -1.0
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=progress, values=values)
        elif not self._quiet and (progress - self._told >= self._every or progress >= 1 > self._told):
            self._told = progress
            self.line(f"{100 * progress:3.0f} % {values}")

    def line(self, text: str) -> None:
        """One line that stays, above the bar or in the log."""
        if self._quiet:
            return
        if self._bar is not None:
            self._bar.console.print(text, highlight=False, markup=False)
        else:
            print(f"{time.strftime('%H:%M:%S')} {self._description}: {text}", file=sys.stderr, flush=True)
