"""Order, look-ahead and errors of work on threads."""

import threading
import time
from collections.abc import Iterator

import pytest

from patchforest.tree.threads import ordered


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_results_come_in_order(threads: int) -> None:
    def slow(item: int) -> int:
        time.sleep(0.002 * (item % 3 == 0))
        return item * item

    assert list(ordered(slow, range(40), threads)) == [k * k for k in range(40)]


def test_really_at_once() -> None:
    meeting = threading.Barrier(3, timeout=10)
    assert list(ordered(lambda _: meeting.wait() >= 0, range(3), 3)) == [True] * 3


def test_items_are_taken_as_needed() -> None:
    taken = []

    def items() -> Iterator[int]:
        for k in range(1000):
            taken.append(k)
            yield k

    results = ordered(lambda k: k, items(), 2)
    assert next(results) == 0
    assert len(taken) < 20
    results.close()


@pytest.mark.parametrize("threads", [1, 3])
def test_the_first_error_ends_it(threads: int) -> None:
    done = []

    def work(item: int) -> int:
        if item == 5:
            raise RuntimeError("five")
        done.append(item)
        return item

    with pytest.raises(RuntimeError, match="five"):
        list(ordered(work, range(1000), threads))
    assert len(done) < 100


def test_some_threads() -> None:
    with pytest.raises(ValueError, match="threads"):
        list(ordered(str, [1], 0))
