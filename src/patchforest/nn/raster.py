"""Forests on the device: batched gather and paint in torch, differentiable and equal to the NumPy ones.

Dimension letters: B batch, L leaves, C channels, D model width, K values a leaf, n spatial axes (2 or 3), p patch
side, q output side, H W image, h w raster.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from patchforest.values import Forest


@dataclass(frozen=True, eq=False)
class ForestBatch:
    """Forests over images of one shape, padded to the same number of leaves.

    Attributes
    ----------
    origin_BLn : int64, level-0 corners; zero where padded.
    size_BL : int64, leaf sides; ``cell`` where padded.
    valid_BL : bool, False for padding.
    index : (B, ceil(H/cell), ceil(W/cell)) int64, which leaf covers each cell.
    place_B4 : float32, (row, column) of the image within a larger frame, then (height, width) of that frame, in
        level-0 pixels; zeros and the image's own shape for a whole image.
    shape, root, cell : as in ``Forest``.
    """

    origin_BLn: Tensor
    size_BL: Tensor
    valid_BL: Tensor
    index: Tensor
    place_B4: Tensor
    shape: tuple[int, ...]
    root: int
    cell: int

    @classmethod
    def stack(
        cls, forests: Sequence[Forest], place: Tensor | None = None, device: torch.device | str | None = None
    ) -> ForestBatch:
        """One batch of forests that share shape, root and cell; ValueError where they do not."""
        first = forests[0]
        if any((f.shape, f.root, f.cell) != (first.shape, first.root, first.cell) for f in forests):
            given = {(f.shape, f.root, f.cell) for f in forests}
            raise ValueError(f"forests of a batch must share shape, root and cell; got {sorted(given)}")
        length, n = max(len(f) for f in forests), first.ndim
        origin = np.zeros((len(forests), length, n), np.int64)
        size = np.full((len(forests), length), first.cell, np.int64)
        valid = np.zeros((len(forests), length), bool)
        for b, forest in enumerate(forests):
            origin[b, : len(forest)], size[b, : len(forest)] = forest.origin, forest.size
            valid[b, : len(forest)] = True
        index = np.stack([_cell_index(f) for f in forests])
        if place is None:
            place = torch.tensor([[0.0, 0.0, *first.shape[-2:]]] * len(forests))
        return cls(
            torch.from_numpy(origin).to(device),
            torch.from_numpy(size).to(device),
            torch.from_numpy(valid).to(device),
            torch.from_numpy(index).to(device),
            place.to(device=device, dtype=torch.float32),
            shape=first.shape,
            root=first.root,
            cell=first.cell,
        )

    @classmethod
    def join(cls, batches: Sequence[ForestBatch]) -> ForestBatch:
        """The forests of several batches that share shape, root and cell as one, padded to the longest."""
        length = max(b.size_BL.shape[1] for b in batches)
        short = [length - b.size_BL.shape[1] for b in batches]
        return replace(
            batches[0],
            origin_BLn=torch.cat([F.pad(b.origin_BLn, (0, 0, 0, s)) for b, s in zip(batches, short)]),
            size_BL=torch.cat([F.pad(b.size_BL, (0, s), value=b.cell) for b, s in zip(batches, short)]),
            valid_BL=torch.cat([F.pad(b.valid_BL, (0, s)) for b, s in zip(batches, short)]),
            index=torch.cat([b.index for b in batches]),
            place_B4=torch.cat([b.place_B4 for b in batches]),
        )

    def unstack(self) -> list[Forest]:
        """The forests of the batch, one by one, without padding; ``stack`` is the inverse."""
        depth = (self.root // self.cell).bit_length() - 1
        out = []
        for origin, size, valid in zip(self.origin_BLn.cpu(), self.size_BL.cpu(), self.valid_BL.cpu()):
            side = size[valid].numpy()
            level = depth - np.log2(side // self.cell).astype(np.int64)
            out.append(Forest(origin[valid].numpy(), side, level, self.shape, self.root, self.cell))
        return out

    def to(self, device: torch.device | str) -> ForestBatch:
        """The same batch on another device."""
        return replace(
            self,
            origin_BLn=self.origin_BLn.to(device),
            size_BL=self.size_BL.to(device),
            valid_BL=self.valid_BL.to(device),
            index=self.index.to(device),
            place_B4=self.place_B4.to(device),
        )

    def at_stride(self, stride: int) -> ForestBatch:
        """The same leaves in units of ``stride`` pixels, over a raster of ceil(shape / stride)."""
        if stride < 1 or self.cell % stride:
            raise ValueError(f"stride must divide the smallest leaf side {self.cell}; got {stride}")
        out = replace(
            self,
            origin_BLn=self.origin_BLn // stride,
            size_BL=self.size_BL // stride,
            shape=tuple(-(-s // stride) for s in self.shape),
            root=self.root // stride,
            cell=self.cell // stride,
        )
        out.__dict__["by_size"] = [(size // stride, b, leaf) for size, b, leaf in self.by_size]  # the same groups
        return out

    @cached_property
    def by_size(self) -> list[tuple[int, Tensor, Tensor]]:
        """(side, image, leaf) of the valid leaves of every side there is, smallest first; images and leaves ascend.

        Found once for a batch, by one sort; the host waits for the device once.
        """
        sides = [self.cell << k for k in range((self.root // self.cell).bit_length())]
        key = self.size_BL.masked_fill(~self.valid_BL, 2 * self.root).flatten()
        order = torch.argsort(key, stable=True)
        each = self.cell << torch.arange(len(sides), device=key.device)
        ends = [0, *torch.searchsorted(key[order], each, right=True).tolist()]
        length = self.size_BL.shape[1]
        groups = zip(sides, ends, ends[1:])
        return [(s, order[a:b] // length, order[a:b] % length) for s, a, b in groups if b > a]

    @property
    def center_BLn(self) -> Tensor:
        """float32, leaf centres in level-0 pixels of this image."""
        return self.origin_BLn.float() + self.size_BL[..., None].float() / 2

    @property
    def area_BL(self) -> Tensor:
        """int64, pixels of each leaf that lie inside the image, as in ``Forest.area``; zero where padded."""
        area = self.valid_BL.long()
        for origin, length in zip(self.origin_BLn.unbind(-1), self.shape):
            area = area * (length - origin).minimum(self.size_BL)
        return area


def _cell_index(forest: Forest) -> np.ndarray:
    """Which leaf covers each cell: int64 over ceil(shape / cell)."""
    largest = int(forest.size.max()) // forest.cell
    grid = tuple(-(-s // forest.cell) for s in forest.shape)
    out = np.empty(tuple(-(-g // largest) * largest for g in grid), np.int64)
    for size in np.unique(forest.size):
        chosen, side = np.flatnonzero(forest.size == size), int(size) // forest.cell
        tiles = out.reshape([v for g in out.shape for v in (g // side, side)])
        tiles = tiles.transpose([2 * a for a in range(out.ndim)] + [2 * a + 1 for a in range(out.ndim)])
        tiles[tuple((forest.origin[chosen] // size).T)] = chosen.reshape((-1,) + (1,) * out.ndim)
    return out[tuple(slice(0, g) for g in grid)]


def gather_batch(image_BCHW: Tensor, forest: ForestBatch, patch: int) -> Tensor:
    """(B, L, C, p, p) area-averaged patches of every leaf, zero where padded; see ``tree.gather.gather``."""
    n = len(forest.shape)
    if tuple(image_BCHW.shape[2:]) != forest.shape:
        raise ValueError(f"the forests are cut for {forest.shape}; got an image of {tuple(image_BCHW.shape[2:])}")
    batch, length = forest.size_BL.shape
    for size in (forest.by_size[0][0], forest.by_size[-1][0]):
        big, small = max(size, patch), max(min(size, patch), 1)
        if big % small or (big // small) & (big // small - 1):
            raise ValueError(f"patch must be every leaf side times or by a power of two; got {patch} for side {size}")
    out = image_BCHW.new_zeros((batch, length, image_BCHW.shape[1]) + (patch,) * n)
    edged, factor = image_BCHW, 1  # its last pixels stand for what lies beyond
    for size, b, leaf in forest.by_size:
        while factor < size // patch:
            edged, factor = (_average(edged, n) if factor > 1 else _first_average(edged, n)), factor * 2
        step, repeat = max(size // patch, 1), max(patch // size, 1)
        steps = torch.arange(patch, device=image_BCHW.device) // repeat
        index: list[Tensor | slice] = [b.view(-1, *[1] * n), slice(None)]
        for axis in range(n):
            at = (forest.origin_BLn[b, leaf, axis, None] // step + steps).clamp(max=edged.shape[2 + axis] - 1)
            index.append(at.view(len(b), *[1] * axis, patch, *[1] * (n - 1 - axis)))
        blocks = edged[tuple(index)]  # advanced indices around a slice: (N, p, p, C)
        out[b, leaf] = blocks.movedim(-1, 1).to(out.dtype)
    return out


def _first_average(image: Tensor, n: int) -> Tensor:
    """``_average`` of an image whose edge pixels are repeated behind it; of even sides without copying it."""
    if n != 2 or image.shape[2] % 2 or image.shape[3] % 2:
        return _average(F.pad(image, (0, 1) * n, mode="replicate"), n)
    right, below = image[..., -1:], image[..., -1:, :]
    last = torch.cat([F.avg_pool2d(below, (1, 2)), below[..., -1:]], 3)
    return torch.cat([torch.cat([F.avg_pool2d(image, 2), F.avg_pool2d(right, (2, 1))], 3), last], 2)


def _average(edged: Tensor, n: int) -> Tensor:
    """Means of 2^n blocks of a raster whose last entry an axis stands for all beyond the edge; edged again."""
    for axis in range(2, n + 2):
        length = edged.shape[axis] - 1
        take = torch.arange(2 * ((length + 1) // 2) + 2, device=edged.device).clamp(max=length)
        edged = edged.index_select(axis, take)
    return F.avg_pool2d(edged, 2) if n == 2 else F.avg_pool3d(edged, 2)


def paint_batch(values_BLKqq: Tensor, forest: ForestBatch, mode: str = "nearest") -> Tensor:
    """(B, K, H, W) raster of values (B, L, K, q, q) for any q; see ``tree.paint.paint``."""
    n = len(forest.shape)
    check_mode(mode)
    if values_BLKqq.ndim != n + 3 or values_BLKqq.shape[:2] != forest.size_BL.shape:
        wanted = ", ".join([*(str(s) for s in forest.size_BL.shape), "K", *["q"] * n])
        raise ValueError(f"values must be ({wanted}) for these forests; got {tuple(values_BLKqq.shape)}")
    batch, _, kinds = values_BLKqq.shape[:3]
    padded = _canvas(forest)
    canvas = values_BLKqq.new_zeros((batch, kinds, *padded))
    for size, b, leaf in forest.by_size:
        sides = [min(size, p) for p in padded]  # of a leaf longer than the image only the beginning is painted
        blocks = resample(values_BLKqq[b, leaf], size, mode, sides)
        split = [batch, kinds] + [v for p, s in zip(padded, sides) for v in (p // s, s)]
        grid = [2 + 2 * a for a in range(n)]
        tiles = canvas.view(split).permute(0, *grid, 1, *[g + 1 for g in grid])
        at = forest.origin_BLn[b, leaf] // size
        tiles[(b, *at.unbind(-1))] = blocks.to(canvas.dtype)
    return crop(canvas, forest.shape)


def _canvas(forest: ForestBatch) -> tuple[int, ...]:
    """The image's shape, every axis lengthened to a multiple of the longest leaf side that is shorter than it.

    Leaves as long as an axis or longer lie across all of it.
    """
    out = []
    for length in forest.shape:
        inside = max((size for size, _, _ in forest.by_size if size < length), default=length)
        out.append(-(-length // inside) * inside)
    return tuple(out)


def resample(blocks_NKqq: Tensor, size: int, mode: str, sides: Sequence[int]) -> Tensor:
    """The first ``sides`` of (N, K, size, size) of (N, K, q, q), on every axis by ``tree.paint.resample_matrix``."""
    q = blocks_NKqq.shape[2]
    if size == q:
        return crop(blocks_NKqq, sides)
    if mode == "nearest" and size % q == 0:
        for axis, side in enumerate(sides, start=2):
            take = torch.arange(side, device=blocks_NKqq.device) // (size // q)
            blocks_NKqq = blocks_NKqq.index_select(axis, take)
        return blocks_NKqq
    matrix = resample_matrix(q, size, mode, blocks_NKqq.device)
    for axis, side in enumerate(sides, start=2):  # autocast may change the type on the way
        weights = matrix[:side].to(blocks_NKqq.dtype)
        blocks_NKqq = torch.tensordot(blocks_NKqq, weights, dims=([axis], [1])).movedim(-1, axis)
    return blocks_NKqq


def resample_matrix(q: int, size: int, mode: str, device: torch.device | None = None) -> Tensor:
    """(size, q) float64, rows summing to 1: mean over the pixel for q > size, else nearest or linear at its centre."""
    check_mode(mode)
    rows = torch.arange(size, dtype=torch.float64, device=device)
    if q > size:
        edge = torch.arange(q + 1, dtype=torch.float64, device=device) * size / q
        overlap = torch.minimum(edge[None, 1:], rows[:, None] + 1) - torch.maximum(edge[None, :-1], rows[:, None])
        return overlap.clamp(min=0)
    centre = (rows + 0.5) * q / size
    columns = torch.arange(q, dtype=torch.float64, device=device)
    if mode == "nearest":
        return (centre.floor().clamp(max=q - 1)[:, None] == columns).double()
    place = (centre - 0.5).clamp(0, q - 1)
    return (1 - (place[:, None] - columns).abs()).clamp(min=0)


def check_mode(mode: str) -> None:
    """ValueError unless ``mode`` is one of painting."""
    if mode not in ("nearest", "bilinear"):
        raise ValueError(f"mode must be nearest or bilinear; got {mode!r}")


def paint_features(states_BLK: Tensor, forest: ForestBatch, stride: int, *, sub: int = 1) -> Tensor:
    """Leaf states as a registered raster (B, K, ceil(H/stride), ceil(W/stride)).

    Leaves longer than ``stride`` repeat their state; shorter ones are averaged within a raster cell. A raster cell that
    reaches over the far edges repeats the last leaves there.

    Parameters
    ----------
    states_BLK : with ``sub`` > 1, (B, L, sub * sub * K) whose first factor is a sub × sub grid inside the leaf (2-D;
        every leaf must span at least ``sub`` raster cells).

    Raises ValueError for a stride that neither divides the forest's cell nor is a multiple of it.
    """
    if stride < 1 or (stride % forest.cell and forest.cell % stride):
        raise ValueError(f"stride must divide the smallest leaf side {forest.cell} or be a multiple; got {stride}")
    n, (batch, length) = len(forest.shape), forest.size_BL.shape
    index = forest.index
    if sub == 1:
        width = states_BLK.shape[-1]
        cells = states_BLK.gather(1, index.reshape(batch, -1, 1).expand(-1, -1, width))
        raster = cells.transpose(1, 2).reshape(batch, width, *index.shape[1:])
        if stride > forest.cell:
            factor = stride // forest.cell
            short = [(-s) % factor for s in raster.shape[2:]]
            raster = F.pad(raster, [v for s in reversed(short) for v in (0, s)], mode="replicate")
            return F.avg_pool2d(raster, factor) if n == 2 else F.avg_pool3d(raster, factor)
        return _repeat_to(raster, forest.cell // stride, tuple(-(-s // stride) for s in forest.shape))
    if n != 2 or forest.cell // stride < sub:
        raise ValueError(
            f"sub={sub} needs 2-D leaves of at least {sub} raster cells; cell {forest.cell}, stride {stride}"
        )
    shape = tuple(-(-s // stride) for s in forest.shape)
    leaf = _repeat_to(index[:, None], forest.cell // stride, shape)[:, 0].reshape(batch, -1)  # (B, h*w)
    rows = torch.arange(shape[0], device=leaf.device)[:, None].expand(shape).reshape(-1)
    columns = torch.arange(shape[1], device=leaf.device).expand(shape).reshape(-1)
    side = forest.size_BL.gather(1, leaf) // stride
    inside_row = (rows - forest.origin_BLn[..., 0].gather(1, leaf) // stride) * sub // side
    inside_column = (columns - forest.origin_BLn[..., 1].gather(1, leaf) // stride) * sub // side
    flat = (leaf * sub + inside_row) * sub + inside_column
    width = states_BLK.shape[-1] // (sub * sub)
    cells = states_BLK.reshape(batch, length * sub * sub, width).gather(1, flat[..., None].expand(-1, -1, width))
    return cells.transpose(1, 2).reshape(batch, width, *shape)


def _repeat_to(raster: Tensor, factor: int, shape: tuple[int, ...]) -> Tensor:
    """Nearest up-sampling by a whole factor, cropped to ``shape``."""
    if factor > 1:
        for axis in range(2, raster.ndim):
            raster = raster.repeat_interleave(factor, dim=axis)
    return crop(raster, shape)


def crop(raster: Tensor, shape: Sequence[int]) -> Tensor:
    """The first ``shape`` entries of the last axes of (B, K, H, W[, ...])."""
    for axis, length in enumerate(shape, start=2):
        raster = raster.narrow(axis, 0, length)
    return raster
