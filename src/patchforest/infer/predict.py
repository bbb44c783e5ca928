"""From an image to its full-resolution mask with a trained model: the same road as in training, without the dice.

image → unit range → (area-averaged down-scaling) → one forest, or one a window → network → probabilities → mask of
exactly the image's size.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from patchforest.errors import InputError
from patchforest.infer.windows import blend_weights, cover
from patchforest.io.open import open_image
from patchforest.models.bundle import Bundle, ModelSpec, load_model
from patchforest.nn.raster import ForestBatch
from patchforest.tree.cut import cut_forest
from patchforest.tree.window import unit_range
from patchforest.values import Array, Forest, Region

SMALLEST = 32
"""Images with a shorter side are padded to it by their edge pixels, inside; the mask has the image's own size."""

FLIPS = ((), (0,), (1,), (0, 1))


@dataclass(frozen=True, eq=False)
class Prediction:
    """What a model says about one image.

    Attributes
    ----------
    mask : (H, W) uint8 class numbers, at exactly the image's size.
    probability : (K, H, W) float32, K = 1 for two classes (that of the foreground); None unless asked for.
    windows : what was seen at a time: the part of the image (level-0 pixels) and the forest cut there, in pixels of
        that part; None for models without a forest. The first of several trees or flips.
    tokens : leaves read by the network, all windows, trees and flips together; 0 for models without a forest.
    seconds : from the pixels in memory to the mask.
    """

    mask: Array
    probability: Array | None
    windows: tuple[tuple[Region, Forest | None], ...]
    tokens: int
    seconds: float

    @property
    def forest(self) -> Forest | None:
        """The forest over the whole image, where one window saw all of it."""
        return self.windows[0][1] if len(self.windows) == 1 else None


def predict(
    model: Bundle | str | Path,
    image: Array | str | Path,
    *,
    probabilities: bool = False,
    trees: int = 1,
    flips: bool = False,
    window: str | int = "auto",
    precision: str = "fp32",
) -> Prediction:
    """The mask of an image of any size, by a model (loaded, or its folder).

    Parameters
    ----------
    image : (H, W, C) or (H, W) array with values as in the training files, or the path of an image file.
    probabilities : return them as well; they cost K × H × W floats.
    trees : average over so many forests: the fixed one, then random ones (the test-time forest of SHF).
    flips : average over the image and its three mirror images.
    window : ``"whole"``, a side in (down-scaled) pixels, or ``"auto"``; see ``infer.windows.cover``. Windows overlap by
        a quarter and are blended, so memory is bounded by K × H × W floats and one window.
    precision : ``fp32``, ``bf16`` or ``fp16`` autocast.

    Raises
    ------
    InputError : the image cannot be read, or has other channels or values than the model was trained on.
    ValueError : unknown ``window`` or ``precision``, ``trees`` below 1.
    MemoryError : the window does not fit into memory.
    """
    bundle = load_model(Path(model)) if isinstance(model, str | Path) else model
    name = str(image) if isinstance(image, str | Path) else "image"
    pixels = open_image(Path(image)).read() if isinstance(image, str | Path) else np.asarray(image)
    if trees < 1:
        raise ValueError(f"trees must be at least 1; got {trees}")
    start = time.perf_counter()
    spec = bundle.spec
    unit = prepare(pixels, spec, name)
    regions = cover(unit.shape[:2], window, spec.window)
    try:
        with inference(bundle.network, precision):
            probability, forests, tokens = _run(bundle, unit, regions, trees, 4 if flips else 1)
    except RuntimeError as error:  # PyTorch has no other word for a full memory of the CPU
        if "memory" not in str(error).lower():
            raise
        raise MemoryError(f"{name}: not enough memory for {regions[0].shape} pixels at a time; set a window") from None
    full = _enlarge(probability, spec.downscale, pixels.shape[:2])
    mask = (full[0] > 0.5).astype(np.uint8) if len(full) == 1 else full.argmax(0).astype(np.uint8)
    seen = tuple(_in_image(r, f, spec.downscale, pixels.shape[:2]) for r, f in zip(regions, forests))
    return Prediction(mask, full if probabilities else None, seen, tokens, time.perf_counter() - start)


def prepare(pixels: Array, spec: ModelSpec, name: str = "image") -> Array:
    """(h, w, C) float32 in [0, 1]: the image as the network sees it, down-scaled by exact area averages.

    Raises
    ------
    InputError : wrong number of axes or channels, no pixels, or values without a known range.
    """
    pixels = pixels[..., None] if pixels.ndim == 2 else pixels
    if pixels.ndim != 3 or min(pixels.shape) < 1:
        raise InputError(name, f"has shape {pixels.shape}, not (height, width, channels)", "give a 2-D image")
    if pixels.shape[2] != spec.model.channels:
        given = f"has {pixels.shape[2]} channels, the model was trained on {spec.model.channels}"
        raise InputError(name, given, "convert the image, or use a model for such images")
    try:
        unit = unit_range(pixels, spec.intensity_window)
    except ValueError as error:
        raise InputError(name, str(error), "give values as in the training images") from None
    return shrink(unit, spec.downscale)


def shrink(image: Array, factor: int) -> Array:
    """(ceil(h / f), ceil(w / f), C) means of f × f blocks; the far edges are repeated where a block reaches over."""
    if factor == 1:
        return image
    height, width, channels = image.shape
    rows, columns = -(-height // factor), -(-width // factor)
    over = ((0, rows * factor - height), (0, columns * factor - width), (0, 0))
    whole = np.pad(image, over, mode="edge") if any(b for _, b in over) else image
    small = cv2.resize(whole, (columns, rows), interpolation=cv2.INTER_AREA)
    return small.reshape(rows, columns, channels)


@contextlib.contextmanager
def inference(network: nn.Module, precision: str = "fp32") -> Iterator[None]:
    """Evaluation mode, no gradients, autocast at a precision; the network's mode is restored after."""
    types = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    if precision not in types:
        raise ValueError(f"precision must be one of {', '.join(types)}; got {precision!r}")
    device, training = _device(network).type, network.training
    cast = torch.autocast(device, types[precision], enabled=precision != "fp32")
    network.eval()
    try:
        with torch.inference_mode(), cast:
            yield
    finally:
        network.train(training)


def _run(
    bundle: Bundle, unit: Array, regions: tuple[Region, ...], trees: int, flips: int
) -> tuple[Array, list[Forest | None], int]:
    """Blended probabilities (K, h, w), the first forest of every window, and the number of tokens."""
    forests: list[Forest | None] = []
    frame, tokens = unit.shape[:2], 0
    canvas, total = None, np.zeros(frame, np.float32)
    for region in regions:
        box = tuple(slice(o, o + s) for o, s in zip(region.origin, region.shape))
        values, used = _window(bundle, unit[box], (*region.origin, *frame), trees, flips)
        forests.append(used[0])
        tokens += sum(len(f) for f in used if f is not None)
        if len(regions) == 1:
            return values, forests, tokens
        if canvas is None:
            canvas = np.zeros((len(values), *frame), np.float32)
        weight = blend_weights(region.shape)
        canvas[(slice(None), *box)] += values * weight
        total[box] += weight
    assert canvas is not None
    canvas /= total
    return canvas, forests, tokens


def _window(
    bundle: Bundle, image: Array, place: tuple[int, ...], trees: int, flips: int
) -> tuple[Array, list[Forest | None]]:
    """Mean probabilities (K, h, w) of one window over trees and flips, and the forests cut for them."""
    total, used = None, []
    for flip in FLIPS[:flips]:
        turned = _padded(np.flip(image, flip))
        for tree in range(trees if bundle.spec.forest is not None else 1):
            values, forest = _forward(bundle, turned, place, tree)
            values = np.flip(values[:, : image.shape[0], : image.shape[1]], tuple(a + 1 for a in flip))
            total = values.copy() if total is None else total + values
            used.append(forest)
    assert total is not None
    total *= np.float32(1 / len(used))
    return total, used


def _forward(bundle: Bundle, image: Array, place: tuple[int, ...], tree: int) -> tuple[Array, Forest | None]:
    """Probabilities (K, h, w) float32 through one forest; tree 0 is the fixed one, others are seeded by number."""
    device, forest, batch = _device(bundle.network), None, None
    if bundle.spec.forest is not None:
        rng = np.random.default_rng(tree) if tree else None
        forest = cut_forest(image, bundle.spec.forest, rng=rng)
        batch = ForestBatch.stack([forest], place=torch.tensor([place], dtype=torch.float32), device=device)
    pixels = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))[None].to(device)
    logits: Tensor = bundle.network(pixels, batch)[0].float()
    values = logits.sigmoid() if len(logits) == 1 else logits.softmax(0)
    return values.cpu().numpy(), forest


def _padded(image: Array) -> Array:
    over = [(0, max(SMALLEST - s, 0)) for s in image.shape[:2]]
    return np.pad(image, [*over, (0, 0)], mode="edge") if any(b for _, b in over) else image


def _enlarge(probability: Array, factor: int, shape: tuple[int, ...]) -> Array:
    """(K, H, W): every value spread over its factor × factor block, bilinear, cropped to the image."""
    if factor == 1:
        return probability
    size = (probability.shape[2] * factor, probability.shape[1] * factor)
    full = np.empty((len(probability), *shape), np.float32)
    for k, plane in enumerate(probability):
        full[k] = cv2.resize(plane, size, interpolation=cv2.INTER_LINEAR)[: shape[0], : shape[1]]
    return full


def _in_image(
    region: Region, forest: Forest | None, factor: int, shape: tuple[int, ...]
) -> tuple[Region, Forest | None]:
    """A window and its forest in level-0 pixels; leaves that only cover padding are left out."""
    origin = tuple(o * factor for o in region.origin)
    size = tuple(min(s * factor, n - o) for s, n, o in zip(region.shape, shape, origin))
    if forest is None:
        return Region(origin, size), None
    corner = forest.origin * factor
    keep = (corner < np.array(size)).all(axis=1)
    scaled = Forest(
        corner[keep], forest.size[keep] * factor, forest.level[keep], size, forest.root * factor, forest.cell * factor
    )
    return Region(origin, size), scaled


def _device(network: nn.Module) -> torch.device:
    return next((p.device for p in network.parameters()), torch.device("cpu"))
