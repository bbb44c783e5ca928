"""Patching on a GPU: detail map, forest, gather and paint of large images, and their share of a training step.

    python benchmarks/patching_gpu.py --side 4096 --batch 4 --budget 4096 --out patching_gpu.json

Every stage runs on tensors that already lie on the device, after a warm-up, timed by CUDA events around each of
``--repeat`` runs; the median counts. A gigapixel is 10^9 level-0 pixels of the images, whatever a stage looks at. The
training step is APF-UNETR of ViT-B's size (bfloat16 autocast, forward, loss, backward, AdamW) whose forests are cut
afresh from its images within the step; ``share`` is the time of detail and forest in a step, and the time of all four
stages over that of the step. Prints JSON. Without a GPU it says so and ends; ``--device cpu --side 512`` runs a small
network.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from datetime import date

import torch

from patchforest.models.build import apf_unetr
from patchforest.nn.detail import detail_map_batch
from patchforest.nn.forest import build_forest_batch
from patchforest.nn.raster import ForestBatch, gather_batch, paint_batch
from patchforest.train.losses import segmentation_loss

DEFAULTS = {
    "side": (4096, 512), "batch": (4, 2), "budget": (4096, 256), "cell": (8, 8), "repeat": (20, 3),
    "width": (768, 96), "depth": (12, 2), "heads": (12, 3),
}  # fmt: skip
"""Settings on a GPU, where they mean something, and on a CPU, where they show that the script works."""


def pictures(batch: int, side: int, device: str) -> torch.Tensor:
    """(B, 3, side, side) uint8: smooth ground, round shapes of every size and a little noise, seeded."""
    random = torch.Generator().manual_seed(0)
    coarse = torch.rand((batch, 3, 9, 9), generator=random).to(device)
    out = torch.nn.functional.interpolate(coarse, (side, side), mode="bicubic") * 90 + 60
    at = torch.arange(side, device=device)
    for _ in range(60):
        row, column, radius, shade = torch.rand(4, generator=random).tolist()
        radius = 2 + radius**3 * side / 6
        inside = (at[:, None] - row * side).square() + (at - column * side).square() < radius**2
        out += inside * (shade - 0.5) * 120
    out += torch.randn((1, 1, side, side), device=device) * 2
    return out.clamp_(0, 255).to(torch.uint8)


def median_seconds(work: Callable[[], object], device: str, repeat: int, warm_up: int = 3) -> float:
    """Median seconds of one run, device included."""
    for _ in range(warm_up if device == "cuda" else 1):
        work()
    taken = []
    for _ in range(repeat):
        if device == "cuda":
            start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            torch.cuda.synchronize()
            start.record()
            work()
            end.record()
            torch.cuda.synchronize()
            taken.append(start.elapsed_time(end) / 1000)
        else:
            begun = time.perf_counter()
            work()
            taken.append(time.perf_counter() - begun)
    return statistics.median(taken)


def stages(images: torch.Tensor, given: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Seconds and gigapixels a second of every stage for the whole batch, and the device memory it takes."""
    side = images.shape[-1]
    cut = {"shape": (side, side), "cell": given.cell, "budget": given.budget}
    maps = detail_map_batch(images, given.cell)
    forest = build_forest_batch(maps, **cut)
    floats = images.float() / 255
    values = torch.rand((*forest.size_BL.shape, 1, 2 * given.cell, 2 * given.cell), device=images.device)
    work: dict[str, Callable[[], object]] = {
        "detail": lambda: detail_map_batch(images, given.cell),
        "detail_canny": lambda: detail_map_batch(images, given.cell, criterion="canny"),
        "forest": lambda: build_forest_batch(maps, **cut),
        "gather": lambda: gather_batch(floats, alone(forest), given.cell),
        "paint": lambda: paint_batch(values, alone(forest), "bilinear"),
    }
    out = {}
    for name, run in work.items():
        if given.device == "cuda":
            torch.cuda.reset_peak_memory_stats()
        held = torch.cuda.memory_allocated() if given.device == "cuda" else 0
        seconds = median_seconds(run, given.device, given.repeat)
        out[name] = {"seconds": seconds, "gigapixels_per_second": len(images) * side * side / seconds / 1e9}
        if given.device == "cuda":
            out[name]["peak_bytes"] = torch.cuda.max_memory_allocated() - held
    return out


def alone(forest: ForestBatch) -> ForestBatch:
    """The forest as another stage would meet it first: nothing of it remembered."""
    return forest.to(forest.size_BL.device)


def training(images: torch.Tensor, given: argparse.Namespace) -> dict[str, float]:
    """Seconds of a step that cuts its own forests, and of its parts that cut."""
    side = images.shape[-1]
    model = apf_unetr(width=given.width, depth=given.depth, heads=given.heads, cell=given.cell).to(images.device)
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-4)
    floats, label = images.float() / 255, (images[:, 0] > 128).long()

    def cut() -> ForestBatch:
        maps = detail_map_batch(images, given.cell)
        return build_forest_batch(maps, shape=(side, side), cell=given.cell, budget=given.budget)

    def step() -> None:
        forest = cut()
        optimiser.zero_grad(set_to_none=True)
        with torch.autocast(images.device.type, torch.bfloat16):
            output = model.output(floats, forest)
        segmentation_loss(output, label).backward()
        optimiser.step()

    whole = median_seconds(step, given.device, max(given.repeat // 2, 1))
    return {"step_seconds": whole, "detail_and_forest_seconds": median_seconds(cut, given.device, given.repeat)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    for name, (gpu, cpu) in DEFAULTS.items():
        parser.add_argument(f"--{name}", type=int, help=f"default {gpu}, on a CPU {cpu}")
    parser.add_argument("--out", help="JSON file to write as well")
    given = parser.parse_args()
    for name, values in DEFAULTS.items():
        if getattr(given, name) is None:
            setattr(given, name, values[given.device == "cpu"])
    if given.device == "cuda" and not torch.cuda.is_available():
        print("no GPU here; use --device cpu --side 512 for a look at the script")
        return
    images = pictures(given.batch, given.side, given.device)
    parts = stages(images, given)
    step = training(images, given)
    four = sum(parts[name]["seconds"] for name in ("detail", "forest", "gather", "paint"))
    result = {
        "date": date.today().isoformat(),
        "device": torch.cuda.get_device_name() if given.device == "cuda" else platform.processor() or "CPU",
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "settings": {k: v for k, v in vars(given).items() if k != "out"},
        "stages": parts,
        "all_stages_gigapixels_per_second": given.batch * given.side**2 / four / 1e9,
        "training": step,
        "share_of_detail_and_forest": step["detail_and_forest_seconds"] / step["step_seconds"],
        "share_of_all_stages": four / step["step_seconds"],
    }
    text = json.dumps(result, indent=2)
    print(text)
    if given.out:
        with open(given.out, "w", encoding="utf-8") as file:
            file.write(text + "\n")


if __name__ == "__main__":
    main()
