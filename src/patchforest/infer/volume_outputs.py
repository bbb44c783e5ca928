"""What is written for a predicted volume: the mask in the volume's own format and place, probabilities, an overlay."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from patchforest.errors import InputError
from patchforest.infer.inputs import OVERLAYS, PROBABILITIES
from patchforest.infer.outputs import Outputs
from patchforest.infer.volume import VolumePrediction
from patchforest.io.formats import stem_of
from patchforest.io.volume_write import write_volume, write_volume_mask
from patchforest.io.write import write_image
from patchforest.values import VolumeSource

FORMATS = (".nii.gz", ".nrrd", ".tif", ".npy")
_OWN = {".nii": ".nii.gz", ".nii.gz": ".nii.gz", ".nrrd": ".nrrd", ".nhdr": ".nrrd", ".npy": ".npy"}


@dataclass(frozen=True)
class VolumeOutputs:
    """The files of a volume of an id, by what is wanted of images.

    ``auto`` writes masks in the format of the volume; DICOM series and others that know their place become NIfTI, the
    rest TIFF stacks.
    """

    wanted: Outputs

    def paths(self, out: Path, name: str, volume: VolumeSource | None, path: Path) -> dict[str, Path]:
        """File by kind; the mask first. ``volume`` None: only those whose name does not depend on it.

        Raises InputError for a format that holds no volumes, and for outlines, which are of images.
        """
        suffix = self.wanted.format
        if suffix == "auto":
            own = path.name[len(stem_of(path)) :].lower()
            suffix = _OWN.get(own) or (".nii.gz" if volume is not None and volume.affine is not None else ".tif")
        if suffix not in FORMATS:
            raise InputError(path, f"is a volume, which {suffix} does not hold", "use --format auto, nifti or tiff")
        if self.wanted.polygons is not None:
            raise InputError(path, "is a volume, which has no outlines", "leave --geojson out")
        found = {"mask": out / f"{name}{suffix}"}
        if self.wanted.probabilities:
            found["probabilities"] = out / PROBABILITIES / f"{name}{suffix}"
        if self.wanted.draw is not None:
            found["overlay"] = out / OVERLAYS / f"{name}.png"
        return found

    def write(self, paths: dict[str, Path], prediction: VolumePrediction, volume: VolumeSource) -> None:
        """Write the files of ``paths``; the overlay shows the plane with most foreground."""
        write_volume_mask(paths["mask"], prediction.mask, volume)
        if "probabilities" in paths:
            assert prediction.probability is not None
            write_volume(paths["probabilities"], np.moveaxis(prediction.probability, 0, -1), volume)
        if "overlay" in paths:
            assert self.wanted.draw is not None
            counts = np.count_nonzero(prediction.mask, axis=(1, 2))
            plane = int(counts.argmax()) if counts.any() else len(counts) // 2
            shown = volume.read((plane, 0, 0), (1, *volume.shape[1:3]))[0]
            write_image(paths["overlay"], self.wanted.draw(shown, prediction.mask[plane]))
