"""Shapes of components: diameter, axes, perimeter or surface, in pixels or in the unit of a scale; and their table.

In pixels an object lies on its pixel squares (voxel cubes), whose own second moment, 1/12 along each axis, is added.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from patchforest.infer.components import PER_COMPONENT, Components
from patchforest.values import Array

UNITS = {2: ("px", "um"), 3: ("vx", "mm")}
"""By number of axes: the unit of a length without a scale, and with one."""
_LINES = 1 << 12


@dataclass(frozen=True, eq=False)
class Shapes:
    """Measures of N components, float64, in the unit of ``scale``.

    Attributes
    ----------
    measure : (N,) area or volume.
    diameter : (N,) of the circle or ball of the same area or volume.
    axes : (N, n) full axes, longest first, of the ellipse or ellipsoid with the same second moments.
    boundary : (N,) perimeter or surface, estimated by the Cauchy-Crofton formula: crossings of the boundary by lines in
        four directions (3-D: along the three axes), averaged. Long straight boundaries along an axis come out 5 % short
        (a plane along a volume's axes: a third); what runs in all directions comes out right.
    """

    measure: Array
    diameter: Array
    axes: Array
    boundary: Array

    @property
    def elongation(self) -> Array:
        """(N,) longest axis over the shortest, 1 or more."""
        return self.axes[:, 0] / self.axes[:, -1]


def shapes_of(found: Components, scale: Sequence[float] | None = None) -> Shapes:
    """Shapes of all components; ``scale`` has the length of a pixel along each axis, None: 1.

    Raises
    ------
    ValueError : a scale of another number of axes or not above 0, or pixels of an image that are not square.
    """
    ndim = len(found.shape)
    side = np.ones(ndim) if scale is None else np.array(scale, np.float64)
    if side.shape != (ndim,) or not (np.isfinite(side).all() and (side > 0).all()):
        raise ValueError(f"scale must be {ndim} lengths above 0; got {scale}")
    if ndim == 2 and side[0] != side[1]:
        raise ValueError(f"pixels must be square; got {scale}")
    measure = found.size * side.prod()
    moments = (found.covariance + np.eye(ndim) / 12) * np.outer(side, side)
    spread = np.sqrt(np.maximum(np.linalg.eigvalsh(moments), 0))[:, ::-1]
    if ndim == 2:
        crossings = found.faces.sum(axis=1) + found.diagonals / math.sqrt(2)
        return Shapes(measure, diameter_of(measure, 2), 4 * spread, math.pi / 8 * side[0] * crossings)
    surface = 2 / 3 * (found.faces * (side.prod() / side)).sum(axis=1)
    return Shapes(measure, diameter_of(measure, 3), 2 * math.sqrt(5) * spread, surface)


def diameter_of(measure: Array, ndim: int) -> Array:
    """Diameter of the circle (``ndim`` 2) or ball (3) of so much area or volume."""
    return np.sqrt(measure * (4 / math.pi)) if ndim == 2 else np.cbrt(measure * (6 / math.pi))


def orientations(found: Components) -> Array:
    """(N,) degrees, above -90 up to 90, from the column axis to an image's major axis, counter-clockwise as seen.

    NaN where no direction is longer than another.
    """
    rows, columns, both = (found.covariance[:, a, b] for a, b in ((0, 0), (1, 1), (0, 1)))
    angle = np.degrees(np.arctan2(-2 * both, columns - rows)) / 2 + 0.0  # no -0
    return np.where((both == 0) & (rows == columns), np.nan, np.where(angle <= -90, 90.0, angle))


def table_header(ndim: int) -> tuple[str, ...]:
    """Names of the cells of ``table_lines``; they depend on the number of axes alone."""
    if ndim == 2:
        return (
            "id", "class", "name", "size_px", "area_um2", "row", "column", "top", "left", "height", "width",
            "diameter_px", "diameter_um", "major_px", "minor_px", "major_um", "minor_um", "elongation",
            "orientation_deg", "edges_px", "perimeter_px", "perimeter_um", "extent", "touches_border",
        )  # fmt: skip
    return (
        "id", "class", "name", "size_vx", "volume_mm3", "plane", "row", "column", "front", "top", "left", "depth",
        "height", "width", "diameter_vx", "diameter_mm", "major_vx", "middle_vx", "minor_vx", "major_mm", "middle_mm",
        "minor_mm", "elongation", "faces_vx", "surface_vx", "surface_mm2", "extent", "touches_border",
    )  # fmt: skip


def table_lines(found: Components, *, scale: Sequence[float] | None, names: Mapping[int, str]) -> Iterator[list[str]]:
    """The cells of each component, as text; physical ones are empty without a scale.

    Parameters
    ----------
    scale : microns a pixel of an image, or millimetres a voxel of a volume, along each axis; None: not known.
    names : of the classes; those without one are called by their number.
    """
    ndim = len(found.shape)
    for start in range(0, len(found), _LINES):
        part = slice(start, start + _LINES)
        yield from zip(*_columns(_part(found, part), scale, names, start, ndim), strict=True)


def _columns(
    found: Components, scale: Sequence[float] | None, names: Mapping[int, str], start: int, ndim: int
) -> list[list[str]]:
    plain, scaled = shapes_of(found), None if scale is None else shapes_of(found, scale)
    empty = [""] * len(found)
    box = found.high - found.low
    extent = found.size / box.prod(axis=1)
    measure, diameter, boundary = (
        (empty, empty, empty) if scaled is None else map(_real, (scaled.measure, scaled.diameter, scaled.boundary))
    )
    axes = [empty] * ndim if scaled is None else [_real(axis) for axis in scaled.axes.T]
    return [
        [str(k) for k in range(start + 1, start + 1 + len(found))],
        _whole(found.value),
        [names.get(value, str(value)) for value in found.value.tolist()],
        _whole(found.size),
        measure,
        *([f"{x:.3f}" for x in axis.tolist()] for axis in found.centroid.T),
        *map(_whole, found.low.T),
        *map(_whole, box.T),
        _real(plain.diameter),
        diameter,
        *map(_real, plain.axes.T),
        *axes,
        _real((plain if scaled is None else scaled).elongation),
        *([_real(orientations(found))] if ndim == 2 else []),
        _whole(found.faces.sum(axis=1)),
        _real(plain.boundary),
        boundary,
        _real(extent),
        _whole(found.touches_border.astype(int)),
    ]


def _part(found: Components, part: slice) -> Components:
    """Some of the components, for measuring."""
    return replace(found, **{name: getattr(found, name)[part] for name in PER_COMPONENT})


def _whole(values: Array) -> list[str]:
    return list(map(str, values.tolist()))


def _real(values: Array) -> list[str]:
    return ["" if x != x else f"{x:.6g}" for x in values.tolist()]
