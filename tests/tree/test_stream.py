"""Streamed forests and patches equal those in memory, exactly, whatever the tiles."""

import numpy as np
import pytest

from patchforest.tree import cells, edges, seams, stream
from patchforest.tree.cut import cut_forest
from patchforest.tree.gather import gather
from patchforest.tree.reduced import ReducedImage
from patchforest.tree.stream import stream_forest
from patchforest.tree.stream_gather import stream_gather
from patchforest.values import Forest, ForestPolicy
from tests.tree.scenes import Tiled, scene, spiral

pytestmark = pytest.mark.filterwarnings("ignore:the detail map ran out", "ignore:no root has more")


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks so small that small images have many, and thresholds that are sampled as those of large ones."""
    monkeypatch.setattr(cells, "BLOCK", 8)
    monkeypatch.setattr(stream, "ROWS", 48)
    monkeypatch.setattr(stream, "COLUMNS", 80)
    monkeypatch.setattr(stream, "TILE_ROWS", 24)
    monkeypatch.setattr(stream, "TILE_COLUMNS", 56)
    monkeypatch.setattr(stream, "_MOST_BYTES", 1 << 12)
    monkeypatch.setattr(stream, "_HELD_BYTES", 1 << 14)
    monkeypatch.setattr(edges, "SAMPLE_PIXELS", 1 << 14)
    monkeypatch.setattr(edges, "SAMPLE_SIDE", 4)
    monkeypatch.setattr(edges, "SAMPLE_TILE", 32)


def same(one: Forest, other: Forest) -> bool:
    return (
        np.array_equal(one.origin, other.origin)
        and np.array_equal(one.size, other.size)
        and (one.shape, one.root, one.cell) == (other.shape, other.root, other.cell)
    )


@pytest.mark.parametrize("side", [64, 100, 256, 1000])
@pytest.mark.parametrize("seed", range(8))
def test_equals_the_forest_in_memory(side: int, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng([seed, side])
    image = scene(rng, tuple(int(s) for s in rng.integers(100, 900, 2)), int(rng.choice([1, 3, 5])))
    cell = int(rng.choice([4, 8, 16]))
    policy = ForestPolicy(
        criterion=str(rng.choice(["edges", "canny", "gradient"])), budget=int(rng.integers(100, 900)), cell=cell
    )
    source = Tiled(image, (side, side))
    if seed % 4 == 3:  # all planes are kept until the thresholds are known
        monkeypatch.setattr(stream, "_HELD_BYTES", 1 << 26)
    draw = None if seed % 3 else seed
    reduced = ReducedImage(image.shape) if seed % 2 else None
    streamed = stream_forest(
        source, policy, rng=None if draw is None else np.random.default_rng(draw), threads=1 + seed % 2, reduced=reduced
    )
    whole = cut_forest(image, policy, rng=None if draw is None else np.random.default_rng(draw))
    assert same(streamed, whole)
    patch = cell if seed % 4 else cell * 2
    got = stream_gather(source, streamed, patch, threads=1 + seed % 2, reduced=reduced)
    expected = gather(image, whole, patch)
    assert np.array_equal(got.patches, expected.patches)
    assert np.array_equal(got.coord, expected.coord)
    assert np.array_equal(got.size, expected.size)
    assert got.valid.all()


@pytest.mark.parametrize("side", [64, 100, 256, 1000])
@pytest.mark.parametrize("seeded", [True, False])
def test_a_spiral_through_every_tile(side: int, seeded: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    image = spiral(700, seeded=seeded, gap=10)
    monkeypatch.setitem(edges.PAPER_KERNELS, 512, 1)  # no blur: the line stays faint and one pixel thin
    policy = ForestPolicy(criterion="canny", threshold=3)
    streamed = stream_forest(Tiled(image, (side, side)), policy, threads=2)
    assert same(streamed, cut_forest(image, policy))
    assert len(streamed) > 1000 if seeded else len(streamed) == 4


@pytest.mark.parametrize("dtype", [np.uint16, np.float32, np.float64, bool])
def test_other_types_through_the_window(dtype: type) -> None:
    rng = np.random.default_rng(3)
    image = scene(rng, (300, 260)).astype(np.float64) / 255
    image = image > 0.5 if dtype is bool else image * 4095 if dtype is np.uint16 else image * rng.random((300, 260, 1))
    image = image.astype(dtype)
    window = (0.0, 4095.0) if dtype is np.uint16 else None
    policy = ForestPolicy(budget=300)
    reduced = ReducedImage(image.shape)
    forest = stream_forest(Tiled(image), policy, window=window, reduced=reduced)
    assert same(forest, cut_forest(image, policy, window=window))
    expected = gather(image, forest, 4).patches
    assert np.array_equal(stream_gather(Tiled(image), forest, 4, reduced=reduced).patches, expected)
    assert np.array_equal(stream_gather(Tiled(image), forest, 4).patches, expected)


def test_a_dark_16_bit_image_warns_once_at_the_end() -> None:
    image = np.random.default_rng(0).integers(0, 900, (200, 200)).astype(np.uint16)
    with pytest.warns(UserWarning, match=r"window=\(low, high\)") as seen:
        stream_forest(Tiled(image), ForestPolicy(budget=100))
    assert sum("nearly black" in str(w.message) for w in seen) == 1


def test_unknown_ranges_ask_for_a_window() -> None:
    image = np.random.default_rng(0).normal(size=(200, 200)).astype(np.float32)
    with pytest.raises(ValueError, match="window"):
        stream_forest(Tiled(image), ForestPolicy(budget=100), threads=2)


@pytest.mark.parametrize("policy", [ForestPolicy(uniform=16), ForestPolicy(criterion="random", budget=300)])
def test_forests_that_need_no_pixels_read_none(policy: ForestPolicy) -> None:
    source = Tiled(scene(np.random.default_rng(0), (300, 400)))
    forest = stream_forest(source, policy, rng=np.random.default_rng(1))
    assert source.read_pixels == [0]
    assert same(forest, cut_forest(source.pixels[0], policy, rng=np.random.default_rng(1)))


def test_variance_is_refused() -> None:
    with pytest.raises(ValueError, match="cannot be streamed; use edges, canny, gradient"):
        stream_forest(Tiled(np.zeros((64, 64), np.uint8)), ForestPolicy(criterion="variance", budget=10))


def test_every_tile_is_read_once_and_never_all_at_once() -> None:
    image = scene(np.random.default_rng(4), (640, 1024))
    source = Tiled(image, (64, 64))
    reduced = ReducedImage(image.shape)
    forest = stream_forest(source, ForestPolicy(criterion="canny", threshold=40), reduced=reduced, threads=2)
    assert source.read_pixels == [640 * 1024]
    assert source.largest <= 64 * 128
    stream_gather(source, forest, reduced=reduced)
    small = forest.size < reduced.factor * 8
    touched = {(r // 64, c // 64) for r, c in forest.origin[small]}
    assert source.read_pixels[0] <= 640 * 1024 + len(touched) * 4 * 64 * 64


def test_pictures_that_are_decoded_as_a_whole_are_read_once() -> None:
    image = scene(np.random.default_rng(4), (300, 300))
    source = Tiled(image, (300, 300))
    stream_forest(source, ForestPolicy(budget=200))
    assert source.read_pixels == [300 * 300]


def test_progress_ends_at_one_and_can_cancel() -> None:
    source = Tiled(scene(np.random.default_rng(5), (400, 400)))
    seen: list[float] = []
    stream_forest(source, ForestPolicy(criterion="canny", threshold=50), progress=seen.append)
    assert seen == sorted(seen)
    assert seen[-1] == 1
    assert len(seen) > 4

    class Cancelled(Exception):
        pass

    def cancel(share: float) -> None:
        if share > 0.3:
            raise Cancelled

    source = Tiled(source.pixels[0])
    with pytest.raises(Cancelled):
        stream_forest(source, ForestPolicy(criterion="canny", threshold=50), progress=cancel, threads=2)
    assert source.read_pixels[0] < 0.9 * 400 * 400


def test_a_bad_block_ends_the_work_with_its_own_error() -> None:
    class Broken(Tiled):
        def read(self, level: int = 0, row: int = 0, *place: int, **more: int) -> np.ndarray:
            if row > 200:
                raise OSError("tile 7 is gone")
            return super().read(level, row, *place, **more)

    source = Broken(scene(np.random.default_rng(6), (400, 400)))
    with pytest.raises(OSError, match="tile 7"):
        stream_forest(source, ForestPolicy(criterion="canny", threshold=50), threads=2)
    whole = cut_forest(source.pixels[0], ForestPolicy(criterion="canny", threshold=50))
    with pytest.raises(OSError, match="tile 7"):
        stream_gather(source, whole, threads=2)


def test_a_reduced_image_is_of_the_last_image_or_of_none() -> None:
    first, other = (scene(np.random.default_rng(k), (300, 300)) for k in (0, 1))
    policy, reduced = ForestPolicy(criterion="canny", threshold=50), ReducedImage((300, 300))
    stream_forest(Tiled(first), policy, reduced=reduced)
    forest = stream_forest(Tiled(other), policy, reduced=reduced)
    expected = gather(other, forest, 8).patches
    assert np.array_equal(stream_gather(Tiled(other), forest, 8, reduced=reduced).patches, expected)

    def cancel(share: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stream_forest(Tiled(first), policy, reduced=reduced, progress=cancel)
    with pytest.raises(ValueError, match="not complete"):
        stream_gather(Tiled(first), forest, 8, reduced=reduced)
    with pytest.raises(ValueError, match="made for one of"):
        stream_forest(Tiled(first[:200]), policy, reduced=reduced)
    stream_forest(Tiled(first), policy, reduced=reduced)
    with pytest.raises(ValueError, match="reduced image is of one of"):
        stream_gather(Tiled(first[..., :1]), forest, 8, reduced=reduced)


def test_a_threshold_that_is_no_number() -> None:
    with pytest.raises(ValueError, match="NaN"):
        stream_forest(Tiled(np.zeros((64, 64), np.uint8)), ForestPolicy(threshold=float("nan")))


@pytest.mark.parametrize("strong", [False, True])
@pytest.mark.parametrize("few", [0, 1 << 16])
def test_stripes_that_stay_open_through_the_whole_image(
    strong: bool, few: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(seams, "_FEW", few)
    image = np.full((600, 400), 100, np.uint8)
    image[:, ::8] = 135
    if strong:
        image[590:] = 255
    policy = ForestPolicy(criterion="canny", threshold=20)
    assert same(stream_forest(Tiled(image), policy, threads=2), cut_forest(image, policy))


def test_threads_must_be_some() -> None:
    with pytest.raises(ValueError, match="threads"):
        stream_forest(Tiled(np.zeros((64, 64), np.uint8)), ForestPolicy(budget=10), threads=0)


def test_warnings_of_the_tree_come_through() -> None:
    with pytest.warns(UserWarning, match="detail map ran out"):
        stream_forest(Tiled(np.zeros((256, 256), np.uint8)), ForestPolicy(budget=64))
