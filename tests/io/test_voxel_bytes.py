"""Bytes of voxels: exact, checked to the end, and never more than the file holds."""

from __future__ import annotations

import bz2
import gzip
from pathlib import Path

import numpy as np
import pytest

from patchforest.errors import InputError
from patchforest.io.voxel_bytes import inflated_voxels, mapped_voxels, require_bytes, require_capacity

VOXELS = np.arange(3 * 4 * 5, dtype="<u2").reshape(3, 4, 5)
DATA = VOXELS.tobytes(order="F")
TYPE = np.dtype("<u2")


@pytest.mark.parametrize(("codec", "pack"), [("gzip", gzip.compress), ("bzip2", bz2.compress)])
def test_inflated(tmp_path: Path, codec: str, pack: object) -> None:
    path = tmp_path / "v"
    path.write_bytes(b"head" + pack(b"xyz" + DATA))
    found = inflated_voxels(path, (3, 4, 5), TYPE, codec=codec, offset=4, skip=3)
    np.testing.assert_array_equal(found, VOXELS)
    path.write_bytes(pack(b"xyz" + DATA)[:-6])
    with pytest.raises(InputError, match="damaged or truncated"):
        inflated_voxels(path, (3, 4, 5), TYPE, codec=codec, skip=3)
    for sent, message in (
        (DATA[:-1], "is truncated: its header describes 120 bytes"),
        (DATA + bytes(600), "holds 720"),
    ):
        path.write_bytes(pack(sent))
        with pytest.raises(InputError, match=message):
            inflated_voxels(path, (3, 4, 5), TYPE, codec=codec)
    path.write_bytes(pack(b"xy"))
    with pytest.raises(InputError, match="it holds 0"):
        inflated_voxels(path, (3, 4, 5), TYPE, codec=codec, skip=30)


def test_every_flipped_bit_that_changes_a_voxel_is_noticed(tmp_path: Path) -> None:
    packed, path, same = gzip.compress(DATA, mtime=0), tmp_path / "v", 0
    for place in range(10, len(packed)):
        for bit in (0, 3, 7):
            mutant = bytearray(packed)
            mutant[place] ^= 1 << bit
            path.write_bytes(mutant)
            try:
                np.testing.assert_array_equal(inflated_voxels(path, (3, 4, 5), TYPE), VOXELS)
                same += 1  # a bit that fills up the last byte of the stream
            except InputError:
                continue
    assert same <= 3


def test_members_one_after_the_other(tmp_path: Path) -> None:
    (tmp_path / "v").write_bytes(gzip.compress(DATA[:50]) + gzip.compress(DATA[50:]))
    np.testing.assert_array_equal(inflated_voxels(tmp_path / "v", (3, 4, 5), TYPE), VOXELS)


def test_headers_that_lie_are_refused_before_memory_is_taken(tmp_path: Path) -> None:
    (tmp_path / "v").write_bytes(gzip.compress(DATA))
    size = (tmp_path / "v").stat().st_size
    with pytest.raises(InputError, match="cannot hold"):
        require_capacity(tmp_path / "v", 1032 * size + 1, "gzip")
    with pytest.raises(InputError, match="cannot hold"):
        inflated_voxels(tmp_path / "v", (1 << 20, 1 << 20, 1 << 10), TYPE)
    with open(tmp_path / "sparse", "wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(InputError, match=r"needs 1024.0 GiB in memory.*uncompressed"):
        require_capacity(tmp_path / "sparse", 1 << 40, "gzip")


def test_padding_is_allowed_and_no_more(tmp_path: Path) -> None:
    require_bytes(tmp_path, 100, 100)
    require_bytes(tmp_path, 100, 116)
    for held in (99, 117):
        with pytest.raises(InputError):
            require_bytes(tmp_path, 100, held)


def test_mapped(tmp_path: Path) -> None:
    (tmp_path / "v").write_bytes(b"head" + DATA)
    found = mapped_voxels(tmp_path / "v", (3, 4, 5), TYPE, 4)
    np.testing.assert_array_equal(found, VOXELS)
    assert isinstance(found, np.memmap)
    assert not found.flags.writeable
    with pytest.raises(InputError, match="cannot be read"):
        mapped_voxels(tmp_path / "v", (3, 4, 5000), TYPE, 4)
