"""Requests to stop: a signal only sets a flag, a second Ctrl-C insists, and what was there before comes back."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from patchforest.train.stop import StopRequest


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT])
def test_a_signal_only_sets_the_flag_and_handlers_come_back(number: int) -> None:
    before = signal.getsignal(number)
    with StopRequest().listening() as stop:
        assert not stop()
        os.kill(os.getpid(), number)
        assert stop()
    assert signal.getsignal(number) == before


def test_a_second_ctrl_c_insists() -> None:
    with StopRequest().listening() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
        assert stop()


def test_in_other_threads_signals_are_left_alone() -> None:
    before, seen = signal.getsignal(signal.SIGTERM), []

    def work() -> None:
        with StopRequest().listening() as stop:
            seen.append((stop(), signal.getsignal(signal.SIGTERM)))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [(False, before)]
