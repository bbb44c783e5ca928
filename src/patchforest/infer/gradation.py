"""How large the components of a class are: counts, diameters at 10, 50 and 90 %, and what passes a given size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from patchforest.infer.components import Components
from patchforest.infer.shapes import UNITS, diameter_of
from patchforest.values import Array

SHARES = (10, 50, 90)


@dataclass(frozen=True, eq=False)
class Sized:
    """What is kept of a mask's components: one number each, and the scale they were measured at.

    Attributes
    ----------
    shape : of the mask.
    scale : microns a pixel (2-D) or millimetres a voxel (3-D) along each axis, or None.
    value, size, touches_border : as in ``Components``.
    dropped : components too small to be counted, by class number.
    """

    shape: tuple[int, ...]
    scale: tuple[float, ...] | None
    value: Array
    size: Array
    touches_border: Array
    dropped: Mapping[int, int]


@dataclass(frozen=True, eq=False)
class Gradation:
    """Sizes of all components of one class, in one mask or in many.

    Attributes
    ----------
    value, name : of the class.
    ndim : 2 for images, 3 for volumes.
    unit : of lengths: ``um`` or ``mm``, ``px`` or ``vx`` where a scale is not known.
    diameter : (N,) float64 diameters of circles or balls of the same area or volume, smallest first.
    measure : (N,) float64 their areas or volumes.
    pixels : all their pixels; ``of_pixels`` those of the masks.
    on_border : how many touch the edge of their mask, and may be larger than is seen.
    dropped : how many were too small to be counted.
    """

    value: int
    name: str
    ndim: int
    unit: str
    diameter: Array
    measure: Array
    pixels: int
    of_pixels: int
    on_border: int
    dropped: int

    def __len__(self) -> int:
        return len(self.diameter)

    @property
    def mean(self) -> float | None:
        """Mean diameter; None where there is no component."""
        return float(self.diameter.mean()) if len(self) else None

    def by_number(self, percent: float) -> float | None:
        """The diameter that ``percent`` of the components stay below, interpolated: 50 gives the median."""
        return float(np.percentile(self.diameter, percent)) if len(self) else None

    def by_measure(self, percent: float) -> float | None:
        """The least diameter up to which components hold ``percent`` of all area or volume, as sieves weigh it."""
        if not len(self):
            return None
        passing = np.cumsum(self.measure)
        return float(self.diameter[min(np.searchsorted(passing, passing[-1] * percent / 100), len(self) - 1)])


def gradations(masks: Sequence[Sized], names: Mapping[int, str]) -> tuple[Gradation, ...]:
    """One for every class of the images among ``masks``, then of the volumes, over all of them together.

    Lengths are physical where every one of those images (volumes) has a scale, else in pixels (voxels).
    """
    out = []
    for ndim in (2, 3):
        group = [mask for mask in masks if len(mask.shape) == ndim]
        physical = all(mask.scale is not None for mask in group)
        values = sorted({v for mask in group for v in (*np.unique(mask.value).tolist(), *mask.dropped)})
        out += [_gradation(value, group, ndim, physical, names) for value in values]
    return tuple(out)


def sized(found: Components, scale: tuple[float, ...] | None) -> Sized:
    """What ``gradations`` needs of a mask's components."""
    return Sized(found.shape, scale, found.value.astype(np.uint16), found.size, found.touches_border, found.dropped)


def summary_of(grades: Sequence[Gradation]) -> list[dict[str, object]]:
    """The ``classes`` of a summary.json."""
    return [_fields(grade) for grade in grades]


def _gradation(value: int, group: Sequence[Sized], ndim: int, physical: bool, names: Mapping[int, str]) -> Gradation:
    chosen = [mask.value == value for mask in group]
    sizes = [mask.size[c] for mask, c in zip(group, chosen)]
    sides = [np.prod(mask.scale) if physical and mask.scale is not None else 1.0 for mask in group]
    measure = np.sort(np.concatenate([size * side for size, side in zip(sizes, sides)]))
    return Gradation(
        value=value,
        name=names.get(value, str(value)),
        ndim=ndim,
        unit=UNITS[ndim][physical],
        diameter=diameter_of(measure, ndim),
        measure=measure,
        pixels=sum(int(size.sum()) for size in sizes),
        of_pixels=sum(int(np.prod(mask.shape, dtype=object)) for mask in group),
        on_border=sum(int(mask.touches_border[c].sum()) for mask, c in zip(group, chosen)),
        dropped=sum(mask.dropped.get(value, 0) for mask in group),
    )


def _fields(grade: Gradation) -> dict[str, object]:
    kind = "area" if grade.ndim == 2 else "volume"
    return {
        "class": grade.value,
        "name": grade.name,
        "axes": grade.ndim,
        "count": len(grade),
        "touching_border": grade.on_border,
        "dropped_as_too_small": grade.dropped,
        f"size_{UNITS[grade.ndim][0]}": grade.pixels,
        "share": grade.pixels / grade.of_pixels,
        kind: {"unit": f"{grade.unit}{grade.ndim}", "total": float(grade.measure.sum())},
        "diameter": {
            "unit": grade.unit,
            "mean": grade.mean,
            "median": grade.by_number(50),
            "by_number": {f"D{p}": grade.by_number(p) for p in SHARES},
            f"by_{kind}": {f"D{p}": grade.by_measure(p) for p in SHARES},
        },
    }
