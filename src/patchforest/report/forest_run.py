"""One image, one forest, one picture, and what it cost: the work behind ``patchforest forest``."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from patchforest.errors import InputError
from patchforest.io.scale import AS_STORED, Scale, at_scale, thumbnail
from patchforest.report.display import Window
from patchforest.values import Array, Forest, ForestPolicy, ImageSource, Region

LARGE = 1 << 27
"""Pixels up to which an image is read as a whole."""


@dataclass(frozen=True)
class LevelCount:
    """The leaves of one level: their side in level-0 pixels, their number, and the share of the image they cover."""

    level: int
    size: int
    leaves: int
    area: float


@dataclass(frozen=True)
class ForestSummary:
    """What a forest costs against a uniform grid at its smallest leaf.

    Attributes
    ----------
    tokens : number of leaves.
    smallest : side of the smallest leaf in pixels.
    uniform_tokens : leaves of the uniform grid of that side.
    levels : coarse to fine, levels without leaves left out.
    """

    tokens: int
    smallest: int
    uniform_tokens: int
    levels: tuple[LevelCount, ...]

    @property
    def fewer(self) -> float:
        """How many times fewer tokens than the uniform grid."""
        return self.uniform_tokens / self.tokens

    @property
    def attention_ratio(self) -> float:
        """How many times fewer pairs of tokens full attention looks at."""
        return self.fewer**2


@dataclass(frozen=True, eq=False)
class ForestRun:
    """A forest cut and drawn: the seconds of every step by name, in order."""

    forest: Forest
    summary: ForestSummary
    image_shape: tuple[int, ...]
    image_dtype: str
    seconds: dict[str, float]


def summarise_forest(forest: Forest) -> ForestSummary:
    """Leaves per level and token counts of a forest, 2-D or 3-D."""
    smallest = int(forest.size.min())
    uniform = int(np.prod([-(-s // smallest) for s in forest.shape]))
    pixels = float(np.prod(forest.shape))
    levels = []
    for level in np.unique(forest.level):
        here = forest.level == level
        share = float(forest.area[here].sum()) / pixels
        levels.append(LevelCount(int(level), int(forest.size[here][0]), int(here.sum()), share))
    return ForestSummary(len(forest), smallest, uniform, tuple(levels))


def draw_forest_of(
    path: Path,
    policy: ForestPolicy,
    *,
    out: Path,
    window: Window | None = None,
    scale: Scale = AS_STORED,
    max_side: int = 1600,
) -> ForestRun:
    """Reads an image, cuts its forest by a policy, writes the forest drawn over it to ``out``, and times each step.

    Images over ``LARGE`` pixels are streamed, where the criterion allows it.

    Raises
    ------
    InputError : the image cannot be read, or ``out`` cannot be written.
    ValueError : the policy does not fit the image.
    """
    from patchforest.io.open import open_image
    from patchforest.io.write import write_image
    from patchforest.report.forest_picture import draw_windows
    from patchforest.tree.detail import BY_TILES

    clock = _Clock()
    source = at_scale(open_image(path), scale, path)
    shape = (int(source.shape[0]), int(source.shape[1]))
    by_tiles = policy.uniform is not None or policy.criterion in (*BY_TILES, "uniform", "random")
    if shape[0] * shape[1] > LARGE and by_tiles:
        image, forest = _stream(source, policy, window, max_side, clock)
    else:
        image = source.read()
        clock.lap("read")
        forest = _cut(image, policy, window, clock)
    whole = Region((0, 0), shape)
    picture = draw_windows(image, [(whole, forest)], frame=shape, window=window, max_side=max_side)
    clock.lap("draw")
    write_image(out, picture)
    clock.lap("write")
    return ForestRun(forest, summarise_forest(forest), source.shape, str(image.dtype), clock.seconds)


def _stream(
    source: ImageSource, policy: ForestPolicy, window: Window | None, max_side: int, clock: _Clock
) -> tuple[Array, Forest]:
    """A thumbnail of a large image, and its forest cut while it is read, with the budget taken as it is."""
    from patchforest.tree.stream import stream_forest

    forest = stream_forest(source, replace(policy, window=None), window=window, threads=os.cpu_count() or 1)
    clock.lap("read and cut")
    image = thumbnail(source, max_side)
    clock.lap("thumbnail")
    return image, forest


def _cut(image: Array, policy: ForestPolicy, window: Window | None, clock: _Clock) -> Forest:
    """As ``tree.cut.cut_forest`` with the budget taken as it is, and detail map and tree timed apart."""
    from patchforest.tree.cut import cut_forest
    from patchforest.tree.detail import detail_map, variance_pyramid
    from patchforest.tree.forest import build_forest, default_root

    if policy.uniform is not None:
        forest = cut_forest(image, policy, window=window)
        clock.lap("forest")
        return forest
    shape = (int(image.shape[0]), int(image.shape[1]))
    root = policy.root or default_root(shape, policy.cell)
    detail: Array | list[Array]
    if policy.scorer is not None:
        detail = _scored(image, policy, root, window, clock)
    elif policy.criterion == "variance":
        detail = variance_pyramid(image, policy.cell, root, window=window)
    else:
        detail = detail_map(image, policy.cell, criterion=policy.criterion, window=window)
    clock.lap("detail map")
    forest = build_forest(
        detail,
        shape=shape,
        cell=policy.cell,
        budget=policy.budget,
        threshold=policy.threshold,
        root=root,
        max_depth=policy.max_depth,
    )
    clock.lap("forest")
    return forest


def _scored(image: Array, policy: ForestPolicy, root: int, window: Window | None, clock: _Clock) -> list[Array]:
    """Scores of a policy's scorer; loading it and its library is timed apart."""
    from patchforest.infer.scorer import LeafScorer, load_scorer, scorer_q
    from patchforest.tree.window import unit_range

    assert policy.scorer is not None
    bundle = load_scorer(policy.scorer)
    channels = bundle.spec.model.channels
    if image.ndim == 3 and image.shape[2] != channels:
        what = f"was trained on {channels} channels, and the image has {image.shape[2]}"
        raise InputError(policy.scorer, what, "give an image as those it was trained on")
    clock.lap("load the scorer")
    pixels = image if image.dtype == np.uint8 and window is None else unit_range(image, window)
    return LeafScorer(bundle, scorer_q(bundle.spec.model)).scores(pixels, cell=policy.cell, root=root)


class _Clock:
    """Seconds since the last lap, collected by name."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.seconds[name] = now - self._last
        self._last = now
