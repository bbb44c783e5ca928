"""Tiles as they are stored: plain zlib, filled up with 0, differences and planes where asked for."""

from __future__ import annotations

import zlib

import numpy as np
import pytest

from patchforest.io.tiles import TilePacker


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("difference", [False, True])
@pytest.mark.parametrize("apart", [False, True])
def test_tiles_unpack_to_their_pixels(
    rng: np.random.Generator, dtype: type, channels: int, difference: bool, apart: bool
) -> None:
    rows = rng.integers(0, np.iinfo(dtype).max, (13, 70, channels), dtype, endpoint=True)
    with TilePacker(16, difference=difference, apart=apart) as packer:
        packed = list(packer.pack(rows))
    full = np.zeros((16, 80, channels), dtype)
    full[:13, :70] = rows
    assert len(packed) == 5
    for number, data in enumerate(packed):
        values = np.frombuffer(zlib.decompress(data), np.dtype(dtype).newbyteorder("<"))
        tile = values.reshape(channels, 16, 16).transpose(1, 2, 0) if apart else values.reshape(16, 16, channels)
        tile = np.cumsum(tile, axis=1, dtype=dtype) if difference else tile
        np.testing.assert_array_equal(tile, full[:, 16 * number : 16 * number + 16])


def test_tiles_of_one_value_are_packed_once_and_never_mistaken() -> None:
    rows = np.zeros((16, 16 * 600, 1), np.uint16)
    rows[:, :, 0] = (np.arange(600) % 300).repeat(16)
    rows[15, 47] = 7  # one pixel of the third
    with TilePacker(16) as packer:
        for _ in range(2):
            for number, data in enumerate(packer.pack(rows)):
                expected = rows[:, 16 * number : 16 * number + 16]
                np.testing.assert_array_equal(np.frombuffer(zlib.decompress(data), "<u2").reshape(16, 16, 1), expected)


def test_colours_of_one_value_keep_their_order() -> None:
    rows = np.zeros((16, 32, 3), np.uint8)
    rows[:, :16], rows[:, 16:] = (1, 2, 3), (3, 2, 1)
    with TilePacker(16) as packer:
        first, second = (np.frombuffer(zlib.decompress(data), np.uint8)[:3].tolist() for data in packer.pack(rows))
    assert (first, second) == ([1, 2, 3], [3, 2, 1])
