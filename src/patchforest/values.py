"""The values that travel between rooms: frozen, arrays plus units, no behaviour beyond their invariants.

Axes are (row, column) or (plane, row, column). Lengths are in level-0 pixels unless a name says otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


@runtime_checkable
class ImageSource(Protocol):
    """An image that can be read in parts: what every reader in ``io`` returns and every streaming function takes."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Level-0 shape, (H, W, C)."""
        ...

    @property
    def levels(self) -> tuple[tuple[int, int], ...]:
        """(H, W) of every stored level, level 0 first."""
        ...

    @property
    def mpp(self) -> float | None:
        """Microns per level-0 pixel, or None where the file does not say."""
        ...

    @property
    def tile(self) -> tuple[int, int]:
        """(rows, columns) of the blocks in which level 0 is stored: reads along them decode nothing twice.

        At most (H, W); all of it where the image is decoded as a whole.
        """
        ...

    def read(
        self,
        level: int = 0,
        row: int = 0,
        column: int = 0,
        height: int | None = None,
        width: int | None = None,
    ) -> Array:
        """Pixels (height, width, C) of one level in the file's own dtype; row and column in that level's pixels."""
        ...


@runtime_checkable
class VolumeSource(Protocol):
    """A volume that can be read in parts: what ``io.volume.open_volume`` returns.

    Axes are (plane, row, column). Where the file knows its place in the patient they are presented as a radiologist
    sees them, whatever their stored order: plane towards superior, row towards posterior, column towards left. Files
    without orientation (TIFF stacks, NumPy) are presented as stored.
    """

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(D, H, W, C)."""
        ...

    @property
    def spacing(self) -> tuple[float, float, float] | None:
        """Millimetres between voxel centres along (plane, row, column), or None where the file does not say."""
        ...

    @property
    def affine(self) -> Array | None:
        """(4, 4) float64: presented index (plane, row, column, 1) to millimetres right, anterior, superior; or None."""
        ...

    def read(self, origin: tuple[int, int, int] = (0, 0, 0), shape: tuple[int, int, int] | None = None) -> Array:
        """Voxels (d, h, w, C) of a box in the file's own values (scaled as its header says), up to the far corner."""
        ...


@dataclass(frozen=True)
class Region:
    """A box of an image: ``origin`` and ``shape`` in level-0 pixels, one number an axis."""

    origin: tuple[int, ...]
    shape: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Forest:
    """The leaves of a forest of 2^n-trees that tile an image exactly once, in Z (Morton) order.

    Attributes
    ----------
    origin : (L, n) int64, level-0 corner of each leaf; n = 2 or 3.
    size : (L,) int64, side of each leaf in level-0 pixels; a power-of-two multiple of ``cell``.
    level : (L,) int64, depth in its tree; 0 is a root.
    shape : size of the image per axis. Leaves at the far edges may reach over it; nodes wholly outside do not exist.
    root : side of a root in level-0 pixels.
    cell : side of the smallest possible leaf in level-0 pixels.
    """

    origin: Array
    size: Array
    level: Array
    shape: tuple[int, ...]
    root: int
    cell: int

    def __post_init__(self) -> None:
        n = len(self.shape)
        if self.origin.ndim != 2 or self.origin.shape[1] != n or n not in (2, 3):
            raise ValueError(f"origin must be (L, {n}) for shape {self.shape}, n = 2 or 3; got {self.origin.shape}")
        if not (len(self.origin) == len(self.size) == len(self.level)):
            raise ValueError(
                f"origin, size and level must have one row a leaf; got {len(self.origin)}, {len(self.size)}, "
                f"{len(self.level)}"
            )
        depth = self.root // self.cell
        if self.root != self.cell * depth or depth < 1 or depth & (depth - 1):
            raise ValueError(f"root must be cell times a power of two; got root {self.root}, cell {self.cell}")

    def __len__(self) -> int:
        return len(self.size)

    @property
    def ndim(self) -> int:
        """Number of spatial axes, 2 or 3."""
        return len(self.shape)

    @property
    def depth(self) -> int:
        """Number of splits from a root to a cell."""
        return (self.root // self.cell).bit_length() - 1

    @property
    def extent(self) -> Array:
        """(L, n) int64: how much of each leaf lies inside the image, per axis, in level-0 pixels."""
        end = np.minimum(self.origin + self.size[:, None], np.asarray(self.shape))
        return end - self.origin

    @property
    def area(self) -> Array:
        """(L,) int64: pixels of each leaf that lie inside the image. Their sum is the number of pixels."""
        return self.extent.prod(axis=1)


@dataclass(frozen=True, eq=False)
class PatchSequence:
    """What a transformer reads: every leaf resampled to one patch size, with its place and scale.

    Attributes
    ----------
    patches : (L, C, p, ..., p) float32, area-averaged pixels on the image's own scale.
    coord : (L, n) float32, centre of each leaf in level-0 pixels.
    size : (L,) int64, side of each leaf in level-0 pixels.
    valid : (L,) bool, False for padding.
    """

    patches: Array
    coord: Array
    size: Array
    valid: Array

    def __len__(self) -> int:
        return len(self.size)


Criterion = str | Array | Callable[[Array], Array]


@runtime_checkable
class NodeScorer(Protocol):
    """Scores the nodes of an image's forest: what ``cut_forest`` takes in place of a criterion that adds up."""

    def scores(self, image: Array, *, cell: int, root: int) -> list[Array]:
        """Scores of all nodes, cells first and roots last, of an image (H, W, C), uint8 or float in [0, 1]."""
        ...


@dataclass(frozen=True)
class ForestPolicy:
    """How to cut an image: the settings of ``detail_map`` and ``build_forest`` that a trained model carries along.

    Exactly one of ``budget``, ``threshold`` and ``uniform`` is set. ``budget`` is the number of leaves for an image
    of ``window`` pixels a side; other sizes get proportionally many (see ``tree.forest.scaled_budget``).

    Attributes
    ----------
    criterion : name of a criterion of ``tree.detail`` (``edges``, ``canny``, ``gradient``, ``variance``, ``random``,
        ``uniform``), or ``scorer``: a trained model says where to look.
    cell : side of the smallest leaf in pixels.
    root : side of a root in pixels, or None for the largest that fits the image.
    budget, threshold, uniform : see ``build_forest``.
    max_depth : most splits below a root, or None.
    window : side of the square image that ``budget`` is meant for, in pixels, or None: ``budget`` whatever the size.
    fresh : draw a fresh random detail map per sample and epoch while training (the forest of SHF).
    scorer : run folder of that model, for training; a run and a trained model keep a copy in their own folder, under
        this name.
    """

    criterion: str = "edges"
    cell: int = 8
    root: int | None = None
    budget: int | None = None
    threshold: float | None = None
    uniform: int | None = None
    max_depth: int | None = None
    window: int | None = None
    fresh: bool = True
    scorer: str | None = None

    def __post_init__(self) -> None:
        if (self.criterion == "scorer") != (self.scorer is not None):
            raise ValueError("criterion scorer goes with scorer, the run folder of a trained one; set both or neither")
        chosen = [n for n in ("budget", "threshold", "uniform") if getattr(self, n) is not None]
        if len(chosen) != 1:
            raise ValueError(f"set exactly one of budget, threshold and uniform; got {chosen or 'none'}")


def as_shape(shape: Sequence[int]) -> tuple[int, ...]:
    """A tuple of positive Python ints, or ValueError."""
    out = tuple(int(s) for s in shape)
    if len(out) not in (2, 3) or min(out) < 1:
        raise ValueError(f"shape must be 2 or 3 positive sizes, e.g. (H, W); got {tuple(shape)}")
    return out
