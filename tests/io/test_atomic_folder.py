"""Folders appear whole or not at all; what was there stays until the new one is ready."""

from __future__ import annotations

import errno
import os
import signal
import stat
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from patchforest.errors import InputError
from patchforest.io import atomic_folder as module
from patchforest.io.atomic_folder import atomic_folder, remove_leftover_folders


def fill(folder: Path, text: str) -> None:
    (folder / "deep").mkdir()
    (folder / "deep" / "a").write_text(text)
    (folder / "b").write_text(text)


def content(folder: Path) -> dict[str, str]:
    return {str(p.relative_to(folder)): p.read_text() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_the_folder_appears_when_the_block_ends(tmp_path: Path) -> None:
    target = tmp_path / "new" / "a.zarr"
    with atomic_folder(target) as folder:
        fill(folder, "x")
        assert folder.parent == target.parent
        assert not target.exists()
    assert content(target) == {"b": "x", "deep/a": "x"}
    assert os.listdir(target.parent) == ["a.zarr"]
    mask = os.umask(0)
    os.umask(mask)
    assert stat.S_IMODE(target.stat().st_mode) == 0o777 & ~mask


def test_an_error_leaves_what_was_there(tmp_path: Path) -> None:
    def fail(target: Path, overwrite: bool = False) -> None:
        with atomic_folder(target, overwrite=overwrite) as folder:
            fill(folder, "x")
            raise KeyError("no")

    target = tmp_path / "a"
    with pytest.raises(KeyError):
        fail(target)
    assert os.listdir(tmp_path) == []
    target.mkdir()
    fill(target, "old")
    with pytest.raises(KeyError):
        fail(target, overwrite=True)
    assert content(target) == {"b": "old", "deep/a": "old"}
    assert os.listdir(tmp_path) == ["a"]


def test_only_with_overwrite_does_a_full_folder_give_way(tmp_path: Path) -> None:
    target = tmp_path / "a"
    target.mkdir()
    with atomic_folder(target) as folder:  # an empty one always does
        fill(folder, "old")
    with pytest.raises(InputError, match="exists and holds files; choose another"), atomic_folder(target):
        pytest.fail("the block ran")
    with atomic_folder(target, overwrite=True) as folder:
        (folder / "only").write_text("new")
    assert content(target) == {"only": "new"}
    assert os.listdir(tmp_path) == ["a"]


def test_a_folder_that_was_filled_meanwhile_is_kept(tmp_path: Path) -> None:
    def race(target: Path) -> None:
        with atomic_folder(target) as folder:
            fill(folder, "new")
            target.mkdir()
            fill(target, "theirs")

    target = tmp_path / "a"
    with pytest.raises(InputError, match="holds files"):
        race(target)
    assert content(target) == {"b": "theirs", "deep/a": "theirs"}
    assert os.listdir(tmp_path) == ["a"]


def test_files_links_and_places_that_cannot_be_written_are_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("dear")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for name, fault in (
        ("file", "no folder to replace"),
        ("link", "no folder to replace"),
        ("file/a", "cannot be wri"),
    ):
        with pytest.raises(InputError, match=fault), atomic_folder(tmp_path / name, overwrite=True):
            pytest.fail("the block ran")
    with pytest.raises(InputError, match="cannot be written"), atomic_folder(f"{tmp_path}/a\0b"):
        pytest.fail("the block ran")
    assert sorted(os.listdir(tmp_path)) == ["file", "link"]


def test_when_the_last_rename_fails_the_old_folder_comes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target, rename = tmp_path / "a", os.rename
    target.mkdir()
    fill(target, "old")

    def failing(source: Path, to: Path) -> None:
        if Path(to) == target and (Path(source) / "new").exists():
            raise OSError(errno.EIO, "Input/output error", str(source))
        rename(source, to)

    monkeypatch.setattr(os, "rename", failing)
    with pytest.raises(InputError, match="cannot be written"), atomic_folder(target, overwrite=True) as folder:
        (folder / "new").write_text("new")
    assert content(target) == {"b": "old", "deep/a": "old"}
    assert os.listdir(tmp_path) == ["a"]


def test_every_file_is_synced_before_the_rename(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []

    def note(handle: int) -> None:
        synced.append(os.readlink(f"/proc/self/fd/{handle}"))

    monkeypatch.setattr(os, "fsync", note)
    with atomic_folder(tmp_path / "a") as folder:
        fill(folder, "x")
    inside = {str(folder / name) for name in ("b", "deep", "deep/a", "")}
    assert {name.rstrip("/") for name in synced} == {name.rstrip("/") for name in inside} | {str(tmp_path)}


def test_a_full_disk_names_the_folder_and_the_free_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"disk full \(\d+ bytes free\).*a.zarr") as caught:  # noqa: SIM117
        with atomic_folder(tmp_path / "a.zarr") as folder:
            fill(folder, "x")
    assert not isinstance(caught.value, InputError)
    assert os.listdir(tmp_path) == []


def test_a_missing_file_read_inside_the_block_keeps_its_own_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="elsewhere"), atomic_folder(tmp_path / "a"):
        (tmp_path / "elsewhere").read_bytes()


_KILLED = textwrap.dedent(
    """
    import sys, time
    from pathlib import Path
    from patchforest.io.atomic_folder import atomic_folder

    with atomic_folder(sys.argv[1], overwrite=True) as folder:
        (folder / "half").write_text("x")
        print("half", flush=True)
        time.sleep(60)
    """
)


def test_leftovers_of_the_killed_go_and_folders_of_the_living_stay(tmp_path: Path) -> None:
    target = tmp_path / "a"
    with subprocess.Popen([sys.executable, "-c", _KILLED, str(target)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "half\n"
        assert remove_leftover_folders(tmp_path) == []
        process.send_signal(signal.SIGKILL)
    assert not target.exists()
    with atomic_folder(tmp_path / "b") as folder:
        (removed,) = remove_leftover_folders(tmp_path)
        assert removed.name.startswith(module.TEMPORARY)
        assert folder.exists()
    assert os.listdir(tmp_path) == ["b"]
