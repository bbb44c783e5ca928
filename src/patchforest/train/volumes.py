"""A run on volumes: what ``fit`` asks for in place of images: channels, checks, forest, samples and validation."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Sequence

import numpy as np
from torch import nn

from patchforest.data.layout import Case
from patchforest.data.load import LabelMap
from patchforest.data.slices import SliceSamples
from patchforest.data.volumes import VolumeSamples, check_volume_case
from patchforest.errors import InputError
from patchforest.infer.volume import predict_volume
from patchforest.models.bundle import Bundle, ModelSpec
from patchforest.models.config import VolumeSpec
from patchforest.train.config import RunConfig
from patchforest.train.metrics import confusion_matrix, dice_of
from patchforest.train.validate import MaskValidator, Validation
from patchforest.tree.volume import cut_volume
from patchforest.values import Array, ForestPolicy


def volume_channels(case: Case) -> int:
    """Channels of a volume; InputError where it cannot be opened."""
    from patchforest.io.volume import open_volume

    return open_volume(case.image).shape[3]


def check_volume_cases(cases: Sequence[Case], config: RunConfig, volume: VolumeSpec) -> None:
    """Look at every mask before the first step; InputError for the first bad case, saying how many more there are."""
    faults = []
    for case in cases:
        try:
            check_volume_case(
                case,
                label_map=config.data.labels,
                num_classes=len(config.data.classes or ()),
                channels=config.model.channels,
                spacing=volume.spacing,
            )
        except InputError as error:
            faults.append(error)
    if faults:
        first, more = faults[0], f" ({len(faults) - 1} more cases are bad too)" if len(faults) > 1 else ""
        raise InputError(first.path, first.what, first.hint + more)


def resolved_volume_policy(config: RunConfig, volume: VolumeSpec) -> ForestPolicy | None:
    """The octree policy, tried on a blank window; InputError where it cannot work."""
    if config.forest is None:
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of course there is nothing to see in it
            cut_volume(np.zeros((*volume.window, 1), np.float32), config.forest, volume.window)
    except ValueError as error:
        raise InputError("configuration", f"forest: {error}", "correct that setting") from None
    return config.forest


def volume_samples(
    config: RunConfig,
    cases: Sequence[Case],
    volume: VolumeSpec,
    *,
    samples_per_epoch: int,
    mirror: tuple[int, ...] = (0, 1, 2),
) -> VolumeSamples | SliceSamples:
    """Training samples of a resolved configuration: sub-volumes, or slices where ``volume.axes`` names some.

    Slices are drawn in windows of ``data.window``.
    """
    c = config.data
    assert c.classes is not None
    cache = (2 << 30) if c.cache else 0
    if volume.axes:
        return SliceSamples(
            cases,
            axes=volume.axes,
            policy=config.forest,
            window=c.window,
            samples_per_epoch=samples_per_epoch,
            seed=config.train.seed,
            augment=config.augment,
            label_map=c.labels,
            num_classes=len(c.classes),
            intensity_window=c.intensity_window,
            downscale=volume.downscale,
            spacing=volume.spacing,
            foreground=c.foreground,
            cache_bytes=cache,
        )
    return VolumeSamples(
        cases,
        policy=config.forest,
        window=volume.window,
        samples_per_epoch=samples_per_epoch,
        seed=config.train.seed,
        augment=config.augment,
        mirror=mirror,
        label_map=c.labels,
        num_classes=len(c.classes),
        intensity_window=c.intensity_window,
        downscale=volume.downscale,
        spacing=volume.spacing,
        foreground=c.foreground,
        cache_bytes=cache,
    )


class VolumeValidator(MaskValidator):
    """Scores a network on whole volumes at their stored voxels, as ``train.validate.ImageValidator`` does on images.

    ``grid`` says how volumes are given to the network, in place of what ``spec`` says. A volume is one case.
    """

    def __init__(
        self,
        cases: Sequence[Case],
        spec: ModelSpec,
        label_map: LabelMap | None,
        *,
        grid: VolumeSpec | None = None,
        limit: int | None = None,
        precision: str = "fp32",
        stop: Callable[[], bool] = lambda: False,
    ) -> None:
        number = len(cases) if limit is None else min(limit, len(cases))
        self.cases = tuple(cases[round(i)] for i in np.linspace(0, len(cases) - 1, number))
        self._spec, self._label_map, self._precision, self._stop = spec, label_map, precision, stop
        self._grid = grid

    def __call__(self, network: nn.Module) -> Validation | None:
        """The scores, or None when stopped on the way or without cases."""
        from patchforest.io.volume import open_volume
        from patchforest.io.volume_label import read_label_volume

        start, empty = time.perf_counter(), 0
        scores: list[Array] = []
        classes, bundle = len(self._spec.classes), Bundle(network=network, spec=self._spec)
        for case in self.cases:
            if self._stop():
                return None
            assert case.label is not None
            truth = read_label_volume(case.label, label_map=self._label_map, num_classes=classes)
            mask = predict_volume(bundle, open_volume(case.image), grid=self._grid, precision=self._precision).mask
            confusion = confusion_matrix(mask, truth, classes)
            scores.append(dice_of(confusion))
            empty += int(((confusion.sum(0) + confusion.sum(1)) == 0)[1:].sum())
        if not scores:
            return None
        mean = np.mean(scores, axis=0)
        per_class = tuple(float(v) for v in mean)
        return Validation(float(mean[1:].mean()), per_class, len(scores), empty, time.perf_counter() - start)
