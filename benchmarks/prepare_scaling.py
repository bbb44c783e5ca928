"""Images a second of `patchforest prepare` by one and by two worker processes, each single-threaded, in alternation.

    python benchmarks/prepare_scaling.py --images 24 --side 2048 --rounds 3

Prints, for every round and as a median, images a second of the work itself (from when every worker has started to the
last result), and the CPU that other programs took meanwhile. The ratio is taken within each round. A round in which
others took more than ``--disturbed`` of the machine says nothing about us and does not count; there are at most
``--tries``. The whole command (starting Python and importing included) is timed once more at the end. Exit code 1 below
``--wanted``.
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
    parser.add_argument("--tries", type=int, default=12)
    parser.add_argument("--workers", type=int, nargs=2, default=(1, 2))
    parser.add_argument("--disturbed", type=float, default=0.05)
    parser.add_argument("--wanted", type=float, default=1.8)
    options = parser.parse_args()
    few, many = options.workers
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        data = write_dataset(root / "data", "blobs", options.images, (options.side,) * 2, 0)
        print(
            f"{options.images} images of {options.side}², budget {BUDGET}; {os.cpu_count()} cores, {platform.machine()}"
        )
        work(data, root / "warm", many, options.side)  # compiled code and files are cached after it
        ratios: list[float] = []
        for number in range(options.tries):
            order = (few, many) if number % 2 == 0 else (many, few)
            got = {n: work(data, root / "out", n, options.side) for n in order}
            speed = {n: options.images / seconds for n, (seconds, _) in got.items()}
            others = max(share for _, share in got.values())
            counts = others <= options.disturbed
            ratios += [speed[many] / speed[few]] if counts else []
            told = ", ".join(f"{n}: {speed[n]:.2f} images/s" for n in (few, many))
            verdict = "" if counts else ", does not count"
            print(f"{told}; {speed[many] / speed[few]:.2f} x (others took {others:.0%}{verdict})", flush=True)
            if len(ratios) == options.rounds:
                break
        whole = {n: command(data, root / "out", n, options.side) for n in (few, many)}
    told = ", ".join(f"{n}: {seconds:.1f} s" for n, seconds in whole.items())
    print(f"whole command {told}; {whole[few] / whole[many]:.2f} x")
    if not ratios:
        print("never undisturbed")
        return 1
    ratio = statistics.median(ratios)
    print(f"median of {len(ratios)} undisturbed rounds: {ratio:.2f} x by {many} workers over {few}")
    return 0 if ratio >= options.wanted else 1


def work(data: Path, out: Path, workers: int, side: int) -> tuple[float, float]:
    """Seconds for the images, from when every worker is under way; share of the machine that others took."""
    shutil.rmtree(out, ignore_errors=True)
    settings = PrepareSettings(ForestPolicy(budget=BUDGET, window=side), ("background", "blob"), 3, 8, 16)
    tasks = [ItemTask(case, 1, settings, out) for case in find_cases(data).cases]
    ended, warm, before = [], 2 * workers, (machine_seconds(), own_seconds())
    for _, outcome in work_in_processes(prepare_item, tasks, workers=workers, timeout=600):
        assert outcome.failed is None, outcome.failed
        ended.append(time.perf_counter())
    machine, mine = machine_seconds(), own_seconds()
    whole = machine[1] - before[0][1]
    others = (machine[0] - before[0][0] - (mine - before[1])) / whole
    return (ended[-1] - ended[warm - 1]) / (len(tasks) - warm) * len(tasks), others


def machine_seconds() -> tuple[float, float]:
    """(busy, all) CPU seconds of all cores since they started."""
    values = [int(v) for v in Path("/proc/stat").read_text().splitlines()[0].split()[1:]]
    tick = os.sysconf("SC_CLK_TCK")
    return (sum(values[:3]) + sum(values[5:8])) / tick, sum(values[:8]) / tick


def own_seconds() -> float:
    """CPU seconds of this process and those of its children that have ended."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


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
