"""Suffixes by which images, slides and volumes are found in folders; what a file is its content says."""

from __future__ import annotations

from pathlib import Path

PICTURES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".npy")
SLIDES = (".svs", ".ndpi", ".mrxs", ".scn", ".bif", ".svslide", ".czi", ".vms", ".vmu")
VOLUMES = (".nii", ".nii.gz", ".nrrd", ".nhdr")
DICOM = (".dcm", ".dicom", ".ima")
FOLDERS = (".zarr",)
SUFFIXES = (*PICTURES, *SLIDES, *VOLUMES, *DICOM)
"""Of files; the folders of ``FOLDERS`` are images as well."""

_DOUBLE = (".ome.tif", ".ome.tiff", ".ome.zarr", ".nii.gz")


def stem_of(path: str | Path) -> str:
    """A file's name without its suffix, without both where a format has two (``.nii.gz``, ``.ome.tif``)."""
    name = Path(path).name
    for suffix in (*_DOUBLE, *SUFFIXES, *FOLDERS):
        if name.lower().endswith(suffix) and len(name) > len(suffix):
            return name[: -len(suffix)]
    return Path(path).stem
