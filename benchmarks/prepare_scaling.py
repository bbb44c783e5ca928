"""Images a second of `patchforest prepare` by one and by two worker processes, each single-threaded, in alternation.

    python benchmarks/prepare_scaling.py --images 24 --side 2048 --rounds 3

Prints, for every round and as medians, images and megapixels a second of the work itself (from the first task given to
the last result) and of the whole command (with starting Python, importing and verifying nothing). The ratio is taken
within each round, so that a machine that is busy for a while spoils both sides alike. Exit code 1 below ``--wanted``.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from patchforest.data.layout import find_cases
from patchforest.data.pool import work_in_processes
from patchforest.data.prepare_item import ItemTask, prepare_item
from patchforest.data.prepared import PrepareSettings
from patchforest.data.synthetic import write_dataset
from patchforest.values import ForestPolicy

BUDGET = 4096


def main() -> int:
    """Print the figures; 0 if two workers are quick enough."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=24)
    parser.add_argument("--side", type=int, default=2048)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, nargs=2, default=(1, 2))
    parser.add_argument("--wanted", type=float, default=1.8)
    options = parser.parse_args()
    few, many = options.workers
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        data = write_dataset(root / "data", "blobs", options.images, (options.side,) * 2, 0)
        print(
            f"{options.images} images of {options.side}², budget {BUDGET}; {os.cpu_count()} cores, {platform.machine()}"
        )
        work(data, root / "warm", 1, options.side)  # compiled code and files are cached after it
        inner, outer = [], []
        for number in range(options.rounds):
            order = (few, many) if number % 2 == 0 else (many, few)
            seconds = {n: work(data, root / "out", n, options.side) for n in order}
            whole = {n: command(data, root / "out", n, options.side) for n in order}
            inner.append(seconds[few] / seconds[many])
            outer.append(whole[few] / whole[many])
            told = [f"{n}: {options.images / seconds[n]:.2f} images/s" for n in (few, many)]
            told += [f"{n}: {options.images / whole[n]:.2f} images/s in all" for n in (few, many)]
            print(f"round {number + 1}: {', '.join(told)}; {inner[-1]:.2f} x, in all {outer[-1]:.2f} x", flush=True)
    ratio = statistics.median(inner)
    print(f"median: {ratio:.2f} x by {many} workers over {few}; whole command {statistics.median(outer):.2f} x")
    return 0 if ratio >= options.wanted else 1


def work(data: Path, out: Path, workers: int, side: int) -> float:
    """Seconds from the second result, when every worker has started, to the last, per image, times the images."""
    shutil.rmtree(out, ignore_errors=True)
    settings = PrepareSettings(ForestPolicy(budget=BUDGET, window=side), ("background", "blob"), 3, 8, 16)
    tasks = [ItemTask(case, 1, settings, out) for case in find_cases(data).cases]
    ended = [time.perf_counter()]
    warm = 2 * workers
    for _, outcome in work_in_processes(prepare_item, tasks, workers=workers, timeout=600):
        assert outcome.failed is None, outcome.failed
        ended.append(time.perf_counter())
    return (ended[-1] - ended[warm]) / (len(tasks) - warm) * len(tasks)


def command(data: Path, out: Path, workers: int, side: int) -> float:
    """Seconds of the whole command."""
    shutil.rmtree(out, ignore_errors=True)
    sets = (f"forest.budget={BUDGET}", f"data.window={side}", "model.name=shf", "model.stem=[]")
    line = [sys.executable, "-m", "patchforest", "--quiet", "prepare", "--data", str(data), "--out", str(out)]
    line += ["--workers", str(workers), *(v for setting in sets for v in ("--set", setting))]
    start = time.perf_counter()
    subprocess.run(line, check=True)
    return time.perf_counter() - start


if __name__ == "__main__":
    sys.exit(main())
