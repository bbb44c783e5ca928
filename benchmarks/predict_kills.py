"""A folder of slides with bad ones among them: what is done, what is listed, and what a kill in the middle costs.

    python benchmarks/predict_kills.py --slides 200 --bad 8 --kills 20

Writes small pyramidal slides, spoils some in as many ways, and runs ``patchforest predict`` on the folder with a tiny
untrained model: once undisturbed; once more, which should touch the bad ones alone; and once into another folder,
killed with SIGKILL at random moments until it ends. The two folders of masks have to be equal to the byte.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

REPO = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPO))

from tests.gland_slides import World  # noqa: E402

from patchforest.io.pyramid import write_pyramid  # noqa: E402
from patchforest.models.build import build_model  # noqa: E402
from patchforest.models.bundle import ModelSpec, save_model  # noqa: E402
from patchforest.models.config import ModelConfig  # noqa: E402
from patchforest.values import ForestPolicy  # noqa: E402

SHAPE = (1100, 900)


def write_slide(path: Path, seed: int) -> None:
    """A slide of 1,100 x 900 pixels at half a micron, in tiles, with two levels."""
    world = World(seed, (SHAPE[0] * 0.5, SHAPE[1] * 0.5))
    y, x = ((np.arange(n) + 0.5 + 37 * seed) * 0.5 for n in SHAPE)
    colours, _ = world.look(y, x)
    noise = np.random.default_rng(seed).normal(0, 4, colours.shape)
    pixels = np.clip(colours + noise, 0, 255).astype(np.uint8)
    write_pyramid(path, [pixels], shape=SHAPE, dtype=np.uint8, mpp=0.5, kind="image")


def spoil(folder: Path, number: int) -> list[str]:
    """Make ``number`` of the slides bad, each in another way; their ids."""
    grey = np.zeros(SHAPE, np.uint8)
    ways: list[Callable[[Path], object]] = [
        lambda p: p.write_bytes(p.read_bytes()[: p.stat().st_size // 2]),
        lambda p: p.write_bytes(b""),
        lambda p: p.write_text("<html><body>404</body></html>"),
        lambda p: p.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"),
        lambda p: write_pyramid(p, [grey], shape=SHAPE, dtype=np.uint8, mpp=0.5, kind="image"),
        lambda p: p.write_bytes(bytes(v ^ (255 * (i > 4000)) for i, v in enumerate(p.read_bytes()))),
        lambda p: p.write_bytes(os.urandom(5000)),
        lambda p: (p.unlink(), p.symlink_to(p.name)),
    ]
    names = sorted(p.name for p in folder.iterdir())
    chosen = names[:: max(1, len(names) // number)][:number]
    for name, way in zip(chosen, (ways * number)[:number]):
        way(folder / name)
    return [Path(name).stem for name in chosen]


def predict(model: Path, slides: Path, out: Path, log: Path) -> subprocess.Popen[bytes]:
    """The command, started."""
    command = [sys.executable, "-m", "patchforest", "predict", model, slides, "--out", out, "--window", "256"]
    command += ["--geojson", "plain", "--threads", "1"]
    with open(log, "wb") as file:
        return subprocess.Popen([str(c) for c in command], stdout=file, stderr=subprocess.STDOUT)


def outputs(out: Path) -> dict[str, str]:
    """SHA-256 of every mask, overlay and polygon file."""
    return {
        p.relative_to(out).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(out.rglob("*"))
        if p.is_file() and ".state" not in p.parts and not p.name.startswith("predictions")
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slides", type=int, default=200)
    parser.add_argument("--bad", type=int, default=8)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        model, slides, log = work / "model", work / "slides", work / "log"
        slides.mkdir()
        for k in range(options.slides):
            write_slide(slides / f"slide_{k:03d}.tif", k)
        bad = spoil(slides, options.bad)
        torch.manual_seed(options.seed)
        config = ModelConfig(name="shf", width=16, depth=1, heads=2, stem=(8, 8))
        policy = ForestPolicy(budget=256, window=512)
        save_model(model, build_model(config), ModelSpec(config, policy, ("background", "gland"), window=256))

        start = time.perf_counter()
        code = predict(model, slides, work / "calm", log).wait()
        first = time.perf_counter() - start
        told = json.loads((work / "calm" / "predictions.json").read_text())
        listed = sorted(k for k, v in told["items"].items() if v["status"] == "failed")
        print(f"undisturbed: {told['done']} done, {told['failed']} listed, exit {code}, {first:.0f} s")
        for name in listed:
            print(f"  {name}: {told['items'][name]['reason'][-150:]}")
        assert (code, told["done"], listed) == (4, options.slides - options.bad, sorted(bad)), log.read_text()[-3000:]

        before = {p: p.stat().st_mtime_ns for p in (work / "calm").rglob("*.tif")}
        start = time.perf_counter()
        code = predict(model, slides, work / "calm", log).wait()
        untouched = all(p.stat().st_mtime_ns == t for p, t in before.items())
        print(f"again: exit {code}, finished masks untouched: {untouched}, {time.perf_counter() - start:.0f} s")
        assert code == 4
        assert untouched

        rng, kills = random.Random(options.seed), 0
        while True:
            job = predict(model, slides, work / "killed", log)
            wait = rng.uniform(2, 2 + 2 * first / max(options.kills, 1)) if kills < options.kills else None
            try:
                code = job.wait(wait)
                break
            except subprocess.TimeoutExpired:
                job.kill()
                job.wait()
                kills += 1
        same = outputs(work / "calm") == outputs(work / "killed")
        litter = [p for p in (work / "killed").rglob("*") if p.name.startswith(".patchforest-") or p.suffix == ".parts"]
        print(f"killed {kills} times: exit {code}, equal to the byte: {same}, files left over: {len(litter)}")
        assert same
        assert code == 4
        assert not litter, litter


if __name__ == "__main__":
    main()
