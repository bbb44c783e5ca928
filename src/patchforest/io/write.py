"""Rasters on disk: label masks with their exact values, and RGB pictures. Always whole files, through ``io.atomic``."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import tifffile

from patchforest.errors import InputError
from patchforest.io.atomic import atomic_path, write_bytes
from patchforest.values import Array

_PNG = (".png",)
_TIFF = (".tif", ".tiff")
_TILE = 512


def write_mask(path: str | Path, mask: Array) -> None:
    """``path`` holds the class numbers of ``mask`` unchanged; ``read_label`` and any image program give them back.

    Parameters
    ----------
    path : ends in ``.png`` (one grey channel) or ``.tif``/``.tiff`` (deflate, tiled, BigTIFF where needed).
    mask : (H, W), whole numbers from 0 to 65535 or bool; stored in 8 bits where every value fits, else in 16.

    Raises
    ------
    ValueError
        The mask is not (H, W), empty, not of an integer type, or has values below 0 or above 65535.
    InputError
        Another suffix, or a target that cannot be written.
    """
    mask = np.asarray(mask)
    if mask.ndim != 2 or mask.size == 0:
        raise ValueError(f"a mask is (H, W) with at least one pixel; got shape {mask.shape}")
    if mask.dtype.kind not in "bui":
        raise ValueError(f"a mask holds whole class numbers; got dtype {mask.dtype}: round or argmax it first")
    low, high = int(mask.min()), int(mask.max())
    if low < 0 or high > 65535:
        raise ValueError(f"class numbers lie between 0 and 65535; got {low} to {high}")
    _write(Path(path), mask.astype(np.uint8 if high < 256 else np.uint16))


def write_image(path: str | Path, image: Array) -> None:
    """``path`` holds the picture ``image`` unchanged.

    Parameters
    ----------
    path : ends in ``.png`` or ``.tif``/``.tiff``.
    image : (H, W), (H, W, 1) or (H, W, 3) in red, green, blue order; uint8 or uint16.

    Raises
    ------
    ValueError
        Another shape or dtype: scale to 8 bits with a named window first.
    InputError
        Another suffix, or a target that cannot be written.
    """
    image = np.asarray(image)
    if image.ndim == 3 and image.shape[2] == 1:
        image = image[:, :, 0]
    if image.size == 0 or image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] != 3):
        raise ValueError(f"a picture is (H, W), (H, W, 1) or (H, W, 3) with at least one pixel; got {image.shape}")
    if image.dtype not in (np.uint8, np.uint16):
        raise ValueError(f"a picture is uint8 or uint16; got {image.dtype}: apply tree.window.to_uint8 with a window")
    _write(Path(path), image)


def _write(path: Path, raster: Array) -> None:
    """(H, W) or (H, W, 3) uint8/uint16 to the format of the suffix."""
    suffix = path.suffix.lower()
    if suffix in _PNG:
        stored = raster if raster.ndim == 2 else raster[:, :, ::-1]
        try:
            done, data = cv2.imencode(".png", np.ascontiguousarray(stored))
        except cv2.error as fault:
            raise InputError(path, f"cannot hold {raster.shape} pixels as PNG ({fault.err})", "write a .tif") from fault
        if not done:
            raise InputError(path, f"cannot hold {raster.shape} pixels as PNG", "write a .tif")
        write_bytes(path, data.data)
    elif suffix in _TIFF:
        with atomic_path(path) as temporary, tifffile.TiffWriter(temporary, bigtiff=raster.nbytes > 2**31) as tif:
            tif.write(
                raster,
                photometric="minisblack" if raster.ndim == 2 else "rgb",
                compression="adobe_deflate",
                predictor=raster.ndim == 3,
                tile=(_TILE, _TILE),
                metadata=None,
            )
    else:
        raise InputError(
            path, f"ends in {suffix or 'no suffix'!r}, which names no format we write", "end it in .png or .tif"
        )
