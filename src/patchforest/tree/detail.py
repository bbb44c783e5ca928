"""Detail maps: how much there is to see in every cell, so that small leaves go where they are worth their cost.

A detail map is additive (a parent's detail is the sum of its children's), which makes the best forest of any length
one selection of the largest pyramid entries (``forest.py``). APF and SHF use Canny edge counts; their fixed thresholds
fail on low contrast and on other magnifications, so the default takes the thresholds from the image itself.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from patchforest.tree.edges import EDGE_SHARE, Box, edge_counts, edge_rule, grey_planes
from patchforest.tree.window import ByteWindow, Window, default_window, to_uint8
from patchforest.values import Array, Criterion

BY_TILES = ("edges", "canny", "gradient")
"""Criteria of images that are found tile by tile, so that they can be streamed (``stream.py``)."""


def detail_map(
    image: Array,
    cell: int = 8,
    *,
    criterion: Criterion = "edges",
    window: Window | None = None,
    rng: np.random.Generator | None = None,
    spatial: int = 2,
    threads: int = 1,
) -> Array:
    """Detail of every cell: float32, (ceil(H/cell), ceil(W/cell)), non-negative and additive.

    Parameters
    ----------
    image : (H, W) or (H, W, C) of any dtype; with ``spatial=3``, (D, H, W) or (D, H, W, C).
    cell : side of a cell, the smallest possible leaf, in pixels.
    criterion : ``"edges"`` (Canny whose thresholds come from the image's own gradients), ``"canny"`` (the papers'
        blur by resolution and thresholds 100 and 200), ``"gradient"`` (length of Sobel's gradient of the grey image),
        ``"variance"`` (squared deviations from
        the cell's mean; ``variance_pyramid`` gives those of every node), ``"uniform"``, ``"random"``;
        or an array (H, W) of scores per pixel, such as a model's probability of an edge; or a function that maps
        the image to one.
    window : values that map to black and white for data that is not 8-bit; see ``tree.window``.
    rng : draws the settings afresh, as SHF does while training: blur in {3, ..., 13} and thresholds at random.
    spatial : 2, or 3 for volumes (``gradient``, ``variance``, ``uniform``, ``random``, ``edges`` as gradient above
        the image's own quantile).
    threads : tiles worked on at a time (``edges``, ``canny`` and ``gradient`` of images); the result is the same.

    Raises
    ------
    ValueError : unknown criterion, a score of another shape, negative or not finite, or pixels without known range.

    Notes
    -----
    Source: APF (SC'24) section 3 and SHF; the self-set thresholds are ours. Edges are sought in the luma of RGB, in the
    larger of two channels, and above three channels in the one with the strongest gradient at a pixel. ``edges``
    looks at the 2 x 2 means of the image where a cell spans at least four pixels: what is finer is sensor noise to a
    leaf of that size; its high threshold is the 0.85 quantile of the gradient, over a lattice of blocks where the
    image has more than 2^24 pixels, and its low one 0.4 of that (``tree.edges``).
    """
    if image.ndim not in (spatial, spatial + 1) or spatial not in (2, 3) or min(image.shape) < 1:
        raise ValueError(
            f"image must have {spatial} spatial axes and at most one of channels, none empty; got {image.shape}"
        )
    if cell < 1:
        raise ValueError(f"cell must be at least 1 pixel; got {cell}")
    if callable(criterion) or isinstance(criterion, np.ndarray):
        score = np.asarray(criterion(image) if callable(criterion) else criterion, np.float32)
        if score.shape != image.shape[:spatial]:
            raise ValueError(f"a score needs one value a pixel, {image.shape[:spatial]}; got {score.shape}")
        if not np.isfinite(score).all() or score.min() < 0:
            raise ValueError("a score must be finite and not negative")
        return cell_sums(score, cell)
    if not isinstance(criterion, str):
        raise ValueError(f"criterion must be a name, an array (H, W) or a function; got {type(criterion).__name__}")
    shape = tuple(-(-s // cell) for s in image.shape[:spatial])
    if criterion == "uniform":
        return np.ones(shape, np.float32)
    if criterion == "random":
        generator = rng if rng is not None else np.random.default_rng(0)
        return _random(shape, generator)
    if spatial == 2 and criterion in BY_TILES:
        rule = edge_rule(criterion, image.shape, cell, rng)
        read = _reader(image if image.ndim == 3 else image[..., None], window)
        return edge_counts(read, image.shape[:2], rule, threads=threads).astype(np.float32)
    measures: dict[str, Callable[[Array, int, np.random.Generator | None], Array]] = (
        {"variance": _variance}
        if spatial == 2
        else {"edges": _edges_3d, "gradient": _gradient_3d, "variance": _variance}
    )
    measures["variance"] = _variance
    if criterion not in measures:
        names = dict.fromkeys([*(BY_TILES if spatial == 2 else ()), *measures, "uniform", "random"])
        raise ValueError(f"unknown criterion {criterion!r} for {spatial} spatial axes; there are {', '.join(names)}")
    return measures[criterion](_with_channels(to_uint8(image, window), spatial), cell, rng)


def variance_pyramid(
    image: Array,
    cell: int,
    root: int,
    *,
    window: Window | None = None,
    spatial: int = 2,
    rng: np.random.Generator | None = None,
) -> list[Array]:
    """Sum of squared errors of every node against its own mean, cells first and roots last.

    Not additive (a parent's error is at least the sum of its children's), so it brings its own pyramid to
    ``build_forest``. Each entry is float32 and covers the image in nodes of side cell, 2 cell, ... root. With ``rng``
    the image is blurred by a random kernel first (2-D).
    """
    pixels = _with_channels(to_uint8(image, window), spatial)
    kernel = 1 if rng is None or spatial != 2 else int(rng.choice((1, 3, 5, 7, 9)))
    sums: list[Array] = []
    squares: Array = np.zeros(())
    for channel in range(pixels.shape[-1]):
        plane = pixels[..., channel]
        plane = (_blur(np.ascontiguousarray(plane), kernel) if kernel > 1 else plane).astype(np.float32)
        sums.append(_float64_cell_sums(plane, cell))
        squares = squares + _float64_cell_sums(np.square(plane), cell)
    count: Array = np.ones((1,) * spatial)
    for axis, length in enumerate(pixels.shape[:spatial]):
        held = np.diff(np.append(np.arange(0, length, cell), length)).astype(float)
        count = count * held.reshape((-1,) + (1,) * (spatial - 1 - axis))
    pyramid, side = [], cell
    while True:
        error = squares - sum(np.square(s) for s in sums) / count
        pyramid.append(np.maximum(error, 0.0).astype(np.float32))
        if side >= root:
            return pyramid
        sums, squares = [_float64_cell_sums(s, 2) for s in sums], _float64_cell_sums(squares, 2)
        count, side = _float64_cell_sums(count, 2), side * 2


def cell_sums(score: Array, cell: int) -> Array:
    """Sum of a per-pixel score over every cell, float32; pixels beyond the edge count as zero."""
    out = score.astype(np.float32, copy=False)
    whole = cell & (cell - 1) == 0 and all(s % cell == 0 for s in score.shape)
    if score.ndim == 2 and whole:  # powers of two: the mean times the count is the exact sum
        small = (score.shape[1] // cell, score.shape[0] // cell)
        return cv2.resize(out, small, interpolation=cv2.INTER_AREA) * np.float32(cell * cell) if cell > 1 else out
    for axis in range(score.ndim):
        out = np.add.reduceat(out, np.arange(0, score.shape[axis], cell), axis=axis)
    return out.astype(np.float32)


def _float64_cell_sums(score: Array, cell: int) -> Array:
    for axis in range(score.ndim):
        score = np.add.reduceat(score, np.arange(0, score.shape[axis], cell), axis=axis, dtype=np.float64)
    return score


def _with_channels(pixels: Array, spatial: int) -> Array:
    return pixels if pixels.ndim > spatial else pixels[..., None]


def grey(pixels: Array) -> Array:
    """(H, W) uint8 of (H, W, C): luma for RGB; for other counts of channels the brightest of every pixel."""
    return grey_planes(pixels, False)[0] if pixels.shape[2] <= 3 else pixels.max(axis=2)


def _reader(image: Array, window: Window | None) -> Callable[[Box], Array]:
    """Reads a box of (H, W, C) as uint8."""
    known = window if window is not None or image.dtype == np.uint8 else default_window(image)
    to_bytes = ByteWindow(known)
    return lambda box: to_bytes(image[box[0] : box[1], box[2] : box[3]])


def _blur(pixels: Array, kernel: int) -> Array:
    return cv2.GaussianBlur(pixels, (kernel, kernel), 0) if kernel > 1 else pixels


def _variance(pixels: Array, cell: int, rng: np.random.Generator | None) -> Array:
    """Squared deviations from the cell's mean: the first level of ``variance_pyramid``."""
    return variance_pyramid(pixels, cell, cell, spatial=pixels.ndim - 1, rng=rng)[0]


def _gradient_3d(pixels: Array, cell: int, rng: np.random.Generator | None) -> Array:
    return cell_sums(_magnitude_3d(pixels), cell)


def _edges_3d(pixels: Array, cell: int, rng: np.random.Generator | None) -> Array:
    size = _magnitude_3d(pixels)
    share = EDGE_SHARE if rng is None else float(rng.uniform(0.8, 0.96))
    some = size[size > 1.0]
    return cell_sums((size >= np.quantile(some, share)) if some.size else np.zeros_like(size), cell)


def _magnitude_3d(pixels: Array) -> Array:
    """Length of the central-difference gradient of a volume, the largest over channels."""
    out = np.zeros(pixels.shape[:3], np.float32)
    for channel in range(pixels.shape[3]):
        volume = pixels[..., channel].astype(np.float32)
        parts = [np.gradient(volume, axis=a) if volume.shape[a] > 1 else np.zeros_like(volume) for a in range(3)]
        np.maximum(out, np.sqrt(sum(np.square(p) for p in parts)), out=out)
    return out


def _random(shape: tuple[int, ...], rng: np.random.Generator) -> Array:
    """A multiplicative cascade: chance at every scale, so that random forests have coarse and fine regions.

    Independent noise a cell would add up to nearly the same sum everywhere, and the forest would be uniform.
    """
    out = np.ones(shape, np.float32)
    step = 1
    while step <= max(shape):
        factor = rng.lognormal(0.0, 0.9, tuple(-(-s // step) for s in shape)).astype(np.float32)
        for axis in range(len(shape)):
            factor = np.repeat(factor, step, axis=axis)
        out *= factor[tuple(slice(0, s) for s in shape)]
        step *= 2
    return out
