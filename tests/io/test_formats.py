"""Names without their suffixes, and suffixes that end in each other."""

from __future__ import annotations

import pytest

from patchforest.io.formats import DICOM, FOLDERS, PICTURES, SLIDES, SUFFIXES, VOLUMES, stem_of


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("a.png", "a"), ("a.b.TIF", "a.b"), ("x/ct.nii.gz", "ct"), ("s.ome.tif", "s"), ("s.OME.TIFF", "s"),
        ("z.ome.zarr", "z"), ("z.zarr", "z"), ("v.nii", "v"), ("slide.svs", "slide"), ("noext", "noext"),
        ("t.1.2", "t.1"), (".tif", ".tif"),
    ],
)  # fmt: skip
def test_stems(name: str, stem: str) -> None:
    assert stem_of(name) == stem


def test_every_suffix_is_lower_case_and_named_once() -> None:
    every = (*PICTURES, *SLIDES, *VOLUMES, *DICOM, *FOLDERS)
    assert len(set(every)) == len(every)
    assert all(s.startswith(".") and s == s.lower() for s in every)
    assert set(SUFFIXES) == set(every) - set(FOLDERS)
