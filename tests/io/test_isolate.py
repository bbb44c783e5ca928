"""Files read in another process: the same pixels, and whatever happens there ends in one line here."""

from __future__ import annotations

import gc
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from patchforest.errors import InputError
from patchforest.io.isolate import IsolatedImage, isolated_volume, open_isolated
from patchforest.io.open import open_image
from patchforest.io.volume import open_volume
from patchforest.io.volume_label import read_label_volume
from patchforest.io.volume_write import write_volume_mask
from patchforest.values import ImageSource, VolumeSource
from tests.io.slides import jpeg_tiles, write_tiled
from tests.io.traps import HARD, KINDS, PIXELS, SOFT, facts, lying, trapped
from tests.io.volumes import AFFINE, anatomy, save_nifti


@pytest.fixture(scope="module")
def slide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("isolate") / "a.tif"
    big = np.kron(PIXELS, np.ones((4, 4, 1), np.uint8))
    levels = [big, big[::2, ::2]]
    write_tiled(path, [(part.shape[:2], jpeg_tiles(part, 128)) for part in levels], 128)
    return path


def is_alive(number: int) -> bool:
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return False
    return True


def ends(number: int) -> None:
    """A process that nobody kills ends soon, because its pipe is closed."""
    end = time.monotonic() + 20
    while is_alive(number) and time.monotonic() < end:
        time.sleep(0.02)
    assert not is_alive(number)


def test_the_same_image_and_pixels(slide: Path) -> None:
    own, source = open_image(slide), open_isolated(slide)
    assert isinstance(source, ImageSource)
    for name in ("shape", "levels", "mpp", "tile", "format", "magnification"):
        assert getattr(source, name) == getattr(own, name), name
    for window in [(), (1,), (0, 17, 200, 150, 301), (1, 3, 5, 1, 1)]:
        found = source.read(*window)
        np.testing.assert_array_equal(found, own.read(*window))
        assert found.flags.writeable
    with pytest.raises(ValueError, match="not within level 1"):
        source.read(1, 0, 0, 300, 1)
    with ThreadPoolExecutor(4) as threads:
        for row, found in zip(range(40), threads.map(lambda row: source.read(0, row, 3, 9, 90), range(40))):
            np.testing.assert_array_equal(found, own.read(0, row, 3, 9, 90))


@pytest.mark.parametrize("dtype", ["bool", ">u2", "float32"])
def test_every_dtype(tmp_path: Path, dtype: str) -> None:
    np.save(tmp_path / "a.npy", PIXELS.astype(dtype))
    found, own = open_isolated(tmp_path / "a.npy").read(), open_image(tmp_path / "a.npy").read()
    assert found.dtype == own.dtype
    np.testing.assert_array_equal(found, own)


def test_the_same_volume(tmp_path: Path) -> None:
    pytest.importorskip("nibabel")
    path = save_nifti(tmp_path / "a.nii", anatomy()[::-1], AFFINE, sform=2, qform=0)
    own, source = open_volume(path), isolated_volume(path)
    assert isinstance(source, VolumeSource)
    assert (source.shape, source.spacing, source.format) == (own.shape, own.spacing, "NIfTI")
    np.testing.assert_array_equal(source.affine, own.affine)
    np.testing.assert_array_equal(source.read(), own.read())
    np.testing.assert_array_equal(source.read((1, 2, 3), (2, 3, 1)), own.read((1, 2, 3), (2, 3, 1)))
    mask = (own.read()[..., 0] > 99).astype(np.uint8)
    for name, like in (("one.nii", own), ("two.nii", source)):
        write_volume_mask(tmp_path / name, mask, like)
    assert (tmp_path / "one.nii").read_bytes() == (tmp_path / "two.nii").read_bytes()
    np.testing.assert_array_equal(read_label_volume(tmp_path / "two.nii"), mask)
    tifffile.imwrite(tmp_path / "b.tif", np.stack([PIXELS[..., 0]] * 3), photometric="minisblack")
    stack = isolated_volume(tmp_path / "b.tif")
    assert (stack.shape, stack.spacing, stack.affine) == ((3, 90, 130, 1), None, None)
    np.testing.assert_array_equal(stack.read((1, 0, 0)), open_volume(tmp_path / "b.tif").read((1, 0, 0)))


def test_a_bad_file_ends_as_without(tmp_path: Path) -> None:
    path = tmp_path / "a file\udcff.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(InputError) as own:
        open_image(path)
    with pytest.raises(InputError) as found:
        open_isolated(path)
    assert str(found.value) == str(own.value).replace("\udcff", "?")


def test_a_misfortune_is_one_line_and_the_next_read_works(tmp_path: Path) -> None:
    source = open_isolated(tmp_path / "a.x", opener=trapped, memory=64 << 20, seconds=1.5)
    first = source._process
    for kind, words in {**SOFT, **HARD}.items():
        if kind in HARD:  # not in the time of a machine that is busy
            source._seconds = 1.5 if kind == "hang" else 60
            source.close()
        start = time.monotonic()
        with pytest.raises(InputError, match=words) as fault:
            source.read(0, KINDS.index(kind))
        assert time.monotonic() - start < 45  # a hang goes on for 60
        assert "\n" not in str(fault.value)
        assert str(fault.value).startswith(str(tmp_path / "a.x"))
        assert (source._process is None) == (kind in HARD)
        if kind in SOFT:
            np.testing.assert_array_equal(source.read(0, 59, 3, 20, 30), PIXELS[59:79, 3:33])
            assert source._process is first
        source._ends.clear()
    np.testing.assert_array_equal(source.read(0, 59), PIXELS[59:])


@pytest.mark.parametrize(("kind", "words"), [("SIGABRT", "SIGABRT"), ("memory", "GiB")])
def test_a_misfortune_at_open(tmp_path: Path, kind: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        open_isolated(tmp_path / "a.x", opener=partial(trapped, at_open=kind), memory=64 << 20)


def test_a_file_that_goes_on_killing_is_given_up(tmp_path: Path) -> None:
    source = open_isolated(tmp_path / "a.x", opener=trapped)
    source._ends += ["took too long"] * 2
    with pytest.raises(InputError, match="by SIGSEGV"):
        source.read(0, KINDS.index("SIGSEGV"))
    with pytest.raises(InputError, match=r"given up after 3 attempts.*by SIGSEGV"):
        source.read(0, 60)


@pytest.mark.parametrize(
    "lies",
    [
        {"levels": [[-1, 5]]},
        {"levels": []},
        {"levels": [[1 << 50, 1]]},
        {"levels": [[9, 9]] * 65},
        {"tile": [0, 1]},
        {"tile": "no"},
        {"mpp": -1.0},
        {"mpp": float("nan")},
        {"mpp": "0.5"},
        {"magnification": [1]},
    ],
    ids=str,
)
def test_a_senseless_description_is_refused(lies: dict[str, Any]) -> None:
    about = {"levels": [[9, 9]], "channels": 3, "tile": [9, 9], "mpp": 0.5, "magnification": None, "format": "x"}
    source = IsolatedImage.__new__(IsolatedImage)
    source._take(about)
    assert (source.shape, source.mpp) == ((9, 9, 3), 0.5)
    with pytest.raises((ValueError, LookupError, TypeError)):
        source._take({**about, **lies})


def test_a_senseless_description_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="senseless"):
        open_isolated(tmp_path / "a.x", opener=partial(lying, mpp=-1.0))


def test_what_libraries_print_does_not_disturb(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    source = open_isolated(tmp_path / "a.x", opener=trapped)
    np.testing.assert_array_equal(source.read(0, KINDS.index("noise")), PIXELS)
    assert capfd.readouterr() == ("", "")


def test_warnings_of_ours_come_along(tmp_path: Path) -> None:
    Image.fromarray(np.dstack([PIXELS, PIXELS[..., 0]])).save(tmp_path / "a.png")
    source = open_isolated(tmp_path / "a.png")
    with pytest.warns(UserWarning, match="has transparency"):
        source.read()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        source.read()


def test_the_process_is_light_limited_and_deaf_to_signals(tmp_path: Path) -> None:
    source = open_isolated(tmp_path / "a.x", opener=facts)
    number, torch, core, seconds = source.read().ravel().tolist()
    assert (number != os.getpid(), torch, core) == (True, 0, 0)
    assert 0 < seconds < 600 * (os.cpu_count() or 1)
    for one in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        os.kill(number, one)
    assert source.read()[0, 0, 0] == number
    source.close()
    assert not is_alive(number)
    again = int(source.read()[0, 0, 0])
    assert again != number
    del source
    gc.collect()
    assert not is_alive(again)


def test_it_ends_with_the_interpreter(tmp_path: Path) -> None:
    script = (
        "from tests.io.traps import facts; from patchforest.io.isolate import open_isolated; import os, sys\n"
        "source = open_isolated('x', opener=facts); print(int(source.read()[0, 0, 0]), flush=True)\n"
        "if sys.argv[1] == 'die': os.kill(os.getpid(), 9)\n"
    )
    for how in ("leave", "die"):
        ended = subprocess.run(
            [sys.executable, "-c", script, how],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            text=True,
            cwd=tmp_path,
            timeout=120,
        )
        ends(int(ended.stdout))


def test_it_travels_and_is_opened_anew(slide: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    path.write_bytes(slide.read_bytes())
    source = open_isolated(path, opener=partial(open_image, page=0), seconds=50)
    copied = pickle.loads(pickle.dumps(source))
    assert copied._process is None
    np.testing.assert_array_equal(copied.read(0, 5, 6, 7, 8), source.read(0, 5, 6, 7, 8))
    tifffile.imwrite(path, PIXELS, photometric="rgb")
    with pytest.raises(InputError, match="has changed since it was opened"):
        pickle.loads(pickle.dumps(source)).read()


def test_a_forked_process_starts_its_own(tmp_path: Path) -> None:
    source = open_isolated(tmp_path / "a.x", opener=facts)
    number = int(source.read()[0, 0, 0])
    context = multiprocessing.get_context("fork")
    answers = context.Queue()
    child = context.Process(target=lambda: answers.put(int(source.read()[0, 0, 0])))
    child.start()
    other = answers.get(timeout=60)
    child.join(60)
    assert child.exitcode == 0
    assert other not in (number, child.pid, os.getpid())
    assert int(source.read()[0, 0, 0]) == number
    ends(other)


def test_a_mapped_file_may_be_larger_than_the_memory(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    np.lib.format.open_memmap(path, "w+", np.uint8, (1 << 15, 1 << 14)).flush()  # 512 MiB, not stored
    source = open_isolated(path, memory=100 << 20)
    assert source.read(0, 30_000, 0, 256, 256).shape == (256, 256, 1)
    with pytest.raises(InputError, match="more than"):
        source.read()
