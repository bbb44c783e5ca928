"""One bit a node: the round trip, the size, and no damage that goes unseen."""

from __future__ import annotations

import os
import subprocess
import sys
import zlib

import numpy as np
import pytest

from patchforest.tree.forest import balance, build_forest
from patchforest.tree.serial import decode_forest, encode_forest
from patchforest.values import Forest
from tests.tree import reference
from tests.tree.test_forest import build
from tests.tree.test_gather import SHAPES, random_forest

HEADER = 48
"""Bytes at most besides the bits: magic, axes, shape, root, cell, checksum."""


def same(first: Forest, second: Forest) -> bool:
    return (
        reference.table(first) == reference.table(second)
        and (first.level == second.level).all()
        and (first.shape, first.root, first.cell) == (second.shape, second.root, second.cell)
        and first.origin.dtype == second.origin.dtype == np.int64
    )


@pytest.mark.parametrize(("shape", "cell", "root"), SHAPES)
def test_round_trip(shape: tuple[int, ...], cell: int, root: int | None) -> None:
    for seed in range(4):
        forest = random_forest(shape, cell, seed, root)
        assert same(decode_forest(encode_forest(forest)), forest)


@pytest.mark.parametrize("seed", range(30))
def test_round_trip_of_every_policy(seed: int) -> None:
    case = reference.random_case(seed + 900)
    for policy in ({"threshold": 1.0}, {"uniform": case.root}, {"uniform": case.cell}, {"budget": 10**6}):
        forest = build(case, **policy)
        assert same(decode_forest(encode_forest(forest)), forest)
    assert same(decode_forest(encode_forest(balance(forest))), forest)


@pytest.mark.parametrize("seed", range(30))
def test_at_most_one_bit_a_node(seed: int) -> None:
    case = reference.random_case(seed + 950, most=16)
    forest = build(case, threshold=1.0)
    nodes = len(forest) + len(reference.split_set(forest))
    assert len(encode_forest(forest)) <= HEADER + -(-nodes // 8)


def test_a_long_forest_is_short() -> None:
    detail = np.random.default_rng(0).random((256, 256))
    forest = build_forest(detail, shape=(2048, 2048), cell=8, budget=16384)
    assert len(encode_forest(forest)) < 16384 * 4 / 3 / 8 + HEADER + 1
    assert encode_forest(forest) == encode_forest(forest)


def test_every_flipped_bit_is_seen() -> None:
    forest = random_forest((61, 45), 8, 2)
    data = encode_forest(forest)
    for bit in range(8 * len(data)):
        broken = bytearray(data)
        broken[bit // 8] ^= 1 << (bit % 8)
        with pytest.raises(ValueError, match="forest"):
            decode_forest(bytes(broken))


def test_every_truncation_and_any_tail_is_seen() -> None:
    data = encode_forest(random_forest((17, 9, 30), 4, 1))
    for length in range(len(data)):
        with pytest.raises(ValueError, match="forest"):
            decode_forest(data[:length])
    for tail in (b"\0", b"\1", b"more than a byte"):
        with pytest.raises(ValueError, match="forest"):
            decode_forest(data + tail)


def test_noise_is_refused() -> None:
    rng = np.random.default_rng(0)
    data = encode_forest(random_forest((64, 64), 8, 2))
    for trial in range(300):
        noise = rng.integers(0, 256, int(rng.integers(0, 80)), np.uint8).tobytes()
        with pytest.raises(ValueError, match="forest"):
            decode_forest(noise if trial % 2 else data[:4] + noise)  # half of them with the right first bytes


def lying_header(shape: tuple[int, ...], root: int, cell: int, payload: bytes) -> bytes:
    """A well-formed file that claims ``shape``: made by encoding a small forest and overwriting its numbers."""
    honest = Forest(np.zeros((1, 2), int), np.array([8]), np.array([0]), (8, 8), 8, 8)
    data = bytearray(encode_forest(honest))
    numbers = np.array([8, 8], "<u8").tobytes()
    at = bytes(data).index(numbers)
    data[at : at + 16] = np.array(shape, "<u8").tobytes()
    data[at + 16 : at + 24] = np.array([root, cell], "<u4").tobytes()
    before = zlib.crc32(encode_forest(honest)[8:])
    assert before == int.from_bytes(data[4:8], "little")  # the checksum of all that follows: make it fit the lie
    data += payload
    data[4:8] = zlib.crc32(data[8:]).to_bytes(4, "little")
    return bytes(data)


LIES = [
    ((1 << 31, 1 << 31), 1, 1, b""),  # 2^62 roots without a bit
    ((1 << 20, 1 << 20), 8, 8, b""),
    ((1 << 31, 1 << 31), 1 << 31, 1, b"\xff" * 64),  # few bits, deep down
    ((1 << 17, 1 << 17), 1 << 17, 1, b"\x88" * 16),
]
"""Shape, root, cell and bits that ask for the machine's memory."""

DECODE = """
import resource, sys
resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
from patchforest.tree.serial import decode_forest
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    decode_forest(bytes.fromhex(sys.argv[1]))
except ValueError as error:
    assert "forest" in str(error)
    print("refused")
assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 << 10
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits memory through Linux's resource module")
@pytest.mark.parametrize(("shape", "root", "cell", "payload"), LIES, ids=["roots", "tiles", "depths", "path"])
def test_a_lying_header_takes_no_memory(shape: tuple[int, ...], root: int, cell: int, payload: bytes) -> None:
    """In a process of its own with 1 GiB, since a decoder that believes the header takes the whole machine."""
    data = lying_header(shape, root, cell, payload).hex()
    path = os.pathsep.join(p for p in sys.path if p)
    done = subprocess.run(
        [sys.executable, "-c", DECODE, data],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
    )
    assert done.stdout.strip() == "refused", done.stderr[-500:]
