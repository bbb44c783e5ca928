"""Volumes for tests: one anatomy, stored in any of 48 orders, in every format; DICOM series slice by slice."""

from __future__ import annotations

from itertools import permutations, product
from pathlib import Path
from typing import Any

import numpy as np

ORDERS = [(order, signs) for order in permutations(range(3)) for signs in product((1, -1), repeat=3)]
SIZE = (7, 6, 5)
"""Voxels towards right, anterior, superior."""

AFFINE = np.array([[0.75, 0, 0, -31.5], [0, 1.25, 0, 20.25], [0, 0, 2.5, -804.5], [0, 0, 0, 1]])


def anatomy(dtype: str = "int16", seed: int = 0, channels: int = 0) -> np.ndarray:
    """Voxels counted towards right, anterior, superior."""
    shape = SIZE + ((channels,) if channels else ())
    return np.random.default_rng(seed).integers(0, 200, shape).astype(dtype)


def shown(ras: np.ndarray) -> np.ndarray:
    """What a reader must show of such voxels: (towards superior, posterior, left, channel)."""
    right, anterior, superior = ras.shape[:3]
    out = np.empty((superior, anterior, right, *ras.shape[3:]), ras.dtype)
    for x, y, z in np.ndindex(right, anterior, superior):
        out[z, anterior - 1 - y, right - 1 - x] = ras[x, y, z]
    return out if ras.ndim == 4 else out[..., None]


def reordered(
    ras: np.ndarray, affine: np.ndarray, order: tuple[int, ...], signs: tuple[int, ...]
) -> tuple[np.ndarray, np.ndarray]:
    """The same volume with stored axis k along axis ``order[k]``, backwards where the sign is -1, and its affine."""
    place, steps = affine[:3, 3].copy(), []
    out = ras.transpose(*order, *range(3, ras.ndim))
    for k, (axis, sign) in enumerate(zip(order, signs)):
        steps.append(affine[:3, axis] * sign)
        if sign < 0:
            place = place + affine[:3, axis] * (ras.shape[axis] - 1)
            out = np.flip(out, k)
    stored = np.eye(4)
    stored[:3, :3], stored[:3, 3] = np.stack(steps, axis=1), place
    return out, stored


def turned(affine: np.ndarray, degrees: tuple[float, float, float]) -> np.ndarray:
    """An affine turned about x, then y, then z."""
    out = affine.copy()
    for axis, angle in enumerate(np.deg2rad(degrees)):
        one, two = [k for k in range(3) if k != axis]
        turn = np.eye(4)
        turn[one, one] = turn[two, two] = np.cos(angle)
        turn[one, two], turn[two, one] = -np.sin(angle), np.sin(angle)
        out = turn @ out
    return out


def save_nifti(path: Path, voxels: np.ndarray, affine: np.ndarray, *, sform: int = 1, qform: int = 1) -> Path:
    import nibabel

    image = nibabel.Nifti1Image(np.ascontiguousarray(voxels), affine)
    image.header.set_xyzt_units("mm")
    image.set_sform(affine, sform)
    image.set_qform(affine, qform)
    image.header.set_slope_inter(1, 0)
    nibabel.save(image, path)
    return path


def save_nrrd(path: Path, voxels: np.ndarray, affine: np.ndarray, **fields: Any) -> Path:
    """Written by pynrrd, in left, posterior, superior."""
    import nrrd

    lps = np.diag([-1, -1, 1, 1]) @ affine
    header = {"space": "left-posterior-superior", "space directions": lps[:3, :3].T, "space origin": lps[:3, 3]}
    nrrd.write(str(path), np.asarray(voxels), {**header, "kinds": ["domain"] * 3, **fields})
    return path


def save(path: Path, voxels: np.ndarray, affine: np.ndarray) -> Path:
    return (save_nrrd if path.suffix == ".nrrd" else save_nifti)(path, voxels, affine)


def save_slice(path: Path, pixels: np.ndarray, place: Any, **fields: Any) -> Path:
    """A DICOM file of one CT slice (rows, columns); ``fields`` replace or remove (None) elements."""
    import pydicom
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, generate_uid

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.2"
    meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=[path.name])
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data = FileDataset(str(path), {}, file_meta=meta, preamble=bytes(128))
    values = {
        "SOPClassUID": meta.MediaStorageSOPClassUID,
        "SOPInstanceUID": meta.MediaStorageSOPInstanceUID,
        "Modality": "CT",
        "SeriesInstanceUID": "1.2.3.4",
        "SeriesDescription": "thorax",
        "Rows": pixels.shape[0],
        "Columns": pixels.shape[1],
        "BitsAllocated": 8 * pixels.dtype.itemsize,
        "BitsStored": 8 * pixels.dtype.itemsize,
        "HighBit": 8 * pixels.dtype.itemsize - 1,
        "PixelRepresentation": int(pixels.dtype.kind == "i"),
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "ImagePositionPatient": [round(float(value), 6) for value in place],
        "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
        "PixelSpacing": [1.25, 0.75],
        "RescaleSlope": 1,
        "RescaleIntercept": -1024,
        "PixelData": pixels.tobytes(),
    }
    compress = fields.pop("compress", None)
    for name, value in {**values, **fields}.items():
        if value is not None:
            setattr(data, name, value)
    data["PixelData"].VR = "OW" if pixels.dtype.itemsize > 1 else "OB"
    if compress is not None:
        data.compress(compress)
    pydicom.dcmwrite(path, data, enforce_file_format=True)
    return path


def save_series(folder: Path, planes: np.ndarray, *, step: float = 2.5, seed: int = 0, **fields: Any) -> list[Path]:
    """An axial series of ``planes`` (D, rows, columns), lowest first; names and instance numbers in another order."""
    folder.mkdir(exist_ok=True)
    names = np.random.default_rng(seed).permutation(len(planes))
    return [
        save_slice(
            folder / f"{names[k]:03d}.dcm",
            planes[k],
            (-30.0, -40.0, 100 + k * step),
            InstanceNumber=str(names[k]),
            **fields,
        )
        for k in range(len(planes))
    ]
