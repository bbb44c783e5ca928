"""Inputs by id: names never collide, folders that are images are one, and digests tell changes."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from patchforest.errors import InputError
from patchforest.infer import inputs
from patchforest.infer.inputs import digest, name_inputs


def touch(path: Path, data: bytes = b"x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def test_ids_never_collide(tmp_path: Path) -> None:
    names = ["x/a.png", "x/a.tif", "x/sub/a.png", "y/a.png", "x/b.png", "y/overlays/b.png", "z/x/c.png", "y/c.png"]
    paths = [touch(tmp_path / n) for n in names]
    named = name_inputs([tmp_path / "x", tmp_path / "y", tmp_path / "z" / "x", tmp_path / "x" / "b.png"])
    assert sorted(named.values()) == sorted(paths)
    assert len({n.lower() for n in named}) == len(paths)
    assert named["sub/a"] == tmp_path / "x" / "sub" / "a.png"
    assert not any(n.startswith(("overlays/", "probabilities/", ".state/")) for n in named)
    assert name_inputs([tmp_path / "x"])["b"] == tmp_path / "x" / "b.png"


def test_every_kind_is_found_and_others_are_not(tmp_path: Path) -> None:
    for name in ("a.svs", "b.NDPI", "c.ome.tif", "d.nii.gz", "e.nrrd", "notes.txt", "f.npy", "g.mrxs", "g/Data.dat"):
        touch(tmp_path / name)
    touch(tmp_path / "h.zarr" / "zarr.json", b'{"node_type": "array", "zarr_format": 3}')
    touch(tmp_path / "h.zarr" / "c" / "0.png")
    assert list(name_inputs([tmp_path])) == ["a", "b", "c", "d", "e", "f", "g", "h"]
    assert list(name_inputs([tmp_path / "h.zarr"])) == ["h"]
    assert list(name_inputs([tmp_path / "d.nii.gz"])) == ["d"]


def dicom(series: bytes) -> bytes:
    return b"\0" * 128 + b"DICM" + b"\x20\x00\x0e\x00UI" + len(series).to_bytes(2, "little") + series


def test_files_of_one_dicom_series_are_one_image(tmp_path: Path) -> None:
    for k in range(3):
        touch(tmp_path / "ct" / f"{k}.dcm", dicom(b"1.2.3 "))
    touch(tmp_path / "ct" / "x.dcm", dicom(b"1.2.4 "))
    assert list(name_inputs([tmp_path])) == ["ct/0", "ct/x"]
    (tmp_path / "ct" / "x.dcm").unlink()
    assert name_inputs([tmp_path / "ct"]) == {"ct": tmp_path / "ct"}


def test_links_that_lead_nowhere_are_inputs_that_will_be_listed(tmp_path: Path) -> None:
    touch(tmp_path / "a.png")
    (tmp_path / "loop.png").symlink_to("loop.png")
    (tmp_path / "gone.dcm").symlink_to("absent.dcm")
    named = name_inputs([tmp_path])
    assert list(named) == ["a", "gone", "loop"]
    assert list(name_inputs([tmp_path / "loop.png"])) == ["loop"]
    for name in ("loop", "gone"):
        with pytest.raises(InputError, match=f"{name}.*cannot be read"):
            digest(named[name])


def test_nothing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        name_inputs([tmp_path / "absent"])
    with pytest.raises(InputError, match="no image there"):
        name_inputs([tmp_path])


def test_outputs_are_no_inputs(tmp_path: Path) -> None:
    touch(tmp_path / "a.png")
    touch(tmp_path / "out" / "a.png")
    assert list(name_inputs([tmp_path], skip=tmp_path / "out")) == ["a"]


def test_digests_tell_contents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = touch(tmp_path / "a.png", b"one"), touch(tmp_path / "b.png", b"one")
    assert digest(a) == digest(b)
    assert digest(touch(b, b"two")) != digest(a)
    with pytest.raises(InputError, match="cannot be read"):
        digest(tmp_path / "absent.png")


def test_digests_of_large_files_and_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inputs, "_WHOLE", 1000)
    monkeypatch.setattr(inputs, "_ENDS", 100)
    data = bytes(np.random.default_rng(0).integers(0, 256, 5000, np.uint8))
    a = touch(tmp_path / "a.tif", data)
    first = digest(a)
    os.utime(a, ns=(1, 1))
    assert digest(a) != first
    folder = tmp_path / "z.zarr"
    touch(folder / "0", b"aa")
    before = digest(folder)
    touch(folder / "1", b"bb")
    assert digest(folder) != before
    slide = touch(tmp_path / "s.mrxs")
    touch(tmp_path / "s" / "Data0.dat", b"11")
    before = digest(slide)
    touch(tmp_path / "s" / "Data0.dat", b"111")
    assert digest(slide) != before
