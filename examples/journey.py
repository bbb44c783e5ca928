"""The journey in one picture: image → detail map → forest → patches → what a mask can show of it.

    python examples/journey.py --out docs/images/journey.png [--image IMAGE --mask MASK]

Without an image it cuts a simulated X-ray slice of a road core.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np

import patchforest as pf
from patchforest.data.roadcore import ROADCORE_CLASSES, make_roadcore
from patchforest.io.label import read_label
from patchforest.io.write import write_image
from patchforest.report.forest_picture import draw_forest
from patchforest.report.overlay import draw_overlay
from patchforest.tree.ceiling import label_shares

SIDE = 400


def main() -> None:
    """Draw the five panels side by side."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", default="journey.png")
    parser.add_argument("--image")
    parser.add_argument("--mask")
    parser.add_argument("--budget", type=int, default=400)
    arguments = parser.parse_args()
    if arguments.image:
        image = pf.open_image(arguments.image).read()
        mask = read_label(Path(arguments.mask)) if arguments.mask else np.zeros(image.shape[:2], np.uint8)
        classes = int(mask.max()) + 1
    else:
        image, mask = make_roadcore((512, 512), seed=7)
        classes = len(ROADCORE_CLASSES)
        image = image[..., None]

    detail = pf.detail_map(image, cell=8)
    forest = pf.build_forest(detail, cell=8, shape=image.shape[:2], budget=arguments.budget)
    sequence = pf.gather(image, forest, patch=8)
    shares, _ = label_shares(mask.astype(np.int64), forest, 16, max(classes, 2))
    best = pf.paint(shares, forest).argmax(0).astype(np.uint8)
    print(f"{len(forest)} leaves for {image.shape[0]} x {image.shape[1]} pixels; a uniform grid of 8 has {detail.size}")
    print(f"label ceiling at q = 16: {pf.label_ceiling(mask.astype(np.int64), forest, 16):.4f}")

    rgb = np.repeat(image, 3, axis=2) if image.shape[2] == 1 else image[..., :3]
    strip = sequence.patches.transpose(0, 2, 3, 1).clip(0, 255).astype(np.uint8)
    strip = np.repeat(strip, 3, axis=3) if strip.shape[3] == 1 else strip[..., :3]
    per_row = int(np.ceil(np.sqrt(len(strip))))
    tiles = np.full((per_row * per_row, 9, 9, 3), 255, np.uint8)
    tiles[: len(strip), :8, :8] = strip
    mosaic = tiles.reshape(per_row, per_row, 9, 9, 3).transpose(0, 2, 1, 3, 4).reshape(per_row * 9, per_row * 9, 3)
    heat = cv2.applyColorMap((255 * np.sqrt(detail / max(detail.max(), 1))).astype(np.uint8), cv2.COLORMAP_VIRIDIS)
    panels = [rgb, heat[..., ::-1], draw_forest(rgb, forest, opacity=1.0, dim=0.6), mosaic, draw_overlay(rgb, best)]
    sized = [cv2.resize(np.ascontiguousarray(p), (SIDE, SIDE), interpolation=cv2.INTER_AREA) for p in panels]
    gap = np.full((SIDE, 12, 3), 255, np.uint8)
    write_image(Path(arguments.out), np.hstack([part for p in sized for part in (p, gap)][:-1]))


if __name__ == "__main__":
    main()
