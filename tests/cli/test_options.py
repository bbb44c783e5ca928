"""Texts of shared options: what is read, and one line for what cannot be."""

from __future__ import annotations

import pytest
import typer

from patchforest.cli.options import bytes_of, scale_of, scale_settings, shard_of
from patchforest.io.scale import AS_STORED


@pytest.mark.parametrize(
    ("text", "size"),
    [("800MB", 800 << 20), ("4gb", 4 << 30), ("1.5G", 3 << 29), ("2GiB", 2 << 30), ("1048576", 1 << 20)],
)  # fmt: skip
def test_sizes(text: str, size: int) -> None:
    assert bytes_of(text) == size


@pytest.mark.parametrize("text", ["", "much", "-1GB", "12", "1XB", "1e9"])
def test_no_sizes(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="--memory is a size"):
        bytes_of(text)


def test_shards() -> None:
    assert shard_of("3/8") == (3, 8)
    for text in ("0/3", "4/3", "3", "a/b", "1/"):
        with pytest.raises(typer.BadParameter, match="--shard is I/N"):
            shard_of(text)


def test_scales() -> None:
    assert scale_of(None, None, None, None) == AS_STORED
    assert scale_of(None, None, 20.0, 0.25).magnification == 20
    with pytest.raises(typer.BadParameter, match="one of level, mpp and mag"):
        scale_of(1, 0.5, None, None)
    with pytest.raises(typer.BadParameter, match="input-mpp must lie"):
        scale_of(None, None, None, -1.0)


def test_scales_as_settings() -> None:
    assert scale_settings(None, None, None, None) == []
    assert scale_settings(2, None, None, None) == ["data.level=2"]
    assert scale_settings(None, None, 20.0, 0.25) == ["data.mpp=0.5", "data.input_mpp=0.25"]
