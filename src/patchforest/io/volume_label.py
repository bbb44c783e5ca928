"""Label volumes: class numbers exactly as meant, in the order in which their image is shown."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from patchforest.errors import InputError
from patchforest.io.label import checked_map, class_numbers
from patchforest.io.orientation import affine_gap, affines_agree
from patchforest.io.volume import open_volume_source
from patchforest.values import Array, VolumeSource

_ONE_GREY = "save class numbers 0, 1, 2, ... in one channel"


def read_label_volume(
    path: str | Path, *, label_map: Mapping[int | str, int] | None = None, num_classes: int | None = None
) -> Array:
    """(D, H, W) class numbers of a label volume, uint8 (uint16 where one is above 255), shown like its image.

    ``path`` may be whatever ``open_volume`` reads. ``label_map``, ``num_classes`` and the errors are those of
    ``io.label.read_label``.
    """
    mapping = checked_map(label_map)
    source = open_volume_source(Path(path))
    if getattr(source, "inverted", False):  # programs disagree whether its foreground is 0 or 1
        raise InputError(path, "is a TIFF that counts from white, so its foreground is uncertain", _ONE_GREY)
    stored = source.stored()
    if stored.shape[3] != 1:
        raise InputError(path, f"is a label of {stored.shape[3]} channels", _ONE_GREY)
    if stored.dtype == bool:
        stored = stored.astype(np.uint8)
    if stored.dtype.kind not in "ui":
        what = f"holds {stored.dtype} values, but class numbers are whole"
        raise InputError(path, what, "save it as 8- or 16-bit integers, without scaling")
    return class_numbers(stored[..., 0], path, mapping, num_classes)


def check_volume_pair(image: VolumeSource, label: VolumeSource, image_path: str | Path, label_path: str | Path) -> None:
    """Nothing where image and label have one size and, as far as both say, one place; InputError otherwise.

    Affines agree where they differ by at most 1e-3 of a voxel (see ``orientation.affines_agree``).
    """
    seen, drawn = image.shape[:3], label.shape[:3]
    if seen != drawn:
        what = f"is {_size(drawn)} voxels (plane x row x column) but its image {image_path} is {_size(seen)}"
        turned = sorted(seen) == sorted(drawn)
        hint = "its axes are in another order: save both alike" if turned else "export it on the grid of its image"
        raise InputError(label_path, what, hint)
    if image.affine is None or label.affine is None or affines_agree(image.affine, label.affine):
        return
    gap = affine_gap(image.affine, label.affine, (seen[0], seen[1], seen[2]))
    what = f"lies elsewhere than its image {image_path}: voxels are up to {gap:.4g} mm apart"
    hint = "resample it onto its image, or, if its voxels do fit, save it with the image's affine"
    raise InputError(label_path, what, hint)


def _size(shape: tuple[int, ...]) -> str:
    return " x ".join(str(size) for size in shape)
