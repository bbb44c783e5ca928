"""Edge counts of tiled images against whole-image OpenCV, whatever the tiling."""

import cv2
import numpy as np
import pytest

from patchforest.tree import edges
from patchforest.tree.edges import EdgeRule, edge_counts, edge_rule, grey_planes, sample_blocks
from tests.tree.scenes import scene, spiral


def counted(mask: np.ndarray, cell: int) -> np.ndarray:
    rows, columns = (np.arange(0, s, cell) for s in mask.shape)
    return np.add.reduceat(np.add.reduceat(mask.astype(int), rows, 0), columns, 1)


def found(image: np.ndarray, rule: EdgeRule, **options: object) -> np.ndarray:
    return edge_counts(lambda box: image[box[0] : box[1], box[2] : box[3]], image.shape[:2], rule, **options)


def expected(image: np.ndarray, rule: EdgeRule) -> np.ndarray:
    """The whole image by OpenCV; for more than three channels OpenCV's own choice of the strongest channel."""
    planes = grey_planes(image, rule.half)
    smooth = [cv2.GaussianBlur(p, (rule.kernel,) * 2, 0) if rule.kernel > 1 else p for p in planes]
    whole = smooth[0] if len(smooth) == 1 else np.dstack(smooth)
    return counted(cv2.Canny(whole, rule.low, rule.high) > 0, rule.cell // rule.factor)


@pytest.mark.parametrize("seed", range(60))
def test_any_image_any_tiling(seed: int) -> None:
    rng = np.random.default_rng(seed)
    shape = tuple(int(s) for s in rng.integers(1, 160, 2))
    image = scene(rng, shape, int(rng.choice([1, 3, 4])))
    low, cell = float(rng.uniform(5, 250)), int(rng.integers(1, 20))
    half = cell % 2 == 0 and bool(rng.random() < 0.5)
    rule = EdgeRule(int(rng.choice([1, 3, 5, 7, 9, 11, 13])), low, low + float(rng.uniform(0, 500)), 0.85, half, cell)
    tile = tuple(int(s) for s in rng.integers(1, 120, 2))
    counts = found(image, rule, tile=tile, threads=1 + seed % 2)
    assert np.array_equal(counts, expected(image, rule)), (seed, shape, rule, tile)


@pytest.mark.parametrize("tile", [64, 100, 256, 1000])
@pytest.mark.parametrize("seeded", [True, False])
def test_a_faint_spiral_is_an_edge_as_a_whole_or_not_at_all(tile: int, seeded: bool) -> None:
    image = spiral(600, seeded=seeded)[..., None]
    rule = EdgeRule(1, 60, 400, 0.85, False, 8)
    counts = found(image, rule, tile=(tile, tile))
    whole = expected(image, rule)
    assert np.array_equal(counts, whole)
    assert whole.sum() > 10_000 if seeded else whole.sum() == 0


@pytest.mark.parametrize("criterion", ["edges", "gradient"])
@pytest.mark.parametrize("small", [True, False])
@pytest.mark.parametrize("seed", range(6))
def test_own_thresholds_do_not_depend_on_tiles(
    criterion: str, small: bool, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(seed)
    image = scene(rng, tuple(int(s) for s in rng.integers(150, 700, 2)))
    if not small:
        monkeypatch.setattr(edges, "SAMPLE_PIXELS", 1 << 14)
        monkeypatch.setattr(edges, "SAMPLE_SIDE", 3)
        monkeypatch.setattr(edges, "SAMPLE_TILE", 32)
    cell = int(rng.choice([5, 8]))
    rule = edge_rule(criterion, image.shape, cell)
    one = found(image, rule, tile=(2000, 2000))
    other = found(image, rule, tile=(int(rng.integers(1, 90)), int(rng.integers(1, 300))), threads=2)
    assert np.array_equal(one, other)


@pytest.mark.parametrize("seed", range(8))
def test_the_quantile_becomes_the_threshold(seed: int) -> None:
    rng = np.random.default_rng(seed)
    image = scene(rng, (211, 173))
    rule = edge_rule("edges", image.shape, 8)
    plane = cv2.GaussianBlur(grey_planes(image, True)[0], (5, 5), 0)
    dx, dy = cv2.spatialGradient(plane, borderType=cv2.BORDER_REPLICATE)
    size = np.sort((np.abs(dx.astype(int)) + np.abs(dy.astype(int))).ravel())
    size = size[size >= 4]
    high = 8.0
    if len(size):  # the first value that so many are not above
        values = np.unique(size)
        share = np.searchsorted(size, values, side="right")
        high = max(float(values[share >= 0.85 * len(size)][0]) - 0.5, 8.0)
    fixed = EdgeRule(5, 0.4 * high, high, 0.85, True, 8)
    assert np.array_equal(found(image, rule), expected(image, fixed))


def test_a_large_image_is_sampled_on_a_lattice() -> None:
    blocks = sample_blocks((6000, 70_000))
    rows, columns = sorted({b[0] for b in blocks}), sorted({b[2] for b in blocks})
    assert len(blocks) == len(rows) * len(columns) == 20 * 20
    assert all(b[1] - b[0] == 112 and b[3] - b[2] == 112 for b in blocks)
    assert all(b[0] % 128 == 8 and b[2] % 128 == 8 for b in blocks)  # one tile of a file each, its surroundings too
    assert (rows[0], columns[0]) == (8, 8)
    assert rows[-1] > 6000 - 256
    assert columns[-1] > 70_000 - 256
    assert sample_blocks((4096, 4096)) == [(0, 4096, 0, 4096)]
    assert len(sample_blocks((3, 1 << 23))) == 20  # thin images: as many blocks as there are
    assert len(sample_blocks((300, 1 << 20))) == 2 * 20


def test_rules() -> None:
    assert edge_rule("canny", (4096, 4096), 8) == EdgeRule(5, 100.0, 200.0, 0.85, False, 8)
    assert edge_rule("edges", (4096, 4096), 8).half
    assert not edge_rule("edges", (99, 99), 2).half
    drawn = {edge_rule("canny", (512, 512), 8, np.random.default_rng(k)) for k in range(20)}
    assert len(drawn) == 20
    assert all(50 <= r.low <= 100 and r.high == 2 * r.low for r in drawn)


def test_long_and_narrow_after_wide_takes_no_more_memory() -> None:
    rule = EdgeRule(1, 50, 100, 0.85, False, 3)
    vars(edges._local).clear()  # what other tests left
    for shape in ((60, 3000), (60_000, 3), (200_000, 1)):
        found(np.zeros((*shape, 1), np.uint8), rule)
    held = sum(b.nbytes for b in edges._local.buffers.values())
    assert held < 200_000 * 60


def test_some_threads() -> None:
    with pytest.raises(ValueError, match="threads"):
        found(np.zeros((8, 8, 1), np.uint8), EdgeRule(1, 50, 100, 0.85, False, 3), threads=0)
