"""The wish to stop, set by signals and polled between steps, cases and items; nothing is interrupted in its middle."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)


class StopRequest:
    """Set by SIGTERM, SIGUSR1 (SLURM) or Ctrl-C; polled between steps and validation cases. A second Ctrl-C insists."""

    def __init__(self) -> None:
        self.signal: int | None = None

    def __call__(self) -> bool:
        return self.signal is not None

    def handle(self, number: int, frame: FrameType | None) -> None:
        """The signal handler: it only sets the flag."""
        if number == signal.SIGINT and self.signal == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal = number

    def install(self) -> None:
        """Take over the signals, in the main thread, where alone Python can."""
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                signal.signal(number, self.handle)

    @contextmanager
    def listening(self) -> Iterator[StopRequest]:
        """Signals set the flag inside the block; what handled them before does so again after."""
        before = {n: signal.getsignal(n) for n in SIGNALS}
        self.install()
        try:
            yield self
        finally:
            if threading.current_thread() is threading.main_thread():
                for number, handler in before.items():
                    signal.signal(number, handler)
