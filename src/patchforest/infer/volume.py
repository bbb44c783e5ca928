"""From a volume to its mask at the stored voxels: by octrees of sub-volumes, or slice by slice and put together.

volume → unit range → block averages (working grid) → one octree, or one a sub-volume → network → probabilities,
blended → enlarged plane by plane → mask of exactly the volume's size. A model of images is given every slice along one
or more axes instead, and the probabilities of the axes are averaged.

Memory: the volume on the working grid, K probabilities a working voxel in float64, and one window.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from patchforest.errors import InputError
from patchforest.infer.predict import inference, predict
from patchforest.io.volume_array import ArrayVolume
from patchforest.models.bundle import Bundle, ModelSpec, load_model
from patchforest.models.config import VolumeSpec
from patchforest.nn.raster import ForestBatch
from patchforest.tree.volume import Factors, cut_volume, enlarged_planes, nearest_factors, read_working
from patchforest.values import Array, Forest, Region, VolumeSource

OVERLAP = 0.25
AUTO = 8
"""Volumes of more voxels than this many training windows are cut into windows when the choice is ``auto``."""

MIRRORS: tuple[tuple[int, ...], ...] = ((), (1,), (2,), (1, 2))

Window = str | int | tuple[int, int, int]


@dataclass(frozen=True, eq=False)
class VolumePrediction:
    """What a model says about one volume.

    Attributes
    ----------
    mask : (D, H, W) uint8 (uint16 from 257 classes on) class numbers, at exactly the volume's size.
    probability : (K, D, H, W) float32, K = 1 for two classes (that of the foreground); None unless asked for.
    windows : the sub-volumes that were seen at a time and the octree cut in each, in voxels of the working grid; None
        for models without a forest. The first of several trees or flips. Empty for slice-wise models.
    factors : voxels that make one voxel of the working grid, by axis.
    tokens : leaves read by the network, all windows or slices, trees and flips together.
    seconds : from opening to mask.
    """

    mask: Array
    probability: Array | None
    windows: tuple[tuple[Region, Forest | None], ...]
    factors: Factors
    tokens: int
    seconds: float

    @property
    def forest(self) -> Forest | None:
        """The octree over the whole volume, where one window saw all of it."""
        return self.windows[0][1] if len(self.windows) == 1 else None


def predict_volume(
    model: Bundle | str | Path,
    volume: VolumeSource | Array | str | Path,
    *,
    window: Window = "auto",
    trees: int = 1,
    flips: bool = False,
    probabilities: bool = False,
    precision: str = "fp32",
    axes: Sequence[int] | None = None,
    grid: VolumeSpec | None = None,
) -> VolumePrediction:
    """The mask of a volume of any size, by a model (loaded, or its folder) of volumes or of slices.

    Parameters
    ----------
    volume : an opened volume, an array (D, H, W) or (D, H, W, C) with values as in the training files, or a path.
    window : ``"whole"``: one octree over all of it; a side or (planes, rows, columns) in working voxels; ``"auto"``:
        windows of the training size where the volume has more voxels than eight of them. Windows overlap by a quarter
        and are blended. Slice-wise it goes to ``infer.predict.predict`` (words and sides).
    trees : average over so many forests: the fixed one, then random ones.
    flips : average over the volume and its three mirror images in the plane.
    probabilities : return them as well; they cost K × D × H × W floats.
    precision : ``fp32``, ``bf16`` or ``fp16`` autocast.
    axes : of a model of slices: the axes to slice along, in place of those it was trained on.
    grid : how the volume is given to the model, in place of what the model says (``volume_spec``).

    Raises
    ------
    InputError : the volume cannot be read, or has other channels or values than the model was trained on.
    ValueError : unknown ``window`` or ``precision``, ``trees`` below 1, ``axes`` for a model of volumes.
    MemoryError : a window does not fit into memory.
    """
    bundle = load_model(Path(model)) if isinstance(model, str | Path) else model
    name = str(volume) if isinstance(volume, str | Path) else "volume"
    spec, grid = bundle.spec, grid or volume_spec(bundle.spec)
    if trees < 1:
        raise ValueError(f"trees must be at least 1; got {trees}")
    if axes is not None and spec.model.spatial == 3:
        raise ValueError("axes are for models of slices; this one reads volumes")
    start = time.perf_counter()
    source = as_source(volume)
    factors = _factors(source, grid, name)
    unit = _read(source, factors, spec, name)
    try:
        if spec.model.spatial == 3:
            regions, lines = cover_volume(unit.shape[:3], window, grid.window)
            with inference(bundle.network, precision):
                job = _Job(bundle, grid.window, trees, MIRRORS if flips else MIRRORS[:1])
                values, forests, tokens = _run(job, unit, regions, lines)
            windows = tuple(zip(regions, forests))
        else:
            chosen = tuple(axes) if axes is not None else grid.axes or (0,)
            values, tokens = _slices(bundle, unit, chosen, window, trees, flips, precision)
            windows = ()
    except RuntimeError as error:  # PyTorch has no other word for a full memory of the CPU
        if "memory" not in str(error).lower():
            raise
        raise MemoryError(f"{name}: not enough memory for a window of it; set a smaller window") from None
    mask, full = _enlarge(values, factors, source.shape[:3], probabilities)
    return VolumePrediction(mask, full, windows, factors, tokens, time.perf_counter() - start)


def volume_spec(spec: ModelSpec) -> VolumeSpec:
    """How a model is given volumes: its own specification, or for models that have none, voxels as stored."""
    own = getattr(spec, "volume", None)
    return own if own is not None else VolumeSpec()


def as_source(volume: VolumeSource | Array | str | Path) -> VolumeSource:
    """An opened volume of what ``predict_volume`` takes; InputError for arrays of other than 3 or 4 axes."""
    if isinstance(volume, str | Path):
        from patchforest.io.volume import open_volume

        return open_volume(volume)
    if isinstance(volume, np.ndarray):
        return ArrayVolume(volume, "volume")
    return volume


def cover_volume(
    shape: tuple[int, ...], window: Window, trained: tuple[int, int, int]
) -> tuple[tuple[Region, ...], tuple[Array, ...]]:
    """Windows of one size that cover a volume (d, h, w) and overlap by about a quarter, and weights along their sides.

    A window's weights are the outer product of the three lines (float64, of its planes, rows and columns). Summed in
    float64 and rounded to float32, equal answers of overlapping windows blend to exactly that answer.

    Raises ValueError for an unknown word or a side below 1.
    """
    if isinstance(window, str):
        if window not in ("auto", "whole"):
            raise ValueError(f"window must be 'auto', 'whole', a side or three sides in voxels; got {window!r}")
        large = window == "auto" and math.prod(shape) > AUTO * math.prod(trained)
        wanted = trained if large else shape
    else:
        wanted = (window,) * 3 if isinstance(window, int) else window
    if len(wanted) != 3 or min(wanted) < 1:
        raise ValueError(f"a window has three sides of at least 1 voxel; got {window}")
    sides = tuple(min(w, s) for w, s in zip(wanted, shape))
    planes, rows, columns = (_starts(s, w) for s, w in zip(shape, sides))
    regions = tuple(Region((p, r, c), sides) for p in planes for r in rows for c in columns)
    return regions, tuple(_ramp(s) for s in sides)


def _factors(source: VolumeSource, grid: VolumeSpec, name: str) -> Factors:
    if grid.spacing is None:
        return grid.downscale
    if source.spacing is None:
        hint = "give --spacing, a file that does (NIfTI, NRRD, DICOM), or a model trained by downscale"
        raise InputError(name, f"does not say how large its voxels are; the model works at {grid.spacing} mm", hint)
    return nearest_factors(source.spacing, grid.spacing)


def _read(source: VolumeSource, factors: Factors, spec: ModelSpec, name: str) -> Array:
    if source.shape[3] != spec.model.channels:
        given = f"has {source.shape[3]} channels, the model was trained on {spec.model.channels}"
        raise InputError(name, given, "convert the volume, or use a model for such volumes")
    try:
        return read_working(source, factors, spec.intensity_window)
    except ValueError as error:
        if isinstance(error, InputError):
            raise
        raise InputError(name, str(error), "give values as in the training volumes") from None


@dataclass(frozen=True)
class _Job:
    """What is done in every window; ``budget_window`` is the shape that the octree's budget is meant for."""

    bundle: Bundle
    budget_window: tuple[int, int, int]
    trees: int
    mirrors: Sequence[tuple[int, ...]]


def _run(
    job: _Job, unit: Array, regions: tuple[Region, ...], lines: tuple[Array, ...]
) -> tuple[Array, list[Forest | None], int]:
    """Blended probabilities (K, d, h, w), the first octree of every window, and the number of tokens."""
    forests: list[Forest | None] = []
    frame, tokens = unit.shape[:3], 0
    canvas, total = None, np.zeros(frame)
    weight = lines[0][:, None, None] * lines[1][:, None] * lines[2]
    for region in regions:
        box = tuple(slice(o, o + s) for o, s in zip(region.origin, region.shape))
        values, used = _window(job, unit[box], (*region.origin, *frame))
        forests.append(used[0])
        tokens += sum(len(f) for f in used if f is not None)
        if len(regions) == 1:
            return values, forests, tokens
        if canvas is None:
            canvas = np.zeros((len(values), *frame))
        canvas[(slice(None), *box)] += values * weight
        total[box] += weight
    assert canvas is not None
    canvas /= total
    return canvas.astype(np.float32), forests, tokens


def _window(job: _Job, image: Array, place: tuple[int, ...]) -> tuple[Array, list[Forest | None]]:
    """Mean probabilities (K, d, h, w) of one window over trees and mirror images, and the octrees cut for them."""
    total, used = None, []
    for mirror in job.mirrors:
        turned = np.flip(image, mirror)
        for tree in range(job.trees if job.bundle.spec.forest is not None else 1):
            values, forest = _forward(job, turned, place, tree)
            values = np.flip(values, tuple(a + 1 for a in mirror))
            total = values.copy() if total is None else total + values
            used.append(forest)
    assert total is not None
    if len(used) > 1:
        total *= np.float32(1 / len(used))
    return total, used


def _forward(job: _Job, image: Array, place: tuple[int, ...], tree: int) -> tuple[Array, Forest | None]:
    """Probabilities (K, d, h, w) float32 through one octree; tree 0 is the fixed one, others are seeded by number."""
    bundle = job.bundle
    device, forest, batch = next((p.device for p in bundle.network.parameters()), torch.device("cpu")), None, None
    if bundle.spec.forest is not None:
        rng = np.random.default_rng(tree) if tree else None
        forest = cut_volume(image, bundle.spec.forest, job.budget_window, rng=rng)
        batch = ForestBatch.stack([forest], place=torch.tensor([place], dtype=torch.float32), device=device)
    voxels = torch.from_numpy(image.transpose(3, 0, 1, 2).copy())[None].to(device)  # mirrored views have odd strides
    logits: Tensor = bundle.network(voxels, batch)[0].float()
    values = logits.sigmoid() if len(logits) == 1 else logits.softmax(0)
    return values.cpu().numpy(), forest


def _slices(
    bundle: Bundle, unit: Array, axes: tuple[int, ...], window: Window, trees: int, flips: bool, precision: str
) -> tuple[Array, int]:
    """Probabilities (K, d, h, w) of every slice along the axes, averaged over these, and the number of tokens."""
    if isinstance(window, tuple):
        raise ValueError(f"slices take 'auto', 'whole' or a side as window; got {window}")
    if not axes or not set(axes) <= {0, 1, 2}:
        raise ValueError(f"axes must be some of 0 (plane), 1 (row) and 2 (column); got {axes}")
    flat = Bundle(network=bundle.network, spec=replace(bundle.spec, intensity_window=None))  # of a window's [0, 1]
    canvas, tokens = None, 0
    for axis in axes:
        for k in range(unit.shape[axis]):
            at = (slice(None),) * axis + (k,)
            said = predict(
                flat, unit[at], window=window, trees=trees, flips=flips, precision=precision, probabilities=True
            )
            assert said.probability is not None
            tokens += said.tokens
            if canvas is None:
                canvas = np.zeros((len(said.probability), *unit.shape[:3]), np.float32)
            canvas[(slice(None), *at)] += said.probability
    assert canvas is not None
    return canvas / np.float32(len(axes)), tokens


def _enlarge(values: Array, factors: Factors, shape: tuple[int, ...], keep: bool) -> tuple[Array, Array | None]:
    """Mask (D, H, W) and, where they are to be kept, probabilities (K, D, H, W)."""
    mask = np.empty(shape, np.uint8 if len(values) <= 256 else np.uint16)
    full = np.empty((len(values), *shape), np.float32) if keep else None
    for k, plane in enumerate(enlarged_planes(values, factors, shape)):
        mask[k] = plane[0] > 0.5 if len(plane) == 1 else plane.argmax(0)
        if full is not None:
            full[:, k] = plane
    return mask, full


def _starts(length: int, window: int) -> list[int]:
    steps = -(-(length - window) // max(round(window * (1 - OVERLAP)), 1))
    return [round(i * (length - window) / steps) for i in range(steps + 1)] if steps else [0]


def _ramp(length: int) -> Array:
    """float64 in (0, 1]: 1 in the middle, falling smoothly over the overlap towards both ends."""
    nearest = np.minimum(np.arange(length), np.arange(length)[::-1]) + 0.5
    reach = np.clip(nearest / max(OVERLAP * length, 1.0), 0.0, 1.0)
    return np.maximum(0.5 - 0.5 * np.cos(np.pi * reach), 1e-3)
