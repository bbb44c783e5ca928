"""From an image to its full-resolution mask with a trained model: the same road as in training, without the dice.

image → (the model's scale) → unit range → one forest, or one a window → network → blended probabilities → mask of
exactly the image's size.
"""

from __future__ import annotations

import contextlib
import itertools
import time
import warnings
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from patchforest.errors import InputError
from patchforest.infer.blend import blended_rows
from patchforest.infer.scorer import scorer_of
from patchforest.infer.windows import MEMORY, plan_grid
from patchforest.infer.working import Tissue, WorkingImage, as_source
from patchforest.io.open import open_image
from patchforest.models.build import has_fixed_window
from patchforest.models.bundle import Bundle, load_model
from patchforest.models.refined import Refined
from patchforest.nn.raster import ForestBatch
from patchforest.tree.cut import cut_forest
from patchforest.tree.forest import FlatGround
from patchforest.values import Array, Forest, ImageSource, Region

SMALLEST = 32
"""Images with a shorter side are padded to it by their edge pixels, inside; the mask has the image's own size. For a
network with a fixed window (``models.build.has_fixed_window``) that window stands in its place."""

FLIPS = ((), (0,), (1,), (0, 1))


@dataclass(frozen=True, eq=False)
class Prediction:
    """What a model says about one image.

    Attributes
    ----------
    mask : (H, W) uint8 (uint16 from 257 classes on) class numbers, at exactly the image's size.
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
    image: Array | ImageSource | str | Path,
    *,
    probabilities: bool = False,
    trees: int = 1,
    flips: bool = False,
    window: str | int = "auto",
    precision: str = "fp32",
    tissue: bool | None = None,
) -> Prediction:
    """The mask of an image of any size, by a model (loaded, or its folder).

    For images whose mask does not fit into memory see ``infer.slide.predict_slide``.

    Parameters
    ----------
    image : (H, W, C) or (H, W) array with values as in the training files, an ``ImageSource``, or the path of an image
        file. A model that was trained at so many microns per pixel needs a source that states its own.
    probabilities : return them as well; they cost K × H × W floats.
    trees : average over so many forests: the fixed one, then random ones (the test-time forest of SHF).
    flips : average over the image and its three mirror images.
    window : ``"whole"``, a side in (down-scaled) pixels, or ``"auto"``; see ``infer.windows.plan_grid``. Windows
        overlap by a quarter and are blended. A network with a fixed window sees windows of its own at ``"auto"``.
    precision : ``fp32``, ``bf16`` or ``fp16`` autocast.
    tissue : leave windows without tissue out, as background; None: as the model was trained.

    Raises
    ------
    InputError : the image cannot be read, or has other channels or values than the model was trained on; the model
        answers with NaN.
    ValueError : unknown ``window`` or ``precision``, ``trees`` below 1.
    MemoryError : the window does not fit into memory.
    """
    bundle = load_model(Path(model)) if isinstance(model, str | Path) else model
    name = str(image) if isinstance(image, str | Path) else "image"
    if bundle.spec.of_images:
        raise InputError(name, f"the model {bundle.spec.model.name} gives classes, not masks", "use infer.classify")
    if isinstance(image, str | Path):
        image = open_image(Path(image))
    source = image if isinstance(image, ImageSource) else as_source(np.asarray(image), name)
    start = time.perf_counter()
    working = WorkingImage(source, bundle.spec, name)
    outputs = num_outputs(bundle)
    limit = MEMORY if window == "auto" else 1 << 62
    fixed = has_fixed_window(bundle.network)
    grid = plan_grid(working.frame, window, bundle.spec.window, outputs, memory=limit, fixed=fixed, path=name)
    found = working.tissue() if (bundle.spec.tissue if tissue is None else tissue) else None
    seer = Seer(bundle, working, trees=trees, flips=flips, precision=precision, keep=True)
    shape = (source.shape[0], source.shape[1])
    full = np.empty((outputs, *shape), np.float32) if probabilities else None
    mask = np.empty(shape, class_dtype(outputs))
    rows = blended_rows(grid, seer.answers(grid, found), outputs)
    for first, band in working.enlargement.bands(rows):
        mask[first : first + band.shape[1]] = hard(band)
        if full is not None:
            full[:, first : first + band.shape[1]] = band
    looked = [region for region in grid if found is None or found.within(region)]
    seen = tuple(in_image(r, f, working.enlargement.factor, shape) for r, f in zip(looked, seer.forests, strict=True))
    return Prediction(mask, full, seen, seer.tokens, time.perf_counter() - start)


def num_outputs(bundle: Bundle) -> int:
    """K: 1 for two classes, else as many as there are classes."""
    return 1 if len(bundle.spec.classes) == 2 else len(bundle.spec.classes)


def hard(probability: Array) -> Array:
    """Class numbers (n, w) of probabilities (K, n, w), K = 1 for that of one foreground class."""
    numbers = probability[0] > 0.5 if len(probability) == 1 else probability.argmax(0)
    return numbers.astype(class_dtype(len(probability)))


def class_dtype(outputs: int) -> type[np.uint8] | type[np.uint16]:
    """Of a mask: uint8, and uint16 from 257 classes on."""
    return np.uint8 if outputs <= 256 else np.uint16


class Seer:
    """A model's answers to windows of an image, the next window being read while it computes.

    Attributes
    ----------
    tokens : leaves read so far, all trees and flips together.
    forests : the first forest of every window so far, None for models without; kept only where asked for.
    """

    def __init__(
        self, bundle: Bundle, image: WorkingImage, *, trees: int, flips: bool, precision: str, keep: bool = False
    ) -> None:
        if trees < 1:
            raise ValueError(f"trees must be at least 1; got {trees}")
        autocast_type(precision)
        self._bundle, self._image, self._trees, self._flips = bundle, image, trees, 4 if flips else 1
        self._precision, self._keep = precision, keep
        self.tokens, self.forests = 0, []  # type: int, list[Forest | None]

    def answers(self, grid: Iterable[Region], tissue: Tissue | None = None) -> Iterator[Array | None]:
        """(K, h, w) float32 of every window, None for one without tissue where a mask of it is given."""
        regions = list(grid)
        wanted = [tissue is None or tissue.within(region) for region in regions]
        if len(regions) == 1 and wanted[0]:
            yield self._answer(self._image.read(regions[0]), regions[0])
            return
        with ThreadPoolExecutor(1, thread_name_prefix="patchforest-read") as reader:
            ahead: deque[Future[Array]] = deque()
            coming = iter([region for region, want in zip(regions, wanted) if want])
            for region in itertools.islice(coming, 1):
                ahead.append(reader.submit(self._image.read, region))
            try:
                for region, want in zip(regions, wanted):
                    if not want:
                        yield None
                        continue
                    pixels = ahead.popleft().result()
                    for following in itertools.islice(coming, 1):
                        ahead.append(reader.submit(self._image.read, following))
                    yield self._answer(pixels, region)
            finally:
                reader.shutdown(cancel_futures=True)

    def _answer(self, pixels: Array, region: Region) -> Array:
        try:
            with inference(self._bundle.network, self._precision), warnings.catch_warnings():
                if region.shape != self._image.frame:  # one window of many
                    warnings.simplefilter("ignore", FlatGround)
                values, used, tokens = _window(
                    self._bundle, pixels, (*region.origin, *self._image.frame), self._trees, self._flips
                )
        except RuntimeError as error:  # PyTorch has no other word for a full memory of the CPU
            if "memory" not in str(error).lower():
                raise
            raise MemoryError(f"not enough memory for {region.shape} pixels at a time; set a window") from None
        if not np.isfinite(values).all():
            hint = "use --precision fp32, or look at the model: it may have diverged"
            raise InputError(self._image.path, f"the model's answer is not finite at {region.origin}", hint)
        self.tokens += tokens
        if self._keep:
            self.forests.append(used[0])
        return values


@contextlib.contextmanager
def inference(network: nn.Module, precision: str = "fp32") -> Iterator[None]:
    """Evaluation mode, no gradients, autocast at a precision; the network's mode is restored after."""
    device, training = _device(network).type, network.training
    cast = torch.autocast(device, autocast_type(precision), enabled=precision != "fp32")
    network.eval()
    try:
        with torch.inference_mode(), cast:
            yield
    finally:
        network.train(training)


def autocast_type(precision: str) -> torch.dtype:
    """The type of a precision's name; ValueError for another name."""
    types = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    if precision not in types:
        raise ValueError(f"precision must be one of {', '.join(types)}; got {precision!r}")
    return types[precision]


def _window(
    bundle: Bundle, image: Array, place: tuple[int, ...], trees: int, flips: int
) -> tuple[Array, list[Forest | None], int]:
    """Mean probabilities (K, h, w) of one window over trees and flips, the forests cut for them, and leaves read."""
    total, used, tokens = None, [], 0
    trained, fixed = bundle.spec.window, has_fixed_window(bundle.network)
    least = (SMALLEST, SMALLEST) if not fixed else (trained, trained) if isinstance(trained, int) else trained
    for flip in FLIPS[:flips]:
        turned = _padded(np.flip(image, flip), least)
        for tree in range(trees if bundle.spec.forest is not None else 1):
            values, forest, read = _forward(bundle, turned, place, tree)
            tokens += read
            values = np.flip(values[:, : image.shape[0], : image.shape[1]], tuple(a + 1 for a in flip))
            total = values.copy() if total is None else total + values
            used.append(forest)
    assert total is not None
    total *= np.float32(1 / len(used))
    return total, used, tokens


def _forward(bundle: Bundle, image: Array, place: tuple[int, ...], tree: int) -> tuple[Array, Forest | None, int]:
    """Probabilities (K, h, w) float32 through one forest, that forest, and the leaves read, those of both looks.

    Tree 0 is the fixed one, others are seeded by number.
    """
    device, forest, batch = _device(bundle.network), None, None
    if bundle.spec.forest is not None:
        rng = np.random.default_rng(tree) if tree else None
        forest = cut_forest(image, bundle.spec.forest, rng=rng, criterion=scorer_of(bundle))
        batch = ForestBatch.stack([forest], place=torch.tensor([place], dtype=torch.float32), device=device)
    pixels = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))[None].to(device)
    logits, read = _ask(bundle.network, pixels, batch)
    tokens = 0 if forest is None else len(forest)
    if isinstance(bundle.network, Refined) and read is not None:
        forest = read.unstack()[0]
        tokens = len(forest) + tokens * bundle.network.reads_first
    values = logits.sigmoid() if len(logits) == 1 else logits.softmax(0)
    return values.cpu().numpy(), forest, tokens


def _ask(network: nn.Module, pixels: Tensor, batch: ForestBatch | None) -> tuple[Tensor, ForestBatch | None]:
    """Logits (K, h, w) float32 of one image, and the forest that was read: of a network that looks twice the second."""
    if not isinstance(network, Refined):
        return network(pixels, batch)[0].float(), batch
    assert batch is not None
    output = network.output(pixels, batch)
    return output.raster(batch.shape)[0].float(), output.forest


def _padded(image: Array, least: tuple[int, int]) -> Array:
    over = [(0, max(n - s, 0)) for n, s in zip(least, image.shape[:2])]
    return np.pad(image, [*over, (0, 0)], mode="edge") if any(b for _, b in over) else image


def in_image(
    region: Region, forest: Forest | None, factor: tuple[float, float], shape: tuple[int, int]
) -> tuple[Region, Forest | None]:
    """A window and its forest in pixels of the image, ``factor`` times larger; leaves on padding alone are left out.

    None for the forest where the factor is not whole: its leaves then have no whole sides in the image.
    """
    step = round(factor[0])
    origin = tuple(round(o * f) for o, f in zip(region.origin, factor))
    size = tuple(min(round(s * f), n - o) for s, f, n, o in zip(region.shape, factor, shape, origin))
    if forest is None or factor != (step, step):
        return Region(origin, size), None
    corner = forest.origin * step
    keep = (corner < np.array(size)).all(axis=1)
    scaled = Forest(
        corner[keep], forest.size[keep] * step, forest.level[keep], size, forest.root * step, forest.cell * step
    )
    return Region(origin, size), scaled


def _device(network: nn.Module) -> torch.device:
    return next((p.device for p in network.parameters()), torch.device("cpu"))
