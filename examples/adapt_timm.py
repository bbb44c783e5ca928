"""A transformer of timm reads a forest: the same features on its own grid, and any image in fewer tokens.

    python examples/adapt_timm.py                      # needs the extra backbones
    python examples/adapt_timm.py --model vit_small_patch16_224 --weights model.safetensors

Without --weights the model is drawn at random; nothing is downloaded.
"""

from __future__ import annotations

import argparse

import numpy as np
import torch

import patchforest as pf
from patchforest.nn.compat import require
from patchforest.nn.raster import ForestBatch, gather_batch, paint_features


def main() -> None:
    parser = argparse.ArgumentParser(description="A timm vision transformer on a forest of patches.")
    parser.add_argument("--model", default="vit_tiny_patch16_224")
    parser.add_argument("--weights", help=".safetensors file of that model")
    arguments = parser.parse_args()

    timm = require("timm", user="this example", extra="backbones")
    torch.manual_seed(0)
    model = timm.create_model(arguments.model, num_classes=0).eval()
    if arguments.weights is not None:
        from safetensors.torch import load_file

        model.load_state_dict(load_file(arguments.weights), strict=False)
    side, size = model.patch_embed.patch_size[0], model.patch_embed.img_size[0]

    # On its own grid: a forest with every leaf of the patch that the model was made for.
    image = torch.rand(1, 3, size, size)
    grid = pf.build_forest(np.zeros((size // side,) * 2), shape=(size, size), cell=side, threshold=-1)
    forest = ForestBatch.stack([grid])
    mean, std = (torch.tensor(model.pretrained_cfg[k])[:, None, None] for k in ("mean", "std"))
    with torch.inference_mode():
        states, _ = pf.adapt(model, patch=side)(gather_batch(image, forest, side), forest)
        original = model.forward_features((image - mean) / std)[:, model.num_prefix_tokens :]
        painted = paint_features(states, forest, side).flatten(2).transpose(1, 2)  # leaves come in Z-order
    difference = float((painted - original).abs().max())
    print(f"{arguments.model}: {len(grid)} patches of {side}; largest difference to timm's features {difference:.1e}")

    # On an image of another size, with patches of 8 pixels: small leaves at the edges, large ones elsewhere.
    rows, columns = np.mgrid[:512, :768]
    picture = np.where((rows - 200) ** 2 + (columns - 300) ** 2 < 90**2, 200, 40).astype(np.uint8)
    picture = np.repeat(picture[..., None], 3, axis=2)
    leaves = pf.build_forest(pf.detail_map(picture, cell=8), shape=picture.shape[:2], cell=8, budget=256)
    forest = ForestBatch.stack([leaves])
    pixels = torch.from_numpy(picture).permute(2, 0, 1)[None] / 255
    with torch.inference_mode():
        states, taps = pf.adapt(model, patch=8)(gather_batch(pixels, forest, 8), forest)
    print(
        f"512 × 768 in {len(leaves)} leaves of {leaves.size.min()} to {leaves.size.max()} pixels instead of "
        f"{512 * 768 // 64} patches of 8: states {tuple(states.shape)}, {len(taps)} taps"
    )


if __name__ == "__main__":
    main()
