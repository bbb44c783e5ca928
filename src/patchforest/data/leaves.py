"""Training samples of images with one class each, as their leaves: cut once, of any size, no pixel looked at again.

The forest is the fixed one over the whole image, as at prediction. Turns and tone are exact on patches, see
``data.sequences``; as everywhere in training, a sample is a function of (seed, epoch, index).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch.utils.data import Dataset

from patchforest.data.augment import Augment
from patchforest.data.layout import Case
from patchforest.data.samples import case_number
from patchforest.data.sequences import LeafSequence, vary
from patchforest.errors import InputError
from patchforest.io.open import open_image
from patchforest.io.scale import AS_STORED, Scale, ScaledSource, at_scale
from patchforest.tree.leaves import stream_leaves
from patchforest.values import Array, Forest, ForestPolicy

_NO_SHARES = np.zeros((1, 1, 1), np.float32)


class LeafSamples(Dataset[LeafSequence]):
    """``samples_per_epoch`` sequences of leaves, equally many of each image as can be; classes stand in ``numbers``.

    Parameters
    ----------
    numbers : case id → class number.
    patch : side of a patch.
    augment : flips, turns and linear tone (colour, brightness, contrast) of it are used; None for images as they are.
    others : see ``data.images.ImageSamples``. What is cached are the leaves.

    Raises
    ------
    InputError : on access for files that cannot be used.
    """

    def __init__(
        self,
        cases: Sequence[Case],
        numbers: Mapping[str, int],
        *,
        policy: ForestPolicy,
        patch: int,
        samples_per_epoch: int,
        seed: int,
        augment: Augment | None = None,
        intensity_window: tuple[float, float] | None = None,
        downscale: int = 1,
        scale: Scale = AS_STORED,
        cache_bytes: int = 2 << 30,
    ) -> None:
        if not cases or samples_per_epoch < 1 or downscale < 1 or seed < 0:
            raise ValueError(
                "cases must not be empty, samples_per_epoch and downscale at least 1, seed not negative; got "
                f"{len(cases)}, {samples_per_epoch}, {downscale}, {seed}"
            )
        self.cases, self.numbers = tuple(cases), dict(numbers)
        self.policy, self.patch, self.augment = policy, patch, augment
        self.samples_per_epoch, self.seed = samples_per_epoch, seed
        self.intensity_window, self.downscale, self.scale = intensity_window, downscale, scale
        self.cache_bytes = cache_bytes
        self._held: dict[int, tuple[Forest, Array]] = {}
        self._held_bytes = 0

    def __len__(self) -> int:
        return self.samples_per_epoch

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_held": {}, "_held_bytes": 0}

    def __getitem__(self, index: int) -> LeafSequence:
        if not 0 <= index < self.samples_per_epoch:
            raise IndexError(f"sample {index} of {self.samples_per_epoch}")
        number = case_number(self.seed, 0, index, len(self.cases))
        forest, patches = self._load(number)
        rows, columns = (-(-s // forest.root) * forest.root for s in forest.shape)
        sequence = LeafSequence(
            origin=forest.origin,
            size=forest.size,
            shape=(forest.shape[0], forest.shape[1]),
            frame=(rows, columns),
            offset=(0, 0),
            cell=forest.cell,
            patches=patches,
            shares=np.broadcast_to(_NO_SHARES, (len(forest), 1, 1, 1)),
            id=self.cases[number].id,
        )
        if self.augment is None:
            return sequence
        return vary(sequence, np.random.default_rng([self.seed, 0, index]), self.augment)

    def _load(self, number: int) -> tuple[Forest, Array]:
        if number in self._held:
            return self._held[number]
        case = self.cases[number]
        view = at_scale(open_image(case.image), self.scale, case.image)
        if self.downscale > 1:
            view = ScaledSource(view, factor=self.downscale)
        try:
            leaves = stream_leaves(view, self.policy, self.patch, window=self.intensity_window)
        except ValueError as error:
            if isinstance(error, InputError):
                raise
            raise InputError(case.image, str(error), "see data.intensity_window and forest") from None
        if self._held_bytes + leaves[1].nbytes <= self.cache_bytes:
            self._held[number] = leaves
            self._held_bytes += leaves[1].nbytes
        return leaves
