"""OME-TIFF by tifffile, and its XML by an XML parser."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import tifffile

from patchforest.io import pyramid
from patchforest.io.pyramid import write_pyramid
from patchforest.io.tiles import Pyramid
from patchforest.io.write_ome import ome_xml

OME = "{http://www.openmicroscopy.org/Schemas/OME/2016-06}"


@pytest.mark.parametrize(("kind", "channels"), [("mask", 1), ("image", 3), ("probability", 1)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_tifffile_reads_every_level(
    tmp_path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch, kind: Any, channels: int, dtype: type
) -> None:
    monkeypatch.setattr(pyramid, "_SMALLEST", 50)
    image = rng.integers(0, np.iinfo(dtype).max, (150, 201, channels), dtype)
    path = tmp_path / "a.ome.tiff"
    write_pyramid(path, [image[:70], image[70:]], shape=(150, 201), dtype=dtype, mpp=0.25, kind=kind, tile=32)
    halve = pyramid.halve_mask if kind == "mask" else pyramid.halve_mean
    with tifffile.TiffFile(path) as tif:
        assert tif.is_ome
        assert len(tif.pages) == 1
        (series,) = tif.series
        assert (series.kind, series.axes) == ("ome", "YX" if channels == 1 else "YXS")
        assert [level.shape[:2] for level in series.levels] == [(150, 201), (75, 101), (38, 51), (19, 26)]
        for level in series.levels:
            np.testing.assert_array_equal(level.asarray().reshape(image.shape), image)
            assert int(level.pages[0].subfiletype) == int(level is not series.levels[0])
            image = halve(image)


def test_the_xml_says_size_type_scale_and_names() -> None:
    names = ("background", 'a "b" <c> & ü')
    made = Pyramid(((20, 30),), 1, np.dtype("u2"), 512, 0.2512, "mask", names)
    text = ome_xml("sl\x07ide & <1>.ome.tif", made)
    assert text.isascii()
    root = ElementTree.fromstring(text)
    (image,) = root.findall(f"{OME}Image")
    assert image.get("Name") == "sl?ide & <1>.ome.tif"
    (pixels,) = image.findall(f"{OME}Pixels")
    expected = {"SizeX": "30", "SizeY": "20", "SizeC": "1", "SizeZ": "1", "SizeT": "1", "Type": "uint16"}
    expected |= {"PhysicalSizeX": "0.2512", "PhysicalSizeY": "0.2512"}
    expected |= {"PhysicalSizeXUnit": "µm", "PhysicalSizeYUnit": "µm"}
    assert {key: pixels.get(key) for key in expected} == expected
    (reference,) = image.findall(f"{OME}AnnotationRef")
    (notes,) = root.findall(f"{OME}StructuredAnnotations/{OME}MapAnnotation")
    assert notes.get("ID") == reference.get("ID")
    assert {m.get("K"): m.text for m in notes.iter(f"{OME}M")} == {"0": names[0], "1": names[1]}


def test_without_scale_and_names_the_xml_claims_none() -> None:
    text = ome_xml("a.ome.tif", Pyramid(((20, 30),), 3, np.dtype("u1"), 512, None, "image", ()))
    assert "PhysicalSize" not in text
    assert "Annotation" not in text
    assert 'SizeC="3"' in text
    assert 'SamplesPerPixel="3"' in text
    named = ome_xml("a.ome.tif", Pyramid(((20, 30),), 1, np.dtype("u1"), 512, None, "probability", ("gland",)))
    assert '<Channel ID="Channel:0:0" SamplesPerPixel="1" Name="gland"/>' in named
