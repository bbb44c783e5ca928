"""The same work on a Dask cluster: on the machines behind a scheduler's address, or in processes of this one."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from itertools import islice
from typing import Any, TypeVar

from patchforest.data.pool import Lost
from patchforest.errors import InputError

Task = TypeVar("Task")
Result = TypeVar("Result")

_POLL = 0.5
_PATIENCE = 30
"""Seconds to find the scheduler."""


def work_on_cluster(
    work: Callable[[Task], Result],
    tasks: Iterable[Task],
    *,
    address: str,
    workers: int,
    timeout: float,
    stop: Callable[[], bool] = lambda: False,
) -> Iterator[tuple[Task, Result | Lost]]:
    """(task, result) of every task, in the order in which they end, as ``pool.work_in_processes`` has it.

    Every machine needs patchforest installed and the same folders at the same paths.

    Parameters
    ----------
    address : of the scheduler, ``tcp://HOST:PORT``, or ``local`` for ``workers`` processes here.
    timeout : when no result came for so long, the tasks still out are ``Lost``.

    Raises
    ------
    ModuleNotFoundError : Dask is not installed.
    InputError : no scheduler there, or one without workers.
    """
    from distributed import Client, LocalCluster
    from distributed import wait as wait_for

    with ExitStack() as stack:
        if address == "local":
            cluster = LocalCluster(
                n_workers=workers, threads_per_worker=1, processes=True, dashboard_address=None, silence_logs="ERROR"
            )
            address = stack.enter_context(cluster)
        try:
            client = stack.enter_context(Client(address, timeout=_PATIENCE, set_as_default=False))
        except (OSError, ValueError, TimeoutError) as error:
            raise InputError(str(address), f"no scheduler answers ({error})", "start `dask scheduler`") from None
        stack.enter_context(client.as_current())
        _require_workers(client, address)
        waiting, out = iter(tasks), dict[Any, Task]()
        last = time.monotonic()
        while not stop():
            room = max(2 * sum(client.ncores().values()), 1) - len(out)
            for task in islice(waiting, max(room, 0)):
                out[client.submit(work, task, pure=False, retries=0)] = task
            if not out:
                return
            ended = _ended(wait_for, out)
            for future in ended:
                last, task = time.monotonic(), out.pop(future)
                yield task, _result(future)
            if time.monotonic() - last > timeout:
                _require_workers(client, address)
                client.cancel(list(out))
                for task in out.values():
                    yield task, Lost(f"the cluster gave no result for {timeout:g} seconds")
                out.clear()
        client.cancel(list(out))


def _require_workers(client: Any, address: object) -> None:
    try:
        client.wait_for_workers(1, timeout=_PATIENCE)
    except TimeoutError:
        hint = f"start some: `dask worker {address}` on each machine"
        raise InputError(str(address), "this scheduler has no workers", hint) from None


def _ended(wait_for: Any, out: dict[Any, Any]) -> list[Any]:
    try:
        return list(wait_for(list(out), timeout=_POLL, return_when="FIRST_COMPLETED").done)
    except TimeoutError:
        return []


def _result(future: Any) -> Any:
    """The result; OSError (a full disk) is raised; a worker that was lost several times is ``Lost``."""
    error = future.exception()
    if error is None:
        return future.result()
    if isinstance(error, OSError):
        raise error
    return Lost(f"its worker was lost ({type(error).__name__})")
