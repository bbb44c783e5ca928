"""What a run reads, looked at before its first step: channels, and every mask."""

from __future__ import annotations

from collections.abc import Sequence

from patchforest.data.layout import Case
from patchforest.data.load import require_channels
from patchforest.data.pictures import check_picture
from patchforest.errors import InputError
from patchforest.io.open import open_image
from patchforest.io.volume import is_volume
from patchforest.train.config import RunConfig
from patchforest.train.volumes import check_volume_cases, volume_channels


def channels_of(case: Case, config: RunConfig) -> int:
    """Channels of an image or volume; InputError for a volume where the settings are for images."""
    if config.volume is not None:
        return volume_channels(case)
    if is_volume(case.image):
        hint = "set volume.window to train on volumes, or volume.axes=[0] to train on their slices"
        raise InputError(case.image, "is a volume, and the settings are for images", hint)
    return open_image(case.image).shape[2]


def check_cases(cases: Sequence[Case], config: RunConfig) -> None:
    """Look at every mask.

    Raises InputError for the first bad case, saying how many more there are.
    """
    if config.volume is not None:
        check_volume_cases(cases, config, config.volume)
        return
    faults = []
    for case in cases:
        try:
            check_picture(
                case,
                label_map=config.data.labels,
                num_classes=len(config.data.classes or ()),
                channels=config.model.channels,
                scale=config.data.scale,
                names=config.data.classes,
            )
        except InputError as error:
            faults.append(error)
    if faults:
        first, more = faults[0], f" ({len(faults) - 1} more cases are bad too)" if len(faults) > 1 else ""
        raise InputError(first.path, first.what, first.hint + more)


def check_images(cases: Sequence[Case], channels: int) -> None:
    """Open every image; InputError for the first bad one, saying how many more there are."""
    faults = []
    for case in cases:
        try:
            require_channels(open_image(case.image).shape[2], channels, case)
        except InputError as error:
            faults.append(error)
    if faults:
        first, more = faults[0], f" ({len(faults) - 1} more images are bad too)" if len(faults) > 1 else ""
        raise InputError(first.path, first.what, first.hint + more)
