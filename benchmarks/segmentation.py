"""Adaptive tokens, uniform tokens and U-Nets on real images, each trained for the same CPU time in the same run.

    python benchmarks/segmentation.py --data DATA --sets glas hrf idrid --cpu-minutes 2 --seeds 0 1 --jobs 2

For every set its recipe in ``recipes/`` is the adaptive contender; the others change what their line below says and
nothing else. Every contender gets the same CPU minutes of one thread (data pipeline and forests included, validation
not), the same windows in level-0 pixels, augmentation, learning rate and optimiser. Scores are means over validation
images of the full-resolution masks of the *last* weights, so nothing is chosen by looking at the validation images.
Writes a dated Markdown note and a JSON file into ``--out``.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from pathlib import Path

import numpy as np

REPO = Path(__file__).resolve().parents[1]
COLUMNS = ("Dice", "BoundaryF2", "ceiling", "tokens", "seconds")


def contenders(recipe: dict) -> dict[str, list[str]]:
    """Overrides of a recipe for every contender."""
    data, forest = recipe["data"], recipe["forest"]
    scale, window = data["downscale"], data["window"]
    side = forest["cell"]
    while (window // side) ** 2 > forest["budget"]:
        side *= 2

    def unet(down: int) -> list[str]:
        return [
            "model.name=unet", "model.width=16", "model.depth=4",
            f"data.downscale={down}", f"data.window={window * scale // down}",
        ]  # fmt: skip

    return {
        "adaptive, paint readout": [],
        f"uniform {side * scale} px, paint readout": [f"forest.uniform={side}"],
        "adaptive, token readout (SHF)": ["model.name=shf"],
        "U-Net 1x": unet(1),
        "U-Net 2x": unet(2),
        "U-Net 4x": unet(4),
    }


def work(recipe: str, data: str, out: str, overrides: list[str]) -> None:
    """Train one contender and score it on its validation cases; prints one line of JSON."""
    from patchforest.data.layout import find_cases
    from patchforest.models.bundle import load_model
    from patchforest.train.config import load_config
    from patchforest.train.evaluate import evaluate
    from patchforest.train.fit import fit, split

    config = load_config(recipe, overrides)
    start = time.process_time()
    fit(config, data, out, quiet=True)
    trained = time.process_time() - start
    _, validation = split(find_cases(Path(data), layout=config.data.layout), config)
    bundle = load_model(Path(out) / "last")
    evaluate(bundle, validation, Path(out) / "scores", label_map=config.data.label_map, precision="bf16")
    summary = json.loads((Path(out) / "scores" / "summary.json").read_text())
    done = json.loads((Path(out) / "done.json").read_text())
    mean = summary["foreground_mean"]
    print(
        json.dumps(
            {
                **{c: mean[c] for c in COLUMNS},
                "per_case": {c["id"]: c["Dice"] for c in summary["metric_per_case"]},
                "per_class": {summary["classes"][k]: v["Dice"] for k, v in summary["mean"].items()},
                "cpu_seconds": trained,
                "steps": done.get("steps"),
                "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
                "parameters": sum(p.numel() for p in bundle.network.parameters()),
            }
        )
    )


def run(job: tuple[str, str, int, list[str]], arguments: argparse.Namespace) -> dict:
    """One contender in a process of its own, on one thread."""
    name, contender, seed, overrides = job
    folder = Path(arguments.runs) / name / contender.replace(" ", "_").replace(",", "") / f"seed{seed}"
    overrides = [
        *overrides, f"train.seed={seed}", f"train.max_cpu_minutes={arguments.cpu_minutes}",
        "train.threads=1", "train.validate_cases=0",
    ]  # fmt: skip
    command = [
        sys.executable, __file__, "--worker", str(REPO / "recipes" / f"{name}.yaml"),
        str(Path(arguments.data) / name.split("_")[0]), str(folder), *overrides,
    ]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    start = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise SystemExit(f"{name}, {contender}, seed {seed} failed:\n{done.stderr[-2000:]}")
    result = json.loads(done.stdout.strip().splitlines()[-1])
    print(f"{name:8s} {contender:34s} seed {seed}: Dice {result['Dice']:.4f}, {result['steps']} steps", flush=True)
    return {"set": name, "contender": contender, "seed": seed, "wall": time.perf_counter() - start, **result}


def note(results: list[dict], arguments: argparse.Namespace) -> str:
    """The Markdown note of a run."""
    import torch

    lines = [
        f"# Segmentation at equal CPU time, {date.today()}",
        "",
        f"{platform.machine()}, {os.cpu_count()} cores, no GPU, {arguments.jobs} runs at a time of one thread each; "
        f"Python {platform.python_version()}, torch {torch.__version__}. {arguments.cpu_minutes:g} CPU minutes of "
        "training each, bf16; recipes in `recipes/`.",
        f"Command: `python benchmarks/segmentation.py --data DATA --sets {' '.join(arguments.sets)} --cpu-minutes "
        f"{arguments.cpu_minutes:g} --seeds {' '.join(map(str, arguments.seeds))} --jobs {arguments.jobs}`.",
        "",
        "Full-resolution masks of the last weights, mean over the validation images. Dice: mean over seeds (each "
        "seed). BF: boundary F at 2 px. Ceiling: best Dice the forest and its output grid allow. Tokens and seconds "
        "per image (one thread, bf16, from pixels to mask). One learning rate for all contenders (the recipe's).",
    ]
    for name in arguments.sets:
        mine = [r for r in results if r["set"] == name]
        cases = len(mine[0]["per_case"])
        lines += [
            "", f"## {name} ({cases} validation images)", "",
            "| contender | Dice (seeds) | BF | ceiling | tokens | s/image | steps | peak MiB | parameters |",
            "|---|---|---|---|---|---|---|---|---|",
        ]  # fmt: skip
        for contender in dict.fromkeys(r["contender"] for r in mine):
            rows = sorted((r for r in mine if r["contender"] == contender), key=lambda r: r["seed"])
            mean = {c: np.mean([r[c] for r in rows if r[c] is not None] or [np.nan]) for c in COLUMNS}
            seeds = " ".join(f"{r['Dice']:.3f}" for r in rows)
            lines.append(
                f"| {contender} | {mean['Dice']:.3f} ({seeds}) | {mean['BoundaryF2']:.3f} | {mean['ceiling']:.3f} "
                f"| {mean['tokens']:.0f} | {mean['seconds']:.2f} | {np.mean([r['steps'] for r in rows]):.0f} "
                f"| {max(r['peak_mib'] for r in rows):.0f} | {rows[0]['parameters'] / 1e6:.2f} M |"
            )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run every contender on every set with every seed, then write the note."""
    if sys.argv[1:2] == ["--worker"]:
        work(sys.argv[2], sys.argv[3], sys.argv[4], sys.argv[5:])
        return
    import yaml

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="folder that holds a folder for each set")
    parser.add_argument("--sets", nargs="+", default=["glas", "hrf", "idrid"], help="recipes by name")
    parser.add_argument("--cpu-minutes", type=float, default=2.0)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--runs", default="runs/benchmark", help="where the run folders go")
    parser.add_argument("--out", default=str(REPO / "benchmarks" / "results"))
    arguments = parser.parse_args()
    jobs = []
    for seed in arguments.seeds:
        for name in arguments.sets:
            recipe = yaml.safe_load((REPO / "recipes" / f"{name}.yaml").read_text())
            jobs += [(name, contender, seed, changes) for contender, changes in contenders(recipe).items()]
    with ThreadPoolExecutor(arguments.jobs) as pool:
        results = list(pool.map(lambda job: run(job, arguments), jobs))
    out = Path(arguments.out)
    out.mkdir(parents=True, exist_ok=True)
    stem = out / f"{date.today()}-segmentation"
    stem.with_suffix(".json").write_text(json.dumps(results, indent=1))
    stem.with_suffix(".md").write_text(note(results, arguments))
    print(stem.with_suffix(".md").read_text())


if __name__ == "__main__":
    main()
