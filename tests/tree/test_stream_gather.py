"""Patches of streamed images: leaves of every size, coarse levels, and errors (see also test_stream.py)."""

import numpy as np
import pytest

from patchforest.tree import reduced as reduced_module
from patchforest.tree import stream_gather as module
from patchforest.tree.forest import build_forest
from patchforest.tree.gather import gather
from patchforest.tree.reduced import ReducedImage
from patchforest.tree.stream import stream_forest
from patchforest.tree.stream_gather import stream_gather
from patchforest.values import Forest, ForestPolicy
from tests.tree.scenes import Tiled, scene


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ROWS", 48)
    monkeypatch.setattr(module, "COLUMNS", 80)


def forest_of(shape: tuple[int, int], seed: int, cell: int = 4, threshold: float = 60) -> Forest:
    """Leaves of every size: heavy-tailed random detail."""
    rng = np.random.default_rng(seed)
    detail = rng.pareto(0.7, tuple(-(-s // cell) for s in shape)).astype(np.float32)
    root = cell << 7
    return build_forest(
        detail, shape=shape, cell=cell, threshold=float(np.quantile(detail, 0.99)) * threshold, root=root
    )


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_any_forest(seed: int, dtype: type, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(seed)
    if seed % 2:
        monkeypatch.setattr(reduced_module, "ENTRIES", 100)  # so that sums are over more than 16 pixels
    shape = tuple(int(s) for s in rng.integers(1, 800, 2))
    image = (rng.random((*shape, int(rng.choice([1, 3])))) * 1000 / 7).astype(dtype)
    forest = forest_of(shape, seed, threshold=float(rng.choice([0.5, 3, 40])))
    source = Tiled(image, tuple(int(s) for s in rng.integers(1, 300, 2)))
    patch = int(rng.choice([2, 4, 8]))
    got = stream_gather(source, forest, patch, threads=1 + seed % 2)
    assert np.array_equal(got.patches, gather(image, forest, patch).patches)


def test_coarse_levels_on_request() -> None:
    image = scene(np.random.default_rng(1), (512, 768))
    image[:] = np.linspace(0, 255, 768).astype(np.uint8)[None, :, None]
    source = Tiled(image, coarser=3)
    forest = forest_of((512, 768), 2, threshold=3)
    assert len(np.unique(forest.size)) > 3
    exact = stream_gather(source, forest, 4)
    read = sum(source.read_pixels)
    source.read_pixels = [0] * 4
    near = stream_gather(source, forest, 4, exact=False)
    assert source.read_pixels[3] > 0
    assert sum(source.read_pixels) < read
    small = forest.size < 8
    assert np.array_equal(near.patches[small], exact.patches[small])
    assert not np.array_equal(near.patches, exact.patches)
    assert np.abs(near.patches - exact.patches).max() < 2  # the levels of this file are honest averages, rounded


@pytest.mark.parametrize("height", [1025, 1027, 1032, 1039])
def test_coarse_levels_that_end_early(height: int) -> None:
    image = np.full((height, 300, 1), 200, np.uint8)
    forest = build_forest(np.ones((-(-height // 8), 38), np.float32), shape=(height, 300), uniform=256, root=256)
    got = stream_gather(Tiled(image, coarser=4), forest, 8, exact=False)
    assert (got.patches == 200).all()


def test_levels_of_another_ratio_are_left_alone() -> None:
    image = scene(np.random.default_rng(1), (300, 300))
    source = Tiled(image)
    source.pixels.append(image[::3, ::3])
    source.read_pixels.append(0)
    forest = forest_of((300, 300), 0)
    with pytest.warns(UserWarning, match="no effect"):
        got = stream_gather(source, forest, 4, exact=False)
    assert np.array_equal(got.patches, gather(image, forest, 4).patches)


def test_progress() -> None:
    seen: list[float] = []
    source = Tiled(scene(np.random.default_rng(1), (300, 300)))
    stream_gather(source, forest_of((300, 300), 0), 4, progress=seen.append)
    assert seen == sorted(seen)
    assert seen[-1] == 1


@pytest.mark.filterwarnings("ignore:the detail map ran out")
def test_errors() -> None:
    image = scene(np.random.default_rng(1), (128, 128))
    forest = forest_of((128, 128), 0)
    with pytest.raises(ValueError, match=r"forest is cut for an image of \(128, 128\)"):
        stream_gather(Tiled(image[:100]), forest)
    with pytest.raises(ValueError, match="power of two"):
        stream_gather(Tiled(image), forest, 6)
    with pytest.raises(ValueError, match="not complete"):
        stream_gather(Tiled(image), forest, 4, reduced=ReducedImage(image.shape))
    reduced = ReducedImage(image.shape)
    stream_forest(Tiled(image), ForestPolicy(budget=40, criterion="canny", cell=4), reduced=reduced)
    assert np.array_equal(
        stream_gather(Tiled(image), forest, 4, reduced=reduced).patches, gather(image, forest, 4).patches
    )
