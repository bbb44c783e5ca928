"""How many times less one contender needs than another, from the Dice that both had on their way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from patchforest.bench.run import Row

Curve = Sequence[Sequence[float]]
"""(seconds of training, Dice) of every validation, in time."""

RESOLUTION = 0.01
"""Seconds are known no better than this."""


@dataclass(frozen=True)
class Ratio:
    """A contender against the baseline of the same set and seed; above 1: it needs that many times less.

    Attributes
    ----------
    label, name, seed : of set and contender.
    seconds : of training to the baseline's best Dice; None where it was not reached.
    time : the baseline's seconds to it, over these. Where it was not reached, over all seconds of the contender's
        training but no more than 1: an upper bound that is no gain. None where the baseline was never validated.
    training, prediction, tokens : seconds an image, and tokens.
    counts : the baseline learned more than to call everything foreground, as far as that can be said.
    """

    label: str
    name: str
    seed: int
    seconds: float | None
    time: float | None
    training: float
    prediction: float
    tokens: float
    counts: bool


def time_to(curve: Curve, dice: float) -> float | None:
    """Seconds at the first validation at or above a Dice; None where there is none. Nothing is interpolated."""
    return next((seconds for seconds, value in curve if value >= dice), None)


def best_of(curve: Curve) -> float:
    """The best Dice on the way; 0 without any validation."""
    return max((value for _, value in curve), default=0.0)


def ratios_of(rows: Sequence[Row], baseline: str, *, same: Sequence[str] = ()) -> list[Ratio]:
    """Every contender against the baseline of the same set and seed, in the order of ``rows``; the baseline as well.

    Rows without a baseline are left out. ``same`` names contenders that are the baseline on another schedule: its
    seconds to its best Dice are those of whichever was there first.
    """
    bases = {(r.contender.set, r.contender.seed): r for r in rows if r.contender.name == baseline}
    found = []
    for row in rows:
        base = bases.get((row.contender.set, row.contender.seed))
        if base is None:
            continue
        best, floor = best_of(base.result["curve"]), base.result["all_foreground"]
        own, other = time_to(row.result["curve"], best), _earliest(rows, base, same, best)
        training, prediction, tokens = (base.result[k] / row.result[k] for k in ("training", "prediction", "tokens"))
        found.append(
            Ratio(
                label=row.contender.set,
                name=row.contender.name,
                seed=row.contender.seed,
                seconds=own,
                time=None if other is None else _times_less(other, own, row.result["train_seconds"]),
                training=training,
                prediction=prediction,
                tokens=tokens,
                counts=best > (floor or 0.0),
            )
        )
    return found


def _times_less(other: float, own: float | None, spent: float) -> float:
    ratio = max(other, RESOLUTION) / max(spent if own is None else own, RESOLUTION)
    return min(ratio, 1.0) if own is None else ratio


def _earliest(rows: Sequence[Row], base: Row, same: Sequence[str], dice: float) -> float | None:
    """Seconds at which the baseline, or one that is the same on another schedule, first had a Dice."""
    where = (base.contender.set, base.contender.seed)
    twins = [r for r in rows if r.contender.name in same and (r.contender.set, r.contender.seed) == where]
    times = [time_to(r.result["curve"], dice) for r in (base, *twins)]
    return min((t for t in times if t is not None), default=None)
