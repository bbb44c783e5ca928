"""What commands print: plain lines and tables on stdout, one-line errors and warnings on stderr."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Terminal:
    """Where a command talks to its user. ``quiet`` drops everything but errors, warnings and asked-for results."""

    quiet: bool = False
    debug: bool = False

    def say(self, text: str = "") -> None:
        """A line of progress or summary; nothing when quiet."""
        if not self.quiet:
            print(text, flush=True)

    def error(self, line: str) -> None:
        """``error: <line>`` on stderr, always."""
        print("error: " + " ".join(line.split()), file=sys.stderr, flush=True)

    def warn(self, line: str) -> None:
        """``warning: <line>`` on stderr, always."""
        print("warning: " + " ".join(line.split()), file=sys.stderr, flush=True)

    def table(self, header: Sequence[str], rows: Sequence[Sequence[str]], *, title: str | None = None) -> None:
        """A table with its first column on the left and numbers on the right; never cut off in a pipe or log file."""
        if self.quiet:
            return
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        table = Table(title=title, title_justify="left", title_style="bold", header_style="bold")
        for number, name in enumerate(header):
            table.add_column(Text(name), justify="left" if number == 0 else "right")
        for row in rows:
            table.add_row(*map(Text, row))
        terminal = sys.stdout.isatty()
        Console(file=sys.stdout, width=None if terminal else 200, highlight=False).print(table)
