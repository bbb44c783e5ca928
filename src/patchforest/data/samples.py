"""Training samples: random windows of images, varied, each with the forest that is cut from it, and batches of them.

The whole sample is a function of (seed, epoch, index): the number of workers, the order in which they work and
earlier epochs change nothing.
"""

from __future__ import annotations

import signal
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from patchforest.data.augment import IGNORE, Augment, augment
from patchforest.data.layout import Case
from patchforest.data.load import LabelMap, Picture
from patchforest.data.pictures import open_picture
from patchforest.data.slides import SlidePicture
from patchforest.errors import InputError
from patchforest.io.array import ArraySource
from patchforest.io.scale import AS_STORED, Scale, thumbnail
from patchforest.tree.cut import cut_forest
from patchforest.tree.forest import FlatGround
from patchforest.tree.tissue import find_tissue
from patchforest.tree.window import unit_range
from patchforest.values import Array, Forest, ForestPolicy, NodeScorer

_MAX_PLACES = 2000  # remembered foreground pixels a class and image
TISSUE = -1
_OPEN = 16  # slides whose handles are kept


@dataclass(frozen=True, eq=False)
class Sample:
    """One window.

    Attributes
    ----------
    image : (C, h, w) float32 in [0, 1].
    label : (h, w) int16 class numbers; -1 = ignore. Without axes where the image has one class; see ``data.images``.
    forest : cut from this window, its lengths in pixels of the window; None without a policy.
    id : of the case.
    origin : (row, column) of the window's corner in the (down-scaled) image, before any augmentation.
    frame : (H, W) of that image.

    Of volumes all of them have one axis more in front; see ``data.volumes``.
    """

    image: Array
    label: Array
    forest: Forest | None
    id: str
    origin: tuple[int, ...]
    frame: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Batch:
    """Samples side by side.

    Attributes
    ----------
    image : (B, C, H, W) float32 in [0, 1].
    label : (B, H, W) int64; -1 = ignore. (B,) where each image has one class.
    forests : one a sample, or None.
    place : (B, 4) float32, row and column of the window's corner, height and width of its image, in pixels.
    ids : of the cases.
    """

    image: Tensor
    label: Tensor
    forests: tuple[Forest, ...] | None
    place: Tensor
    ids: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.ids)

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> Batch:
        """The batch with its tensors on a device; forests stay where they are."""
        moved = {
            name: getattr(self, name).to(device, non_blocking=non_blocking) for name in ("image", "label", "place")
        }
        return replace(self, **moved)

    def pin_memory(self) -> Batch:
        """The batch in page-locked memory (what ``DataLoader(pin_memory=True)`` calls)."""
        return replace(
            self,
            image=self.image.pin_memory(),
            label=self.label.pin_memory(),
            place=self.place.pin_memory(),
        )


@dataclass(frozen=True, eq=False)
class _Held:
    """A picture and what to look at in it: per class, flat positions of some of its pixels, in the order of
    ``picture.shape``; under ``TISSUE`` those of tissue.
    """

    picture: Picture | SlidePicture
    places: dict[int, Array]


class WindowSamples(Dataset[Sample]):
    """``samples_per_epoch`` random windows of some cases, as equally many from each case as can be.

    Parameters
    ----------
    cases : with masks.
    policy : how to cut the forest of each window after augmentation, at random if ``policy.fresh``; None: no forest.
    scorer : cuts the forests, where the policy's criterion is ``scorer``.
    window : side of the square windows, or their (height, width), in pixels of the down-scaled image. Smaller images
        are reflected at their far edges; the label is -1 there.
    seed : not negative.
    augment : None for windows as they are.
    label_map, num_classes : see ``io.read_label``.
    intensity_window : (low, high) of the images' own values that becomes 0 to 1; None: the full range of the dtype.
    downscale : work on images so many times smaller (area average; masks by majority).
    foreground : share of windows that hold a pixel of a class drawn evenly from the classes of the image except 0.
    scale : see images at this scale; see ``io.scale``.
    tissue : centre windows that are not drawn for a class on tissue, where the image is a stained slide.
    names : class names by number, for labels that are polygons.
    cache : keep decoded images in memory, in their own dtype; at most ``cache_bytes`` in each process, further images
        are read anew each time. Images over ``pictures.LARGE`` pixels are never held: windows are read when drawn.

    Raises
    ------
    InputError : on construction for cases without mask; on access for files that cannot be used.
    """

    def __init__(
        self,
        cases: Sequence[Case],
        *,
        policy: ForestPolicy | None,
        scorer: NodeScorer | None = None,
        window: int | tuple[int, int],
        samples_per_epoch: int,
        seed: int,
        augment: Augment | None = None,
        label_map: LabelMap | None = None,
        num_classes: int | None = None,
        intensity_window: tuple[float, float] | None = None,
        downscale: int = 1,
        scale: Scale = AS_STORED,
        tissue: bool = False,
        names: Sequence[str] | None = None,
        foreground: float = 0.5,
        cache: bool = True,
        cache_bytes: int = 2 << 30,
    ) -> None:
        if not cases:
            raise ValueError("no cases to draw windows from")
        self.window = (window, window) if isinstance(window, int) else window
        if min(self.window) < 1 or samples_per_epoch < 1 or downscale < 1 or seed < 0 or not 0 <= foreground <= 1:
            raise ValueError(
                "window, samples_per_epoch and downscale must be at least 1, seed not negative, foreground 0 to 1; got "
                f"{window}, {samples_per_epoch}, {downscale}, {seed}, {foreground}"
            )
        for case in cases:
            if case.label is None:
                raise InputError(case.image, "has no mask", "training needs one for every image")
        self.cases = tuple(cases)
        self.policy, self.scorer, self.augment = policy, scorer, augment
        self.samples_per_epoch, self.seed, self.foreground = samples_per_epoch, seed, foreground
        self.label_map = dict(label_map) if label_map is not None else None
        self.num_classes, self.intensity_window, self.downscale = num_classes, intensity_window, downscale
        self.scale, self.tissue, self.names = scale, tissue, None if names is None else tuple(names)
        self.cache_bytes = cache_bytes if cache else 0
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()  # seen by workers that live on
        self._held: dict[int, _Held] = {}
        self._held_bytes = 0
        self._found: dict[int, dict[int, Array]] = {}
        self._open: list[int] = []

    def __len__(self) -> int:
        return self.samples_per_epoch

    def set_epoch(self, epoch: int) -> None:
        """Which epoch the next samples belong to; counts from 0, reaches running workers as well."""
        if epoch < 0:
            raise ValueError(f"epoch counts from 0; got {epoch}")
        self._epoch.fill_(epoch)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_held": {}, "_held_bytes": 0, "_open": []}

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < self.samples_per_epoch:
            raise IndexError(f"sample {index} of {self.samples_per_epoch}")
        epoch = int(self._epoch)
        rng = np.random.default_rng([self.seed, epoch, index])
        number = case_number(self.seed, epoch, index, len(self.cases))
        held = self._load(number)
        frame = held.picture.shape
        origin = self._origin(held, rng)
        image, label = self._window(held.picture, origin, rng)
        forest = None
        if self.policy is not None:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", FlatGround)  # windows of nothing but ground are as they should be
                fresh = rng if self.policy.fresh else None
                forest = cut_forest(image, self.policy, rng=fresh, criterion=self.scorer)
        pixels = np.ascontiguousarray(unit_range(image).transpose(2, 0, 1))
        return Sample(pixels, label, forest, self.cases[number].id, origin, (int(frame[0]), int(frame[1])))

    def _load(self, number: int) -> _Held:
        if number in self._held:
            return self._held[number]
        picture = open_picture(
            self.cases[number],
            label_map=self.label_map,
            num_classes=self.num_classes,
            downscale=self.downscale,
            intensity_window=self.intensity_window,
            scale=self.scale,
            names=self.names,
        )
        if number not in self._found:
            self._found[number] = self._places(picture, np.random.default_rng([self.seed, number, 0, 2]))
        held = _Held(picture, self._found[number])
        if not picture.nbytes:
            self._open.append(number)
            self._held[number] = held
            if len(self._open) > _OPEN:
                del self._held[self._open.pop(0)]
        elif self._held_bytes + picture.nbytes <= self.cache_bytes:
            self._held[number] = held
            self._held_bytes += picture.nbytes
        return held

    def _places(self, picture: Picture | SlidePicture, rng: np.random.Generator) -> dict[int, Array]:
        coarse = picture.label if isinstance(picture, Picture) else picture.label.coarse()
        places = foreground_places(coarse, rng) if self.foreground > 0 else {}
        places = {k: _in_frame(at, coarse.shape, picture.shape) for k, at in places.items()}
        if self.tissue and self.foreground < 1:
            small = picture.tissue() if isinstance(picture, SlidePicture) else find_tissue(_shrunk(picture.image))
            if small.any() and not small.all():
                at = np.flatnonzero(small)
                at = np.sort(at[rng.integers(len(at), size=min(len(at), 10 * _MAX_PLACES))])
                places[TISSUE] = _in_frame(at, small.shape, picture.shape)
        return places

    def _origin(self, held: _Held, rng: np.random.Generator) -> tuple[int, int]:
        """Corner of a window inside the image (0 along axes shorter than the window)."""
        frame = held.picture.shape
        room = [max(0, s - w) for s, w in zip(frame, self.window)]
        classes = [k for k in held.places if k != TISSUE]
        chosen = None
        if classes and rng.random() < self.foreground:
            chosen = int(rng.choice(classes))
        elif TISSUE in held.places:
            chosen = TISSUE
        if chosen is not None:
            places = held.places[chosen]
            pixel = divmod(int(places[rng.integers(len(places))]), frame[1])  # in the window's middle half
            corner = [p - int(rng.integers(w // 4, w - w // 4)) for p, w in zip(pixel, self.window)]
        else:
            corner = [int(rng.integers(r + 1)) for r in room]
        row, column = (min(max(c, 0), r) for c, r in zip(corner, room, strict=True))
        return row, column

    def _window(
        self, picture: Picture | SlidePicture, origin: tuple[int, int], rng: np.random.Generator
    ) -> tuple[Array, Array]:
        """Pixels (h, w, C), uint8 or float32 in [0, 1], and label (h, w) int16 of an augmented window."""
        margin = [int(np.ceil((self.augment.margin - 1) * w / 2)) if self.augment else 0 for w in self.window]
        corner = (origin[0] - margin[0], origin[1] - margin[1])
        image, label = crop(picture, corner, (self.window[0] + 2 * margin[0], self.window[1] + 2 * margin[1]))
        if image.dtype != np.uint8 or self.intensity_window is not None:
            image = unit_range(image, self.intensity_window)
        if self.augment is None:
            return image, label
        return augment(image, label, rng, self.augment, size=self.window)


def case_number(seed: int, epoch: int, index: int, count: int) -> int:
    """Which of ``count`` cases a sample shows: each once in random order, then again in another, so equally often."""
    round_, position = divmod(index, count)
    return int(np.random.default_rng([seed, epoch, round_, 1]).permutation(count)[position])


def _shrunk(image: Array) -> Array:
    """A picture of at most 2048 pixels a side, by area averages."""
    return thumbnail(ArraySource(image))


def _in_frame(at: Array, small: tuple[int, ...], frame: tuple[int, int]) -> Array:
    """Flat positions in a small raster as those of the middle of their pixels in a frame."""
    if tuple(small) == frame:
        return at
    rows, columns = np.divmod(at, small[1])
    place = (
        ((rows + 0.5) * frame[0] / small[0]).astype(np.int64),
        ((columns + 0.5) * frame[1] / small[1]).astype(np.int64),
    )
    return place[0] * frame[1] + place[1]


def crop(picture: Picture | SlidePicture, corner: tuple[int, int], size: tuple[int, int]) -> tuple[Array, Array]:
    """A window of a picture: image (h, w, C), reflected beyond the edges, and label int16, -1 there."""
    rows, columns = (
        (max(c, 0), min(c + n, s), max(-c, 0), max(c + n - s, 0)) for c, n, s in zip(corner, size, picture.shape)
    )
    image, label = picture.read(rows[0], columns[0], rows[1] - rows[0], columns[1] - columns[0])
    label = label.astype(np.int16)
    beyond = (rows[2:], columns[2:])
    if any(any(pair) for pair in beyond):
        image = np.pad(image, (*beyond, (0, 0)), mode="reflect")
        label = np.pad(label, beyond, constant_values=IGNORE)
    return image, label


def collate(samples: Sequence[Sample]) -> Batch:
    """Samples of one size and number of channels as a batch; ValueError naming the cases otherwise."""
    shapes = {s.id: s.image.shape for s in samples}
    if len(set(shapes.values())) != 1:
        raise ValueError(f"a batch needs windows of one shape (C, h, w); got {shapes}")
    forests = tuple(s.forest for s in samples if s.forest is not None)
    if forests and len(forests) != len(samples):
        raise ValueError("either all samples of a batch have a forest or none")
    return Batch(
        image=torch.from_numpy(np.stack([s.image for s in samples])),
        label=torch.from_numpy(np.stack([s.label for s in samples]).astype(np.int64)),
        forests=forests or None,
        place=torch.tensor([(*s.origin, *s.frame) for s in samples], dtype=torch.float32),
        ids=tuple(s.id for s in samples),
    )


def init_worker(worker: int) -> None:
    """For ``DataLoader(worker_init_fn=...)``: OpenCV without threads; signals are the main process's business.

    A forked worker inherits OpenCV's thread pool without its threads: ``setNumThreads(1)`` would wait for them for
    ever, 0 never touches the pool.
    """
    cv2.setNumThreads(0)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def foreground_places(label: Array, rng: np.random.Generator, *, most: int = _MAX_PLACES) -> dict[int, Array]:
    """Class → flat positions of at most ``most`` of its pixels or voxels, for every class present except 0."""
    places = {}
    for value in np.flatnonzero(np.bincount(label.ravel())):
        if value == 0:
            continue
        at = np.flatnonzero(label == value)
        if len(at) > most:
            at = np.sort(at[rng.integers(len(at), size=most)])
        places[int(value)] = at.astype(np.int64)
    return places
