"""Detail maps on the device: a batch of images, bit for bit the edge counts of ``tree.detail.detail_map``.

Everything is integer arithmetic of torch tensors, so a CPU, a GPU and OpenCV agree to the last edge pixel. Hysteresis
follows edges by label propagation with pointer jumping: a spiral of N pixels takes about log N rounds, not N.

Dimension letters: B batch, C channels, H W image, h w cells or half-size planes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

BLUR = {
    1: (256,),
    3: (128, 64),
    5: (96, 64, 16),
    7: (72, 56, 28, 8),
    9: (60, 51, 30, 13, 4),
    11: (52, 45, 31, 17, 7, 2),
    13: (44, 41, 30, 19, 10, 5, 1),
}
"""OpenCV's 8-bit Gaussian kernels (sigma from the size) in 256ths, from the middle outwards."""

PAPER_KERNELS = {512: 3, 1024: 3, 4096: 5, 8192: 7, 16384: 9, 32768: 11, 65536: 13}
PAPER_THRESHOLDS = (100.0, 200.0)
EDGE_SHARE = 0.85
"""As in ``tree.detail``: blur by image side and thresholds of the papers; the quantile that sets its own threshold."""

WHOLE_PIXELS = 1 << 24
"""Images of more level-0 pixels than this take their gradient quantile from a lattice of blocks."""
MOST_BLOCKS, TILE, MARGIN = 20, 128, 8

CHUNK_PIXELS = 1 << 24
"""Images are worked on a few at a time, about this many level-0 pixels at once: some 0.5 GB of temporaries."""

ROUNDS = 4
"""Rounds of label propagation between two looks (each waits for the device) at whether anything still changes."""

CRITERIA = ("edges", "canny", "gradient")


@torch.no_grad()
def detail_map_batch(
    image_BCHW: Tensor,
    cell: int = 8,
    *,
    criterion: str = "edges",
    thresholds: tuple[float, float] | Tensor | None = None,
    kernel: int | None = None,
    share: float | Tensor = EDGE_SHARE,
) -> Tensor:
    """Detail of every cell of a batch: float32, (B, ceil(H/cell), ceil(W/cell)), on the images' device.

    ``edges`` and ``canny`` equal ``tree.detail.detail_map`` of the same 8-bit image exactly; ``gradient`` up to
    rounding. No gradient flows through. The host waits for the device a few times for every 2^25 pixels looked at.

    Parameters
    ----------
    image_BCHW : uint8, or floats in [0, 1] (rounded to 8 bits, clipped).
    cell : side of a cell, the smallest possible leaf, in pixels.
    thresholds : (low, high) of Canny for all images, or a tensor (B, 2); default: the images' own for ``edges``, 100
        and 200 for ``canny``. Together with ``kernel`` and ``share`` this is what SHF draws afresh for every sample.
    kernel : side of the Gaussian blur, 1 (none), 3, ..., 13; default 5 for ``edges``, by image side for ``canny``, 3
        for ``gradient``.
    share : quantile of the gradient that becomes the high threshold of ``edges``; a number or a tensor (B,).

    Raises
    ------
    ValueError : unknown criterion or kernel, a cell below 1, an image or thresholds of another shape or dtype.
    """
    _check(image_BCHW, cell, criterion, thresholds, share)
    batch, _, *shape = image_BCHW.shape
    half = criterion == "edges" and cell % 2 == 0 and cell >= 4
    if kernel is None:
        kernel = {"edges": 5, "gradient": 3}.get(criterion) or _paper_kernel(max(shape))
    if kernel not in BLUR:
        raise ValueError(f"kernel must be one of {', '.join(map(str, BLUR))}; got {kernel}")
    if criterion == "gradient":
        return torch.cat([_gradient_sums(images, cell, kernel) for images, _ in _chunks(image_BCHW)])
    if criterion == "canny" and thresholds is None:
        thresholds = PAPER_THRESHOLDS
    if thresholds is not None and not isinstance(thresholds, Tensor):
        thresholds = torch.stack([image_BCHW.new_full((batch,), t, dtype=torch.float64) for t in thresholds], 1)
    shares = share if isinstance(share, Tensor) else image_BCHW.new_full((batch,), share, dtype=torch.float64)
    plane = tuple((s + 1) // 2 for s in shape) if half else tuple(shape)
    state = torch.zeros((batch, plane[0] + 2, plane[1] + 2), dtype=torch.uint8, device=image_BCHW.device)
    for images, at in _chunks(image_BCHW):
        dx, dy, size = _strongest_gradient(images, kernel, half)
        if thresholds is None:
            high = gradient_quantile(_sample(size, shape, half), shares[at].to(size.device))
            limits = torch.stack([0.4 * high, high], 1)
        else:
            limits = thresholds[at].to(size.device)
        state[at, 1:-1, 1:-1] = _thinned(dx, dy, size, limits)
    together = max(2 * CHUNK_PIXELS // (plane[0] * plane[1]), 1)
    return torch.cat([_edge_counts(part, cell // 2 if half else cell) for part in state.split(together)])


def _check(
    image_BCHW: Tensor,
    cell: int,
    criterion: str,
    thresholds: tuple[float, float] | Tensor | None,
    share: float | Tensor,
) -> None:
    if image_BCHW.ndim != 4 or min(image_BCHW.shape) < 1:
        raise ValueError(f"images must be (B, C, H, W), none empty; got {tuple(image_BCHW.shape)}")
    if image_BCHW.dtype != torch.uint8 and not image_BCHW.is_floating_point():
        raise ValueError(f"images must be uint8 or floats in [0, 1]; got {image_BCHW.dtype}")
    if cell < 1:
        raise ValueError(f"cell must be at least 1 pixel; got {cell}")
    if criterion not in CRITERIA:
        raise ValueError(f"unknown criterion {criterion!r} on the device; there are {', '.join(CRITERIA)}")
    batch = len(image_BCHW)
    given = tuple(thresholds.shape) if isinstance(thresholds, Tensor) else thresholds
    if given is not None and (given != (batch, 2) if isinstance(thresholds, Tensor) else len(given) != 2):
        raise ValueError(f"thresholds must be (low, high), or a tensor ({batch}, 2) for these images; got {given}")
    if isinstance(share, Tensor) and share.shape != (batch,):
        raise ValueError(f"share must be a number, or a tensor ({batch},) for these images; got {tuple(share.shape)}")


def _paper_kernel(side: int) -> int:
    return PAPER_KERNELS[max((z for z in PAPER_KERNELS if z <= side), default=512)]


def _chunks(image_BCHW: Tensor) -> Iterator[tuple[Tensor, slice]]:
    """A few images at a time as uint8 (B, C, H, W), and which of the batch they are."""
    step = max(CHUNK_PIXELS // (image_BCHW.shape[-2] * image_BCHW.shape[-1]), 1)
    for start in range(0, len(image_BCHW), step):
        images = image_BCHW[start : start + step]
        if images.dtype != torch.uint8:
            images = images.float().mul(255).round_().clamp_(0, 255).to(torch.uint8)
        yield images, slice(start, start + step)


def _planes(images_BCHW: Tensor) -> list[Tensor]:
    """Luma (B, H, W) of RGB as OpenCV computes it, the brighter of two channels, else every channel by itself."""
    channels = images_BCHW.shape[1]
    if channels == 3:
        red, green, blue = (images_BCHW[:, c].int() for c in range(3))
        return [(red.mul_(9798).add_(green, alpha=19235).add_(blue, alpha=3735).add_(1 << 14) >> 15).to(torch.uint8)]
    if channels == 2:
        return [images_BCHW.amax(1)]
    return [images_BCHW[:, c] for c in range(channels)]


def _strongest_gradient(images_BCHW: Tensor, kernel: int, half: bool) -> tuple[Tensor, Tensor, Tensor]:
    """dx, dy and |dx| + |dy| (B, h, w) int16 of the plane where the last is largest, first on ties."""
    best: tuple[Tensor, Tensor, Tensor] | None = None
    for plane in _planes(images_BCHW):
        smooth = blur(halved(plane) if half else plane, kernel)
        dx, dy = _sobel(smooth, _edge_repeated)
        size = dx.abs() + dy.abs()
        if best is None:
            best = dx, dy, size
        else:
            larger = size > best[2]
            dx, dy = torch.where(larger, dx, best[0]), torch.where(larger, dy, best[1])
            best = dx, dy, torch.maximum(size, best[2])
    assert best is not None
    return best


def halved(plane_BHW: Tensor) -> Tensor:
    """Means of 2 × 2 pixels, uint8, halves up; an odd last row or column is paired with itself."""
    rows, columns = plane_BHW.shape[1:]
    wide = plane_BHW.to(torch.int16)
    pairs = wide[:, ::2].clone()
    pairs[:, : rows // 2] += wide[:, 1::2]
    if rows % 2:
        pairs[:, -1] *= 2
    out = pairs[..., ::2].clone()
    out[..., : columns // 2] += pairs[..., 1::2]
    if columns % 2:
        out[..., -1] *= 2
    return (out.add_(2) >> 2).to(torch.uint8)


def _mirrored(length: int, border: int, device: torch.device) -> Tensor:
    """Indices of a line continued by ``border`` at both ends, mirrored about its first and last entries."""
    at = torch.arange(-border, length + border, device=device)
    period = max(2 * (length - 1), 1)
    at = at.remainder(period)
    return torch.minimum(at, period - at) if length > 1 else torch.zeros_like(at)


def _edge_repeated(length: int, border: int, device: torch.device) -> Tensor:
    """Indices of a line continued by ``border`` at both ends by its first and last entries."""
    return torch.arange(-border, length + border, device=device).clamp(0, length - 1)


def blur(plane_BHW: Tensor, kernel: int) -> Tensor:
    """uint8 Gaussian blur of uint8, mirrored at the border: ``cv2.GaussianBlur(plane, (kernel, kernel), 0)``."""
    weights, border = BLUR[kernel], kernel // 2
    if kernel == 1:
        return plane_BHW
    rows, columns = plane_BHW.shape[1:]
    wide = plane_BHW.to(torch.int16).index_select(2, _mirrored(columns, border, plane_BHW.device))
    line = wide[..., border : border + columns].int() * weights[0]
    for i in range(1, border + 1):
        both = wide[..., border - i : border - i + columns] + wide[..., border + i : border + i + columns]
        line.add_(both, alpha=weights[i])
    tall = line.index_select(1, _mirrored(rows, border, plane_BHW.device))
    out = tall[:, border : border + rows] * weights[0]
    for i in range(1, border + 1):
        both = tall[:, border - i : border - i + rows] + tall[:, border + i : border + i + rows]
        out.add_(both, alpha=weights[i])
    return (out.add_(1 << 15) >> 16).to(torch.uint8)


def _sobel(plane_BHW: Tensor, border: Callable[[int, int, torch.device], Tensor]) -> tuple[Tensor, Tensor]:
    """int16 derivatives along columns and rows, 3 × 3 Sobel."""
    rows, columns, device = *plane_BHW.shape[1:], plane_BHW.device
    wide = (
        plane_BHW.to(torch.int16).index_select(1, border(rows, 1, device)).index_select(2, border(columns, 1, device))
    )
    down = wide[:, :-2] + wide[:, 2:] + 2 * wide[:, 1:-1]
    across = wide[..., :-2] + wide[..., 2:] + 2 * wide[..., 1:-1]
    return down[..., 2:] - down[..., :-2], across[:, 2:] - across[:, :-2]


def _sample(size_Bhw: Tensor, shape: list[int], half: bool) -> Tensor:
    """The gradient sizes that the quantile is taken from, (B, M): all, or a lattice of blocks of a large image."""
    if shape[0] * shape[1] > WHOLE_PIXELS:
        for axis, length in enumerate(shape):
            at = _lattice(length, size_Bhw.shape[1 + axis], 2 if half else 1)
            size_Bhw = size_Bhw.index_select(1 + axis, at.to(size_Bhw.device))
    return size_Bhw.flatten(1)


def _lattice(length: int, plane: int, scale: int) -> Tensor:
    """Rows (or columns) of a plane that the blocks along one axis of ``length`` level-0 pixels cover."""
    tiles = length // TILE
    count = min(MOST_BLOCKS, tiles)
    if not count:
        return torch.arange(plane)
    starts = [(i * (tiles - 1) // max(count - 1, 1) * TILE + MARGIN) // scale for i in range(count)]
    return (torch.tensor(starts)[:, None] + torch.arange((TILE - 2 * MARGIN) // scale)).flatten()


def gradient_quantile(size_BM: Tensor, share_B: Tensor) -> Tensor:
    """(B,) float64: the ``share`` quantile of the integers at or above 4 less half a step, at least 8.

    The smallest value at or below which lies that share, found by bisection of the value: counting needs neither
    sorting nor atomic sums. Half a step below, since Canny asks for more than the threshold.
    """
    total = (size_BM >= 4).sum(1)
    needed = share_B * total.double()
    low = torch.full_like(total, 3)  # the quantile lies in (low, high]
    high = torch.full_like(total, 2047)
    for _ in range(11):
        middle = (low + high) // 2
        below = total - (size_BM > middle[:, None].to(size_BM.dtype)).sum(1)
        enough = below.double() >= needed
        low, high = torch.where(enough, low, middle), torch.where(enough, middle, high)
    return (high.double() - 0.5).clamp(min=8.0).masked_fill(total == 0, 8.0)


def _thinned(dx: Tensor, dy: Tensor, size: Tensor, limits_B2: Tensor) -> Tensor:
    """(B, h, w) uint8: 0 for what is no ridge of the gradient or not above low, 2 above high, else 1.

    The directions are cut at tan 22.5° = 13573 / 2^15 as in OpenCV, with its ``>`` and ``>=``.
    """
    floors = limits_B2.double().floor().clamp(-1, 32767).to(torch.int16)
    low, high = floors.amin(1)[:, None, None], floors.amax(1)[:, None, None]
    wide = torch.nn.functional.pad(size, (1, 1, 1, 1))  # nothing beyond the border
    rows, columns = size.shape[1:]

    def beside(down: int, right: int) -> Tensor:
        return wide[:, 1 + down : 1 + down + rows, 1 + right : 1 + right + columns]

    x, y = dx.abs().int(), dy.abs().int() << 15
    tangent = x * 13573
    across, down = y < tangent, y > tangent.add_(x, alpha=1 << 16)
    rising = (dx ^ dy) < 0
    peak = torch.where(
        rising,
        (size > beside(-1, 1)) & (size > beside(1, -1)),
        (size > beside(-1, -1)) & (size > beside(1, 1)),
    )
    peak = torch.where(down, (size > beside(-1, 0)) & (size >= beside(1, 0)), peak)
    peak = torch.where(across, (size > beside(0, -1)) & (size >= beside(0, 1)), peak)
    peak &= size > low
    return peak.to(torch.uint8) + (peak & (size > high))


def _edge_counts(state: Tensor, cell: int) -> Tensor:
    """(B, h, w) float32: pixels of every cell kept by hysteresis, of thinned states with a border of zeros."""
    batch, tall, wide = state.shape
    pixel = torch.nonzero(state.view(-1)).squeeze(1)
    kept = hysteresis(state, pixel)
    grid = (-(-(tall - 2) // cell), -(-(wide - 2) // cell))
    line = pixel // wide
    row, column = line % tall - 1, pixel % wide - 1
    place = (line // tall * grid[0] + row // cell) * grid[1] + column // cell
    counts = torch.zeros(batch * grid[0] * grid[1], dtype=torch.float32, device=state.device)
    return counts.index_add_(0, place, kept.float()).view(batch, *grid)


def hysteresis(state: Tensor, pixel: Tensor) -> Tensor:
    """(N,) bool: which of the N pixels of ``state`` (B, h, w) above zero are joined to a 2, by their 8 neighbours.

    ``pixel`` are their flat places; the outermost rows and columns of every plane must be zero. Every pixel's label
    falls to the least of its own connected pixels, and to 0 where one of them is strong.
    """
    count, wide = len(pixel), state.shape[2]
    flat = state.view(-1)
    own = torch.arange(1, count + 1, device=state.device)
    number = torch.zeros(flat.shape, dtype=torch.int32, device=state.device)
    number[pixel] = own.int()
    near = []
    for offset in (-wide - 1, -wide, -wide + 1, -1, 1, wide - 1, wide, wide + 1):
        other = number[pixel + offset]
        near.append(torch.where(other > 0, other, own.int()))
    label = torch.cat([own.new_zeros(1), own.masked_fill(flat[pixel] == 2, 0)])
    settled = count == 0
    while not settled:
        for _ in range(ROUNDS):
            before, label = label, merged_once(label, own, near)
        settled = torch.equal(before, label)
    return label[1:] == 0


def merged_once(label: Tensor, own: Tensor, near: list[Tensor]) -> Tensor:
    """Labels after one round: every pixel and its label take the least label of the label around, then jump twice.

    Source: FastSV (Zhang, Azad and Hu 2020). Minima do not depend on the order, so neither does the result.
    """
    grand = label[label]
    least = grand[1:].clone()
    for other in near:
        torch.minimum(least, grand.index_select(0, other), out=least)
    head = torch.where(label[1:] == 0, own, label[1:])
    grand[1:] = least
    grand.scatter_reduce_(0, head, least, "amin")
    return grand[grand]


def _gradient_sums(images_BCHW: Tensor, cell: int, kernel: int) -> Tensor:
    """(B, h, w) float32: length of the Sobel gradient, the largest of the planes, summed over every cell."""
    most: Tensor | None = None
    for plane in _planes(images_BCHW):
        dx, dy = (d.int() for d in _sobel(blur(plane, kernel), _mirrored))
        squared = dx * dx + dy * dy
        most = squared if most is None else torch.maximum(most, squared)
    assert most is not None
    rows, columns = most.shape[1:]
    length = torch.nn.functional.pad(most, (0, -columns % cell, 0, -rows % cell)).float().sqrt_()
    return length.unflatten(2, (-1, cell)).unflatten(1, (-1, cell)).sum((2, 4))
