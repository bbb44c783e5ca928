"""Patching one image: ours, OpenCV's edges alone, and the two trees of the papers, on the same pixels in the same run.

    python benchmarks/patching.py --data DATA/hrf --threads 1 2 --memory     # the dated note
    python benchmarks/patching.py --small                                    # a look: 512 and 1024 pixels
    python benchmarks/patching.py --check                                    # the papers' trees against ours

Every (kind of image, size, number of threads) is one process: its methods take turns on one image and the best of
``--repeats`` rounds counts (a method above ten seconds runs once). OpenCV gets the threads by ``cv2.setNumThreads``,
ours by ``threads=``, everything else one. The two rivals are written from the papers' words, for comparison, as fast
as those words allow: edges as OpenCV finds them, sums by ``countNonZero`` on slices, bilinear resize of every leaf.
Ours averages every pixel into its patch. Writes a dated Markdown note and a JSON file into ``--out``.
"""

from __future__ import annotations

import argparse
import ctypes
import inspect
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
import warnings
import zlib
from collections.abc import Callable
from datetime import date
from operator import itemgetter
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from patchforest.report.environment import describe_environment
from patchforest.tree.cut import cut_forest
from patchforest.tree.detail import detail_map
from patchforest.tree.edges import PAPER_KERNELS
from patchforest.tree.forest import build_forest
from patchforest.tree.gather import gather
from patchforest.values import Forest, ForestPolicy

REPO = Path(__file__).resolve().parents[1]
BUDGETS = {512: 1024, 1024: 1024, 2048: 2048, 4096: 4096, 8192: 10201, 16384: 16384}
KINDS = ("wsi", "retina", "flat", "noise")
CELL = PATCH = 8
THRESHOLD = 50  # edge pixels a node may hold and stay whole, the papers' v
PHASES = ("edges", "tree", "patches")
SLOW = 10.0  # seconds above which a method runs once

Leaf = tuple[int, int, int]
Total = Callable[[int, int, int], int]
Outcome = tuple[int, dict[str, float], Any]  # tokens, seconds of each phase, what was made: freed off the clock
Method = Callable[[np.ndarray, int], Outcome]  # of an image and a number of threads


def make_image(kind: str, size: int, photograph: str | None) -> np.ndarray:
    """(size, size, 3) uint8, the same for the same arguments."""
    rng = np.random.default_rng(7)
    if kind == "retina":
        pixels = cv2.cvtColor(cv2.imread(str(photograph)), cv2.COLOR_BGR2RGB)
        side = min(pixels.shape[:2])
        top, left = (pixels.shape[0] - side) // 2, (pixels.shape[1] - side) // 2
        how = cv2.INTER_AREA if size < side else cv2.INTER_CUBIC
        return cv2.resize(pixels[top : top + side, left : left + side], (size, size), interpolation=how)
    if kind == "flat":
        return np.full((size, size, 3), 128, np.uint8)
    if kind == "noise":
        return np.frombuffer(bytearray(rng.bytes(size * size * 3)), np.uint8).reshape(size, size, 3)
    side = min(size, 2048)
    tissue = _tissue(side, rng)
    ground = np.clip(rng.normal(243, 2, tissue.shape), 0, 255).astype(np.uint8)
    field = _octaves(side, (side / 4, side / 8, side / 16), rng)
    blobs = (field > np.quantile(field, 0.55)).astype(np.uint8) * 255  # 45 % of the area
    blobs = cv2.resize(blobs, (size, size), interpolation=cv2.INTER_CUBIC) > 127
    image = np.empty((size, size, 3), np.uint8)
    for row in range(0, size, side):  # mirrored tiles, so that the texture has no seams
        for column in range(0, size, side):
            turn = (slice(None, None, -1 if row // side % 2 else 1), slice(None, None, -1 if column // side % 2 else 1))
            at = (slice(row, row + side), slice(column, column + side))
            image[at] = np.where(blobs[at][..., None], tissue[turn], ground[turn])
    return image


def _octaves(side: int, scales: tuple[float, ...], rng: np.random.Generator) -> np.ndarray:
    """(side, side) float32: smooth noise of several scales in pixels, the coarse louder, standard deviation one."""
    total = np.zeros((side, side), np.float32)
    for scale in scales:
        grid = rng.standard_normal((max(round(side / scale), 2),) * 2).astype(np.float32)
        total += np.sqrt(np.float32(scale)) * cv2.resize(grid, (side, side), interpolation=cv2.INTER_CUBIC)
    return total / total.std()


def _tissue(side: int, rng: np.random.Generator) -> np.ndarray:
    """(side, side, 3) uint8: pink fibres of every scale, dark nuclei in crowds, pale lumina with sharp borders."""
    fibres = _octaves(side, (2, 4, 8, 16, 32, 64, 128), rng)[..., None]
    crowd = _octaves(side, (96, 192), rng)
    nuclei = ((_octaves(side, (9, 18), rng) + 0.5 * crowd) > 1.45).astype(np.float32)
    lumina = (_octaves(side, (48, 96, 192), rng) > 1.3).astype(np.float32)
    nuclei, lumina = (cv2.GaussianBlur(m, (5, 5), 0.9)[..., None] for m in (nuclei, lumina))
    pixels = np.array((214, 148, 184), np.float32) + np.array((14, 22, 16), np.float32) * fibres
    pixels += lumina * (np.array((240, 238, 241), np.float32) - pixels)
    pixels += nuclei * (np.array((74, 42, 118), np.float32) + np.array((9, 8, 10), np.float32) * fibres - pixels)
    pixels += rng.normal(0, 2.5, pixels.shape).astype(np.float32)
    return np.clip(pixels, 0, 255).astype(np.uint8)


def opencv_edges(image: np.ndarray) -> np.ndarray:
    """(N, N) uint8, 255 on edges: grey, the papers' blur for the size, Canny at 100 and 200."""
    kernel = PAPER_KERNELS[max((z for z in PAPER_KERNELS if z <= len(image)), default=512)]
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    return cv2.Canny(cv2.GaussianBlur(grey, (kernel, kernel), 0), 100, 200)


def edge_total(edges: np.ndarray) -> Total:
    """How many edge pixels the square at (row, column, side) holds."""
    return lambda row, column, side: cv2.countNonZero(edges[row : row + side, column : column + side])


def recursive_tree(total: Total, side: int, cell: int, threshold: float) -> list[Leaf]:
    """Leaves (row, column, side) in Z-order: a node is split while it holds more than ``threshold`` (APF)."""
    leaves: list[Leaf] = []

    def grow(row: int, column: int, side: int) -> None:
        if side == cell or total(row, column, side) <= threshold:
            leaves.append((row, column, side))
            return
        half = side // 2
        grow(row, column, half)
        grow(row, column + half, half)
        grow(row + half, column, half)
        grow(row + half, column + half, half)

    grow(0, 0, side)
    return leaves


def _quarters(row: int, column: int, side: int, cell: int, total: Total) -> list[tuple[int, int, int, int]]:
    """The four children as (score, row, column, side); those that may not be split score -1."""
    half = side // 2
    corners = ((row, column), (row, column + half), (row + half, column), (row + half, column + half))
    return [(total(r, c, half) if half > cell else -1, r, c, half) for r, c in corners]


def greedy_tree(total: Total, side: int, cell: int, budget: int) -> list[Leaf]:
    """Leaves in Z-order: as long as three more fit, the list of leaves is searched for the one with most edges, whose
    children take its place (SHF)."""
    leaves = [(total(0, 0, side) if side > cell else -1, 0, 0, side)]
    while len(leaves) + 3 <= budget:
        best = max(leaves, key=itemgetter(0))
        if best[0] < 0:
            break
        at = leaves.index(best)
        leaves[at : at + 1] = _quarters(*best[1:], cell, total)
    return [leaf[1:] for leaf in leaves]


def greedy_tree_split_lists(total: Total, side: int, cell: int, budget: int) -> list[Leaf]:
    """The same tree with the scores in a list of their own, the fastest scan that plain Python has."""
    scores, leaves = [total(0, 0, side) if side > cell else -1], [(0, 0, side)]
    while len(leaves) + 3 <= budget:
        best = max(scores)
        if best < 0:
            break
        at = scores.index(best)
        children = _quarters(*leaves[at], cell, total)
        scores[at : at + 1] = [child[0] for child in children]
        leaves[at : at + 1] = [child[1:] for child in children]
    return leaves


def resized_leaves(image: np.ndarray, leaves: list[Leaf]) -> np.ndarray:
    """(L, PATCH, PATCH, C) uint8: every leaf resized by itself, bilinear (which skips most pixels of a large leaf)."""
    out = np.empty((len(leaves), PATCH, PATCH, image.shape[2]), np.uint8)
    for patches, (row, column, side) in zip(out, leaves):
        cv2.resize(image[row : row + side, column : column + side], (PATCH, PATCH), dst=patches)
    return out


def with_threads(function: Callable[..., Any], *values: Any, threads: int, **options: Any) -> Any:
    """Call ``function``, with ``threads=`` where it takes that."""
    if "threads" in inspect.signature(function).parameters:
        options["threads"] = threads
    return function(*values, **options)


def copy(image: np.ndarray, threads: int) -> Outcome:
    """One copy of the image: the least that touching every pixel costs."""
    return 0, {}, image.copy()


def pyramid(image: np.ndarray, threads: int) -> Outcome:
    """The image averaged by two down to eight pixels."""
    levels = [image]
    while len(levels[-1]) > 8:
        half = len(levels[-1]) // 2
        levels.append(cv2.resize(levels[-1], (half, half), interpolation=cv2.INTER_AREA))
    return 0, {}, levels


def opencv(image: np.ndarray, threads: int) -> Outcome:
    """Edges of the whole image and nothing else: the floor that the issue compares with."""
    return 0, {}, opencv_edges(image)


def in_phases(edges: Callable, tree: Callable, patches: Callable) -> Method:
    """edges(image, threads), tree(those, image, threads), patches(image, leaves, threads), each with its seconds."""

    def method(image: np.ndarray, threads: int) -> Outcome:
        clock = [time.perf_counter()]
        found = edges(image, threads)
        clock.append(time.perf_counter())
        leaves = tree(found, image, threads)
        clock.append(time.perf_counter())
        made = patches(image, leaves, threads)
        clock.append(time.perf_counter())
        return len(leaves), dict(zip(PHASES, np.diff(clock).tolist())), (leaves, made)

    return method


def ours(criterion: str, threshold: int | None = None) -> Method:
    """Detail map, forest and patches of this package, by a threshold or by the budget of the image's size."""

    def cut(detail: np.ndarray, image: np.ndarray, threads: int) -> Forest:
        budget = None if threshold is not None else BUDGETS[len(image)]
        options = {"shape": image.shape[:2], "cell": CELL, "budget": budget, "threshold": threshold}
        return with_threads(build_forest, detail, threads=threads, **options)

    return in_phases(
        lambda image, threads: with_threads(detail_map, image, CELL, criterion=criterion, threads=threads),
        cut,
        lambda image, forest, threads: with_threads(gather, image, forest, PATCH, threads=threads),
    )


def rival(tree: Callable[[Total, int, int, Any], list[Leaf]], threshold: int | None = None) -> Method:
    """Edges, a tree of the papers and its resized leaves, by a threshold or by the budget of the image's size."""

    def cut(edges: np.ndarray, image: np.ndarray, threads: int) -> list[Leaf]:
        limit = BUDGETS[len(image)] if threshold is None else threshold
        return tree(edge_total(edges), len(image), CELL, limit)

    return in_phases(
        lambda image, threads: opencv_edges(image), cut, lambda image, leaves, threads: resized_leaves(image, leaves)
    )


OURS = ("ours, edges, budget", "ours, canny, budget", "ours, canny, threshold")
RECURSIVE, GREEDY, GREEDY_FAST = "recursive tree, threshold", "greedy list, budget", "greedy list, scores apart"


def methods() -> dict[str, Method]:
    """Name → what is timed, in the order of the table."""
    return {
        "copy": copy,
        "area pyramid": pyramid,
        "OpenCV alone": opencv,
        OURS[0]: ours("edges"),
        OURS[1]: ours("canny"),
        OURS[2]: ours("canny", THRESHOLD),
        RECURSIVE: rival(recursive_tree, THRESHOLD),
        GREEDY: rival(greedy_tree),
        GREEDY_FAST: rival(greedy_tree_split_lists),
    }


def peak_memory(method: Method, image: np.ndarray, threads: int) -> float | None:
    """MB that a method adds to a process that holds the image, warm, in a child of its own; None if it died."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            cv2.setNumThreads(threads)
            method(image[:512, :512].copy(), threads)
            ctypes.CDLL(None).malloc_trim(0)  # free memory would hide what the method takes
            Path("/proc/self/clear_refs").write_text("5")  # the highest level so far becomes the present one
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            outcome = method(image, threads)
            os.write(writer, str((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024).encode())
            del outcome
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        said = pipe.read()
    os.waitpid(child, 0)
    return float(said) if said else None


def work(job: dict) -> dict:
    """Every method on one image, in turns: best seconds, phases of that round, tokens and peak memory."""
    cv2.setNumThreads(1)  # so that no threads exist when the memory children are forked
    threads = job["threads"]
    image = make_image(job["kind"], job["size"], job["photograph"])
    np.empty(30 << 20, np.uint8)  # once freed, the allocator reuses blocks up to this size, in every process alike
    table = methods()
    peaks = {name: peak_memory(method, image, threads) if job["memory"] else None for name, method in table.items()}
    cv2.setNumThreads(threads)
    warm = image[:512, :512].copy()
    for method in table.values():
        method(warm, threads)
    best: dict[str, dict] = {}
    for turn in range(job["repeats"]):
        for name, method in table.items():
            if turn and best[name]["seconds"] > SLOW:
                continue
            start = time.perf_counter()
            outcome = method(image, threads)
            seconds = time.perf_counter() - start
            if not turn or seconds < best[name]["seconds"]:
                best[name] = {"seconds": seconds, "tokens": outcome[0], "phases": outcome[1], "peak_mb": peaks[name]}
            del outcome
    return {**job, "image_crc32": zlib.crc32(memoryview(image)), "methods": best}


def first_call() -> dict:
    """Seconds of the first patching of a 512 x 512 image in this process, and of the second."""
    image, method, clock = make_image("noise", 512, None), ours("edges"), [time.perf_counter()]
    for _ in range(2):
        method(image, 1)
        clock.append(time.perf_counter())
    return dict(zip(("first", "second"), np.diff(clock).tolist()))


def child(*options: str, threads: int = 1, cache: str | None = None) -> dict:
    """What this script prints in a process of its own, with ``threads`` for Numba and one for every other library."""
    environment = {**os.environ, "NUMBA_NUM_THREADS": str(threads)}
    environment.update(dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"))
    if cache is not None:
        environment.update(dict.fromkeys(("NUMBA_CACHE_DIR", "PATCHFOREST_CACHE_DIR", "XDG_CACHE_HOME"), cache))
    command, start = [sys.executable, __file__, *options], time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        return {"failed": f"exit {done.returncode}: " + " ".join(done.stderr.strip().splitlines()[-1:])}
    return {**json.loads(done.stdout.strip().splitlines()[-1]), "whole process": time.perf_counter() - start}


def _split_scores(leaves: list[Leaf], total: Total, side: int) -> list[int]:
    """Scores of all nodes above the leaves, sorted."""
    above, nodes = list(leaves), set[Leaf]()
    while above:
        above = [(r // (2 * s) * 2 * s, c // (2 * s) * 2 * s, 2 * s) for r, c, s in above if s < side]
        above = list(set(above) - nodes)
        nodes |= set(above)
    return sorted(total(*node) for node in nodes)


def _leaves(forest: Any) -> list[Leaf]:
    return [(int(r), int(c), int(s)) for (r, c), s in zip(forest.origin, forest.size)]


def check() -> None:
    """The papers' trees against ``build_forest``, and their patches and edges against ours; raises AssertionError."""
    rng = np.random.default_rng(3)
    spot = np.zeros((32, 32), np.uint8)
    spot[9, 1] = 255
    by_hand = [(0, 0, 8), (0, 8, 8), (8, 0, 8), (8, 8, 8), (0, 16, 16), (16, 0, 16), (16, 16, 16)]
    assert recursive_tree(edge_total(spot), 32, 8, 0) == greedy_tree(edge_total(spot), 32, 8, 9) == by_hand
    for side in (8, 16, 32, 64, 128, 256, 512) * 3:
        grid = (side // 8, side // 8)
        cells = rng.integers(0, 1 << 40, grid) >> rng.integers(0, 36, grid)  # no two nodes alike
        edges = (rng.random((side, side)) < rng.random((side, side)) ** 6 * 0.3).astype(np.uint8) * 255
        counts = (edges > 0).reshape(side // 8, 8, side // 8, 8).sum((1, 3)).astype(np.float32)
        alike = edge_total(edges)

        def unlike(row: int, column: int, side: int, cells: np.ndarray = cells) -> int:
            return int(cells[row // 8 : (row + side) // 8, column // 8 : (column + side) // 8].sum())

        for threshold in (0, 8, 20, 50, 1 << 30, 1 << 38):
            for detail, total in ((cells, unlike), (counts, alike)):
                mine = _leaves(build_forest(detail, shape=(side, side), threshold=threshold))
                assert recursive_tree(total, side, 8, threshold) == mine, (side, threshold)
        for budget in (1, 2, 5, 100, 1024, 5000):
            for grow in (greedy_tree, greedy_tree_split_lists):
                mine = _leaves(build_forest(cells, shape=(side, side), budget=budget))
                assert grow(unlike, side, 8, budget) == mine, (side, budget)
                theirs = grow(alike, side, 8, budget)  # equal scores are split in another order, so compare those
                mine = _leaves(build_forest(counts, shape=(side, side), budget=budget))
                assert _split_scores(theirs, alike, side) == _split_scores(mine, alike, side), (side, budget)
                assert len(theirs) == len(mine), (side, budget)
    for size, threshold in ((512, 8), (1024, 20)):
        image = make_image("wsi", size, None)
        edges = opencv_edges(image)
        assert detail_map(image, CELL, criterion="canny").sum() == cv2.countNonZero(edges)
        forest = cut_forest(image, ForestPolicy(criterion="canny", cell=CELL, threshold=threshold))
        leaves = recursive_tree(edge_total(edges), size, CELL, threshold)
        assert leaves == _leaves(forest)
        small = forest.size == PATCH
        assert small.any()
        resized = resized_leaves(image, leaves).transpose(0, 3, 1, 2)
        assert np.array_equal(resized[small], gather(image, forest, PATCH).patches[small])
    print("the papers' trees, edges and smallest patches are ours")


def rows(result: dict) -> list[str]:
    """Markdown rows of one image, size and number of threads."""
    if "failed" in result:
        return [f"| {result['size']} | (failed: {result['failed']}) |" + " |" * 7]
    found, lines = result["methods"], []
    for name, m in found.items():
        peak = "–" if m["peak_mb"] is None else f"{m['peak_mb']:.0f}"
        lines.append(
            f"| {result['size']} | {name} | {m['seconds']:.4f} | {result['size'] ** 2 / m['seconds'] / 1e6:.0f} "
            f"| {m['tokens'] or '–'} | {peak} | {m['seconds'] / found['OpenCV alone']['seconds']:.2f} "
            f"| {m['seconds'] / found['copy']['seconds']:.1f} | "
            + (" / ".join(f"{seconds:.4f}" for seconds in m["phases"].values()) or "–")
            + " |"
        )
    return lines


HEAD = [
    "| side | method | s | Mpx/s | tokens | peak MB | x OpenCV | x copy | edges / tree / patches, s |",
    "|---|---|---|---|---|---|---|---|---|",
]


def summary(results: list[dict]) -> list[str]:
    """Markdown: ours against OpenCV, one copy and the rivals, a row for every process."""
    names = [name.removeprefix("ours, ") for name in OURS]
    lines = [
        f"| image | side | threads | {' | '.join(f'{n} / OpenCV' for n in names)} | {names[0]} / OpenCV on 1 thread "
        f"| {names[0]} / copy | recursive / ours | greedy / ours | scores apart / ours | their tree / ours, greedy |",
        "|" + "---|" * 12,
    ]
    alone = {(r["kind"], r["size"], r["threads"]): r["methods"]["OpenCV alone"] for r in results if "methods" in r}
    for r in (r for r in results if "methods" in r):
        seconds = {name: m["seconds"] for name, m in r["methods"].items()}
        one = alone.get((r["kind"], r["size"], 1))
        trees = [r["methods"][name]["phases"]["tree"] for name in (GREEDY, OURS[1])]
        ratios = [seconds[name] / seconds["OpenCV alone"] for name in OURS]
        ratios += [seconds[OURS[0]] / one["seconds"] if one else np.nan, seconds[OURS[0]] / seconds["copy"]]
        ratios += [seconds[RECURSIVE] / seconds[OURS[2]]]
        ratios += [seconds[name] / seconds[OURS[1]] for name in (GREEDY, GREEDY_FAST)] + [trees[0] / trees[1]]
        lines.append(f"| {r['kind']} | {r['size']} | {r['threads']} | {' | '.join(f'{x:.2f}' for x in ratios)} |")
    return lines


def note(results: list[dict], calls: dict[str, dict], left_out: list[str], options: argparse.Namespace) -> str:
    """The Markdown note of a run."""
    here = describe_environment()
    words = ["--data DATA"] * (options.data is not None) + ["--memory"] * options.memory
    words += [f"--{key} {' '.join(map(str, getattr(options, key)))}" for key in ("sizes", "kinds", "threads")]
    words += [f"--repeats {options.repeats}"] * (options.repeats is not None)
    lines = [
        f"# Patching, {date.today()}", "",
        f"{here.line}, NumPy {np.__version__}, OpenCV {cv2.__version__}.",
        f"Command: `python benchmarks/patching.py {' '.join(words)}`.", "",
        f"Cell {CELL}, patch {PATCH}, v = {THRESHOLD}, leaves "
        + ", ".join(f"{BUDGETS[s]} at {s}" for s in options.sizes) + ". RGB, 8 bit. Best of "
        f"{options.repeats or '5 (above 4096 pixels: 3)'} rounds in which the methods take turns on one image in one "
        f"process; above {SLOW:g} s once. Peak: what a method adds to a process that holds the image, its result "
        "included.", *left_out, "",
        "First patching of 512 x 512 in a fresh process: "
        + "; ".join(f"{name} {', '.join(f'{k} {v:.2f} s' if isinstance(v, float) else str(v) for k, v in c.items())}"
                    for name, c in calls.items()) + ".", "",
        "## Ratios of seconds", "",
        "Ours against the rivals: `recursive` against ours by canny and threshold, `greedy` against ours by canny and "
        "budget, both whole and (last column) the tree alone.", "",
        *summary(results),
    ]  # fmt: skip
    for kind in dict.fromkeys(r["kind"] for r in results):
        for threads in options.threads:
            mine = [r for r in results if (r["kind"], r["threads"]) == (kind, threads)]
            lines += ["", f"## {kind}, {threads} thread{'s' * (threads > 1)}", "", *HEAD]
            lines += [line for result in mine for line in rows(result)]
    return "\n".join(lines) + "\n"


def find_photograph(folder: str | None) -> str | None:
    """The first picture in a folder, its ``images`` or its ``hrf/images``; None where there is none."""
    for place in ("", "images", "hrf/images") if folder else ():
        pictures = sorted(p for p in Path(str(folder), place).glob("*") if p.suffix.lower() in (".jpg", ".png", ".tif"))
        if pictures:
            return str(pictures[0])
    return None


def main() -> None:
    """Run every image, size and number of threads, print as they come, then write the note."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="folder with an HRF photograph; without it there is no retina")
    parser.add_argument("--sizes", nargs="+", type=int, choices=list(BUDGETS), default=list(BUDGETS))
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--repeats", type=int, help="rounds; default 5 up to 4096 pixels, 3 above")
    parser.add_argument("--memory", action="store_true", help="measure peak memory too (a child for every method)")
    parser.add_argument("--out", help="folder of the note; default benchmarks/results, none with --small")
    parser.add_argument("--small", action="store_true", help="512 and 1024 pixels, printed only")
    parser.add_argument("--check", action="store_true", help="compare the papers' trees with ours, and end")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    warnings.simplefilter("ignore", UserWarning)  # flat images have no detail, which is the point of them
    if options.worker == "first call":
        print(json.dumps(first_call()))
        return
    if options.worker:
        print(json.dumps(work(json.loads(options.worker))))
        return
    if options.check:
        check()
        return
    if options.small:
        options.sizes = [512, 1024]
    photograph, left_out = find_photograph(options.data), []
    if "retina" in options.kinds and photograph is None:
        left_out = ["", f"No retina: {'no picture in --data' if options.data else '--data was not given'}."]
        print(left_out[1])
    results = []
    for size in options.sizes:
        for kind in (k for k in options.kinds if k != "retina" or photograph):
            for threads in options.threads:
                job = {
                    "kind": kind, "size": size, "threads": threads, "memory": options.memory,
                    "photograph": photograph, "repeats": options.repeats or (5 if size <= 4096 else 3),
                }  # fmt: skip
                results.append({**job, **child("--worker", json.dumps(job), threads=threads)})
                print("\n".join([f"\n{kind}, {threads} threads", *HEAD, *rows(results[-1])]), flush=True)
    with tempfile.TemporaryDirectory() as cache:
        calls = {state: child("--worker", "first call", cache=cache) for state in ("cold cache", "warm cache")}
    for result in results:
        result["photograph"] = result["photograph"] and Path(result["photograph"]).name
    text = note(results, calls, left_out, options)
    print("\n" + text.split("\n## ")[0] + "\n## " + text.split("\n## ")[1])
    if options.out or not options.small:
        stem = Path(options.out or REPO / "benchmarks" / "results") / f"{date.today()}-patching"
        stem.parent.mkdir(parents=True, exist_ok=True)
        stem.with_suffix(".json").write_text(json.dumps({"first_call": calls, "results": results}, indent=1))
        stem.with_suffix(".md").write_text(text)
        print(f"written: {stem.name}.md and .json")


if __name__ == "__main__":
    main()
