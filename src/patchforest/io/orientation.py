"""Where the axes of a stored volume point, and the one order in which volumes are shown: arithmetic, no files.

Stored axes are counted as NIfTI and NRRD list them, fastest first: (i, j, k). Shown axes are (plane, row, column).
World coordinates are millimetres towards right, anterior and superior (RAS).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import permutations, product

import numpy as np

from patchforest.values import Array

Box = tuple[slice, slice, slice]

_SHOWN = np.array(
    [[0.0, 0.0, 1.0], [0.0, -1.0, 0.0], [-1.0, 0.0, 0.0]]
)  # plane, row, column: superior, posterior, left
_TIE = 1e-4  # of the sum of three cosines
_FLATTEST = 1e-3  # volume of the cell that three unit vectors along the axes span
_AGREEMENT = 1e-3  # of a voxel


@dataclass(frozen=True)
class Layout:
    """Which stored axis plane, row and column run along, and which of them run backwards.

    Attributes
    ----------
    order : the stored axis (0, 1, 2 for i, j, k) of plane, row and column.
    flip : whether plane, row and column run against it.
    """

    order: tuple[int, int, int]
    flip: tuple[bool, bool, bool]

    def present(self, stored: Array) -> Array:
        """A view (plane, row, column, ...) of stored voxels (i, j, k, ...)."""
        shown = stored.transpose(*self.order, *range(3, stored.ndim))
        return shown[tuple(slice(None, None, -1 if back else 1) for back in self.flip)]

    def store(self, shown: Array) -> Array:
        """A view (i, j, k, ...) of shown voxels: the inverse of ``present``."""
        straight = shown[tuple(slice(None, None, -1 if back else 1) for back in self.flip)]
        places = [self.order.index(axis) for axis in range(3)]
        return straight.transpose(*places, *range(3, shown.ndim))

    def shape(self, stored: tuple[int, int, int]) -> tuple[int, int, int]:
        """(D, H, W) of a volume of (I, J, K) voxels."""
        plane, row, column = self.order
        return stored[plane], stored[row], stored[column]

    def box(self, origin: tuple[int, int, int], shape: tuple[int, int, int], stored: tuple[int, int, int]) -> Box:
        """The stored slices that hold a shown box; the stored volume has (I, J, K) voxels."""
        slices = [slice(0)] * 3
        for axis, back, start, length in zip(self.order, self.flip, origin, shape, strict=True):
            first = stored[axis] - start - length if back else start
            slices[axis] = slice(first, first + length)
        return slices[0], slices[1], slices[2]

    def index(self, stored: tuple[int, int, int]) -> Array:
        """(4, 4) float64: shown index (plane, row, column, 1) to stored index (i, j, k, 1)."""
        matrix = np.zeros((4, 4))
        matrix[3, 3] = 1
        for shown, (axis, back) in enumerate(zip(self.order, self.flip, strict=True)):
            matrix[axis, shown] = -1 if back else 1
            matrix[axis, 3] = stored[axis] - 1 if back else 0
        return matrix


AS_STORED = Layout((2, 1, 0), (False, False, False))
"""For files that do not know their place in the patient: the slowest stored axis is the plane."""


@dataclass(frozen=True, eq=False)
class Grid:
    """How a volume lies in its file, which is how a mask of it is stored.

    Attributes
    ----------
    shape : voxels along (i, j, k).
    layout : how these axes are shown.
    affine : (4, 4) float64, stored index (i, j, k, 1) to millimetres RAS; None where the file does not say.
    spacing : millimetres between voxels along (i, j, k), or None.
    nifti : the header of the NIfTI file it comes from, else empty.
    """

    shape: tuple[int, int, int]
    layout: Layout = AS_STORED
    affine: Array | None = None
    spacing: tuple[float, float, float] | None = None
    nifti: bytes = b""

    @property
    def shown_affine(self) -> Array | None:
        """(4, 4): shown index to millimetres RAS, or None."""
        return None if self.affine is None else self.affine @ self.layout.index(self.shape)

    @property
    def shown_spacing(self) -> tuple[float, float, float] | None:
        """Millimetres along (plane, row, column), or None."""
        if self.spacing is None:
            return None
        plane, row, column = self.layout.order
        return self.spacing[plane], self.spacing[row], self.spacing[column]


def placed_grid(shape: tuple[int, int, int], affine: Array, *, nifti: bytes = b"") -> Grid:
    """The grid of a file that knows its place, shown with plane, row, column nearest to superior, posterior, left.

    Raises
    ------
    ValueError
        ``affine`` is no map of a volume (see ``require_invertible``).
    """
    affine = require_invertible(affine)
    return Grid(shape, closest_layout(affine), affine, voxel_size(affine), nifti)


def closest_layout(affine: Array) -> Layout:
    """Of the 48 layouts the one whose plane, row and column point most nearly to superior, posterior and left.

    It depends only on where the axes point, not on the order in which they are stored: of directions equally near
    (volumes turned by just 45 degrees) the one with the greater right component of plane, then anterior, ... is taken.
    """
    cosines = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    found = []
    for order in permutations(range(3)):
        for flip in product((False, True), repeat=3):
            shown = cosines[:, order].T * np.where(flip, -1.0, 1.0)[:, None]
            found.append((float((shown * _SHOWN).sum()), tuple(np.round(shown, 4).ravel() + 0.0), order, flip))
    best = max(score for score, *_ in found)
    _, _, order, flip = max((item for item in found if item[0] > best - _TIE), key=lambda item: item[1])
    return Layout(order, flip)  # type: ignore[arg-type]


def require_invertible(affine: Array) -> Array:
    """The (4, 4) affine as float64; ValueError unless it is finite, its axes have a length and span a volume."""
    affine = np.asarray(affine, np.float64)
    if affine.shape != (4, 4) or not np.isfinite(affine).all() or affine[3].tolist() != [0, 0, 0, 1]:
        raise ValueError(f"an affine is 4 x 4, finite, with last row 0 0 0 1; got {affine.tolist()}")
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    if not np.isfinite(lengths).all() or lengths.min() < 1e-9 or lengths.max() > 1e9:
        raise ValueError(f"voxels measure {_numbers(lengths)} mm")
    if abs(np.linalg.det(affine[:3, :3] / lengths)) < _FLATTEST:
        raise ValueError("its axes lie in one plane")
    return affine


def voxel_size(affine: Array) -> tuple[float, float, float]:
    """Length of a step along each axis of an affine."""
    first, second, third = np.linalg.norm(affine[:3, :3], axis=0).tolist()
    return first, second, third


def affines_agree(one: Array, other: Array) -> bool:
    """Whether two affines differ by at most 1e-3 of a voxel: in the place of voxel 0 and in each axis, per step.

    The place may also differ by what single precision loses.
    """
    steps = np.linalg.norm(one[:3, :3], axis=0)
    axes = np.linalg.norm(one[:3, :3] - other[:3, :3], axis=0) <= _AGREEMENT * steps
    slack = _AGREEMENT * steps.max() + 4 * np.finfo(np.float32).eps * np.abs(one[:3, 3]).max()
    return bool(axes.all() and np.abs(one[:3, 3] - other[:3, 3]).max() <= slack)


def affine_gap(one: Array, other: Array, shape: tuple[int, int, int]) -> float:
    """The greatest distance, in millimetres, between the places that two affines give a corner voxel."""
    corners = np.array([(*corner, 1) for corner in product(*((0, size - 1) for size in shape))], np.float64)
    return float(np.linalg.norm((corners @ (one - other).T)[:, :3], axis=1).max())


def _numbers(values: Array) -> str:
    return " x ".join(f"{value:g}" for value in values)
