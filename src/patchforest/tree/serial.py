"""A forest as bytes: one bit a node that could be split, level by level, plus a short header."""

from __future__ import annotations

import struct

import numpy as np

from patchforest.tree.forest import _exists, _from_splits, _grids, split_nodes
from patchforest.tree.order import morton
from patchforest.values import Forest, as_shape

_MAGIC = b"pfF1"


def encode_forest(forest: Forest) -> bytes:
    """Bytes of a forest: header (shape, root, cell), then a bit for every node above the cells, 1 where split."""
    header = _MAGIC + struct.pack(f"<B{forest.ndim}QII", forest.ndim, *forest.shape, forest.root, forest.cell)
    bits, exist = [], None
    for split, grid in zip(split_nodes(forest), _grids(forest.shape, forest.root, forest.depth)):
        exist = _exists(forest.shape, forest.root, grid) if exist is None else exist
        at = np.argwhere(exist)
        at = at[np.argsort(morton(at))]
        bits.append(split[tuple(at.T)])
        exist = _children(split & exist, forest, len(bits))
    packed = np.packbits(np.concatenate(bits)).tobytes() if bits else b""
    return header + packed


def decode_forest(data: bytes) -> Forest:
    """The forest that ``encode_forest`` wrote; ValueError where the bytes are not one, or too few or too many."""
    try:
        if data[:4] != _MAGIC:
            raise ValueError("the first bytes are not those of an encoded forest")
        n = data[4]
        if n not in (2, 3):
            raise ValueError(f"{n} axes")
        *sizes, root, cell = struct.unpack_from(f"<{n}QII", data, 5)
        shape = as_shape(sizes)
        depth = (root // cell).bit_length() - 1 if cell else -1
        if depth < 0 or cell << depth != root or max(shape) > 1 << 31:
            raise ValueError(f"shape {shape}, root {root}, cell {cell} do not fit together")
        start = 5 + struct.calcsize(f"<{n}QII")
        if np.prod([-(-s // root) for s in shape], dtype=float) > 8.0 * max(len(data) - start, 1) and depth:
            raise ValueError("fewer bits than roots")
    except (struct.error, IndexError, ValueError) as error:
        raise ValueError(f"not an encoded forest: {error}") from None
    bits = np.unpackbits(np.frombuffer(data, np.uint8, offset=start)).astype(bool)
    empty = Forest(np.zeros((0, n), np.int64), np.zeros(0, np.int64), np.zeros(0, np.int64), shape, root, cell)
    splits, used = [], 0
    grids = _grids(shape, root, depth)
    exist = _exists(shape, root, grids[0])
    for k in range(depth):
        at = np.argwhere(exist)
        at = at[np.argsort(morton(at))]
        if used + len(at) > len(bits):
            raise ValueError(f"not an encoded forest: it ends at level {k}, {used + len(at) - len(bits)} bits short")
        split = np.zeros(grids[k], bool)
        split[tuple(at.T)] = bits[used : used + len(at)]
        used += len(at)
        splits.append(split)
        exist = _children(split, empty, k + 1)
    if len(bits) - used >= 8 or bits[used:].any():
        raise ValueError(f"not an encoded forest: {len(bits) - used} bits too many")
    return _from_splits(splits, shape, root, cell)


def _children(split: np.ndarray, forest: Forest, level: int) -> np.ndarray:
    """Existing children, one level below, of the split nodes."""
    for axis in range(split.ndim):
        split = np.repeat(split, 2, axis=axis)
    return split & _exists(forest.shape, forest.root >> level, split.shape)
