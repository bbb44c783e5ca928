"""Small whole files of every kind that patchforest reads, for ``mutants.py`` to damage."""

from __future__ import annotations

import gzip
import io
import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from tests.io.slides import jpeg_tiles, write_tiled
from tests.io.volumes import AFFINE, anatomy, save_nifti, save_nrrd, save_series

RNG = np.random.default_rng(11)
_COARSE = np.kron(RNG.integers(1, 255, (12, 16, 3)), np.ones((8, 8, 1)))
PICTURE = np.clip(_COARSE + RNG.integers(-9, 9, (96, 128, 3)), 1, 255).astype(np.uint8)
GREY = PICTURE[..., 0]
APERIO = "Aperio Image Library v12.0.15\r\n128x96 [0,0 128x96] (64x64) JPEG/RGB Q=70|AppMag = 20|MPP = 0.4990"


@dataclass(frozen=True)
class Specimen:
    """How to make one: ``make(path)`` writes a file, or a folder, at ``path`` + ``suffix``; ``reader`` of it.

    ``checked``: every byte of its content is covered by a checksum, so that no mutant of it may be read as another.
    """

    reader: str
    suffix: str
    make: Callable[[Path], object]
    checked: bool = False
    needs: tuple[str, ...] = ()


def _pillow(pixels: np.ndarray, form: str, **options: object) -> Callable[[Path], object]:
    return lambda path: Image.fromarray(pixels).save(path, form, **options)  # type: ignore[arg-type]


def _tiff(pixels: np.ndarray = PICTURE, **options: object) -> Callable[[Path], object]:
    photometric = "rgb" if pixels.ndim == 3 and pixels.shape[2] == 3 else "minisblack"
    return lambda path: tifffile.imwrite(path, pixels, **{"photometric": photometric, **options})  # type: ignore[arg-type]


def _palette(path: Path) -> None:
    picture = Image.fromarray(GREY % 7, "P")
    picture.putpalette(RNG.integers(0, 255, 768).tolist())
    picture.save(path, "PNG")


def _exif(path: Path) -> None:
    tags = Image.Exif()
    tags[0x0112] = 6
    Image.fromarray(PICTURE).save(path, "JPEG", exif=tags)


def _pyramid(path: Path, **options: object) -> None:
    with tifffile.TiffWriter(path) as file:
        for k in range(3):
            page = {"tile": (32, 32), "compression": "zlib", "photometric": "rgb", "subfiletype": int(k > 0), **options}
            file.write(PICTURE[:: 2**k, :: 2**k], **page)  # type: ignore[arg-type]


def _ome(path: Path) -> None:
    with tifffile.TiffWriter(path, ome=True) as file:
        page = {"tile": (32, 32), "compression": "zlib", "photometric": "rgb"}
        about = {"axes": "YXS", "PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5}
        file.write(PICTURE, subifds=1, metadata=about, **page)  # type: ignore[arg-type]
        file.write(PICTURE[::2, ::2], subfiletype=1, **page)  # type: ignore[arg-type]


def _aperio(path: Path) -> None:
    levels = [PICTURE, PICTURE[::2, ::2]]
    write_tiled(path, [(p.shape[:2], jpeg_tiles(p, 64)) for p in levels], 64, description=APERIO)


def _jpeg_2000(path: Path) -> None:
    out = io.BytesIO()
    Image.fromarray(PICTURE[:64, :64]).save(out, "JPEG2000", no_jp2=True, irreversible=False, mct=0)
    write_tiled(path, [((64, 64), [out.getvalue()])], 64, compression=33005, photometric=2, description=APERIO)


def _npy(path: Path) -> None:
    np.save(path, PICTURE)


def _zarr(path: Path, **options: object) -> None:
    import zarr

    array = zarr.create_array(str(path), shape=PICTURE.shape, dtype="u1", **options)  # type: ignore[arg-type]
    array[:] = PICTURE


def _zarr_codec(kind: str) -> Callable[[Path], object]:
    def make(path: Path) -> None:
        import zarr.codecs as codecs

        packed = {"zstd": codecs.ZstdCodec(), "gzip": codecs.GzipCodec(), "blosc": codecs.BloscCodec()}[kind]
        _zarr(
            path, zarr_format=3, chunks=(32, 32, 3), compressors=[packed, codecs.Crc32cCodec()][: 1 + (kind != "blosc")]
        )

    return make


def _ome_zarr(path: Path) -> None:
    import zarr

    group = zarr.create_group(str(path), zarr_format=3)
    for k in range(2):
        part = PICTURE[:: 2**k, :: 2**k]
        group.create_array(str(k), shape=part.shape, dtype="u1", chunks=(32, 32, 3))[:] = part
    axes = [{"name": n, "type": "space", "unit": "micrometer"} for n in "yx"] + [{"name": "c", "type": "channel"}]
    sets = [
        {"path": str(k), "coordinateTransformations": [{"type": "scale", "scale": [2.0**k / 2, 2.0**k / 2, 1.0]}]}
        for k in range(2)
    ]
    group.attrs["ome"] = {"version": "0.5", "multiscales": [{"axes": axes, "datasets": sets, "name": "i"}]}


def _dicom_series(path: Path) -> None:
    save_series(path, RNG.integers(0, 2000, (4, 20, 24)).astype(np.int16))


def _dicom_packed(path: Path) -> None:
    from pydicom.uid import RLELossless

    save_series(path, RNG.integers(0, 2000, (3, 20, 24)).astype(np.int16), compress=RLELossless)


def _nifti(path: Path) -> None:
    save_nifti(path, anatomy(), AFFINE)


def _nrrd(encoding: str) -> Callable[[Path], object]:
    return lambda path: save_nrrd(path, anatomy(), AFFINE, encoding=encoding)


def _stack(path: Path) -> None:
    tifffile.imwrite(
        path, np.stack([GREY[:40, :50] + k for k in range(4)]), compression="zlib", photometric="minisblack"
    )


def _geojson(path: Path) -> None:
    def ring(x: float, y: float, r: float) -> list[list[float]]:
        return [[x - r, y - r], [x + r, y - r], [x + r, y + r], [x - r, y + r], [x - r, y - r]]

    features = [
        {
            "type": "Feature",
            "id": f"0000000{k}",
            "geometry": {
                "type": "Polygon",
                "coordinates": [ring(9 + 8 * k, 20 + 5 * k, 7), ring(9 + 8 * k, 20 + 5 * k, 2.5)],
            },
            "properties": {"objectType": "annotation", "classification": {"name": "gland", "color": [200, 0, 0]}},
        }
        for k in range(6)
    ]
    data = json.dumps({"type": "FeatureCollection", "features": features}).encode()
    path.write_bytes(gzip.compress(data, mtime=0) if path.suffix == ".gz" else data)


def _bundle() -> tuple[object, object]:
    import torch

    from patchforest.models.build import build_model
    from patchforest.models.bundle import ModelSpec
    from patchforest.models.config import ModelConfig
    from patchforest.values import ForestPolicy

    torch.manual_seed(0)
    config = ModelConfig(width=16, depth=1, heads=2, stem=(4, 8), stride=4)
    return build_model(config), ModelSpec(
        config, ForestPolicy(budget=16, window=64), ("background", "gland"), window=64
    )


def _model(path: Path) -> None:
    from patchforest.models.bundle import save_model

    network, spec = _bundle()
    save_model(path, network, spec)  # type: ignore[arg-type]


def _parts(path: Path) -> None:
    from patchforest.infer.slide import predict_slide
    from patchforest.io.array import ArraySource
    from patchforest.models.bundle import Bundle

    network, spec = _bundle()
    bundle = Bundle(network.eval(), spec)  # type: ignore[attr-defined,arg-type]
    predict_slide(bundle, ArraySource(PICTURE), path, window=64, probabilities=True)
    (path / "plan.json").unlink()  # it is not read again here


def _item(path: Path) -> None:
    from tests.data.prepared_data import random_item

    from patchforest.data.prepared import write_item

    write_item(path, random_item(np.random.default_rng(5)))


_WSI, _VOLUMES = ("zarr",), ("nibabel", "nrrd", "pydicom")
SPECIMENS: dict[str, Specimen] = {
    "PNG 8 bit": Specimen("image", ".png", _pillow(PICTURE, "PNG")),
    "PNG 16 bit grey": Specimen("image", ".png", _pillow(GREY.astype(np.uint16) * 257, "PNG")),
    "PNG 16 bit RGB": Specimen("image", ".png", lambda path: _deep_png(path)),
    "PNG palette": Specimen("image", ".png", _palette),
    "PNG 1 bit": Specimen("image", ".png", _pillow(GREY > 120, "PNG")),
    "PNG label": Specimen("label", ".png", _pillow(GREY % 3, "PNG")),
    "JPEG": Specimen("image", ".jpg", _pillow(PICTURE, "JPEG")),
    "JPEG progressive": Specimen("image", ".jpg", _pillow(PICTURE, "JPEG", progressive=True)),
    "JPEG EXIF": Specimen("image", ".jpg", _exif),
    "TIFF raw": Specimen("image", ".tif", _tiff(rowsperstrip=16)),
    "TIFF deflate strips": Specimen("image", ".tif", _tiff(compression="zlib", rowsperstrip=16)),
    "TIFF deflate tiles": Specimen("image", ".tif", _tiff(compression="zlib", predictor=True, tile=(32, 32))),
    "TIFF LZW": Specimen("image", ".tif", _pillow(PICTURE, "TIFF", compression="tiff_lzw")),
    "TIFF PackBits": Specimen("image", ".tif", _pillow(PICTURE, "TIFF", compression="packbits")),
    "TIFF JPEG tiles": Specimen("image", ".tif", lambda p: write_tiled(p, [((96, 128), jpeg_tiles(PICTURE, 32))], 32)),
    "TIFF float": Specimen("image", ".tif", _tiff(GREY.astype(np.float32), compression="zlib")),
    "TIFF 1 bit": Specimen("image", ".tif", _pillow(GREY > 120, "TIFF")),
    "BigTIFF planar": Specimen(
        "image",
        ".tif",
        _tiff(
            PICTURE.transpose(2, 0, 1).copy(), bigtiff=True, tile=(32, 32), photometric="rgb", planarconfig="separate"
        ),
    ),
    "TIFF pyramid": Specimen("image", ".tif", _pyramid),
    "TIFF label": Specimen("label", ".tif", _tiff(GREY % 3, compression="zlib")),
    "OME-TIFF": Specimen("image", ".ome.tif", _ome),
    "Aperio JPEG": Specimen("image", ".svs", _aperio),
    "Aperio JPEG 2000": Specimen("image", ".svs", _jpeg_2000, needs=("openslide",)),
    "NPY": Specimen("image", ".npy", _npy),
    "Zarr 2": Specimen("image", ".zarr", lambda p: _zarr(p, zarr_format=2, chunks=(32, 32, 3)), needs=_WSI),
    "Zarr 3 zstd": Specimen("image", ".zarr", _zarr_codec("zstd"), needs=_WSI),
    "Zarr 3 gzip": Specimen("image", ".zarr", _zarr_codec("gzip"), needs=_WSI),
    "Zarr 3 blosc": Specimen("image", ".zarr", _zarr_codec("blosc"), needs=_WSI),
    "Zarr 3 shards": Specimen(
        "image", ".zarr", lambda p: _zarr(p, zarr_format=3, chunks=(32, 32, 3), shards=(64, 64, 3)), needs=_WSI
    ),
    "OME-Zarr": Specimen("image", ".ome.zarr", _ome_zarr, needs=_WSI),
    "NIfTI": Specimen("volume", ".nii", _nifti, needs=_VOLUMES),
    "NIfTI gzip": Specimen("volume", ".nii.gz", _nifti, needs=_VOLUMES),
    "NRRD raw": Specimen("volume", ".nrrd", _nrrd("raw"), needs=_VOLUMES),
    "NRRD gzip": Specimen("volume", ".nrrd", _nrrd("gzip"), needs=_VOLUMES),
    "NRRD bzip2": Specimen("volume", ".nrrd", _nrrd("bzip2"), needs=_VOLUMES),
    "DICOM series": Specimen("volume", "", _dicom_series, needs=_VOLUMES),
    "DICOM series RLE": Specimen("volume", "", _dicom_packed, needs=_VOLUMES),
    "TIFF stack": Specimen("volume", ".tif", _stack),
    "NPY volume": Specimen("volume", ".npy", lambda path: np.save(path, anatomy())),
    "GeoJSON": Specimen("geojson", ".geojson", _geojson),
    "GeoJSON gzip": Specimen("geojson", ".geojson.gz", _geojson),
    "our model": Specimen("model", "", _model),
    "our parts": Specimen("parts", "", _parts, checked=True),
    "our prepared item": Specimen("item", ".safetensors", _item, checked=True),
}
"""By name. Those of real data come from ``real_specimens``."""


def _deep_png(path: Path) -> None:
    import cv2

    path.write_bytes(cv2.imencode(".png", PICTURE.astype(np.uint16) * 257)[1].tobytes())


def real_specimens(data: Path) -> dict[str, Specimen]:
    """Slides and pictures of ``data/wsi``, where they are."""
    found = {}
    for name in (
        "CMU-1-Small-Region.svs",
        "odd/small.svs",
        "odd/boxes.tiff",
        "odd/test_orient6.tif",
        "odd/test_L_16.png",
    ):
        path = data / "wsi" / name
        if path.is_file():
            found[path.name] = Specimen("image", path.suffix, lambda target, path=path: shutil.copyfile(path, target))
    if (data / "wsi" / "odd" / "boxes_0.dcm").is_file():
        found["DICOM slide"] = Specimen("image", "", lambda target: _dicom_slide(data, target), needs=("openslide",))
    return found


def _dicom_slide(data: Path, target: Path) -> None:
    target.mkdir()
    for k in range(2):
        shutil.copyfile(data / "wsi" / "odd" / f"boxes_{k}.dcm", target / f"{k}.dcm")
