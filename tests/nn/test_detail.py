"""Detail maps on the device are OpenCV's, edge pixel for edge pixel; hysteresis is quick along any curve."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import pytest
import torch

from patchforest.nn import detail
from patchforest.nn.detail import blur, detail_map_batch, gradient_quantile, halved
from patchforest.tree import edges
from patchforest.tree.detail import detail_map

DEVICES = [
    "cpu",
    pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")),
]
Draw = Callable[[np.random.Generator, int, int], np.ndarray]


def noise(rng: np.random.Generator, h: int, w: int) -> np.ndarray:
    return rng.integers(0, 256, (h, w, 3), dtype=np.uint8)


def texture(rng: np.random.Generator, h: int, w: int) -> np.ndarray:
    """Shapes over smooth ground and a little noise, of very different contrast from place to place."""
    coarse = rng.random((h // 9 + 2, w // 9 + 2, 3)).astype(np.float32)
    out = cv2.resize(coarse, (w, h), interpolation=cv2.INTER_CUBIC) * 160 + 40
    for _ in range(6):
        centre = (int(rng.integers(w)), int(rng.integers(h)))
        colour = [float(v) for v in rng.integers(0, 256, 3)]
        out = cv2.ellipse(out, centre, (1 + w // 6, 1 + h // 9), float(rng.uniform(0, 180)), 0, 360, colour, -1)
    out *= np.linspace(0.2, 1, w, dtype=np.float32)[:, None]
    return np.clip(out + rng.normal(0, 2, out.shape), 0, 255).astype(np.uint8)


def few_values(rng: np.random.Generator, h: int, w: int) -> np.ndarray:
    """Equal neighbours everywhere: what is decided by > against >=."""
    small = rng.choice(np.array([0, 60, 120, 255], np.uint8), (h // 3 + 1, w // 3 + 1))
    return np.repeat(np.repeat(np.repeat(small, 3, 0), 3, 1)[:h, :w, None], 3, 2)


def spiral(rng: np.random.Generator, h: int, w: int) -> np.ndarray:
    """A faint spiral whose innermost end alone is bright: hysteresis must follow the whole curve."""
    out = np.full((h, w), 100, np.uint8)
    turn = np.linspace(0, 1, 4000) * (min(h, w) / 2 - 2)
    points = np.stack([w / 2 + turn * np.cos(turn), h / 2 + turn * np.sin(turn)], 1).round().astype(np.int32)
    cv2.polylines(out, [points], False, 138, 2)
    cv2.circle(out, (w // 2, h // 2), 2, 255, -1)
    return np.repeat(out[..., None], 3, 2)


def thin_lines(rng: np.random.Generator, h: int, w: int) -> np.ndarray:
    out = np.full((h, w, 3), 30, np.uint8)
    for _ in range(12):
        ends = [(int(rng.integers(w)), int(rng.integers(h))) for _ in range(2)]
        cv2.line(out, *ends, [int(v) for v in rng.integers(40, 250, 3)], 1)
    return out


DRAWS: list[Draw] = [noise, texture, few_values, spiral, thin_lines]
SHAPES = [(64, 64), (97, 131), (40, 203), (1, 50), (3, 2), (2, 2)]


def tensor(images: list[np.ndarray], device: str = "cpu") -> torch.Tensor:
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).to(device)


def counts(edges: np.ndarray, cell: int) -> np.ndarray:
    """Non-zero pixels of every cell, the last ones of an axis possibly cut off."""
    h, w = edges.shape
    wide = np.pad(edges > 0, ((0, -h % cell), (0, -w % cell)))
    return wide.reshape(-(-h // cell), cell, -(-w // cell), cell).sum((1, 3)).astype(np.float32)


def opencv_halved(grey: np.ndarray) -> np.ndarray:
    h, w = grey.shape
    even = cv2.copyMakeBorder(grey, 0, h % 2, 0, w % 2, cv2.BORDER_REPLICATE)
    return cv2.resize(even, ((w + 1) // 2, (h + 1) // 2), interpolation=cv2.INTER_AREA)


def opencv_gradient(smooth: np.ndarray) -> np.ndarray:
    """|dx| + |dy| (H, W) of (H, W, C), its largest over channels."""
    dx, dy = (cv2.Sobel(smooth, cv2.CV_16S, *o, borderType=cv2.BORDER_REPLICATE).astype(int) for o in ((1, 0), (0, 1)))
    return (abs(dx) + abs(dy)).reshape(*smooth.shape[:2], -1).max(2)


def own_high(sizes: np.ndarray, share: float = 0.85) -> float:
    """The definition, value by value."""
    counted = np.sort(sizes[sizes >= 4])
    if not len(counted):
        return 8.0
    for value in np.unique(counted):
        if (counted <= value).sum() >= share * len(counted):
            return max(value - 0.5, 8.0)
    raise AssertionError


def opencv_edges(image: np.ndarray, cell: int, kernel: int = 5, share: float = 0.85) -> np.ndarray:
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    half = cell % 2 == 0 and cell >= 4
    smooth = cv2.GaussianBlur(opencv_halved(grey) if half else grey, (kernel, kernel), 0)
    high = own_high(opencv_gradient(smooth), share)
    return counts(cv2.Canny(smooth, 0.4 * high, high), cell // 2 if half else cell)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("shape", SHAPES)
def test_luma_half_and_blur_equal_opencv(rng: np.random.Generator, shape: tuple[int, int], device: str) -> None:
    image = noise(rng, *shape)
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    (luma,) = detail._planes(tensor([image], device))
    np.testing.assert_array_equal(luma[0].cpu().numpy(), grey)
    np.testing.assert_array_equal(halved(luma)[0].cpu().numpy(), opencv_halved(grey))
    for kernel in (1, 3, 5, 7, 9, 11, 13):
        for plane in (grey, np.full_like(grey, 255)):
            expected = cv2.GaussianBlur(plane, (kernel, kernel), 0)
            got = blur(torch.from_numpy(plane)[None].to(device), kernel)[0].cpu().numpy()
            np.testing.assert_array_equal(got, expected, err_msg=f"kernel {kernel}")


def test_luma_of_every_kind_of_colour() -> None:
    levels = np.array([0, 1, 2, 3, 63, 64, 127, 128, 129, 200, 253, 254, 255], np.uint8)
    image = np.stack(np.meshgrid(levels, levels, levels), -1).reshape(13, -1, 3)
    (luma,) = detail._planes(tensor([image]))
    np.testing.assert_array_equal(luma[0].numpy(), cv2.cvtColor(image, cv2.COLOR_RGB2GRAY))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("draw", DRAWS)
@pytest.mark.parametrize("shape", SHAPES)
def test_canny_equals_opencv(rng: np.random.Generator, draw: Draw, shape: tuple[int, int], device: str) -> None:
    images = [draw(rng, *shape) for _ in range(3)]
    for cell in (8, 5):
        for kernel, limits in (
            (None, None),
            (1, (20.0, 60.0)),
            (5, (30.7, 61.3)),
            (9, (10.0, 12.0)),
            (3, (60.0, 20.0)),
        ):
            got = detail_map_batch(tensor(images, device), cell, criterion="canny", kernel=kernel, thresholds=limits)
            side, (low, high) = kernel or 3, limits or (100.0, 200.0)
            for image, one in zip(images, got.cpu().numpy()):
                smooth = cv2.GaussianBlur(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), (side, side), 0)
                np.testing.assert_array_equal(one, counts(cv2.Canny(smooth, low, high), cell))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("draw", DRAWS)
@pytest.mark.parametrize("shape", SHAPES)
def test_edges_equal_opencv(rng: np.random.Generator, draw: Draw, shape: tuple[int, int], device: str) -> None:
    images = [draw(rng, *shape) for _ in range(3)]
    for cell in (8, 4, 2, 7):
        got = detail_map_batch(tensor(images, device), cell).cpu().numpy()
        assert got.dtype == np.float32
        for image, one in zip(images, got):
            np.testing.assert_array_equal(one, opencv_edges(image, cell))
    got = (
        detail_map_batch(tensor(images, device), 8, kernel=3, share=torch.tensor([0.75, 0.9, 0.95]).double())
        .cpu()
        .numpy()
    )
    for image, one, share in zip(images, got, (0.75, 0.9, 0.95)):
        np.testing.assert_array_equal(one, opencv_edges(image, 8, 3, share))


@pytest.mark.parametrize("channels", [1, 2, 4, 6])
def test_other_counts_of_channels(rng: np.random.Generator, channels: int) -> None:
    image = np.concatenate([texture(rng, 61, 90)] * 2, 2)[..., rng.permutation(6)[:channels]]
    image = np.ascontiguousarray(image[::-1] if channels == 2 else image)
    one = image.max(2, keepdims=True) if channels == 2 else image
    smooth = np.stack([cv2.GaussianBlur(np.ascontiguousarray(p), (3, 3), 0) for p in np.moveaxis(one, 2, 0)], 2)
    got = detail_map_batch(tensor([image]), 8, criterion="canny", thresholds=(40, 90))
    np.testing.assert_array_equal(got[0].numpy(), counts(cv2.Canny(smooth, 40, 90), 8))
    half = [opencv_halved(np.ascontiguousarray(p)) for p in np.moveaxis(one, 2, 0)]
    smooth = np.stack([cv2.GaussianBlur(p, (5, 5), 0) for p in half], 2)
    high = own_high(opencv_gradient(smooth))
    expected = counts(cv2.Canny(smooth, 0.4 * high, high), 4)
    np.testing.assert_array_equal(detail_map_batch(tensor([image]), 8)[0].numpy(), expected)
    assert expected.any()


@pytest.mark.parametrize("device", DEVICES)
def test_gradient_sums(rng: np.random.Generator, device: str) -> None:
    for shape, cell in (((64, 64), 8), ((45, 71), 8), ((20, 33), 5), ((1, 9), 4)):
        images = [texture(rng, *shape) for _ in range(2)]
        got = detail_map_batch(tensor(images, device), cell, criterion="gradient").cpu().numpy()
        for image, one in zip(images, got):
            smooth = cv2.GaussianBlur(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), (3, 3), 0)
            dx, dy = cv2.Sobel(smooth, cv2.CV_64F, 1, 0), cv2.Sobel(smooth, cv2.CV_64F, 0, 1)
            wide = np.pad(np.hypot(dx, dy), ((0, -shape[0] % cell), (0, -shape[1] % cell)))
            expected = wide.reshape(one.shape[0], cell, one.shape[1], cell).sum((1, 3))
            np.testing.assert_allclose(one, expected, rtol=1e-5)


def test_quantile_is_the_definition(rng: np.random.Generator) -> None:
    for top in (3, 5, 9, 40, 2041):
        sizes = rng.integers(0, top, (6, 500)).astype(np.int16)
        sizes[0] = 0
        for share in (0.01, 0.5, 0.85, 1.0):
            got = gradient_quantile(torch.from_numpy(sizes), torch.full((6,), share, dtype=torch.float64))
            assert got.tolist() == [own_high(s.astype(int), share) for s in sizes]


@pytest.mark.parametrize("shape", [(300, 1800), (600, 1300), (100, 1500), (5, 3000)])
@pytest.mark.parametrize("cell", [8, 2])
def test_large_images_take_the_quantile_from_blocks(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch, shape: tuple[int, int], cell: int
) -> None:
    """The limits are lowered, so that the lattice is not the whole image."""
    monkeypatch.setattr(detail, "WHOLE_PIXELS", 1 << 12)
    monkeypatch.setattr(detail, "MOST_BLOCKS", 4)
    image = texture(rng, *shape)
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    scale = 2 if cell == 8 else 1
    smooth = cv2.GaussianBlur(opencv_halved(grey) if scale == 2 else grey, (5, 5), 0)
    sizes = opencv_gradient(smooth)
    starts = []
    for n in shape:  # blocks of 112 in the middle of tiles of 128, the tiles evenly spread
        tiles = n // 128
        spread = [round((i * (tiles - 1) // max(min(4, tiles) - 1, 1)) * 128 + 8) for i in range(min(4, tiles))]
        starts.append([slice(t // scale, (t + 112) // scale) for t in spread] or [slice(None)])
    blocks = [sizes[r, c].ravel() for r in starts[0] for c in starts[1]]
    high = own_high(np.concatenate(blocks))
    expected = counts(cv2.Canny(smooth, 0.4 * high, high), cell // scale)
    np.testing.assert_array_equal(detail_map_batch(tensor([image]), cell)[0].numpy(), expected)
    assert sum(b.size for b in blocks) < 0.8 * sizes.size


def serpentine(side: int, gap: int) -> np.ndarray:
    """(side, side) of one curve that goes to and fro, 1 below its strong end of 2."""
    out = np.zeros((side, side), np.uint8)
    out[1:-1:gap, 1:-1] = 1
    for i, row in enumerate(range(1, side - 1 - gap, gap)):
        out[row : row + gap, -2 if i % 2 == 0 else 1] = 1
    out[1, 1] = 2
    return out


def square_spiral(side: int) -> np.ndarray:
    """(side, side) of one curve that winds inwards with a gap of one pixel; strong at its outer end."""
    out = np.zeros((side, side), np.uint8)
    top, left, bottom, right = 1, 1, side - 2, side - 2
    while top <= bottom and left <= right:
        out[top, left : right + 1] = 1
        out[top : bottom + 1, right] = 1
        out[bottom, left : right + 1] = 1
        out[top + 2 : bottom + 1, left] = 1
        if top + 2 <= bottom:
            out[top + 2, left + 1] = 1
        top, left, bottom, right = top + 2, left + 2, bottom - 2, right - 2
    out[1, 1] = 2
    return out


@pytest.mark.parametrize("flip", [(1, 1), (-1, 1), (1, -1), (-1, -1)])
@pytest.mark.parametrize("curve", [serpentine(301, 2), square_spiral(301), square_spiral(301).T])
def test_long_curves_take_few_rounds(monkeypatch: pytest.MonkeyPatch, curve: np.ndarray, flip: tuple[int, int]) -> None:
    rounds, merged_once = [], detail.merged_once
    monkeypatch.setattr(detail, "merged_once", lambda *given: rounds.append(1) or merged_once(*given))
    state = torch.from_numpy(np.ascontiguousarray(curve[:: flip[0], :: flip[1]]))[None]
    pixel = torch.nonzero(state.view(-1)).squeeze(1)
    _, labels = cv2.connectedComponents((curve > 0).astype(np.uint8), connectivity=8)
    assert labels.max() == 1
    assert len(pixel) > 40_000
    assert detail.hysteresis(state, pixel).all()
    assert len(rounds) <= 24


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("density", [0.1, 0.3, 0.4, 0.6])
def test_hysteresis_keeps_the_components_of_strong_pixels(
    rng: np.random.Generator, density: float, device: str
) -> None:
    state = (rng.random((3, 60, 83)) < density).astype(np.uint8)
    state[rng.random(state.shape) < 0.01] *= 2
    state[:, [0, -1]] = 0
    state[..., [0, -1]] = 0
    given = torch.from_numpy(state).to(device)
    pixel = torch.nonzero(given.view(-1)).squeeze(1)
    got = np.zeros(state.shape, bool)
    got.reshape(-1)[pixel.cpu().numpy()] = detail.hysteresis(given, pixel).cpu().numpy()
    for plane, mine in zip(state, got):
        _, labels = cv2.connectedComponents((plane > 0).astype(np.uint8), connectivity=8)
        np.testing.assert_array_equal(mine, np.isin(labels, np.unique(labels[plane == 2])) & (plane > 0))


def test_chunks_and_memory_layout_do_not_matter(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    images = tensor([texture(rng, 50, 70), noise(rng, 50, 70), thin_lines(rng, 50, 70), spiral(rng, 50, 70)])
    whole = detail_map_batch(images)
    each = torch.stack([torch.tensor([30.0, 60.0]), *torch.rand(3, 2) * 200])
    canny = detail_map_batch(images, criterion="canny", thresholds=each)
    monkeypatch.setattr(detail, "CHUNK_PIXELS", 50 * 70)
    for one in (images, images.contiguous(), images.float() / 255, images.double() / 255):
        assert torch.equal(detail_map_batch(one), whole)
    assert torch.equal(detail_map_batch(images, criterion="canny", thresholds=each), canny)
    for b in range(4):
        alone = detail_map_batch(images[b : b + 1], criterion="canny", thresholds=tuple(each[b].tolist()))
        assert torch.equal(alone[0], canny[b])
    gradient = detail_map_batch(images, criterion="gradient")
    torch.testing.assert_close(gradient[3:], detail_map_batch(images[3:], criterion="gradient"))


def test_floats_round_and_clip() -> None:
    image = torch.zeros(1, 1, 16, 16)
    image[..., 8:] = 0.3
    for given in (image, image.requires_grad_()):
        assert not detail_map_batch(given).requires_grad
    high = image.detach().clone()
    high[..., 8:] = 7.0
    low = torch.zeros(1, 1, 16, 16)
    low[..., :8] = -3.0
    low[..., 8:] = 1.0
    sums = detail_map_batch(low, criterion="gradient")
    assert torch.equal(detail_map_batch(high, criterion="gradient"), sums)
    assert sums.any()
    whole = torch.arange(256).view(1, 1, 16, 16)
    off = torch.linspace(-0.49, 0.49, 16)  # too little to reach another of the 256 levels
    got = detail_map_batch((whole + off) / 255, criterion="gradient")
    assert torch.equal(got, detail_map_batch(whole.to(torch.uint8), criterion="gradient"))


def test_flat_images_have_no_detail() -> None:
    for criterion in ("edges", "canny", "gradient"):
        got = detail_map_batch(torch.full((2, 3, 37, 20), 77, dtype=torch.uint8), criterion=criterion)
        assert got.shape == (2, 5, 3)
        assert not got.any()


def test_equals_the_numpy_one(rng: np.random.Generator) -> None:
    images = [texture(rng, 120, 150), thin_lines(rng, 120, 150)]
    for criterion in ("edges", "canny"):
        got = detail_map_batch(tensor(images), criterion=criterion).numpy()
        for image, one in zip(images, got):
            np.testing.assert_array_equal(one, detail_map(image, 8, criterion=criterion))


def test_constants_are_those_of_the_tree() -> None:
    assert detail.PAPER_KERNELS == edges.PAPER_KERNELS
    assert detail.EDGE_SHARE == edges.EDGE_SHARE
    assert (detail.WHOLE_PIXELS, detail.MOST_BLOCKS, detail.TILE, detail.MARGIN) == (
        edges.SAMPLE_PIXELS, edges.SAMPLE_SIDE, edges.SAMPLE_TILE, edges.SAMPLE_MARGIN,
    )  # fmt: skip
    for side in (100, 512, 1023, 4096, 5000, 8192, 70_000):
        rule = edges.edge_rule("canny", (side, 10), 8)
        assert (detail._paper_kernel(side), detail.PAPER_THRESHOLDS) == (rule.kernel, (rule.low, rule.high))


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"criterion": "variance"}, "edges, canny, gradient"),
        ({"kernel": 4}, "kernel must be one of 1, 3, 5"),
        ({"cell": 0}, "at least 1"),
        ({"thresholds": torch.zeros(3, 2)}, r"\(2, 2\)"),
        ({"thresholds": (1.0, 2.0, 3.0)}, "low, high"),
        ({"share": torch.zeros(3)}, r"\(2,\)"),
    ],
)
def test_says_what_does_not_fit(given: dict, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        detail_map_batch(torch.zeros(2, 3, 16, 16), **given)


def test_refuses_other_images() -> None:
    with pytest.raises(ValueError, match="B, C, H, W"):
        detail_map_batch(torch.zeros(3, 16, 16))
    with pytest.raises(ValueError, match="none empty"):
        detail_map_batch(torch.zeros(1, 3, 0, 16))
    with pytest.raises(ValueError, match="int16"):
        detail_map_batch(torch.zeros(1, 3, 16, 16, dtype=torch.int16))
