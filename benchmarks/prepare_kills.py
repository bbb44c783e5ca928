"""`patchforest prepare` under kill -9: lost or corrupt items, files that differ from an undisturbed job, unseen damage.

    python benchmarks/prepare_kills.py --images 500 --bad 5 --kills 50 --flips 500

A data set of synthetic images, some of them cut off half-way, is prepared once undisturbed. Then jobs on it are killed
(the main process alone, or it and its workers, by turns) at random moments and started again with the same command
until they end; a job that ended is compared with the undisturbed one byte by byte, and the next begins. After that,
single bits of random files are flipped and `verify` is asked. Ends with exit code 1 if anything was lost or unseen.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from patchforest.data.manifest import ITEMS, read_manifest, verify_prepared
from patchforest.data.synthetic import write_dataset

SETTINGS = ("forest.budget=64", "data.window=192", "model.name=shf", "model.stem=[]", "model.q=8")


def main() -> int:
    """Print the figures; 0 if all is as it should be."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--bad", type=int, default=5)
    parser.add_argument("--side", type=int, default=192)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--flips", type=int, default=500)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        data = write_dataset(root / "data", "blobs", options.images, (options.side, options.side), options.seed)
        for k in np.linspace(0, options.images - 1, options.bad).astype(int):
            path = data / "images" / f"blobs_{k:04d}.png"
            os.truncate(path, path.stat().st_size // 2)
        start = time.monotonic()
        code = prepare(data, root / "whole", options.workers).wait()
        seconds = time.monotonic() - start
        cases = read_manifest(root / "whole").cases
        failed = sum(c.failed is not None for c in cases)
        print(
            f"undisturbed: {seconds:.1f} s, exit code {code}, {len(cases) - failed} done, {failed} failed", flush=True
        )
        good = code == 4 and failed == options.bad
        good &= kill(data, root, options.kills, options.workers, seconds, random.Random(options.seed))
        good &= flip(root / "whole", options.flips, random.Random(options.seed))
    return 0 if good else 1


def prepare(data: Path, out: Path, workers: int) -> subprocess.Popen:
    """One job in a process group of its own."""
    command = [sys.executable, "-m", "patchforest", "--quiet", "prepare", "--data", data, "--out", out]
    command += ["--workers", str(workers), *(v for setting in SETTINGS for v in ("--set", setting))]
    return subprocess.Popen(list(map(str, command)), stderr=subprocess.DEVNULL, start_new_session=True)


def kill(data: Path, root: Path, kills: int, workers: int, seconds: float, dice: random.Random) -> bool:
    """Kill jobs at random moments; True where every one ended with the files of the undisturbed one."""
    made, jobs, different, corrupt, late = 0, 0, 0, 0, []
    whole, out = contents(root / "whole"), root / "killed"
    while made < kills or out.exists():
        process = prepare(data, out, workers)
        moment = dice.uniform(0.0, 0.6 * seconds) if made < kills else None
        try:
            process.wait(moment)
        except subprocess.TimeoutExpired:
            made += 1
            if made % 2:
                process.kill()
            else:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            items = len(list((out / ITEMS).glob("[!.]*"))) if out.exists() else 0
            late.append(items)
            corrupt += sum(not str(f).startswith(f"{out / 'prepared.json'}") for f in faults(out))
            continue
        jobs += 1
        found = contents(out)
        different += sum(found.get(n) != whole.get(n) for n in {*found, *whole})
        shutil.rmtree(out)
    spread = f"{min(late)} to {max(late)} items written then"
    print(f"{made} kills in {jobs} jobs ({spread}): {corrupt} corrupt items, {different} files differ", flush=True)
    return different == corrupt == 0


def faults(out: Path) -> list[Exception]:
    """What `verify` says of a folder that a kill has left; nothing where it had not begun."""
    return list(verify_prepared(out)) if (out / ITEMS).is_dir() else []


def contents(folder: Path) -> dict[str, bytes]:
    """Every file by its relative path."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def flip(folder: Path, flips: int, dice: random.Random) -> bool:
    """Flip single bits, one at a time; True where each was named."""
    files, seen = sorted(p for p in folder.rglob("*") if p.is_file()), 0
    weights = [p.stat().st_size for p in files]
    for path in dice.choices(files, weights, k=flips):
        whole = path.read_bytes()
        bad = bytearray(whole)
        bad[dice.randrange(len(bad))] ^= 1 << dice.randrange(8)
        path.write_bytes(bad)
        seen += [f.path for f in verify_prepared(folder)] == [str(path)]
        path.write_bytes(whole)
    print(f"{seen} of {flips} flipped bits were found and named", flush=True)
    return seen == flips


if __name__ == "__main__":
    sys.exit(main())
