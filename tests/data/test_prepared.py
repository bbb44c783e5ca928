"""An item is what was written, the same bytes each time, and not one bit of its file may change unseen."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from patchforest.data.prepared import (
    check_item,
    decode_item,
    encode_item,
    item_name,
    read_item,
    seal,
    setting_differences,
    unseal,
    write_item,
)
from patchforest.errors import InputError
from tests.data.prepared_data import SETTINGS, random_item


def same(a: object, b: object) -> bool:
    """Whether two items agree in every field and bit."""
    fields = {k: (getattr(a, k), getattr(b, k)) for k in ("id", "variant", "fingerprint", "inputs")}
    arrays = [(getattr(a, k), getattr(b, k)) for k in ("patches", "shares")]
    arrays += [(getattr(a.forest, k), getattr(b.forest, k)) for k in ("origin", "size", "level")]  # type: ignore[attr-defined]
    return all(x == y for x, y in fields.values()) and all(
        x.dtype == y.dtype and np.array_equal(x, y) for x, y in arrays
    )


@pytest.mark.parametrize("exact", [True, False])
def test_what_is_read_is_what_was_written(rng: np.random.Generator, tmp_path: Path, exact: bool) -> None:
    for k in range(12):
        item = random_item(rng, exact=exact)
        path = tmp_path / f"{k}.safetensors"
        sha256, length = write_item(path, item)
        assert path.stat().st_size == length
        assert same(read_item(path, sha256), item)
        header = check_item(path)
        assert (header["id"], header["sha256"], header["inputs"]) == (item.id, sha256, item.inputs)
        assert encode_item(item) == path.read_bytes() == encode_item(read_item(path))


def test_shares_take_half_the_room_where_that_loses_nothing(rng: np.random.Generator) -> None:
    item = random_item(rng)
    coarse, fine = item, replace(item, shares=item.shares * np.float32(0.9999))
    assert len(encode_item(fine)) - len(encode_item(coarse)) == pytest.approx(item.shares.nbytes / 2, abs=64)


def test_five_hundred_flipped_bits_are_all_seen(rng: np.random.Generator) -> None:
    data = encode_item(random_item(rng))
    for k in range(500):
        place = int(rng.integers(len(data))) if k % 2 else int(rng.choice([k // 2, len(data) - 1 - k // 2]))
        bad = bytearray(data)
        bad[place] ^= 1 << int(rng.integers(8))
        with pytest.raises(ValueError, match=r"damaged|truncated|no prepared item"):
            decode_item(bytes(bad))


def test_truncations_and_additions_are_all_seen(rng: np.random.Generator) -> None:
    data = encode_item(random_item(rng))
    for length in [0, 1, 7, 8, 9, *rng.integers(0, len(data), 100).tolist(), len(data) - 1]:
        with pytest.raises(ValueError, match=r"damaged|truncated"):
            decode_item(data[:length])
    with pytest.raises(ValueError, match="damaged"):
        decode_item(data + b"\0")


def test_bad_files_end_in_one_line(rng: np.random.Generator, tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    with pytest.raises(InputError, match=r"cannot be read.*prepare"):
        read_item(path)
    sha256, _ = write_item(path, random_item(rng))
    other, _ = write_item(tmp_path / "y.safetensors", random_item(rng))
    with pytest.raises(InputError, match=r"not the item that prepared\.json lists"):
        read_item(path, other)
    path.write_bytes(path.read_bytes()[:-1] + b"\7")
    for read in (read_item, check_item):
        with pytest.raises(InputError, match=r"x\.safetensors: is damaged"):
            read(path)
    path.write_bytes(b"<html>")
    with pytest.raises(InputError, match="truncated, damaged or no prepared item"):
        read_item(path)
    assert sha256 != other


def test_parts_that_do_not_fit_are_refused(rng: np.random.Generator) -> None:
    item = random_item(rng)
    for wrong in (replace(item, patches=item.patches[1:]), replace(item, shares=item.shares[:, 0])):
        with pytest.raises(ValueError, match=r"leaves but patches"):
            decode_item(encode_item(wrong))


def test_names_are_short_plain_and_never_shared() -> None:
    ids = ["a", "a/b", "a_b", "A", "../../x", "/x", "é" * 300, "a\nb", "-x", "", ".", "\udcff", "con", "a.0", "a"]
    names = [item_name(i, v) for i in ids[:-1] for v in (0, 1, 11)]
    assert len(set(names)) == len(names)
    assert all(len(n) < 100 and n.isascii() and "/" not in n and n[0].isalnum() for n in names)
    assert item_name("a", 0) == item_name(ids[-1], 0)


def test_the_fingerprint_follows_what_shapes_items_and_nothing_else() -> None:
    policy = SETTINGS.forest
    assert SETTINGS.fingerprint() == replace(SETTINGS, seed=7).fingerprint()
    assert SETTINGS.fingerprint(1) != replace(SETTINGS, seed=7).fingerprint(1)
    assert SETTINGS.fingerprint() == replace(SETTINGS, forest=replace(policy, fresh=False)).fingerprint()
    changed = {"patch": 4, "q": 8, "channels": 1, "classes": ("a", "b", "c"), "downscale": 2}
    for name, value in {**changed, "label_map": {1: 1}, "intensity_window": (0.0, 9.0)}.items():
        assert replace(SETTINGS, **{name: value}).fingerprint() != SETTINGS.fingerprint(), name  # type: ignore[arg-type]
    for name, value in {"criterion": "edges", "cell": 4, "budget": 33, "window": 65, "root": 16}.items():
        other = replace(SETTINGS, forest=replace(policy, **{name: value}))  # type: ignore[arg-type]
        assert f"forest.{name}: " in setting_differences(SETTINGS.named(), other.named())[0]


def test_a_window_without_a_budget_is_no_difference() -> None:
    uniform = replace(SETTINGS.forest, budget=None, uniform=16)
    a, b = (replace(SETTINGS, forest=replace(uniform, window=w)) for w in (64, 512))
    assert a.named() == b.named()


def test_seals_hold(rng: np.random.Generator) -> None:
    data = seal(b"x sum=" + b"0" * 64 + b" rest", b"sum=")
    unseal(data, b"sum=")
    with pytest.raises(ValueError, match="damaged"):
        unseal(data.replace(b"rest", b"resu"), b"sum=")
    with pytest.raises(ValueError, match="not of patchforest"):
        unseal(b"nothing", b"sum=")


def test_no_torch_is_needed() -> None:
    import subprocess

    code = "import sys, patchforest.data.prepare, patchforest.train.prepare; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "False"
