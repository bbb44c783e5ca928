"""Forests and patches of slides larger than memory: seconds against decoding alone, and peak memory, by size.

    python benchmarks/streaming.py --sides 16384 32768 65536 --threads 1 2 --repeats 2

For every size a tiled TIFF is made (RGB, JPEG 4:2:0 or deflate, tiles of 512; tissue-like texture in blobs over 45 %
of a near-white ground; a few dozen different tiles, repeated, so that making it is quick). Each measurement is a fresh
process: decoding every tile once with the reader that streaming uses and as many threads, then ``stream_forest`` and
``stream_gather`` for L = 16,384, in turn, the best of the repeats. Memory is the whole process's ``ru_maxrss``,
interpreter and libraries included. Prints a table; with ``--out`` writes a dated Markdown note and JSON.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from pathlib import Path

import cv2
import numpy as np

REPO = Path(__file__).resolve().parents[1]
TILE, BUDGET = 512, 16_384
KINDS = ("decode", "edges", "canny")


def texture(rng: np.random.Generator) -> np.ndarray:
    """A tile of stained-tissue-like texture: colour blobs of several sizes, (512, 512, 3) uint8."""
    out = np.zeros((TILE, TILE, 3), np.float32)
    for sigma, weight in ((1.2, 18), (3, 30), (10, 45)):
        noise = cv2.GaussianBlur(rng.standard_normal((TILE, TILE)).astype(np.float32), (0, 0), sigma)
        out += weight * (noise / noise.std())[..., None] * np.array([0.7, 1.0, 0.6], np.float32)
    return np.clip(out + np.array([190, 130, 180], np.float32), 0, 255).astype(np.uint8)


def make_slide(path: Path, side: int, compression: str = "jpeg", seed: int = 0) -> None:
    """Write the slide, its tiles in JPEG or deflate."""
    from PIL import Image

    sys.path.insert(0, str(REPO))
    from tests.io.slides import write_tiled  # tifffile encodes no JPEG by itself

    rng = np.random.default_rng(seed)
    ground = [np.clip(rng.normal(243, 1.5, (TILE, TILE, 3)), 0, 255).astype(np.uint8) for _ in range(8)]
    pools = []
    for tiles in (ground, [texture(rng) for _ in range(48)]):
        pool = []
        for tile in tiles:
            if compression == "deflate":
                pool.append(zlib.compress(tile.tobytes(), 6))
                continue
            data = io.BytesIO()
            Image.fromarray(tile).save(data, "JPEG", quality=80, subsampling=2)
            pool.append(data.getvalue())
        pools.append(pool)
    count = side // TILE
    field = cv2.resize(rng.standard_normal((12, 12)).astype(np.float32), (count, count), interpolation=cv2.INTER_CUBIC)
    tissue = field > np.quantile(field, 0.55)
    choice = rng.integers(0, 1 << 30, (count, count))

    def encoded() -> Iterator[bytes]:
        for row in range(count):
            for column in range(count):
                pool = pools[int(tissue[row, column])]
                yield pool[choice[row, column] % len(pool)]

    codes = {"deflate": {"compression": 8, "photometric": 2}}  # as in the TIFF tags; JPEG in YCbCr otherwise
    write_tiled(path, [((side, side), encoded())], TILE, **codes.get(compression, {}))


def work(kind: str, path: str, threads: int) -> None:
    """One measurement in this process; prints JSON."""
    from patchforest.io.open import open_image

    cv2.setNumThreads(1)
    source = open_image(path)
    report: dict[str, float] = {}
    if kind != "decode":
        from patchforest.io.array import ArraySource
        from patchforest.tree.reduced import ReducedImage
        from patchforest.tree.stream import stream_forest
        from patchforest.tree.stream_gather import stream_gather
        from patchforest.values import ForestPolicy

        policy = ForestPolicy(criterion=kind, budget=BUDGET)
        warm = ArraySource(np.random.default_rng(0).integers(0, 256, (1024, 1024, 3)).astype(np.uint8))
        held = ReducedImage(warm.shape)
        stream_gather(warm, stream_forest(warm, policy, threads=threads, reduced=held), reduced=held)
    start, cpu = time.perf_counter(), time.process_time()
    if kind == "decode":
        rows, columns = source.shape[:2]

        def one(row: int) -> int:
            return sum(int(source.read(0, row, c, TILE, TILE)[0, 0, 0]) for c in range(0, columns, TILE))

        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(one, range(0, rows, TILE)))
    else:
        reduced = ReducedImage(source.shape)
        forest = stream_forest(source, policy, threads=threads, reduced=reduced)
        report["forest_seconds"] = time.perf_counter() - start
        sequence = stream_gather(source, forest, threads=threads, reduced=reduced)
        report |= {"tokens": len(sequence), "smallest": int(forest.size.min()), "largest": int(forest.size.max())}
    report |= {"seconds": time.perf_counter() - start, "cpu_seconds": time.process_time() - cpu}
    report["peak_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps(report))


def measure(kind: str, path: Path, threads: int) -> dict[str, float]:
    """``work`` in a fresh process."""
    command = [sys.executable, __file__, "--worker", kind, str(path), str(threads)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        raise SystemExit(done.stderr[-2000:])
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    """Measure, print, and write where wanted."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sides", type=int, nargs="+", default=[16384, 32768, 65536])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--compression", choices=("jpeg", "deflate"), default="jpeg")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--out", type=Path, help="folder for the note and the JSON")
    parser.add_argument("--worker", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        work(args.worker[0], args.worker[1], int(args.worker[2]))
        return
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for side in args.sides:
            path = Path(folder) / "slide.tif"
            make_slide(path, side, args.compression)
            for threads in args.threads:
                runs = {kind: [] for kind in KINDS}
                for _ in range(args.repeats):
                    for kind in KINDS:
                        runs[kind].append(measure(kind, path, threads))
                best = {kind: min(found, key=lambda r: r["seconds"]) for kind, found in runs.items()}
                for kind in KINDS:
                    row = {"side": side, "threads": threads, "kind": kind, **best[kind]}
                    row["ratio"] = row["seconds"] / best["decode"]["seconds"]
                    row["peak_mib"] = max(r["peak_mib"] for r in runs[kind])
                    rows.append(row)
                    print(line(row), flush=True)
    if args.out:
        write(args.out, rows, args.compression)


def line(row: dict[str, float]) -> str:
    """One line of the table."""
    tokens = f"{row['tokens']:,} of {row['smallest']}..{row['largest']} px" if "tokens" in row else ""
    speed = row["side"] ** 2 / row["seconds"] / 1e6
    return (
        f"| {row['side']} | {row['threads']} | {row['kind']} | {row['seconds']:.2f} | {speed:.0f} | "
        f"{row['ratio']:.2f} | {row['cpu_seconds']:.2f} | {row['peak_mib']:.0f} | {tokens} |"
    )


def write(out: Path, rows: list[dict[str, float]], compression: str) -> None:
    """The dated note and its JSON."""
    import numba

    head = "| side | threads | work | seconds | Mpx/s | ratio to decoding | CPU s | peak MiB | tokens |"
    versions = f"NumPy {np.__version__}, OpenCV {cv2.__version__}, numba {numba.__version__}"
    circumstances = (
        f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, "
        f"{versions}. Command: `python {' '.join(sys.argv)}`."
    )
    text = "\n".join(
        [f"# Streaming, {date.today()}", "", (__doc__ or "").split("\n\n")[2].replace("\n", " "), "", circumstances, "",
         head, "|" + "---|" * 9, *map(line, rows), ""]
    )  # fmt: skip
    out.mkdir(parents=True, exist_ok=True)
    name = f"{date.today()}-streaming" + ("" if compression == "jpeg" else f"-{compression}")
    (out / f"{name}.md").write_text(text)
    (out / f"{name}.json").write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
