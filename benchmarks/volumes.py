"""Volumes by octrees, by uniform cubes and slice by slice, each trained for the same CPU time in the same run.

    python benchmarks/volumes.py --data DATA --minutes 1 --seeds 0 1 --jobs 2

Two sets, both far too small for claims about accuracy; what they can show is how the contenders compare on a budget.

- ``em``: fly nerve cord, sections 1 to 16 train, 17 to 20 test. The label "intracellular" (3/4 of all voxels) takes the
  place of background, so that membrane, number 0 in the file, counts as a class.
- ``ct``: one torso of 3 mm trains, one chest of another scanner tests; organs that both hold in groups.
  ``ct_small_3mm`` is a part of the torso and not used.

Octree and uniform cubes read the same number of tokens in training and in test and differ in nothing else. Slice-wise
models read the same volumes on the same working grid. Every score is of the last weights at the stored voxels; beside
it stands the best that the forest and its output grid allow (ceiling), and the best that the working grid allows.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path

import numpy as np

REPO = Path(__file__).resolve().parents[1]
LR, BATCH, WARMUP = 3e-3, 4, 0.05


@dataclass(frozen=True)
class Set:
    """A set: its classes by label values (background takes the others), its grid and how it is varied."""

    groups: dict[str, tuple[int, ...]]
    background: str
    window: tuple[int, int, int]
    slice_window: int
    mirror: tuple[int, ...]
    turn: float
    downscale: tuple[int, int, int] = (1, 1, 1)
    spacing: tuple[float, float, float] | None = None
    intensity: tuple[float, float] | None = None

    @property
    def classes(self) -> tuple[str, ...]:
        """Names in order of their numbers."""
        return (self.background, *self.groups)

    @property
    def labels(self) -> dict[int | str, int]:
        """Value in the file → class number."""
        return {"other": 0, **{v: k for k, values in enumerate(self.groups.values(), 1) for v in values}}


EM = Set(
    groups={"membrane": (0,), "junction": (1,), "glia": (2,), "mitochondria": (3,), "synapse": (4,)},
    background="intracellular",
    window=(4, 128, 128),
    slice_window=128,
    mirror=(0, 1, 2),
    turn=0.75,
    downscale=(1, 4, 4),
)
CT_GROUPS = {
    "liver": ("liver",),
    "spleen": ("spleen",),
    "gut": ("stomach", "small_bowel", "duodenum", "colon"),
    "bone": ("vertebrae", "rib", "hip", "femur", "sacrum", "humerus"),
    "back muscles": ("autochthon",),
}


def ct_set(folder: Path) -> Set:
    """The CT set, its groups looked up in ``labels.json``."""
    names = {int(k): v for k, v in json.loads((folder / "labels.json").read_text()).items()}
    groups = {
        group: tuple(k for k, name in names.items() if name.startswith(starts)) for group, starts in CT_GROUPS.items()
    }
    return Set(
        groups=groups,
        background="background",
        window=(16, 64, 64),
        slice_window=96,
        mirror=(2,),
        turn=0.0,
        spacing=(3.0, 3.0, 3.0),
        intensity=(-200.0, 300.0),
    )


CONTENDERS = ("octree", "uniform cubes", "slices, APF-UNETR", "slices, U-Net")


def worker(arguments: argparse.Namespace) -> None:
    """Train and score one contender on one set; prints one line of JSON."""
    import torch

    from patchforest.data.augment import Augment
    from patchforest.data.layout import Case
    from patchforest.data.samples import collate
    from patchforest.data.slices import SliceSamples
    from patchforest.data.volumes import VolumeSamples, factors_of
    from patchforest.infer.volume import predict_volume
    from patchforest.io.volume import open_volume
    from patchforest.io.volume_label import read_label_volume
    from patchforest.models.build import build_model
    from patchforest.models.bundle import Bundle, ModelSpec
    from patchforest.models.config import ModelConfig, VolumeSpec
    from patchforest.nn.raster import ForestBatch
    from patchforest.train.losses import segmentation_loss
    from patchforest.train.schedule import lr_factor
    from patchforest.train.volume_scores import ceiling_of_windows, score_volume
    from patchforest.tree.volume import working_shape
    from patchforest.values import ForestPolicy

    torch.set_num_threads(1)
    torch.manual_seed(arguments.seed)
    folder, scratch = Path(arguments.data), Path(arguments.scratch)
    if arguments.set == "em":
        chosen = EM
        image = open_volume(folder / "em_drosophila_vnc" / "raw.tif").read()[..., 0]
        label = read_label_volume(folder / "em_drosophila_vnc" / "labels.tif")
        split = 12 if arguments.tune else 16
        parts = {"train": slice(0, split), "test": slice(split, split + 4)}
        cases = []
        for name, planes in parts.items():
            files = [scratch / f"{name}{arguments.tune}_{kind}.npy" for kind in ("image", "label")]
            for file, array in zip(files, (image, label)):
                if not file.exists():
                    part = file.with_suffix(f".{os.getpid()}.npy")
                    np.save(part, array[planes])
                    part.rename(file)
            cases.append(Case(name, *files))
        train, test = cases
    else:
        root = folder / "ct_totalseg"
        chosen = ct_set(root)
        train, test = (
            Case(n, root / "images" / f"{n}.nii.gz", root / "labels" / f"{n}.nii.gz")
            for n in ("ct_torso_3mm", "ct_chest_512")
        )
    classes, cells = len(chosen.classes), int(np.prod([-(-s // 8) for s in chosen.window]))
    grid = VolumeSpec(chosen.window, chosen.downscale, chosen.spacing)
    volumetric = arguments.contender in CONTENDERS[:2]
    policy: ForestPolicy | None
    if volumetric:
        model = ModelConfig(
            "shf", 1, classes, width=128, depth=4, heads=4, patch=4, cell=4, q=arguments.q,
            stem=tuple(arguments.stem), spatial=3, embedding=arguments.embedding,
        )  # fmt: skip
        policy = ForestPolicy(criterion="gradient", cell=4, root=16, budget=cells)
        if arguments.contender == "uniform cubes":
            policy = ForestPolicy(cell=4, root=16, uniform=8)
    elif arguments.contender == "slices, APF-UNETR":
        model = ModelConfig("apf_unetr", 1, classes)
        policy = ForestPolicy(criterion="gradient", budget=256, window=128, root=64)
        grid = replace(grid, axes=(0,))
    else:
        model, policy = ModelConfig("unet", 1, classes, width=16, depth=4), None
        grid = replace(grid, axes=(0,))
    vary = Augment(affine=0.0, blur=0.0, turn=chosen.turn, flip=0.5 if volumetric or chosen.turn else 0.0)
    common = {
        "policy": policy, "samples_per_epoch": 1 << 40, "seed": arguments.seed, "augment": vary,
        "label_map": chosen.labels, "num_classes": classes, "intensity_window": chosen.intensity,
        "downscale": grid.downscale, "spacing": grid.spacing,
    }  # fmt: skip
    if volumetric:
        samples = VolumeSamples([train], window=chosen.window, mirror=chosen.mirror, **common)
    else:
        samples = SliceSamples([train], axes=(0,), window=chosen.slice_window, **common)
    network = build_model(model)
    optimizer = torch.optim.AdamW(network.parameters(), lr=arguments.lr, weight_decay=0.05)
    batch = BATCH if volumetric else 2 * BATCH
    steps, budget, start = 0, 60 * arguments.minutes, time.process_time()
    losses: list[float] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # flat windows have too little detail for the budget
        while (spent := time.process_time() - start) < budget:
            for group in optimizer.param_groups:
                group["lr"] = arguments.lr * lr_factor(spent / budget, warmup=WARMUP, schedule="cosine")
            drawn = collate([samples[steps * batch + i] for i in range(batch)])
            forest = ForestBatch.stack(drawn.forests, place=drawn.place) if drawn.forests else None
            with torch.autocast("cpu", torch.bfloat16):
                output = network.output(drawn.image, forest)
            loss = segmentation_loss(output, drawn.label)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            losses.append(float(loss.detach()))
            steps += 1
        trained = time.process_time() - start
        source, truth = open_volume(test.image), read_label_volume(test.label, label_map=chosen.labels)
        factors = factors_of(source, downscale=grid.downscale, spacing=grid.spacing)
        shape = working_shape(source.shape[:3], factors)
        if volumetric and policy is not None and policy.budget is not None:  # as many tokens as the uniform grid
            wanted = np.prod([-(-s // 8) for s in shape])
            policy = replace(policy, budget=round(wanted * np.prod(chosen.window) / np.prod(shape)))
        spec = ModelSpec(model, policy, chosen.classes, intensity_window=chosen.intensity, window=chosen.slice_window)
        before = time.process_time()
        seen = chosen.window if volumetric and arguments.embedding == "window" else "whole"
        said = predict_volume(Bundle(network.eval(), spec), source, window=seen, precision="bf16", grid=grid)
        seconds = time.process_time() - before
    scores = score_volume(said.mask, truth, classes, spacing=source.spacing)
    alone = ceiling_of_windows(truth, (), factors, None, classes)
    ceiling = ceiling_of_windows(truth, said.windows, factors, arguments.q, classes) if volumetric else alone
    print(
        json.dumps(
            {
                "Dice": float(np.mean([s.dice for s in scores[1:]])),
                "BF": float(np.mean([s.boundary_f for s in scores[1:]])),
                "per_class": {n: s.dice for n, s in zip(chosen.classes, scores)},
                "ceiling": dict(zip(chosen.classes, ceiling)) if volumetric else None,
                "grid_ceiling": dict(zip(chosen.classes, alone)),
                "tokens": said.tokens,
                "predict_cpu_seconds": seconds,
                "cpu_seconds": trained,
                "steps": steps,
                "last_loss": float(np.mean(losses[-20:])),
                "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
                "parameters": sum(p.numel() for p in network.parameters()),
            }
        )
    )


def run(job: tuple[str, str, int], arguments: argparse.Namespace) -> dict:
    """One contender in a process of its own, on one thread."""
    name, contender, seed = job
    command = [
        sys.executable, __file__, "--worker", "--data", arguments.data, "--set", name, "--contender", contender,
        "--seed", str(seed), "--minutes", str(arguments.minutes), "--scratch", arguments.scratch, "--q",
        str(arguments.q), "--stem", *map(str, arguments.stem), "--lr", str(arguments.lr),
        "--embedding", arguments.embedding,
        *(["--tune"] if arguments.tune else []),
    ]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise SystemExit(f"{name}, {contender}, seed {seed} failed:\n{done.stderr[-2000:]}")
    result = json.loads(done.stdout.strip().splitlines()[-1])
    per_class = " ".join(f"{v:.3f}" for v in result["per_class"].values())
    print(
        f"{name:3s} {contender:18s} seed {seed}: Dice {result['Dice']:.4f} ({per_class}), {result['steps']} steps, "
        f"loss {result['last_loss']:.3f}",
        flush=True,
    )
    return {"set": name, "contender": contender, "seed": seed, **result}


def note(results: list[dict], arguments: argparse.Namespace) -> str:
    """The Markdown note of a run."""
    import torch

    lines = [
        f"# Volumes at equal CPU time, {date.today()}",
        "",
        f"{platform.machine()}, {os.cpu_count()} shared cores, no GPU, one thread a run; Python "
        f"{platform.python_version()}, torch {torch.__version__}. {arguments.minutes:g} CPU minutes of training each "
        f"(data and forests included), bf16, learning rate {arguments.lr:g}, stem {arguments.stem}, q {arguments.q}, "
        f"embedding {arguments.embedding} of the octree models.",
        f"Command: `python benchmarks/volumes.py --data DATA --sets {' '.join(arguments.sets)} --minutes "
        f"{arguments.minutes:g} --seeds {' '.join(map(str, arguments.seeds))} --lr {arguments.lr:g} --q {arguments.q} "
        f"--stem {' '.join(map(str, arguments.stem))} --embedding {arguments.embedding}`.",
        "",
        "Dice at the stored voxels of the one test volume, last weights, mean over seeds. `mean` is over all classes "
        "but the first (each seed in brackets). BF: surface F at 2 columns' widths. Ceilings: the best any model can "
        "reach through that forest and q, and through the working grid alone. CPU seconds to predict the test volume.",
    ]
    for name in arguments.sets:
        mine = [r for r in results if r["set"] == name]
        classes = list(mine[0]["per_class"])
        lines += [
            "", f"## {name}", "",
            f"| contender | mean (seeds) | {' | '.join(classes)} | BF | tokens | CPU s | steps | parameters |",
            "|" + "---|" * (len(classes) + 7),
        ]  # fmt: skip
        for contender in dict.fromkeys(r["contender"] for r in mine):
            rows = sorted((r for r in mine if r["contender"] == contender), key=lambda r: r["seed"])
            each = [f"{np.mean([r['per_class'][c] for r in rows]):.3f}" for c in classes]
            means = {k: np.mean([r[k] for r in rows]) for k in ("Dice", "BF", "tokens", "predict_cpu_seconds", "steps")}
            seeds = " ".join(f"{r['Dice']:.3f}" for r in rows)
            lines.append(
                f"| {contender} | {means['Dice']:.3f} ({seeds}) | {' | '.join(each)} | {means['BF']:.3f} | "
                f"{means['tokens']:.0f} | {means['predict_cpu_seconds']:.1f} | {means['steps']:.0f} | "
                f"{rows[0]['parameters'] / 1e6:.2f} M |"
            )
        for title, key, contender in (
            ("ceiling, octree", "ceiling", CONTENDERS[0]),
            ("ceiling, uniform", "ceiling", CONTENDERS[1]),
            ("ceiling, working grid", "grid_ceiling", None),
        ):
            found = [r[key] for r in mine if contender in (None, r["contender"])]
            if found:
                best = [found[0][c] for c in classes]
                cells = " | ".join("–" if v is None else f"{v:.3f}" for v in best)
                mean = np.mean([v for v in best[1:] if v is not None])
                lines.append(f"| *{title}* | {mean:.3f} | {cells} | | | | | |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run every contender on every set with every seed, then write the note."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="folder that holds ct_totalseg/ and em_drosophila_vnc/")
    parser.add_argument("--sets", nargs="+", default=["em", "ct"], choices=("em", "ct"))
    parser.add_argument("--contenders", nargs="+", default=list(CONTENDERS), choices=CONTENDERS)
    parser.add_argument("--minutes", type=float, default=1.0, help="CPU minutes of training each")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--lr", type=float, default=LR)
    parser.add_argument("--q", type=int, default=4)
    parser.add_argument("--stem", nargs="*", type=int, default=[8, 16])
    parser.add_argument("--embedding", default="place", choices=("place", "window"), help="of the octree models")
    parser.add_argument("--out", default=str(REPO / "benchmarks" / "results"))
    parser.add_argument("--tune", action="store_true", help="em: train on sections 1 to 12, score 13 to 16; no note")
    for hidden in ("--set", "--contender", "--scratch"):
        parser.add_argument(hidden, help=argparse.SUPPRESS)
    parser.add_argument("--seed", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        worker(arguments)
        return
    jobs = [(s, c, seed) for seed in arguments.seeds for s in arguments.sets for c in arguments.contenders]
    with tempfile.TemporaryDirectory() as scratch, ThreadPoolExecutor(arguments.jobs) as pool:
        arguments.scratch = scratch
        results = list(pool.map(lambda job: run(job, arguments), jobs))
    if arguments.tune:
        return
    out = Path(arguments.out)
    out.mkdir(parents=True, exist_ok=True)
    stem = out / f"{date.today()}-volumes"
    stem.with_suffix(".json").write_text(json.dumps(results, indent=1))
    stem.with_suffix(".md").write_text(note(results, arguments))
    print(stem.with_suffix(".md").read_text())


if __name__ == "__main__":
    main()
