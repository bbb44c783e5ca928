"""CPU time by part, each second counted once: of nested calls, of a network's layers, and of their backward passes."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor, nn

from patchforest.nn.readout.output import RasterMask, Staged, TokenMask

BACKWARD = " backward"
"""Follows the name of a part where its backward pass is meant."""

GRADIENTS = "gradients"
"""What the backward pass does besides: adding gradients up and handing them on."""

_SUMMING = "AccumulateGrad"


class Stopwatch:
    """Exclusive CPU seconds of this process by part; what a part's callees claim is theirs alone.

    Attributes
    ----------
    spent : seconds by part; clear it to begin anew between parts.
    calls : how often each part was entered.
    """

    def __init__(self, clock: Callable[[], float] = time.process_time) -> None:
        self._clock, self._stack, self._since = clock, [""], 0.0
        self.spent: defaultdict[str, float] = defaultdict(float)
        self.calls: Counter[str] = Counter()

    @property
    def current(self) -> str:
        """The part that runs; empty outside all."""
        return self._stack[-1]

    def begin(self, part: str) -> None:
        """Time runs for a part until its ``end``."""
        self._turn()
        self._stack.append(part)
        self.calls[part] += 1

    def end(self) -> None:
        """Time runs for the part around again."""
        self._turn()
        self._stack.pop()

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Time runs for a part inside the block."""
        self.begin(name)
        try:
            yield
        finally:
            self.end()

    def _turn(self) -> None:
        now = self._clock()
        if len(self._stack) > 1:
            self.spent[self._stack[-1]] += now - self._since
        self._since = now


class Layers:
    """A network whose parts are watched: where forward time goes, and who made which node of the graph.

    Parameters
    ----------
    parts : path of a module → part; modules that are not there are passed over, of lists every module counts.
    """

    def __init__(self, watch: Stopwatch, network: nn.Module, parts: Mapping[str, str]) -> None:
        self._watch, self._owner = watch, {}  # type: Stopwatch, dict[Any, str]
        modules = dict(network.named_modules())
        for path, part in parts.items():
            for module in _members(modules.get(path)):
                self._listen(module, part)

    def calls(self, function: Callable[..., Any], part: str) -> Callable[..., Any]:
        """A function of tensors whose time and nodes are a part's."""

        def called(*args: Any, **named: Any) -> Any:
            self.claim((args, tuple(named.values())), self._watch.current)
            with self._watch.part(part):
                out = function(*args, **named)
                self.claim(out, part)
            return out

        return called

    def claim(self, tensors: Any, part: str) -> None:
        """Nodes behind tensors that nobody has claimed yet are a part's."""
        waiting = [t.grad_fn for t in _tensors(tensors) if t.grad_fn is not None]
        while waiting:
            node = waiting.pop()
            if node in self._owner:
                continue
            self._owner[node] = part
            waiting += [n for n, _ in node.next_functions if n is not None]

    def backward(self, loss: Tensor, part: str) -> None:
        """``loss.backward()``, every node's time for the part that made it; nodes nobody claimed are ``part``'s."""
        self.claim(loss, part)
        for node, owner in self._owner.items():
            if _SUMMING not in node.name():
                self._time(node, owner + BACKWARD)
        self._owner = {}
        with self._watch.part(GRADIENTS):
            loss.backward()

    def _listen(self, module: nn.Module, part: str) -> None:
        def before(_: nn.Module, given: tuple[Any, ...]) -> None:
            self.claim(given, self._watch.current)
            self._watch.begin(part)

        def after(_: nn.Module, given: tuple[Any, ...], out: Any) -> None:
            self.claim(out, part)
            self._watch.end()

        module.register_forward_pre_hook(before)
        module.register_forward_hook(after)

    def _time(self, node: Any, part: str) -> None:
        node.register_prehook(lambda _: self._watch.begin(part))
        node.register_hook(lambda _, __: self._watch.end())


@contextmanager
def timed(watch: Stopwatch, calls: Sequence[tuple[Any, str, str]]) -> Iterator[None]:
    """Inside the block, the time of functions is their part's: (module or class, name, part) each."""
    with ExitStack() as stack:
        for place, name, part in calls:
            stack.enter_context(replaced(place, name, _wrapped(watch, getattr(place, name), part)))
        yield


@contextmanager
def replaced(place: Any, name: str, value: Any) -> Iterator[None]:
    """Inside the block, ``place.name`` is another function; after it, what it was."""
    own, before = name in vars(place), vars(place).get(name)
    setattr(place, name, value)
    try:
        yield
    finally:
        if own:
            setattr(place, name, before)
        else:
            delattr(place, name)


def _wrapped(watch: Stopwatch, function: Callable[..., Any], part: str) -> Callable[..., Any]:
    def called(*args: Any, **named: Any) -> Any:
        with watch.part(part):
            return function(*args, **named)

    return called


def _members(module: nn.Module | None) -> list[nn.Module]:
    if module is None:
        return []
    return list(module) if isinstance(module, nn.ModuleList) else [module]


def _tensors(value: Any) -> Iterator[Tensor]:
    """The tensors of nested lists and of outputs of dense readouts."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, TokenMask | RasterMask):
        yield value.logits
    elif isinstance(value, Staged):
        yield from (value.last.logits, value.first.logits)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _tensors(item)
