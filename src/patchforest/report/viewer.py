"""A folder that opens an image of any size in a browser, with forest, prediction and truth as layers to toggle.

It needs no server and no network: tiles are plain files, everything else is scripts beside ``index.html``.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from patchforest import __version__
from patchforest.errors import InputError
from patchforest.io.atomic_folder import atomic_folder
from patchforest.report import palette
from patchforest.report.tiles import TILE
from patchforest.report.view_layers import Layer, Tiled, colour_of, tile_image, tile_layer
from patchforest.tree.stream import Workers
from patchforest.tree.window import Window
from patchforest.values import Forest, ImageSource

MARKER = "patchforest-view.json"
"""The file by which a folder is known as one of ours."""
ASSETS = ("openseadragon.min.js", "openseadragon-LICENSE.txt", "viewer.css", "leaves.js", "viewer.js")
_LEGEND = 24  # classes that are named at most

Tell = Callable[[str], None]


@dataclass(frozen=True)
class View:
    """A view on disk: its page, and the files and bytes of all its tiles."""

    page: Path
    files: int
    bytes: int


def write_view(
    out: str | Path,
    image: ImageSource,
    *,
    title: str,
    forest: Forest | None = None,
    layers: Sequence[Layer] = (),
    window: Window | None = None,
    max_side: int | None = None,
    threads: int = 1,
    tell: Tell | None = None,
) -> View:
    """Writes the folder ``out``, whose ``index.html`` opens by a double click; whole or not at all.

    Memory holds a few rows of tiles, whatever the size of the image. A folder that an earlier call wrote is replaced.

    Parameters
    ----------
    image : 8-bit pixels are shown as they are, others through ``window`` (see ``tree.window``).
    forest : of the image, 2-D.
    layers : laid over the image in this order, each with a check box; smaller ones are stretched to its extent.
    max_side : keep no more than so many pixels a side: the image and each layer are halved until they fit.
    threads : that read and encode.
    tell : receives a line when a part begins.

    Raises
    ------
    InputError
        ``out`` holds something else or cannot be written; a layer has another shape than the image; an image or layer
        cannot be read, or its pixels are not what they should be.
    ValueError
        The pixels have no known range and no ``window`` says it; the forest is not of this image.
    """
    out, say = Path(out), tell or (lambda _: None)
    shape = (int(image.shape[0]), int(image.shape[1]))
    if forest is not None and forest.shape != shape:
        raise ValueError(f"the forest was cut for {forest.shape}, the image is {shape}")
    for layer in layers:
        require_extent(layer.name, layer.source.shape, shape)
    _require_ours(out)
    with atomic_folder(out, overwrite=out.exists()) as folder, Workers(threads) as workers:
        say("tiles of the image")
        tiled = [tile_image(folder / "image", image, window=window, max_side=max_side, workers=workers)]
        for number, layer in enumerate(layers):
            say(f"tiles of the {layer.name}")
            place = folder / f"layer{number}"
            tiled.append(tile_layer(place, layer, max_side=max_side, workers=workers))
        for name in ASSETS:
            (folder / name).write_bytes(_asset(name))
        (folder / "forest.js").write_text(_script("patchforestLeaves", forest_table(forest)), encoding="utf-8")
        description = describe_view(title, image, layers, tiled)
        (folder / "view.js").write_text(_script("patchforestView", description), encoding="utf-8")
        (folder / MARKER).write_text(json.dumps({"patchforest": __version__}) + "\n", encoding="utf-8")
        page = _asset("index.html").decode("utf-8").replace("{{title}}", escape(title))
        (folder / "index.html").write_text(page, encoding="utf-8")
    pyramids = [part.pyramid for part in tiled]
    return View(out / "index.html", sum(p.files for p in pyramids), sum(p.bytes for p in pyramids))


def is_view(folder: Path) -> bool:
    """Whether a folder was written by ``write_view``."""
    return (folder / MARKER).is_file()


def require_extent(name: str, shape: tuple[int, ...], image: tuple[int, ...]) -> None:
    """Nothing where (H, W, ...) shows the same extent as the image's, to a pixel; InputError with both sizes else."""
    (height, width), (full_height, full_width) = shape[:2], image[:2]
    if max(abs(width * full_height - full_width * height) / n for n in (full_height, full_width)) > 1:
        what = f"is {height} x {width} pixels (height x width) but the image {full_height} x {full_width}"
        raise InputError(name, what, "give the one of this image, at its size or at a fraction of it")


def forest_table(forest: Forest | None) -> dict[str, Any] | None:
    """The leaves as the page reads them: places in cells and levels in base64, little-endian, and a colour a level."""
    if forest is None:
        return None
    places = (forest.origin // forest.cell).astype("<u4")
    return {
        "count": len(forest),
        "root": forest.root,
        "cell": forest.cell,
        "rows": _base64(places[:, 0]),
        "columns": _base64(places[:, 1]),
        "levels": _base64(forest.level.astype(np.uint8)),
        "colours": palette.level_colours(forest.depth).tolist(),
    }


def describe_view(title: str, image: ImageSource, layers: Sequence[Layer], tiled: Sequence[Tiled]) -> dict[str, Any]:
    """All that the page shows of an image besides its pixels and leaves; ``tiled`` is the image's, then the layers'."""
    height, width, channels = image.shape
    return {
        "title": title,
        "height": height,
        "width": width,
        "channels": channels,
        "mpp": image.mpp,
        "image": _tile_source("image", tiled[0]),
        "layers": [
            {
                "name": layer.name,
                "kind": layer.kind,
                "tiles": _tile_source(f"layer{number}", part),
                "legend": _legend(layer, part.classes),
            }
            for number, (layer, part) in enumerate(zip(layers, tiled[1:]))
        ],
    }


def _tile_source(folder: str, tiled: Tiled) -> dict[str, Any]:
    height, width = tiled.pyramid.shape
    return {
        "folder": folder,
        "suffix": tiled.suffix,
        "height": height,
        "width": width,
        "tile": TILE,
        "levels": tiled.pyramid.levels,
    }


def _legend(layer: Layer, classes: Sequence[int]) -> list[dict[str, Any]]:
    """Name and colour of the classes that occur, background left out."""
    shown = [number for number in classes if number][:_LEGEND]
    return [
        {"name": layer.names[k] if k < len(layer.names) else f"class {k}", "colour": list(colour_of(k))} for k in shown
    ]


def _require_ours(out: Path) -> None:
    """InputError for a folder that holds files and is no view."""
    if out.is_dir() and not is_view(out) and any(out.iterdir()):
        raise InputError(out, "is a folder of something else, not a view to replace", "choose another output folder")


def _asset(name: str) -> bytes:
    return (files("patchforest.report") / "viewer_files" / name).read_bytes()


def _script(name: str, value: Mapping[str, Any] | None) -> str:
    """A script that sets a global variable; pure ASCII, so that no file name can leave its string."""
    return f"window.{name} = {json.dumps(value, ensure_ascii=True)};\n"


def _base64(values: np.ndarray) -> str:
    return base64.b64encode(np.ascontiguousarray(values).tobytes()).decode("ascii")
