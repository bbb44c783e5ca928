"""OME-TIFF: a pyramidal BigTIFF whose reduced levels are sub-images, with OME-XML as its description.

Written after the OME-TIFF specification (ome-model.readthedocs.io, schema 2016-06) with its sub-resolution pyramids.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from xml.sax.saxutils import quoteattr

from patchforest.io.tiles import Pyramid
from patchforest.io.write_tiff import write_tiff
from patchforest.values import Array

_SCHEMA = "http://www.openmicroscopy.org/Schemas/OME/2016-06"


def write_ome_tiff(path: Path, pyramid: Pyramid, rows: Iterable[tuple[int, Array]]) -> None:
    """``path`` holds the pyramid as OME-TIFF, ``rows`` as in ``write_tiff``; OpenSlide sees its level 0 only."""
    write_tiff(path, pyramid, rows, description=ome_xml(path.name, pyramid), sub_images=True)


def ome_xml(name: str, pyramid: Pyramid) -> str:
    """The OME-XML of an image called ``name``: size, type, PhysicalSize in micron, names; 7-bit.

    The classes of a mask are a map annotation from number to name, the names of channels their own.
    """
    height, width = pyramid.levels[0]
    shown = "".join(letter if letter.isprintable() else "?" for letter in name)
    sizes = {"SizeX": width, "SizeY": height, "SizeC": pyramid.channels, "SizeZ": 1, "SizeT": 1}
    pixels: dict[str, object] = {
        "ID": "Pixels:0",
        "DimensionOrder": "XYCZT",
        "Type": pyramid.dtype.name,
        **sizes,
        "BigEndian": "false",
        "Interleaved": "true",
    }
    if pyramid.mpp is not None:
        for axis in "XY":
            pixels |= {f"PhysicalSize{axis}": repr(float(pyramid.mpp)), f"PhysicalSize{axis}Unit": "µm"}
    channel: dict[str, object] = {"ID": "Channel:0:0", "SamplesPerPixel": pyramid.channels}
    classes = pyramid.names if pyramid.kind == "mask" else ()
    if pyramid.names and not classes:
        channel["Name"] = ", ".join(pyramid.names)
    schema = {
        "xmlns": _SCHEMA,
        "xmlns:xsi": "http://www.w3.org/2001/XMLSchema-instance",
        "xsi:schemaLocation": f"{_SCHEMA} {_SCHEMA}/ome.xsd",
        "Creator": "patchforest",
    }
    lines = [
        '<?xml version="1.0" encoding="UTF-8"?>',
        f"<OME{_attributes(schema)}>",
        f"<Image{_attributes({'ID': 'Image:0', 'Name': shown})}>",
        f"<Pixels{_attributes(pixels)}>",
        f"<Channel{_attributes(channel)}/>",
        '<TiffData IFD="0" PlaneCount="1"/>',
        "</Pixels>",
    ]
    lines += ['<AnnotationRef ID="Annotation:0"/>'] * bool(classes) + ["</Image>"]
    if classes:
        lines += ["<StructuredAnnotations>", '<MapAnnotation ID="Annotation:0" Namespace="patchforest/classes">']
        lines += ["<Value>", *(f'<M K="{k}">{_text(text)}</M>' for k, text in enumerate(classes)), "</Value>"]
        lines += ["</MapAnnotation>", "</StructuredAnnotations>"]
    return "".join([*lines, "</OME>"]).encode("ascii", "xmlcharrefreplace").decode()


def _attributes(values: Mapping[str, object]) -> str:
    return "".join(f" {name}={quoteattr(str(value))}" for name, value in values.items())


def _text(value: str) -> str:
    return value.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
