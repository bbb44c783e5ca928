"""Small labelled volumes on disk."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from patchforest.data.layout import Case


def make_volumes(folder: Path, shapes: tuple[tuple[int, int, int], ...], classes: int = 3) -> tuple[Case, ...]:
    """Volumes (uint8) whose value is 80 x class plus noise below 20; balls of every class."""
    rng = np.random.default_rng(3)
    folder.mkdir(parents=True, exist_ok=True)
    cases = []
    for number, shape in enumerate(shapes):
        label = np.zeros(shape, np.uint8)
        place = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1)
        for k in range(2 * (classes - 1)):
            centre, radius = rng.uniform(0.2, 0.8, 3) * shape, 0.12 * max(shape) + 2
            label[np.linalg.norm(place - centre, axis=-1) < radius] = 1 + k % (classes - 1)
        image = (80 * label + rng.integers(0, 20, shape)).astype(np.uint8)
        np.save(folder / f"i{number}.npy", image)
        np.save(folder / f"m{number}.npy", label)
        cases.append(Case(f"v{number}", folder / f"i{number}.npy", folder / f"m{number}.npy"))
    return tuple(cases)
