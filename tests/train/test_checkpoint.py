"""Checkpoints: exact round trip, every damage found, fall back to the one before."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from patchforest.errors import InputError
from patchforest.train import checkpoint as ck


def state(seed: int = 0) -> dict[str, Any]:
    """A structure with everything Lightning and AdamW put into a checkpoint."""
    g = torch.Generator().manual_seed(seed)
    weights = torch.randn(4, 3, generator=g)
    return {
        "epoch": 0,
        "state_dict": {
            "a.weight": weights,
            "a.half": weights.to(torch.bfloat16),
            "tied": weights,
            "empty": torch.empty(0),
        },
        "optimizer_states": [
            {
                "state": {0: {"step": torch.tensor(7.0), "exp_avg": weights.t()}},
                "param_groups": [{"betas": (0.9, 0.999)}],
            }
        ],
        "callbacks": {"best": math.inf, "worst": -math.inf, "none": None, "flag": True, "text": 'a "sha256":"0" é\n'},
        "$odd": {"$tensor": "not a tensor"},
        "count": np.int64(3).item(),
    }


def assert_same(a: Any, b: Any) -> None:
    assert type(a) is type(b)
    if isinstance(a, torch.Tensor):
        assert a.dtype == b.dtype
        assert torch.equal(a, b)
    elif isinstance(a, dict):
        assert list(a) == list(b)
        for k in a:
            assert_same(a[k], b[k])
    elif isinstance(a, list | tuple):
        assert len(a) == len(b)
        for x, y in zip(a, b):
            assert_same(x, y)
    else:
        assert a == b


def test_round_trip_is_exact() -> None:
    assert_same(ck.decode(ck.encode(state())), state())
    assert math.isnan(ck.decode(ck.encode({"loss": math.nan}))["loss"])


def test_encoding_is_deterministic() -> None:
    assert ck.encode(state()) == ck.encode(state())


def test_what_would_need_pickle_is_refused_with_its_place() -> None:
    with pytest.raises(TypeError, match=r"checkpoint\.callbacks\.path is a PosixPath"):
        ck.encode({"callbacks": {"path": Path("x")}})


def test_every_single_bit_flip_and_truncation_is_found(tmp_path: Path, rng: np.random.Generator) -> None:
    whole = ck.encode(state())
    ck.decode(whole)
    for bit in rng.choice(len(whole) * 8, size=2000, replace=False):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << (bit % 8)
        with pytest.raises(ValueError, match=r"checksum|truncated"):
            ck.decode(bytes(damaged))
    for length in [0, 1, 7, 8, 9, *rng.integers(10, len(whole), 50), len(whole) - 1]:
        with pytest.raises(ValueError, match=r"truncated|checksum"):
            ck.decode(whole[:length])
    with pytest.raises(ValueError, match="checksum"):
        ck.decode(whole + b"\0")


def test_foreign_files_are_refused_in_one_line(tmp_path: Path) -> None:
    for name, data in {"html": b"<html>" * 40, "empty": b"", "pickle": b"\x80\x04\x95" + bytes(100)}.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(InputError, match=f"{name}: is truncated, damaged or no training checkpoint"):
            ck.load_checkpoint(tmp_path / name)
    with pytest.raises(InputError, match="cannot be read"):
        ck.load_checkpoint(tmp_path / "absent")


def test_newest_that_verifies_is_taken(tmp_path: Path) -> None:
    plugin = ck.SafetensorsIO()
    for step in (9, 10, 11):
        plugin.save_checkpoint(state(step), ck.checkpoint_path(tmp_path, step))
    (tmp_path / "step-000000099.safetensors.tmp").write_bytes(b"half")  # no checkpoint: never looked at
    newest = ck.checkpoint_path(tmp_path, 11)
    assert ck.newest_valid(tmp_path) == (newest, [])
    assert_same(plugin.load_checkpoint(newest), state(11))
    os.truncate(newest, newest.stat().st_size // 2)
    path, refused = ck.newest_valid(tmp_path)
    assert path == ck.checkpoint_path(tmp_path, 10)
    assert [e.path for e in refused] == [str(newest)]
    assert ck.newest_valid(tmp_path / "none") == (None, [])


def test_prune_keeps_two_and_touches_nothing_else(tmp_path: Path) -> None:
    for step in range(5):
        ck.SafetensorsIO().save_checkpoint({"step": step}, ck.checkpoint_path(tmp_path, step))
    (tmp_path / "notes.txt").write_text("mine")
    ck.prune(tmp_path, keep=0)
    names = sorted(p.name for p in tmp_path.iterdir())
    assert names == ["notes.txt", "step-000000003.safetensors", "step-000000004.safetensors"]


def test_no_pickle_in_sight(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import pickle

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("pickle was used")

    for module, name in ((pickle, "load"), (pickle, "loads"), (torch, "load"), (torch, "save"), (pickle, "dumps")):
        monkeypatch.setattr(module, name, refuse)
    path = ck.checkpoint_path(tmp_path, 1)
    ck.SafetensorsIO().save_checkpoint(state(), path)
    assert_same(ck.load_checkpoint(path), state())
