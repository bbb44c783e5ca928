"""Labelled volumes on their working grid, and training samples of them: random sub-volumes, each with its octree.

The whole sample is a function of (seed, epoch, index), as in ``samples.py``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from patchforest.data.augment import IGNORE, Augment, augment
from patchforest.data.layout import Case
from patchforest.data.load import LabelMap
from patchforest.data.samples import Sample, foreground_places
from patchforest.errors import InputError
from patchforest.tree.volume import (
    Factors,
    block_majority,
    check_factors,
    cut_volume,
    nearest_factors,
    read_working,
)
from patchforest.values import Array, ForestPolicy, VolumeSource

_MAX_PLACES = 5000  # remembered foreground voxels a class and volume


@dataclass(frozen=True, eq=False)
class LabelledVolume:
    """A volume and its mask in memory, on the working grid.

    Attributes
    ----------
    image : (d, h, w, C) float32 in [0, 1].
    label : (d, h, w) uint8 or uint16 class numbers.
    factors : voxels of the file that make one voxel here, by axis.
    """

    image: Array
    label: Array
    factors: Factors

    @property
    def nbytes(self) -> int:
        """Bytes of the two arrays."""
        return int(self.image.nbytes + self.label.nbytes)


def load_volume(
    case: Case,
    *,
    label_map: LabelMap | None = None,
    num_classes: int | None = None,
    intensity_window: tuple[float, float] | None = None,
    downscale: Factors = (1, 1, 1),
    spacing: tuple[float, float, float] | None = None,
) -> LabelledVolume:
    """Volume and mask of a case, averaged over blocks; the mask by majority.

    Parameters
    ----------
    label_map, num_classes : see ``io.volume_label.read_label_volume``.
    intensity_window : (low, high) in the file's values that becomes 0 to 1, such as Hounsfield units.
    downscale, spacing : see ``factors_of``.

    Raises InputError for what ``check_volume_case`` refuses, and voxels whose range nobody knows without a window.
    """
    source, label = _open_pair(case, label_map, num_classes)
    factors = factors_of(source, downscale=downscale, spacing=spacing, name=str(case.image))
    try:
        image = read_working(source, factors, intensity_window)
    except ValueError as fault:
        if isinstance(fault, InputError):
            raise
        raise InputError(case.image, str(fault), "set intensity_window, e.g. [-200, 300] for soft tissue") from fault
    return LabelledVolume(image, block_majority(label, factors), factors)


def check_volume_case(
    case: Case,
    *,
    label_map: LabelMap | None = None,
    num_classes: int | None = None,
    channels: int | None = None,
    spacing: tuple[float, float, float] | None = None,
) -> None:
    """Raise what ``load_volume`` would of a missing or bad mask or grids that differ; the image is only opened.

    InputError as well for a volume with other than ``channels`` channels, or without the spacing that is asked for.
    """
    source, _ = _open_pair(case, label_map, num_classes)
    factors_of(source, downscale=(1, 1, 1), spacing=spacing, name=str(case.image))
    if channels is not None and source.shape[3] != channels:
        hint = "convert the volumes, so that all have as many"
        what = f"has {source.shape[3]} channels where the first training volume has {channels}"
        raise InputError(case.image, what, hint)


def factors_of(
    source: VolumeSource, *, downscale: Factors, spacing: tuple[float, float, float] | None, name: str = "volume"
) -> Factors:
    """Blocks that a volume is averaged over: ``downscale``, or what brings its voxels nearest to ``spacing``.

    Raises InputError where ``spacing`` is asked of a volume that does not know its own.
    """
    if spacing is None:
        return check_factors(downscale)
    if source.spacing is None:
        hint = "store it in the file, or set downscale in place of spacing"
        raise InputError(name, "does not say how large its voxels are", hint)
    return nearest_factors(source.spacing, spacing)


class VolumeSamples(Dataset[Sample]):
    """``samples_per_epoch`` random sub-volumes of some cases, as equally many from each case as can be.

    A sample's image is (C, d, h, w), its label (d, h, w), its origin and frame are (plane, row, column).

    Parameters
    ----------
    cases : with masks.
    policy : how to cut the octree of each window after augmentation, at random if ``policy.fresh``; its budget is for
        one window. None: no forest.
    window : (planes, rows, columns) in working voxels. Shorter axes are reflected; the label is -1 there.
    seed : not negative.
    augment : ``flip`` (along each of ``mirror``), ``turn`` (quarter turns in the plane; half turns of windows that are
        not square), ``colour``, ``tone`` and ``noise`` are used; None for windows as they are.
    mirror : axes that may be mirrored: 0 plane, 1 row, 2 column.
    label_map, num_classes, intensity_window, downscale, spacing : see ``load_volume``.
    foreground : share of windows that hold a voxel of a class drawn evenly from the classes of the volume except 0.
    cache_bytes : keep so many bytes of volumes in memory in each process; others are read anew each time.

    Raises
    ------
    InputError : on construction for cases without mask; on access for files that cannot be used.
    """

    def __init__(
        self,
        cases: Sequence[Case],
        *,
        policy: ForestPolicy | None,
        window: tuple[int, int, int],
        samples_per_epoch: int,
        seed: int,
        augment: Augment | None = None,
        mirror: tuple[int, ...] = (0, 1, 2),
        label_map: LabelMap | None = None,
        num_classes: int | None = None,
        intensity_window: tuple[float, float] | None = None,
        downscale: Factors = (1, 1, 1),
        spacing: tuple[float, float, float] | None = None,
        foreground: float = 0.5,
        cache_bytes: int = 2 << 30,
    ) -> None:
        if not cases:
            raise ValueError("no cases to draw windows from")
        if len(window) != 3 or min(window) < 1 or samples_per_epoch < 1 or seed < 0 or not 0 <= foreground <= 1:
            raise ValueError(
                "window must be three sizes from 1 on, samples_per_epoch at least 1, seed not negative, foreground 0 "
                f"to 1; got {window}, {samples_per_epoch}, {seed}, {foreground}"
            )
        if not set(mirror) <= {0, 1, 2}:
            raise ValueError(f"mirror must be some of 0 (plane), 1 (row) and 2 (column); got {mirror}")
        for case in cases:
            if case.label is None:
                raise InputError(case.image, "has no mask", "training needs one for every volume")
        self.cases = tuple(cases)
        self.policy, self.window, self.augment, self.mirror = policy, window, augment, tuple(sorted(set(mirror)))
        self.samples_per_epoch, self.seed, self.foreground = samples_per_epoch, seed, foreground
        self.label_map = dict(label_map) if label_map is not None else None
        self.num_classes, self.intensity_window = num_classes, intensity_window
        self.downscale, self.spacing, self.cache_bytes = check_factors(downscale), spacing, cache_bytes
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()  # seen by workers that live on
        self._held: dict[int, tuple[LabelledVolume, dict[int, Array]]] = {}
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
        round_, position = divmod(index, len(self.cases))
        order = np.random.default_rng([self.seed, epoch, round_, 1]).permutation(len(self.cases))
        number = int(order[position])
        volume, places = self._load(number)
        origin = self._origin(volume.label.shape, places, rng)
        image, label = crop_volume(volume, origin, self.window)
        if self.augment is not None:
            image, label = vary(image, label, rng, self.augment, mirror=self.mirror)
        forest = None
        if self.policy is not None:
            forest = cut_volume(image, self.policy, self.window, rng=rng if self.policy.fresh else None)
        voxels = np.ascontiguousarray(image.transpose(3, 0, 1, 2))
        return Sample(voxels, label, forest, self.cases[number].id, origin, volume.label.shape)

    def _load(self, number: int) -> tuple[LabelledVolume, dict[int, Array]]:
        if number in self._held:
            return self._held[number]
        volume = load_volume(
            self.cases[number],
            label_map=self.label_map,
            num_classes=self.num_classes,
            intensity_window=self.intensity_window,
            downscale=self.downscale,
            spacing=self.spacing,
        )
        rng = np.random.default_rng([self.seed, number, 0, 2])
        held = volume, foreground_places(volume.label, rng, most=_MAX_PLACES) if self.foreground > 0 else {}
        if self._held_bytes + volume.nbytes <= self.cache_bytes:
            self._held[number] = held
            self._held_bytes += volume.nbytes
        return held

    def _origin(
        self, frame: tuple[int, ...], places: dict[int, Array], rng: np.random.Generator
    ) -> tuple[int, int, int]:
        """Corner of a window inside the volume (0 along axes shorter than the window)."""
        room = [max(0, s - w) for s, w in zip(frame, self.window)]
        if places and rng.random() < self.foreground:
            chosen = places[int(rng.choice(list(places)))]
            voxel = np.unravel_index(int(chosen[rng.integers(len(chosen))]), frame)
            inside = [int(rng.integers(w // 4, w - w // 4)) for w in self.window]  # in the window's middle half
            corner = [int(v) - i for v, i in zip(voxel, inside)]
        else:
            corner = [int(rng.integers(r + 1)) for r in room]
        plane, row, column = (min(max(c, 0), r) for c, r in zip(corner, room, strict=True))
        return plane, row, column


def crop_volume(
    volume: LabelledVolume, corner: tuple[int, int, int], window: tuple[int, int, int]
) -> tuple[Array, Array]:
    """A box of a volume: image (d, h, w, C), reflected beyond the far ends, and label int16, -1 there."""
    box = tuple(slice(c, c + w) for c, w in zip(corner, window))
    image, label = volume.image[box], volume.label[box].astype(np.int16)
    short = [(0, w - s) for w, s in zip(window, label.shape)]
    if any(b for _, b in short):
        image = np.pad(image, [*short, (0, 0)], mode="reflect")
        label = np.pad(label, short, constant_values=IGNORE)
    return image, label


def vary(
    image: Array, label: Array, rng: np.random.Generator, settings: Augment, *, mirror: tuple[int, ...] = (0, 1, 2)
) -> tuple[Array, Array]:
    """A varied copy of a sub-volume (d, h, w, C) in [0, 1] and its label: mirrored, turned in the plane, other grey.

    See ``VolumeSamples`` for what of the settings is used; of intensities it is ``augment.augment``.
    """
    for axis in mirror:
        if rng.random() < settings.flip:
            image, label = np.flip(image, axis), np.flip(label, axis)
    if rng.random() < settings.turn:
        quarters = int(rng.integers(4))
        quarters = quarters if label.shape[1] == label.shape[2] else quarters // 2 * 2
        image, label = np.rot90(image, quarters, (1, 2)), np.rot90(label, quarters, (1, 2))
    depth, height, width, channels = image.shape
    flat = np.ascontiguousarray(image).reshape(depth * height, width, channels)
    still = replace(settings, flip=0.0, turn=0.0, affine=0.0, blur=0.0)
    toned, _ = augment(flat, np.zeros(flat.shape[:2], np.int16), rng, still)
    return toned.reshape(image.shape), np.ascontiguousarray(label)


def _open_pair(case: Case, label_map: LabelMap | None, num_classes: int | None) -> tuple[VolumeSource, Array]:
    """The volume, opened, and its mask, read."""
    from patchforest.io.volume import open_volume
    from patchforest.io.volume_label import check_volume_pair, read_label_volume

    if case.label is None:
        raise InputError(case.image, "has no mask", "add one of the same stem or leave the volume out")
    source = open_volume(case.image)
    check_volume_pair(source, open_volume(case.label), case.image, case.label)
    return source, read_label_volume(case.label, label_map=label_map, num_classes=num_classes)
