"""Gather: every leaf as one patch of the same size, area-averaged, each pixel touched once. The inverse is ``paint``.

A patch's pixel is the sum over f x f pixels of its leaf, divided by f². Sums are exact for integers. For real numbers
they are taken over aligned blocks of 16 x 16 first, then over pairs of those along the rows, then along the columns,
and so on up: an order that does not depend on what else is read, so that a stream (``stream.py``) rounds alike.
"""

from __future__ import annotations

import numpy as np

from patchforest.tree.kernel import kernel
from patchforest.tree.threads import ordered
from patchforest.values import Array, Forest, PatchSequence

BLOCK = 16
"""Side of the blocks that are summed row by row."""

_WORTH_A_THREAD = 1 << 22  # values of an image, below which starting a thread takes longer than the work


def gather(image: Array, forest: Forest, patch: int = 8, *, threads: int = 1) -> PatchSequence:
    """The patch sequence of an image: (L, C, patch, patch) float32 on the image's own scale, in Z-order.

    Parameters
    ----------
    image : (H, W), (H, W, C), or the same with a leading plane axis for a 3-D forest. Leaves that reach over the far
        edges see the image continued by its last row and column. C-contiguous arrays are not copied.
    patch : side of a patch. Leaves larger than it are averaged down, smaller ones repeat their pixels; leaf sides
        must be patch times or by a power of two.

    Raises
    ------
    ValueError : an image of another size than the forest, or a patch that does not divide by powers of two.
    """
    n = forest.ndim
    if image.shape[:n] != forest.shape or image.ndim not in (n, n + 1):
        raise ValueError(f"the forest is cut for an image of {forest.shape} (and channels); got {image.shape}")
    check_patch(forest, patch)
    values = summable(image if image.ndim == n + 1 else image[..., None])
    patches = np.empty((len(forest), values.shape[-1]) + (patch,) * n, np.float32)
    corner = np.zeros(n, np.int64)

    def fill(leaves: Array) -> None:
        fill_patches(values, forest.origin[leaves] - corner, forest.size[leaves], leaves, patches)

    threads = min(threads, 1 + values.size // _WORTH_A_THREAD)
    for _ in ordered(fill, _chunks(forest, 8 * threads) if threads > 1 else [np.arange(len(forest))], threads):
        pass
    return as_sequence(patches, forest)


def fill_patches(pixels: Array, place: Array, size: Array, leaves: Array, patches: Array) -> None:
    """Write ``patches[leaves]`` of leaves of ``size`` at ``place`` (N, n) in a part of an image.

    ``pixels`` must be ``summable``. What of a leaf lies inside the image must be in it, and where a leaf reaches over
    its far ends they must be the image's.
    """
    n = place.shape[1]
    solid = (1,) * (3 - n)  # an image is a volume of one plane
    corner = np.zeros((len(leaves), 3), np.int64)
    corner[:, 3 - n :] = place
    out = patches.reshape(patches.shape[:2] + solid + patches.shape[2:])
    _fill(pixels.reshape(solid + pixels.shape), corner, size, leaves, n == 2, out, *_sum_types(pixels))


def fill_from_sums(sums: Array, place: Array, size: Array, share: float, leaves: Array, patches: Array) -> None:
    """Write ``patches[leaves]`` of leaves that span ``size`` entries of ``sums`` (rows, columns, C) from ``place`` on.

    The last row and column of ``sums`` stand for all beyond. ``share`` is one over the pixels of an entry.
    """
    _fill_from_sums(sums, place, size, share, leaves, patches)


def summable(values: Array) -> Array:
    """The values as the kernels take them: C-contiguous, uint8, uint16, float32 or float64 in native byte order.

    Aligned and read-only, always: numba compiles anew for arrays that may be written and for those that may not.
    """
    kind = values.dtype.newbyteorder("=")
    if kind == np.bool_:
        kind = np.dtype(np.uint8)
    elif kind not in (np.uint8, np.uint16, np.float32, np.float64):
        kind = np.dtype(np.float64)
    out = np.require(values, kind, ["C", "A"]).view(np.ndarray)
    out.flags.writeable = False
    return out


def as_sequence(patches: Array, forest: Forest) -> PatchSequence:
    """Patches with the place and scale of their leaves."""
    return PatchSequence(
        patches=patches,
        coord=(forest.origin + forest.size[:, None] / 2).astype(np.float32),
        size=forest.size.copy(),
        valid=np.ones(len(forest), bool),
    )


def check_patch(forest: Forest, patch: int) -> None:
    """ValueError unless every leaf side is patch times or divided by a power of two."""
    big, small = max(patch, forest.cell), min(patch, forest.cell)
    ratio = big // small if small > 0 else 0
    if patch < 1 or ratio * small != big or ratio & (ratio - 1):
        raise ValueError(f"patch must be the forest's cell ({forest.cell}) times or by a power of two; got {patch}")


def block_sums(pixels: Array, factor: int, size: tuple[int, int]) -> Array:
    """Sums (rows, columns, C) over factor x factor blocks of a ``summable`` image (h, w, C); factor at least 16.

    The image is continued by its last row and column up to ``size`` blocks. uint32 for bytes, else float64.
    """
    rows, columns = (s * factor // BLOCK for s in size)
    sums = np.empty((1, rows, columns, pixels.shape[2]))
    line, zero = _sum_types(pixels)
    line = np.empty(columns * BLOCK * pixels.shape[2], line.dtype)
    _sum_blocks(pixels[None], 0, 0, 0, 1, BLOCK, 1.0, sums, line, zero)
    while factor > BLOCK:
        sums, factor = _halve(sums, 1), factor // 2
    return sums[0].astype(sums_dtype(pixels))


def sums_dtype(pixels: Array) -> np.dtype:
    """Of ``block_sums``: bytes over blocks of up to 4096 x 4096 fit into 32 bits."""
    return np.dtype(np.uint32 if pixels.dtype == np.uint8 else np.float64)


def _chunks(forest: Forest, count: int) -> list[Array]:
    """Runs of leaves with about equally many pixels."""
    cells = np.cumsum((forest.size // forest.cell) ** forest.ndim)
    cuts = np.searchsorted(cells, cells[-1] * np.arange(1, count) / count)
    return [part for part in np.split(np.arange(len(forest)), cuts) if len(part)]


def _sum_types(pixels: Array) -> tuple[Array, int | float]:
    """An empty line of the type in which columns of a block are added up, and a zero of the type for its whole sum."""
    kinds = {np.dtype(np.uint8): np.uint16, np.dtype(np.uint16): np.uint32 if pixels.ndim == 3 else np.uint64}
    kind = kinds.get(pixels.dtype, np.float64)  # 16 x 16 bytes fit into 16 bits
    return np.empty(0, kind), 0 if pixels.dtype.kind == "u" else 0.0


@kernel
def _fill(pixels, place, size, leaves, flat, out, line, zero):  # type: ignore[no-untyped-def]
    """The patches of leaves whose corners are at ``place``."""
    depth, height, width, channels = pixels.shape
    flatly, flat_out = pixels.reshape(-1), out.reshape(-1)
    patch = out.shape[4]
    line = np.empty(int(size.max()) * channels, line.dtype)
    for k in range(len(leaves)):
        side, z, y, x = size[k], place[k, 0], place[k, 1], place[k, 2]
        step, repeat = max(side // patch, 1), max(patch // side, 1)
        share = 1.0 / (float(step) * step * (1 if flat else step))
        if flat and repeat == 1 and step <= BLOCK and y + side <= height and x + side <= width:
            to = np.uintp(leaves[k] * channels * patch * patch)
            _fill_inside(flatly, (width, channels, patch, step), y, x, share, flat_out, to, line, zero)
            continue
        leaf = out[leaves[k]]
        if step == 1:
            for p in range(leaf.shape[1]):
                for i in range(patch):
                    row = min(z + p // repeat, depth - 1) * height + min(y + i // repeat, height - 1)
                    for c in range(channels):
                        first = (row * width + x) * channels + c
                        for j in range(patch):
                            at = first + min(j // repeat, width - 1 - x) * channels
                            leaf[c, p, i, j] = np.float32(flatly[at])
            continue
        block = min(step, BLOCK)
        if step == block:
            by_channel = leaf.transpose(1, 2, 3, 0)
            _sum_blocks(pixels, z, y, x, 1 if flat else block, block, share, by_channel, line, zero)
            continue
        count = side // block
        sums = np.empty((1 if flat else count, count, count, channels))
        _sum_blocks(pixels, z, y, x, 1 if flat else block, block, 1.0, sums, line, zero)
        while block < step:
            sums = _halve(sums, 1 if flat else 2)
            block *= 2
        for c in range(channels):
            for p in range(leaf.shape[1]):
                for i in range(patch):
                    for j in range(patch):
                        leaf[c, p, i, j] = np.float32(sums[p, i, j, c] * share)


@kernel
def _fill_inside(flatly, sizes, y, x, share, out, first, line, zero):  # type: ignore[no-untyped-def]
    """As ``_sum_blocks``, for a leaf of few pixels a patch pixel that lies inside the image: most leaves do.

    Unsigned indices into flat arrays are what the compiler makes vectors of.
    """
    width, channels, patch, step = sizes
    cast, wide, side, apart = line.dtype.type, np.uintp(channels), np.uintp(patch), np.uintp(patch * patch)
    stride, length, three = np.uintp(width * channels), np.uintp(patch * step * channels), np.uintp(3)
    for i in range(patch):
        start, to = np.uintp(((y + i * step) * width + x) * channels), first + np.uintp(i) * side
        if step == 1:
            for t in range(length):
                line[t] = flatly[start + t]
        elif step == 2:
            for t in range(length):
                line[t] = cast(flatly[start + t]) + cast(flatly[start + stride + t])
        else:
            line[:length] = 0
            for _ in range(0, step, 4):
                second, third, fourth = start + stride, start + np.uintp(2) * stride, start + three * stride
                for t in range(length):
                    upper = cast(flatly[start + t]) + cast(flatly[second + t])
                    lower = cast(flatly[third + t]) + cast(flatly[fourth + t])
                    line[t] += upper + lower
                start += np.uintp(4) * stride
        for j in range(side):
            at = j * np.uintp(step) * wide
            if channels == 3:  # three sums at a time do not wait for each other
                red, green, blue = zero, zero, zero
                for _ in range(step):
                    red += line[at]
                    green += line[at + np.uintp(1)]
                    blue += line[at + np.uintp(2)]
                    at += three
                out[to + j] = red * share
                out[to + j + apart] = green * share
                out[to + j + apart + apart] = blue * share
                continue
            for c in range(wide):
                total = zero
                for t in range(np.uintp(step)):
                    total += line[at + t * wide + c]
                out[to + j + c * apart] = total * share


@kernel
def _fill_from_sums(sums, place, size, share, leaves, out):  # type: ignore[no-untyped-def]
    """Patches of leaves from sums over blocks, added up in the order of ``_halve``."""
    rows, columns, channels = sums.shape
    patch = out.shape[3]
    for k in range(len(leaves)):
        side = size[k]
        part = np.empty((1, side, side, channels))
        for i in range(side):
            for j in range(side):
                for c in range(channels):
                    part[0, i, j, c] = sums[min(place[k, 0] + i, rows - 1), min(place[k, 1] + j, columns - 1), c]
        scale = share
        while side > patch:
            part = _halve(part, 1)
            side //= 2
            scale *= 0.25
        for c in range(channels):
            for i in range(patch):
                for j in range(patch):
                    out[leaves[k], c, i, j] = np.float32(part[0, i, j, c] * scale)


@kernel
def _sum_blocks(pixels, plane, row, column, deep, side, share, sums, line, zero):  # type: ignore[no-untyped-def]
    """Sums, times ``share``, over blocks of deep x side x side pixels from a place on, the image's end repeated."""
    depth, height, width, channels = pixels.shape
    flatly, cast = pixels.reshape(-1), line.dtype.type
    line = line[: sums.shape[2] * side * channels]
    inside = min(sums.shape[2] * side, width - column) * channels
    for p in range(sums.shape[0]):
        for i in range(sums.shape[1]):
            line[:] = 0
            for z in range(plane + p * deep, plane + (p + 1) * deep):
                y, end = row + i * side, row + (i + 1) * side
                while y < end:
                    start = ((min(z, depth - 1) * height + min(y, height - 1)) * width + column) * channels
                    a = flatly[start : start + inside]
                    if y + 4 <= min(end, height):  # four rows at a time: the line is loaded and stored less often
                        stride = width * channels
                        b = flatly[start + stride : start + stride + inside]
                        c = flatly[start + 2 * stride : start + 2 * stride + inside]
                        d = flatly[start + 3 * stride : start + 3 * stride + inside]
                        for t in range(inside):
                            line[t] += (cast(a[t]) + cast(b[t])) + (cast(c[t]) + cast(d[t]))
                        y += 4
                        continue
                    for t in range(inside):
                        line[t] += a[t]
                    y += 1
            for t in range(inside, len(line)):
                line[t] = line[t - channels]
            first = 0
            for j in range(sums.shape[2]):
                for c in range(channels):
                    total = zero
                    for t in range(first + c, first + side * channels, channels):
                        total += line[t]
                    sums[p, i, j, c] = total * share
                first += side * channels


@kernel
def _halve(sums, deep):  # type: ignore[no-untyped-def]
    """Sums over 2 x 2 (x 2) of them: pairs of planes, then of rows, then of columns."""
    planes, rows, columns = sums.shape[0] // deep, sums.shape[1] // 2, sums.shape[2] // 2
    out = np.empty((planes, rows, columns, sums.shape[3]))
    for p in range(planes):
        for i in range(rows):
            for j in range(columns):
                for c in range(sums.shape[3]):
                    total = 0.0
                    for dj in range(2):
                        part = 0.0
                        for di in range(2):
                            for dp in range(deep):
                                part += sums[p * deep + dp, 2 * i + di, 2 * j + dj, c]
                        total += part
                    out[p, i, j, c] = total
    return out
