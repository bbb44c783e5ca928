"""Time by part against a clock that we turn ourselves: every second once, and backward where the forward was."""

import pytest
import torch
from torch import nn

from patchforest.bench.stopwatch import BACKWARD, GRADIENTS, Layers, Stopwatch, replaced, timed


class Clock:
    """A clock that stands still unless turned."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


class Slow(torch.autograd.Function):
    """x, which takes so many seconds forward, and ten times that many backward."""

    @staticmethod
    def forward(ctx, x, clock, seconds):
        ctx.clock, ctx.seconds = clock, seconds
        clock.now += seconds
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        ctx.clock.now += 10 * ctx.seconds
        return gradient, None, None


class Stage(nn.Module):
    """A linear layer and then a slow identity."""

    def __init__(self, clock, seconds):
        super().__init__()
        self.clock, self.seconds, self.linear = clock, seconds, nn.Linear(2, 2)

    def forward(self, x):
        return Slow.apply(self.linear(x), self.clock, self.seconds)


class Network(nn.Module):
    """A first stage, a list of two, something between that belongs to no module, and a head."""

    def __init__(self, clock):
        super().__init__()
        self.clock = clock
        self.first, self.head = Stage(clock, 1.0), Stage(clock, 2.0)
        self.blocks = nn.ModuleList([Stage(clock, 4.0), Stage(clock, 8.0)])

    def forward(self, x):
        x = self.first(x)
        x = Slow.apply(x, self.clock, 16.0)
        for block in self.blocks:
            x = block(x)
        return [self.head(x)]


def test_callees_take_their_time_from_their_callers():
    clock = Clock()
    watch = Stopwatch(clock)
    with watch.part("outer"):
        clock.now += 1
        with watch.part("inner"):
            clock.now += 2
            assert watch.current == "inner"
        clock.now += 4
    clock.now += 100  # nobody's
    with watch.part("inner"):
        clock.now += 8
    assert watch.spent == {"outer": 5, "inner": 10}
    assert watch.calls == {"outer": 1, "inner": 2}
    assert watch.current == ""


def test_time_goes_on_after_an_error():
    clock = Clock()
    watch = Stopwatch(clock)

    def fail():
        with watch.part("a"):
            clock.now += 1
            raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        fail()
    assert watch.current == ""
    assert watch.spent == {"a": 1}


def test_forward_and_backward_of_every_part_and_of_what_lies_between():
    clock = Clock()
    watch, network = Stopwatch(clock), Network(clock)
    layers = Layers(watch, network, {"first": "stem", "blocks": "encoder", "head": "decoder", "absent": "x"})
    run = layers.calls(network.forward, "between")
    with watch.part("loss"):
        (out,) = run(torch.ones(3, 2))
        loss = Slow.apply(out.sum(), clock, 32.0)
    layers.backward(loss, "loss")
    forward = {"stem": 1, "encoder": 12, "decoder": 2, "between": 16, "loss": 32}
    assert {n: watch.spent[n] for n in forward} == forward
    assert {n: watch.spent[n + BACKWARD] for n in forward} == {n: 10 * s for n, s in forward.items()}
    assert watch.spent[GRADIENTS] == 0
    assert sum(watch.spent.values()) == clock.now
    assert all(p.grad is not None for p in network.parameters())


def test_a_second_step_is_told_apart_from_the_first():
    clock = Clock()
    watch, network = Stopwatch(clock), Network(clock)
    layers = Layers(watch, network, {"first": "stem"})
    for _ in range(2):
        watch.spent.clear()
        (out,) = layers.calls(network.forward, "rest")(torch.ones(1, 2))
        layers.backward(out.sum(), "loss")
        assert watch.spent["stem"] == 1
        assert watch.spent["stem" + BACKWARD] == 10


def test_without_gradients_only_forward_time_is_told():
    clock = Clock()
    watch, network = Stopwatch(clock), Network(clock)
    layers = Layers(watch, network, {"blocks": "encoder"})
    with torch.inference_mode():
        layers.calls(network.forward, "rest")(torch.ones(1, 2))
    assert watch.spent == {"encoder": 12, "rest": 19}


class Place:
    """Something with functions of every kind."""

    @classmethod
    def made(cls):
        return cls.__name__

    def method(self):
        return 3


def test_functions_are_timed_inside_the_block_and_themselves_after_it():
    clock = Clock()
    watch, before = Stopwatch(clock), dict(vars(Place))
    with timed(watch, [(Place, "made", "a"), (Place, "method", "b")]):
        assert Place.made() == "Place"
        assert Place().method() == 3
    assert watch.calls == {"a": 1, "b": 1}
    assert dict(vars(Place)) == before
    place = Place()
    with replaced(place, "method", lambda: 4):
        assert place.method() == 4
    assert "method" not in vars(place)
    assert place.method() == 3
    with pytest.raises(AttributeError), timed(watch, [(Place, "absent", "a")]):
        pass
