"""Damaged files of every kind: each is opened and read to the end, and may end in pixels or in one line, nothing else.

    python benchmarks/mutants.py --count 3000 --seed 0            # the dated note
    python benchmarks/mutants.py --only "TIFF LZW" --count 500    # one kind
    python benchmarks/mutants.py --seed 0 --number 1234 --keep X  # one mutant, written to X, read here with traceback

Mutant k of a seed is the same in every run. Small whole files (``mutant_specimens.py``, and real ones under ``--data``)
are cut off, have bits flipped, fields of their headers overwritten, ranges swapped, zeroed, doubled or taken out;
in PNG and gzip also below the checksum, which is made anew. A child process reads them one after another: one that dies
or hangs is charged to the mutant it was at. What counts as a failure: another exception than InputError, more than one
line, a signal, more than 10 s, more than 1 GiB, an array of another shape than the header's, only zeros where the
original has others, and any other content where a checksum covers all of it. Other pixels are counted, and allowed.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import os
import re
import select
import shutil
import struct
import subprocess
import sys
import tempfile
import time
import zlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import date
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent))
from mutant_specimens import SPECIMENS, Specimen, real_specimens

REPO = Path(__file__).resolve().parents[1]
SECONDS, MEMORY, LIMIT = 10.0, 1 << 30, 8 << 30
HOLES = 0.05  # share of an image that became zero: counted, since raw pixels that are zeroed cannot be told
FAILURES = ("exception", "lines", "signal", "hang", "memory", "shape", "zeros", "unseen")
VALUES = (0, 1, 2, 3, 7, 8, 15, 16, 255, 256, 65535, 65536, 1 << 24, (1 << 31) - 1, 1 << 31, (1 << 32) - 1, 1 << 40,
          (1 << 63) - 1, (1 << 64) - 1)  # fmt: skip
NUMBERS = (b"0", b"-1", b"1", b"2", b"1e9", b"1e400", b"4294967296", b"99999999999999999999", b"0.5", b"null", b'"x"',
           b"[]", b"{}", b"NaN", b"true")  # fmt: skip


@dataclass(frozen=True)
class Result:
    """What became of mutant ``number`` of a specimen: ``same``, ``different``, ``refused``, or one of FAILURES."""

    number: int
    specimen: str
    change: str
    outcome: str
    text: str = ""
    seconds: float = 0.0
    memory: int = 0
    noisy: bool = False


# ---- damage --------------------------------------------------------------------------------------------------------


def mutated(data: bytes, name: str, rng: np.random.Generator) -> tuple[bytes, str]:
    """Another file than ``data``, and what was done to it."""
    ways: list[Callable[[bytes, np.random.Generator], bytes]] = [
        _truncated,
        _flipped,
        _field,
        _field,
        _swapped,
        _zeroed,
        _spliced,
    ]
    if data[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        ways += [_tag] * 4
    if data.startswith(b"\x89PNG"):
        ways += [_sealed_png] * 3
    if data.startswith(b"\x1f\x8b"):
        ways += [_sealed_gzip] * 3
    if data.startswith((b"{", b"[", b"NRRD", b"\x93NUMPY")) or name.endswith("safetensors"):
        ways += [_number] * 3
    for _ in range(100):
        way = ways[rng.integers(len(ways))]
        changed = way(data, rng)
        if changed != data:
            return changed, way.__name__.strip("_")
    return data[: len(data) // 2], "truncated"


def _place(data: bytes, rng: np.random.Generator) -> int:
    """Half of the time within the first or last 512 bytes."""
    if rng.random() < 0.5:
        offset = int(rng.integers(min(512, len(data))))
        return offset if rng.random() < 0.6 else len(data) - 1 - offset
    return int(rng.integers(len(data)))


def _truncated(data: bytes, rng: np.random.Generator) -> bytes:
    return data[: int(rng.integers(len(data)))] if rng.random() < 0.7 else data[: -int(rng.integers(1, 65))]


def _flipped(data: bytes, rng: np.random.Generator) -> bytes:
    out = bytearray(data)
    for _ in range(int(rng.choice([1, 1, 1, 2, 8]))):
        out[_place(data, rng)] ^= 1 << int(rng.integers(8))
    return bytes(out)


def _field(data: bytes, rng: np.random.Generator) -> bytes:
    size, order = int(rng.choice([1, 2, 4, 8])), rng.choice(["<", ">"])
    place = min(_place(data, rng) // size * size, max(len(data) - size, 0))
    return data[:place] + _value(size, str(order), rng) + data[place + size :]


def _value(size: int, order: str, rng: np.random.Generator) -> bytes:
    number = int(rng.choice(np.array(VALUES, np.uint64))) if rng.random() < 0.8 else int(rng.integers(1 << 62))
    return (number & ((1 << 8 * size) - 1)).to_bytes(size, "little" if order == "<" else "big")


def _range(data: bytes, rng: np.random.Generator) -> tuple[int, int]:
    start = _place(data, rng)
    return start, min(start + int(rng.choice([1, 4, 16, 100, 1000, 5000])), len(data))


def _swapped(data: bytes, rng: np.random.Generator) -> bytes:
    (a, b), out = _range(data, rng), bytearray(data)
    c = min(_place(data, rng), len(data) - (b - a))
    if c < b and a < c + b - a:
        return data
    out[a:b], out[c : c + b - a] = data[c : c + b - a], data[a:b]
    return bytes(out)


def _zeroed(data: bytes, rng: np.random.Generator) -> bytes:
    start, stop = _range(data, rng)
    return data[:start] + bytes(stop - start) + data[stop:]


def _spliced(data: bytes, rng: np.random.Generator) -> bytes:
    start, stop = _range(data, rng)
    if rng.random() < 0.5:
        return data[:start] + data[stop:]
    place = _place(data, rng)
    return data[:place] + data[start:stop] + data[place:]


def _number(data: bytes, rng: np.random.Generator) -> bytes:
    found = [
        m.span() for m in re.finditer(rb"(?<![\w.])-?\d+(\.\d+)?(?![\w.])|true|false|null|\"[\w-]+\"", data[:200_000])
    ]
    if not found:
        return data
    start, stop = found[rng.integers(len(found))]
    return data[:start] + NUMBERS[rng.integers(len(NUMBERS))] + data[stop:]


def _tag(data: bytes, rng: np.random.Generator) -> bytes:
    """One field of one entry of one directory of a TIFF."""
    order, big = "<" if data[:2] == b"II" else ">", data[2:4] in (b"+\0", b"\0+")
    form, wide = (order + "Q", 8) if big else (order + "I", 4)
    at, number, entries = 8 if big else 4, "Q" if big else "H", []
    for _ in range(8):
        (at,) = struct.unpack_from(form, data, at)
        if not at:
            break
        (count,) = struct.unpack_from(order + number, data, at)
        first = at + struct.calcsize(number)
        entries += [first + k * (20 if big else 12) for k in range(count)]
        at = first + count * (20 if big else 12)
    place = entries[rng.integers(len(entries))]
    start, size = [(0, 2), (2, 2), (4, wide), (4 + wide, wide), (4 + wide, 2)][
        rng.choice(5, p=[0.1, 0.1, 0.2, 0.4, 0.2])
    ]
    return data[: place + start] + _value(size, order, rng) + data[place + start + size :]


def _sealed_png(data: bytes, rng: np.random.Generator) -> bytes:
    """Damage inside a chunk, whose checksum is made anew; of pixels also inside the deflate stream."""
    chunks, place = [], 8
    while place + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, place)
        chunks.append((data[place + 4 : place + 8], data[place + 8 : place + 8 + length]))
        place += 12 + length
    k = int(rng.integers(len(chunks))) if rng.random() < 0.6 else 0
    name, body = chunks[k]
    if name == b"IDAT" and rng.random() < 0.5 and sum(n == b"IDAT" for n, _ in chunks) == 1:
        body = zlib.compress(_plain(zlib.decompress(body), rng))
    elif body:
        body = _plain(body, rng)
    else:
        del chunks[k]
        k = -1
    if k >= 0:
        chunks[k] = (name, body)
    parts = [struct.pack(">I", len(b)) + n + b + struct.pack(">I", zlib.crc32(n + b)) for n, b in chunks]
    return data[:8] + b"".join(parts)


def _sealed_gzip(data: bytes, rng: np.random.Generator) -> bytes:
    try:
        inside = gzip.decompress(data)
    except OSError:  # a checksum of another kind follows
        return data
    way = _number if inside[:1] in b"{[" and rng.random() < 0.5 else _plain
    return gzip.compress(way(inside, rng), mtime=0)


def _plain(data: bytes, rng: np.random.Generator) -> bytes:
    ways = (_truncated, _flipped, _field, _field, _zeroed, _spliced)
    return ways[rng.integers(len(ways))](data, rng)


# ---- the child -----------------------------------------------------------------------------------------------------


def contents(reader: str, path: Path, extra: dict[str, Any]) -> list[np.ndarray]:
    """Everything that is in a file, read as a user's program would; AssertionError for a wrong shape.

    ``reader`` is one of those of the specimens, or ``module:function`` of a path.
    """
    if ":" in reader:
        module, _, name = reader.partition(":")
        return getattr(import_module(module), name)(path)
    if reader in ("image", "label"):
        from patchforest.io.label import read_label
        from patchforest.io.open import open_image

        if reader == "label":
            return [read_label(path, num_classes=3)]
        image, out = open_image(path), []
        for k, (height, width) in enumerate(image.levels):
            part = (height, width) if height * width * image.shape[2] < 1 << 26 else (min(height, 512), min(width, 512))
            out.append(image.read(k, 0, 0, *part))
            assert out[-1].shape == (*part, image.shape[2]), f"{out[-1].shape} of {part}"
        return out
    if reader == "volume":
        from patchforest.io.volume import open_volume

        volume = open_volume(path)
        shape = volume.shape if np.prod(volume.shape, dtype=object) < 1 << 26 else (1, *volume.shape[1:])
        voxels = volume.read((0, 0, 0), (shape[0], shape[1], shape[2]))
        assert voxels.shape == shape, f"{voxels.shape} of {shape}"
        affine = np.eye(4) if volume.affine is None else volume.affine
        return [voxels, affine, np.array(volume.spacing or (1, 1, 1))]
    if reader == "geojson":
        from patchforest.io.geojson import read_geojson

        return [read_geojson(path, names=("background", "gland"), shape=(96, 128)).read(0, 0, 96, 128, 1)]
    if reader == "model":
        from patchforest.models.bundle import load_model

        bundle = load_model(path)
        state = [v.numpy() for v in bundle.network.state_dict().values()]
        return [np.frombuffer(repr(bundle.spec).encode(), np.uint8), *state]
    if reader == "parts":
        from patchforest.errors import InputError
        from patchforest.infer.slide import Parts, _is_whole

        parts = Parts(path, (96, 128), extra["parts"], "done", 0, 0.0)
        whole = [_is_whole(path, k) for k in range(parts.number)]
        arrays = [*parts.masks(), *parts.probabilities()]
        if not all(whole):  # what is seen where the job goes on; the part is then done again
            raise InputError(path, "holds a part that is not whole", "run the same command again")
        return arrays
    from patchforest.data.prepared import read_item

    item = read_item(path)
    return [item.patches, item.shares, item.forest.origin, item.forest.size]


def examine(task: dict[str, Any]) -> dict[str, Any]:
    """Outcome, and what was read as a digest."""
    from patchforest.errors import InputError

    path = Path(task["path"])
    try:
        arrays = contents(task["reader"], path, task)
    except InputError as fault:
        text = str(fault)
        fine = "\n" not in text and text.startswith(str(path)) and fault.what.strip() and fault.hint.strip()
        return {"outcome": "refused" if fine else "lines", "text": text}
    except AssertionError as fault:
        return {"outcome": "shape", "text": str(fault)}
    except BaseException as fault:  # exactly these are looked for
        return {"outcome": "exception", "text": f"{type(fault).__name__}: {str(fault)[:200]}"}
    digest = hashlib.blake2b(digest_size=16)
    for array in arrays:
        digest.update(f"{array.shape}{array.dtype}".encode() + np.ascontiguousarray(array).tobytes())
    return {"outcome": "read", "digest": digest.hexdigest(), "zeros": float((arrays[0] == 0).mean())}


def serve() -> None:
    """The child: a task a line in, a result a line out."""
    import resource
    import warnings

    warnings.simplefilter("ignore")
    resource.setrlimit(resource.RLIMIT_AS, (LIMIT, LIMIT))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    for line in sys.stdin:
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")  # the greatest memory is counted anew
        start = time.perf_counter()
        found = examine(json.loads(line))
        held = re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())
        found |= {"seconds": time.perf_counter() - start, "memory": int(held[1]) << 10 if held else 0}
        answers.write(json.dumps(found) + "\n")


class Child:
    """The process that reads, started anew when it has died."""

    def __init__(self, folder: Path) -> None:
        self._errors = open(folder / "stderr", "ab")  # noqa: SIM115, closed in close
        self._process: subprocess.Popen[str] | None = None

    def examine(self, task: dict[str, Any]) -> dict[str, Any]:
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, __file__, "--serve"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                text=True,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
            )
        process, noise = self._process, os.fstat(self._errors.fileno()).st_size
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(task) + "\n")
        process.stdin.flush()
        ready, _, _ = select.select([process.stdout], [], [], task["seconds"])
        line = process.stdout.readline() if ready else ""
        if line:
            return {**json.loads(line), "noisy": os.fstat(self._errors.fileno()).st_size > noise}
        if not ready:
            process.kill()
        code = process.wait()
        self._process = None
        return {"outcome": "signal" if ready else "hang", "text": f"ended with {code}" if ready else "no answer"}

    def close(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._errors.close()


# ---- the run -------------------------------------------------------------------------------------------------------


def available(data: Path | None, only: str | None = None) -> dict[str, Specimen]:
    """The specimens whose libraries are here, in a fixed order."""
    every = {**SPECIMENS, **({} if data is None else real_specimens(data))}
    return {k: s for k, s in every.items() if all(find_spec(n) for n in s.needs) and (only is None or k == only)}


def write_mutant(original: Path, target: Path, seed: int, number: int) -> str:
    """Writes mutant ``number`` of a file or folder; what was changed."""
    rng = np.random.default_rng([seed, number])
    if original.is_file():
        data, change = mutated(original.read_bytes(), original.name, rng)
        target.write_bytes(data)
        return change
    shutil.copytree(original, target)
    files = sorted(p for p in target.rglob("*") if p.is_file() and p.stat().st_size)
    victim = files[rng.integers(len(files))]
    if rng.random() < 0.05:
        victim.unlink()
        return f"removed {victim.relative_to(target)}"
    data, change = mutated(victim.read_bytes(), victim.name, rng)
    victim.write_bytes(data)
    return f"{change} {victim.relative_to(target)}"


def run(count: int, seed: int, specimens: dict[str, Specimen], numbers: range | None = None) -> Iterator[Result]:
    """The results of mutants 0 to ``count`` - 1, one specimen after another in turns."""
    names = list(specimens)
    with tempfile.TemporaryDirectory(prefix="mutants-") as where:
        folder = Path(where)
        child, originals, truth = Child(folder), {}, {}
        try:
            for number in numbers or range(count):
                name = names[number % len(names)]
                one = specimens[name]
                if name not in originals:
                    originals[name] = folder / f"original-{len(originals)}{one.suffix}"
                    one.make(originals[name])
                    truth[name] = child.examine(_task(one, originals[name], 120.0))
                    if truth[name]["outcome"] != "read":
                        raise SystemExit(f"{name}: the whole file is not read: {truth[name]}")
                target = folder / f"mutant{one.suffix}"
                change = write_mutant(originals[name], target, seed, number)
                found = child.examine(_task(one, target, SECONDS, originals[name]))
                if found["outcome"] == "hang":  # the machine may have been busy: once more, with patience
                    found = child.examine(_task(one, target, 6 * SECONDS, originals[name]))
                    busy = found["outcome"] not in ("hang", "signal")
                    found = found if busy and found["seconds"] < SECONDS else {**found, "outcome": "hang"}
                yield _result(number, name, change, found, truth[name], one)
                shutil.rmtree(target) if target.is_dir() else target.unlink()
        finally:
            child.close()


def _task(one: Specimen, path: Path, seconds: float, original: Path | None = None) -> dict[str, Any]:
    parts = len(list((original or path).glob("part-*.npz"))) if one.reader == "parts" else 0
    return {"reader": one.reader, "path": str(path), "seconds": seconds, "parts": parts}


def _result(number: int, name: str, change: str, found: dict[str, Any], truth: dict[str, Any], one: Specimen) -> Result:
    outcome, text = found["outcome"], found.get("text", "")
    if outcome == "read":
        outcome = "same" if found["digest"] == truth["digest"] else "different"
        if outcome == "different" and one.checked:
            outcome, text = "unseen", "a checksum covers this"
        elif found["zeros"] == 1 > truth["zeros"] and not change.startswith("zeroed"):
            outcome, text = "zeros", "only zeros are left"
        elif found["zeros"] > truth["zeros"] + HOLES:
            text = f"{found['zeros'] - truth['zeros']:.0%} more zeros"
    memory = found.get("memory", 0)
    if memory > MEMORY and outcome not in FAILURES:
        outcome, text = "memory", f"{memory >> 20} MiB"
    return Result(number, name, change, outcome, text, found.get("seconds", 0.0), memory, found.get("noisy", False))


def table(results: list[Result]) -> str:
    """A Markdown table, one line a specimen."""
    rows: dict[str, list[Result]] = defaultdict(list)
    for result in results:
        rows[result.specimen].append(result)
    head = [
        "kind",
        "mutants",
        "refused",
        "same",
        "other content",
        "of these with zeros",
        "failures",
        "noisy",
        "peak MiB",
        "longest s",
    ]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for name, group in [*rows.items(), ("all", results)]:
        count = Counter(r.outcome for r in group)
        failed = ", ".join(f"{count[k]} {k}" for k in FAILURES if count[k]) or "0"
        holes = sum(r.outcome == "different" and "zeros" in r.text for r in group)
        noisy = sum(r.noisy for r in group)
        cells = [name, len(group), count["refused"], count["same"], count["different"], holes, failed, noisy,
                 max(r.memory for r in group) >> 20, f"{max(r.seconds for r in group):.2f}"]  # fmt: skip
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)


def _reproduce(arguments: argparse.Namespace, specimens: dict[str, Specimen]) -> None:
    names = list(specimens)
    one = specimens[names[arguments.number % len(names)]]
    with tempfile.TemporaryDirectory() as where:
        original = Path(where) / f"original{one.suffix}"
        one.make(original)
        change = write_mutant(original, arguments.keep, arguments.seed, arguments.number)
        print(f"{names[arguments.number % len(names)]}, {change}: {arguments.keep}")
        task = _task(one, arguments.keep, SECONDS, original)
        print([array.shape for array in contents(one.reader, arguments.keep, task)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", help="one kind of the table")
    parser.add_argument(
        "--data", type=Path, default=os.environ.get("PATCHFOREST_DATA", REPO.parent / "shared" / "data")
    )
    parser.add_argument("--out", type=Path, default=REPO / "benchmarks" / "results")
    parser.add_argument("--number", type=int, help="only this mutant, here")
    parser.add_argument("--keep", type=Path, help="where to write it")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        return serve()
    specimens = available(arguments.data, arguments.only)
    if arguments.number is not None:
        return _reproduce(arguments, specimens)
    start, results = time.perf_counter(), []
    for result in run(arguments.count, arguments.seed, specimens):
        results.append(result)
        if result.outcome in FAILURES:
            print(f"{result.number} {result.specimen}, {result.change}: {result.outcome}: {result.text}", flush=True)
    taken = time.perf_counter() - start
    text = table(results)
    print(text)
    if arguments.only is None:
        _write_note(arguments, results, text, taken)
    return None


def _write_note(arguments: argparse.Namespace, results: list[Result], text: str, taken: float) -> None:
    failed = [r for r in results if r.outcome in FAILURES]
    words = Counter(
        re.sub(r"\d+", "N", r.text.split(": ", 1)[-1].split(";")[0])[:60] for r in results if r.outcome == "refused"
    )
    note = [
        f"# Damaged files, {date.today()}",
        "",
        f"`python benchmarks/mutants.py --count {arguments.count} --seed {arguments.seed}`: {taken:.0f} s on 2 "
        f"shared cores, Python {sys.version.split()[0]}. Each mutant is opened and read to its end in a child process.",
        "",
        f"{len(results)} mutants, {len(failed)} failures, {len(words)} different refusals.",
        "",
        text,
        "",
        "Other content: what is flipped inside pixels without checksum, or in a field such as an orientation, cannot "
        "be seen. With zeros: 5 % of the image or more became zero, as far as it was not (in JPEG a wrong brightness "
        "runs on to black). Noisy: a library wrote to standard error. Peak: of the whole child, libraries included.",
    ]
    note += ["", "## Failures", ""] * bool(failed)
    note += [f"- {r.number} {r.specimen}, {r.change}: {r.outcome}: {r.text}" for r in failed]
    arguments.out.mkdir(exist_ok=True)
    stem = arguments.out / f"{date.today()}-mutants"
    stem.with_suffix(".md").write_text("\n".join(note) + "\n", encoding="utf-8")
    counts = {
        k: dict(Counter(r.outcome for r in results if r.specimen == k))
        for k in dict.fromkeys(r.specimen for r in results)
    }
    found = {"count": len(results), "seed": arguments.seed, "seconds": round(taken), "outcomes": counts}
    found["failures"] = [asdict(r) for r in failed]
    stem.with_suffix(".json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
