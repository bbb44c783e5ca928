"""Slides end to end, from files alone: train, predict, evaluate, and check what was written by other readers.

    python benchmarks/slides.py --side 20000 --large 65536 --minutes 4

Makes synthetic labelled slides (pyramidal JPEG TIFF, glands of the same size in microns at 0.25, 0.5 and 1 micron per
pixel), runs the commands of the README on them, each in a process of its own whose peak memory is read when it ends,
and then compares every level of the masks through OpenSlide and tifffile with what ``open_image`` reads, and the areas
of the polygons with the pixels of the mask. Prints a table; with ``--out`` writes a dated note and JSON.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

REPO = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPO))

from tests.gland_slides import write_gland_slide  # noqa: E402

from patchforest.io.open import open_image  # noqa: E402

TRAINING = ((0.5, 1), (0.25, 2), (1.0, 3), (0.5, 4))  # microns per pixel, seed
TESTING = ((0.5, 11), (0.25, 12), (1.0, 13))
RECIPE = {
    "data": {"mpp": 2.0, "tissue": True, "window": 256, "classes": ["background", "gland"], "folds": 4},
    "forest": {"budget": 256, "cell": 8},
    "model": {"name": "apf_unetr", "width": 64, "depth": 2, "heads": 4, "patch": 8, "stem": [8, 16, 32]},
    "train": {"batch": 4, "lr": 2e-3, "validate_cases": 1, "validate_every": 0.5, "num_workers": 0, "threads": 2},
}


def run(*arguments: object) -> dict[str, Any]:
    """One ``patchforest`` command: wall and CPU seconds, peak resident MiB, exit code, output."""
    start = time.perf_counter()
    with tempfile.TemporaryFile("w+") as told:
        command = [sys.executable, "-m", "patchforest", *map(str, arguments)]
        process = subprocess.Popen(command, stdout=told, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(process.pid, 0)
        told.seek(0)
        text = told.read()
    code = os.waitstatus_to_exitcode(status)
    print(f"$ patchforest {' '.join(map(str, arguments))}\n{text[-1500:]}", flush=True)
    return {
        "command": f"patchforest {arguments[0]}",
        "seconds": time.perf_counter() - start,
        "cpu_seconds": usage.ru_utime + usage.ru_stime,
        "peak_mib": usage.ru_maxrss / 1024,
        "code": code,
        "text": text,
    }


def make_set(folder: Path, slides: tuple[tuple[float, int], ...], side: int) -> None:
    """Labelled slides of a side, a little narrower than high, by microns per pixel and seed."""
    for mpp, seed in slides:
        name, shape = f"slide_{seed:02d}.tif", (side, side - side // 16)
        if not (folder / "images" / name).exists():
            write_gland_slide(folder / "images" / name, folder / "masks" / name, shape=shape, mpp=mpp, seed=seed)
            print(f"made {folder.name}/{name}, {shape[0]} x {shape[1]} at {mpp}", flush=True)


def same_everywhere(mask: Path, windows: int = 40) -> dict[str, Any]:
    """Levels of a mask by OpenSlide and tifffile against our reader: random windows of every level."""
    import openslide
    import tifffile

    ours, theirs, rng = open_image(mask), openslide.OpenSlide(mask), np.random.default_rng(0)
    assert [(h, w) for w, h in theirs.level_dimensions] == list(ours.levels), "levels differ"
    assert abs(float(theirs.properties["openslide.mpp-x"]) / ours.mpp - 1) < 1e-4, "mpp differs"
    compared = 0
    with tifffile.TiffFile(mask) as tif:
        assert [page.shape for page in tif.pages] == list(ours.levels)
        for level, (height, width) in enumerate(ours.levels):
            whole = tif.pages[level].asarray() if height * width < 1 << 26 else None
            for _ in range(windows):
                h, w = min(height, 512), min(width, 512)
                row, column = int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1))
                scale = theirs.level_downsamples[level]
                at = (round(column * scale), round(row * scale))
                if round(at[0] / scale) != column or round(at[1] / scale) != row:
                    continue
                got = ours.read(level, row, column, h, w)[:, :, 0]
                shown = np.asarray(theirs.read_region(at, level, (w, h)))
                if whole is not None:
                    assert np.array_equal(whole[row : row + h, column : column + w], got), "tifffile differs"
                if scale == int(scale):
                    assert np.array_equal(shown[:, :, 0], got), "OpenSlide differs"
                    assert shown[:, :, 3].min() == 255, "OpenSlide sees holes"
                    compared += 1
    return {"levels": len(ours.levels), "mpp": ours.mpp, "windows": compared}


def areas(mask: Path, polygons: Path) -> tuple[int, int, int]:
    """Foreground pixels of a mask, sum of the polygons' own shoelace areas, number of polygons."""
    source, pixels = open_image(mask), 0
    for row in range(0, source.shape[0], 512):
        pixels += int(np.count_nonzero(source.read(0, row, 0, min(512, source.shape[0] - row))))
    opened = gzip.open if polygons.suffix == ".gz" else open
    total = count = 0
    with opened(polygons, "rt") as file:  # one feature a line
        for line in file:
            if not line.startswith('{"type":"Feature",'):
                continue
            rings = json.loads(line.rstrip(",\n"))["geometry"]["coordinates"]
            for ring in rings:
                x, y = np.array(ring, np.int64).T
                total += int(np.sum(x[:-1] * y[1:] - x[1:] * y[:-1]))  # holes turn the other way
            count += 1
    return pixels, abs(total) // 2, count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=20_000, help="of the training and test slides")
    parser.add_argument("--large", type=int, default=0, help="side of one more slide that is only predicted")
    parser.add_argument("--minutes", type=float, default=4.0, help="CPU minutes of training")
    parser.add_argument("--work", type=Path, default=None, help="folder for slides and runs, kept")
    parser.add_argument("--out", type=Path, default=None, help="folder for the note")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        work = options.work or Path(temporary)
        work.mkdir(parents=True, exist_ok=True)
        make_set(work / "train", TRAINING, options.side)
        make_set(work / "test", TESTING, options.side)
        recipe = work / "slides.yaml"
        recipe.write_text(json.dumps(RECIPE))
        minutes = f"train.max_cpu_minutes={options.minutes}"
        steps = [run("train", "--recipe", recipe, "--data", work / "train", "--out", work / "run", "--set", minutes)]
        images, masks = work / "test" / "images", work / "masks"
        steps.append(run("predict", work / "run", images, "--out", masks, "--geojson", "gz", "--probabilities"))
        steps.append(run("evaluate", work / "run", "--data", work / "test", "--out", work / "scores"))
        scores = json.loads((work / "scores" / "summary.json").read_text())
        checks = {}
        for path in sorted(masks.glob("*.tif")):
            pixels, area, count = areas(path, path.with_suffix("").with_suffix(".geojson.gz"))
            checks[path.name] = {**same_everywhere(path), "pixels": pixels, "area": area, "polygons": count}
            assert pixels == area, f"{path.name}: {pixels} pixels, {area} in polygons"
        if options.large:
            slide = work / "large" / "slide.tif"
            if not slide.exists():
                write_gland_slide(slide, None, shape=(options.large, options.large), mpp=0.5, seed=21)
            steps.append(run("predict", work / "run", slide, "--out", work / "large-masks", "--geojson", "gz"))
            found = work / "large-masks" / "slide.tif"
            pixels, area, count = areas(found, work / "large-masks" / "slide.geojson.gz")
            checks["large"] = {**same_everywhere(found, 20), "pixels": pixels, "area": area, "polygons": count}
            assert pixels == area, f"large: {pixels} pixels, {area} in polygons"
    report(options, steps, checks, scores)


def report(options: argparse.Namespace, steps: list[dict[str, Any]], checks: dict[str, Any], scores: Any) -> None:
    """The table, and the note where one is wanted."""
    head = f"{platform.platform()}, {os.cpu_count()} threads, Python {platform.python_version()}"
    lines = [f"Dice {scores['foreground_mean']['Dice']:.4f} over {scores['num_cases']} slides of {options.side}²", ""]
    lines += ["| command | seconds | CPU seconds | peak MiB | exit |", "|---|---|---|---|---|"]
    lines += [
        f"| `{s['command']}` | {s['seconds']:.0f} | {s['cpu_seconds']:.0f} | {s['peak_mib']:.0f} | {s['code']} |"
        for s in steps
    ]
    lines += [
        "",
        "| mask | levels | mpp | windows compared | pixels = polygon area | polygons |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {name} | {c['levels']} | {c['mpp']:.4g} | {c['windows']} | {c['pixels']:,} = {c['area']:,} "
        f"| {c['polygons']:,} |"
        for name, c in checks.items()
    ]
    print("\n".join(lines))
    if options.out is not None:
        name = options.out / f"{date.today()}-slides"
        command = (
            f"`python benchmarks/slides.py --side {options.side} --large {options.large} --minutes {options.minutes}`"
        )
        text = ["# Slides from files to masks", "", f"{command}; {head}.", "", *lines, ""]
        name.with_suffix(".md").write_text("\n".join(text))
        kept = [{k: v for k, v in s.items() if k != "text"} for s in steps]
        name.with_suffix(".json").write_text(json.dumps({"steps": kept, "checks": checks, "scores": scores}, indent=1))


if __name__ == "__main__":
    main()
