"""A forest as bytes: one bit a node that could be split, level by level in Z-order, plus a short header."""

from __future__ import annotations

import struct
import zlib

import numpy as np

from patchforest.tree.nodes import flags_of
from patchforest.tree.order import morton
from patchforest.values import Array, Forest, as_shape

_MAGIC = b"pfF1"


def encode_forest(forest: Forest) -> bytes:
    """Bytes of a forest: header (axes, shape, root, cell, checksum), then a bit for every node, 1 where split.

    Nodes of the finest level cannot be split and have no bit, except where roots are cells: there each has a 0.
    """
    bits, nodes = [], _roots(forest.shape, forest.root)
    flags, layout = flags_of(forest)
    for level in range(layout.depth):
        bits.append(layout.level(flags, level)[tuple(nodes.T)].astype(bool))
        nodes = _children(nodes[bits[-1]], forest.shape, forest.root >> (level + 1))
    if not layout.depth:
        bits.append(np.zeros(len(nodes), bool))
    header = struct.pack(f"<B{forest.ndim}QII", forest.ndim, *forest.shape, forest.root, forest.cell)
    body = header + np.packbits(np.concatenate(bits)).tobytes()
    return _MAGIC + struct.pack("<I", zlib.crc32(body)) + body


def decode_forest(data: bytes) -> Forest:
    """The forest that ``encode_forest`` wrote; needs memory in proportion to the bytes, whatever the header says.

    Raises
    ------
    ValueError : the bytes are not an encoded forest, are damaged, too few or too many.
    """
    if data[:4] != _MAGIC:
        raise ValueError("not an encoded forest: the first bytes are not its mark")
    if len(data) < 9 or struct.unpack_from("<I", data, 4)[0] != zlib.crc32(data[8:]):
        raise ValueError("not a whole encoded forest: its checksum does not fit")
    n = data[8]
    try:
        *sizes, root, cell = struct.unpack_from(f"<{n}QII", data, 9)
        shape = as_shape(sizes)
    except (struct.error, ValueError) as error:
        raise ValueError(f"not an encoded forest: {error}") from None
    depth = (root // cell).bit_length() - 1 if cell else -1
    if depth < 0 or cell << depth != root or max(shape) > 1 << 31:
        raise ValueError(f"not an encoded forest: shape {shape}, root {root}, cell {cell} do not fit together")
    bits = np.unpackbits(np.frombuffer(data, np.uint8, offset=9 + struct.calcsize(f"<{n}QII"))).astype(bool)
    if np.prod([-(-s // root) for s in shape], dtype=float) > len(bits):
        raise ValueError(f"not an encoded forest: {len(bits)} bits are fewer than its roots")
    nodes, used = _roots(shape, root), 0
    origins, levels = [], []
    for level in range(max(depth, 1)):
        split = bits[used : used + len(nodes)]
        used += len(nodes)
        if used > len(bits) or (not depth and split.any()):
            raise ValueError(f"not an encoded forest: it ends at level {level}")
        side = root >> level
        origins.append(nodes[~split] * side)
        levels.append(np.full(len(origins[-1]), level, np.int64))
        nodes = _children(nodes[split], shape, side // 2)
    if len(bits) - used >= 8 or bits[used:].any():
        raise ValueError(f"not an encoded forest: {len(bits) - used} bits too many")
    origins.append(nodes * cell)
    levels.append(np.full(len(nodes), depth, np.int64))
    origin, level_of = np.concatenate(origins), np.concatenate(levels)
    order = np.argsort(morton(origin // cell))
    level_of = level_of[order]
    return Forest(origin[order], root >> level_of, level_of, shape, root, cell)


def _roots(shape: tuple[int, ...], root: int) -> Array:
    """(R, n) grid coordinates of the roots in Z-order."""
    nodes = np.moveaxis(np.indices([-(-s // root) for s in shape]), 0, -1).reshape(-1, len(shape)).astype(np.int64)
    return nodes[np.argsort(morton(nodes))]


def _children(nodes: Array, shape: tuple[int, ...], side: int) -> Array:
    """Grid coordinates, one level below, of the existing children of nodes in Z-order; again in Z-order."""
    n = len(shape)
    corners = np.moveaxis(np.indices((2,) * n), 0, -1).reshape(-1, n)
    below = (2 * nodes[:, None] + corners).reshape(-1, n)
    return below[(below * side < np.asarray(shape)).all(axis=1)]
