"""Warming compiles; afterwards it is quick and changes nothing."""

from __future__ import annotations

from patchforest.infer.warm import warm_masks


def test_the_second_time_there_is_nothing_left_to_compile() -> None:
    warm_masks()
    assert warm_masks() < 2.0
