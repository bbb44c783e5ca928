"""Training samples of whole images that have one class each: a random window, or all of the image, varied.

As everywhere in training, a sample is a function of (seed, epoch, index).
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from patchforest.data.augment import Augment, augment
from patchforest.data.layout import Case
from patchforest.data.load import Picture, require_known_range, shrink_image
from patchforest.data.pictures import LARGE
from patchforest.data.samples import Sample, case_number, crop
from patchforest.errors import InputError
from patchforest.io.open import open_image
from patchforest.io.scale import AS_STORED, Scale, at_scale
from patchforest.tree.cut import cut_forest
from patchforest.tree.forest import FlatGround
from patchforest.tree.window import unit_range
from patchforest.values import Array, ForestPolicy, NodeScorer

_STRIP = 1 << 24


class ImageSamples(Dataset[Sample]):
    """``samples_per_epoch`` images with their class numbers, equally many of each image as can be.

    ``Sample.label`` is an array without axes: the class number.

    Parameters
    ----------
    numbers : case id → class number.
    window : side or (height, width), in pixels of the down-scaled image, of the part that is seen; at a random place
        of larger images. Smaller images are reflected at their far edges.
    others : see ``data.samples.WindowSamples``.

    Raises
    ------
    InputError : on access for files that cannot be used.
    """

    def __init__(
        self,
        cases: Sequence[Case],
        numbers: Mapping[str, int],
        *,
        policy: ForestPolicy | None,
        scorer: NodeScorer | None = None,
        window: int | tuple[int, int],
        samples_per_epoch: int,
        seed: int,
        augment: Augment | None = None,
        intensity_window: tuple[float, float] | None = None,
        downscale: int = 1,
        scale: Scale = AS_STORED,
        cache_bytes: int = 2 << 30,
    ) -> None:
        if not cases:
            raise ValueError("no cases to draw images from")
        self.window = (window, window) if isinstance(window, int) else window
        if min(self.window) < 1 or samples_per_epoch < 1 or downscale < 1 or seed < 0:
            raise ValueError(
                "window, samples_per_epoch and downscale must be at least 1, seed not negative; got "
                f"{window}, {samples_per_epoch}, {downscale}, {seed}"
            )
        self.cases, self.numbers = tuple(cases), dict(numbers)
        self.policy, self.scorer, self.augment = policy, scorer, augment
        self.samples_per_epoch, self.seed = samples_per_epoch, seed
        self.intensity_window, self.downscale, self.scale = intensity_window, downscale, scale
        self.cache_bytes = cache_bytes
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()
        self._held: dict[int, Array] = {}
        self._held_bytes = 0

    def __len__(self) -> int:
        return self.samples_per_epoch

    def set_epoch(self, epoch: int) -> None:
        """Which epoch the next samples belong to; counts from 0, reaches running workers as well."""
        if epoch < 0:
            raise ValueError(f"epoch counts from 0; got {epoch}")
        self._epoch.fill_(epoch)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_held": {}, "_held_bytes": 0}

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < self.samples_per_epoch:
            raise IndexError(f"sample {index} of {self.samples_per_epoch}")
        epoch = int(self._epoch)
        rng = np.random.default_rng([self.seed, epoch, index])
        number = case_number(self.seed, epoch, index, len(self.cases))
        whole = self._load(number)
        frame = (whole.shape[0], whole.shape[1])
        row, column = (int(rng.integers(max(0, s - w) + 1)) for s, w in zip(frame, self.window))
        image = self._window(whole, (row, column), rng)
        forest = None
        if self.policy is not None:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", FlatGround)
                fresh = rng if self.policy.fresh else None
                forest = cut_forest(image, self.policy, rng=fresh, criterion=self.scorer)
        pixels = np.ascontiguousarray(unit_range(image).transpose(2, 0, 1))
        case = self.cases[number]
        label: Array = np.array(self.numbers[case.id], np.int16)
        return Sample(pixels, label, forest, case.id, (row, column), frame)

    def _load(self, number: int) -> Array:
        if number in self._held:
            return self._held[number]
        image = load_image(
            self.cases[number], downscale=self.downscale, intensity_window=self.intensity_window, scale=self.scale
        )
        if self._held_bytes + image.nbytes <= self.cache_bytes:
            self._held[number] = image
            self._held_bytes += image.nbytes
        return image

    def _window(self, image: Array, origin: tuple[int, int], rng: np.random.Generator) -> Array:
        """Pixels (h, w, C), uint8 or float32 in [0, 1], of a varied window."""
        margin = [int(np.ceil((self.augment.margin - 1) * w / 2)) if self.augment else 0 for w in self.window]
        corner = (origin[0] - margin[0], origin[1] - margin[1])
        size = (self.window[0] + 2 * margin[0], self.window[1] + 2 * margin[1])
        blank: Array = np.broadcast_to(np.uint8(0), image.shape[:2])
        part, label = crop(Picture(image, blank), corner, size)
        if part.dtype != np.uint8 or self.intensity_window is not None:
            part = unit_range(part, self.intensity_window)
        if self.augment is None:
            return part
        return augment(part, np.zeros(label.shape, np.int16), rng, self.augment, size=self.window)[0]


def load_image(
    case: Case,
    *,
    downscale: int = 1,
    intensity_window: tuple[float, float] | None = None,
    scale: Scale = AS_STORED,
) -> Array:
    """(h, w, C) pixels of a case at a scale, ``downscale`` times smaller (area average), in the file's own dtype.

    Raises InputError for what cannot be read, or is too large to be held even so.
    """
    view = at_scale(open_image(case.image), scale, case.image)
    height, width = view.shape[:2]
    if -(-height // downscale) * -(-width // downscale) > LARGE:
        what = f"has {height} × {width} pixels, and {LARGE:,} are seen at a time"
        raise InputError(case.image, what, "set data.downscale, data.mpp or data.level, so that it is smaller")
    rows = max(1, _STRIP // width // downscale) * downscale
    parts = [
        shrink_image(view.read(0, row, 0, min(rows, height - row), width), downscale) for row in range(0, height, rows)
    ]
    image = parts[0] if len(parts) == 1 else np.concatenate(parts)
    if intensity_window is None:
        require_known_range(image, case)
    return image
