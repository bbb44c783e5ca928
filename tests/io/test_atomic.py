"""Files are whole or absent, whatever happens while they are written."""

from __future__ import annotations

import errno
import json
import os
import stat
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from patchforest.errors import InputError
from patchforest.io import atomic
from patchforest.io.atomic import atomic_path, remove_leftovers, write_bytes, write_json, write_text


def test_bytes_text_and_json_come_back(tmp_path: Path) -> None:
    write_bytes(tmp_path / "a.bin", b"\0\1\2")
    write_text(tmp_path / "new" / "deep" / "a.txt", "höhe\n")
    assert (tmp_path / "a.bin").read_bytes() == b"\0\1\2"
    assert (tmp_path / "new" / "deep" / "a.txt").read_text(encoding="utf-8") == "höhe\n"
    value = {"dice": float("nan"), 3: (np.float32(0.5), np.int64(7)), "grid": np.eye(2), "path": Path("x"), "no": None}
    write_json(tmp_path / "a.json", value)
    expected = {"dice": None, "3": [0.5, 7], "grid": [[1.0, 0.0], [0.0, 1.0]], "path": "x", "no": None}
    assert json.loads((tmp_path / "a.json").read_text()) == expected
    with pytest.raises(TypeError):
        write_json(tmp_path / "a.json", {"x": object()})
    assert json.loads((tmp_path / "a.json").read_text()) == expected


@pytest.mark.parametrize("fault", [RuntimeError("boom"), KeyboardInterrupt(), OSError(errno.EIO, "input/output error")])
def test_a_fault_while_writing_leaves_the_old_file_and_nothing_else(tmp_path: Path, fault: BaseException) -> None:
    target = tmp_path / "model.safetensors"
    target.write_bytes(b"old")

    def write_half() -> None:
        with atomic_path(target) as temporary:
            temporary.write_bytes(b"half")
            raise fault

    with pytest.raises(type(fault)) as caught:
        write_half()
    assert caught.value is fault
    assert target.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["model.safetensors"]


def test_the_temporary_file_is_beside_the_target_with_its_suffix(tmp_path: Path) -> None:
    with atomic_path(tmp_path / "a.png") as temporary:
        assert temporary.parent == tmp_path
        assert temporary.suffix == ".png"
        assert not (tmp_path / "a.png").exists()
    assert (tmp_path / "a.png").read_bytes() == b""
    long = tmp_path / ("n" * 250 + ".png")
    write_bytes(long, b"x")
    assert long.read_bytes() == b"x"


def test_file_is_synced_before_and_folder_after_the_rename(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[str] = []
    fsync, replace = os.fsync, os.replace

    def watched_fsync(handle: int) -> None:
        events.append("folder" if stat.S_ISDIR(os.fstat(handle).st_mode) else f"file {os.fstat(handle).st_size}")
        fsync(handle)

    def watched_replace(source: Path, target: Path) -> None:
        events.append("rename")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", watched_fsync)
    monkeypatch.setattr(os, "replace", watched_replace)
    write_bytes(tmp_path / "a", b"12345")
    assert events == ["file 5", "rename", "folder"]


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_the_mode_follows_the_umask_even_if_the_writer_replaced_the_file(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        write_bytes(tmp_path / "plain", b"x")
        with atomic_path(tmp_path / "replaced") as temporary:  # as safetensors.save_file does: another file, mode 0600
            other = tmp_path / "other"
            other.write_bytes(b"y")
            other.chmod(0o600)
            other.replace(temporary)
    finally:
        os.umask(before)
    for name, content in (("plain", b"x"), ("replaced", b"y")):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o666 & ~umask
        assert (tmp_path / name).read_bytes() == content


def test_targets_that_are_no_regular_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_bytes(b"keep")
    (tmp_path / "link").symlink_to("file")
    os.mkfifo(tmp_path / "pipe")
    for name, word in (("folder", "a folder"), ("link", "a symbolic link"), ("pipe", "a pipe")):
        with pytest.raises(InputError, match=f"{name}: exists and is {word}"):
            write_bytes(tmp_path / name, b"new")
    with pytest.raises(InputError, match="is a device"):
        write_bytes("/dev/null", b"new")
    with pytest.raises(InputError, match=r"cannot be written .Not a directory"):
        write_bytes(tmp_path / "file" / "a.png", b"new")
    with pytest.raises(InputError, match=r"cannot be written .File name too long"):
        write_bytes(tmp_path / ("n" * 300), b"new")
    with pytest.raises(InputError, match="cannot be written"):
        write_bytes(f"{tmp_path}/a\0b", b"new")
    assert (tmp_path / "file").read_bytes() == b"keep"
    assert sorted(os.listdir(tmp_path)) == ["file", "folder", "link", "pipe"]


def test_a_target_that_becomes_a_folder_meanwhile_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is a folder"), atomic_path(tmp_path / "a"):
        (tmp_path / "a").mkdir()
    assert os.listdir(tmp_path) == ["a"]


def test_a_full_disk_names_the_file_and_the_free_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "last.safetensors"
    target.write_bytes(b"previous")
    with pytest.raises(OSError, match=r"disk full \(\d+ bytes free\).*last.safetensors") as caught, atomic_path(target):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert caught.value.errno == errno.ENOSPC
    assert not isinstance(caught.value, InputError)

    def full(handle: int) -> None:
        raise OSError(errno.EDQUOT, "Disk quota exceeded")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="disk full") as caught:
        write_bytes(target, b"new")
    assert caught.value.errno == errno.EDQUOT
    assert target.read_bytes() == b"previous"
    assert os.listdir(tmp_path) == ["last.safetensors"]


def test_a_missing_file_read_inside_the_block_keeps_its_own_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="elsewhere"), atomic_path(tmp_path / "a"):
        (tmp_path / "elsewhere").read_bytes()


def test_leftovers_of_the_dead_go_and_files_of_the_living_stay(tmp_path: Path) -> None:
    (tmp_path / (atomic.TEMPORARY + "0123456789abcdef.png")).write_bytes(b"left by a killed process")
    (tmp_path / "mine.png").write_bytes(b"keep")
    with atomic_path(tmp_path / "b.png") as temporary:
        removed = remove_leftovers(tmp_path)
        assert [path.name for path in removed] == [atomic.TEMPORARY + "0123456789abcdef.png"]
        temporary.write_bytes(b"alive")
    assert sorted(os.listdir(tmp_path)) == ["b.png", "mine.png"]
    assert (tmp_path / "b.png").read_bytes() == b"alive"


_KILLS = textwrap.dedent(
    """
    import os, random, signal, sys, time
    from pathlib import Path
    from patchforest.io.atomic import remove_leftovers, write_bytes

    folder, random_ = Path(sys.argv[1]), random.Random(7)
    target, torn = folder / "state.bin", 0
    write_bytes(target, b"0" * 300_000)
    for _ in range(60):
        child = os.fork()
        if child == 0:
            for number in range(10_000):
                write_bytes(target, bytes([48 + number % 10]) * 300_000)
            os._exit(0)
        time.sleep(random_.uniform(0.001, 0.03))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        data = target.read_bytes()
        torn += len(data) != 300_000 or len(set(data)) != 1
    litter = len(remove_leftovers(folder))
    print(torn, litter > 0, os.listdir(folder))
    """
)


def test_sixty_kills_leave_no_torn_file_and_no_litter_after_clean_up(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _KILLS, str(tmp_path)], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.split("\n")[0] in ("0 True ['state.bin']", "0 False ['state.bin']")
