"""The door to labelled images: held in memory up to a size, read in windows above, at any scale."""

from __future__ import annotations

from collections.abc import Sequence

from patchforest.data.layout import Case
from patchforest.data.load import (
    LabelMap,
    Picture,
    check_case,
    load_case,
    require_channels,
    require_known_range,
)
from patchforest.data.slides import SlidePicture, is_polygons
from patchforest.io.open import open_image
from patchforest.io.scale import AS_STORED, Scale

LARGE = 1 << 26
"""Pixels up to which an image is held in memory as a whole, 8,192²."""


def open_picture(
    case: Case,
    *,
    label_map: LabelMap | None = None,
    num_classes: int | None = None,
    downscale: int = 1,
    intensity_window: tuple[float, float] | None = None,
    scale: Scale = AS_STORED,
    names: Sequence[str] | None = None,
) -> Picture | SlidePicture:
    """A labelled image at a scale: in memory up to ``LARGE`` pixels, read in windows above.

    Parameters and errors as of ``load_case`` and ``SlidePicture``.
    """
    if case.label is not None and (scale != AS_STORED or is_polygons(case.label) or _is_large(case)):
        slide = SlidePicture(
            case, names=names, label_map=label_map, num_classes=num_classes, downscale=downscale, scale=scale
        )
        if slide.shape[0] * slide.shape[1] * downscale**2 > LARGE:
            return slide
        image, label = slide.read(0, 0, *slide.shape)
        if intensity_window is None:
            require_known_range(image, case)
        return Picture(image, label, slide.view.mpp)
    return load_case(
        case,
        label_map=label_map,
        num_classes=num_classes,
        downscale=downscale,
        intensity_window=intensity_window,
    )


def check_picture(
    case: Case,
    *,
    label_map: LabelMap | None = None,
    num_classes: int | None = None,
    channels: int | None = None,
    scale: Scale = AS_STORED,
    names: Sequence[str] | None = None,
) -> None:
    """Raise what ``open_picture`` and reading all of its labels would; see ``data.load.check_case``."""
    if case.label is None or not (scale != AS_STORED or is_polygons(case.label) or _is_large(case)):
        check_case(case, label_map=label_map, num_classes=num_classes, channels=channels)
        return
    slide = SlidePicture(case, names=names, label_map=label_map, num_classes=num_classes, scale=scale)
    require_channels(slide.view.shape[2], channels, case)
    slide.label.check()


def _is_large(case: Case) -> bool:
    """Too large for memory as a whole, or with a mask of another size, whose scale decides."""
    shape = open_image(case.image).shape
    if shape[0] * shape[1] > LARGE:
        return True
    assert case.label is not None
    label = open_image(case.label)
    return label.shape[:2] != shape[:2] and label.mpp is not None
