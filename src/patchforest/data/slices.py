"""Volumes as images: every slice along chosen axes is a case, so that models of images train on volumes (BTCV's way).

Slices of one volume share its group, so no split divides a volume.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from patchforest.data.augment import Augment
from patchforest.data.layout import Case
from patchforest.data.load import LabelMap, Picture
from patchforest.data.samples import WindowSamples, _Held
from patchforest.data.volumes import LabelledVolume, factors_of, load_volume
from patchforest.tree.volume import Factors, working_shape
from patchforest.values import Array, ForestPolicy


@dataclass(frozen=True)
class SliceCase(Case):
    """One slice of a volume: ``image`` and ``label`` are the volume's files, the id is ``VOLUME/axis/index``.

    Attributes
    ----------
    axis : the slice lies across it: 0 plane, 1 row, 2 column.
    index : of the slice on the working grid.
    """

    axis: int = 0
    index: int = 0


def slice_cases(case: Case, shape: Sequence[int], axes: Sequence[int] = (0,)) -> tuple[SliceCase, ...]:
    """All slices of a volume of ``shape`` (d, h, w) on its working grid, axis by axis."""
    group = case.group or case.id
    return tuple(
        SliceCase(f"{case.id}/{axis}/{k}", case.image, case.label, group, case.split, axis, k)
        for axis in axes
        for k in range(shape[axis])
    )


def slice_of(volume: LabelledVolume, axis: int, index: int) -> Picture:
    """One slice and its mask, without copying: axes are the volume's other two, in their order."""
    at = (slice(None),) * axis + (index,)
    return Picture(volume.image[at], volume.label[at])


class SliceSamples(WindowSamples):
    """``WindowSamples`` of the slices of volumes: ``volumes`` and the volumes' settings in place of files' cases.

    Parameters
    ----------
    volumes : cases of volumes with masks.
    axes : along which they are sliced.
    downscale, spacing, intensity_window : see ``data.volumes.load_volume``.
    policy, window, samples_per_epoch, seed, augment, label_map, num_classes, foreground : see ``WindowSamples``.
    cache_bytes : keep so many bytes of volumes in memory in each process; others are read anew for each slice.
    """

    def __init__(
        self,
        volumes: Sequence[Case],
        *,
        axes: Sequence[int],
        policy: ForestPolicy | None,
        window: int | tuple[int, int],
        samples_per_epoch: int,
        seed: int,
        augment: Augment | None = None,
        label_map: LabelMap | None = None,
        num_classes: int | None = None,
        intensity_window: tuple[float, float] | None = None,
        downscale: Factors = (1, 1, 1),
        spacing: tuple[float, float, float] | None = None,
        foreground: float = 0.5,
        cache_bytes: int = 2 << 30,
    ) -> None:
        from patchforest.io.volume import open_volume

        slices: list[SliceCase] = []
        self._volume_of: list[int] = []
        for number, case in enumerate(volumes):
            source = open_volume(case.image)
            factors = factors_of(source, downscale=downscale, spacing=spacing, name=str(case.image))
            found = slice_cases(case, working_shape(source.shape[:3], factors), axes)
            slices += found
            self._volume_of += [number] * len(found)
        super().__init__(
            slices,
            policy=policy,
            window=window,
            samples_per_epoch=samples_per_epoch,
            seed=seed,
            augment=augment,
            label_map=label_map,
            num_classes=num_classes,
            foreground=foreground,
            cache_bytes=cache_bytes,
        )
        self.volumes = tuple(volumes)
        self._settings: dict[str, Any] = {
            "intensity_window": intensity_window, "downscale": downscale, "spacing": spacing
        }  # fmt: skip
        self._volumes: dict[int, LabelledVolume] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_volumes": {}}

    def _load(self, number: int) -> _Held:
        if number in self._held:
            return self._held[number]
        case = self.cases[number]
        assert isinstance(case, SliceCase)
        picture = slice_of(self._volume(self._volume_of[number]), case.axis, case.index)
        rng = np.random.default_rng([self.seed, number, 0, 2])
        held = _Held(picture, self._places(picture, rng))
        if self._volume_of[number] in self._volumes:  # a view of what is held anyhow
            self._held[number] = held
        return held

    def _volume(self, number: int) -> LabelledVolume:
        if number in self._volumes:
            return self._volumes[number]
        volume = load_volume(
            self.volumes[number], label_map=self.label_map, num_classes=self.num_classes, **self._settings
        )
        if self._held_bytes + volume.nbytes <= self.cache_bytes:
            self._volumes[number] = volume
            self._held_bytes += volume.nbytes
        return volume


def stacked(slices: Sequence[Array], axis: int) -> Array:
    """The volume (..., d, h, w) of all slices (..., a, b) along an axis, as ``slice_of`` gave them."""
    return np.stack(slices, axis=axis - 3)
