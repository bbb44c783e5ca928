"""Where the data of a recipe lie in a folder of data sets, and how a single image or volume is divided."""

from __future__ import annotations

from pathlib import Path

from patchforest.data.layout import Case, find_cases
from patchforest.data.load import load_case
from patchforest.errors import InputError
from patchforest.io.atomic import write_text
from patchforest.io.write import write_image, write_mask

FOLDERS = {"idrid_classes": "idrid", "ct_organs": "ct_totalseg", "glas_grades": "glas"}
"""Recipe → folder of its data, where the names differ."""

CUT = ("swiss_drone",)
"""Sets of a single image, which is cut before use."""


def data_of(name: str, data: Path, out: Path) -> Path:
    """The data folder of a recipe; that of a single image is cut into ``out/data`` first.

    Raises
    ------
    InputError : there is no such folder.
    """
    folder = data / FOLDERS.get(name, name)
    if not folder.is_dir():
        known = ", ".join(sorted(p.name for p in data.glob("*/"))) or "nothing"
        raise InputError(folder, "there are no such data", f"--data names the folder of all sets; it holds {known}")
    return cut_image(folder, out / "data" / name) if name in CUT else folder


def cut_image(folder: Path, out: Path) -> Path:
    """Divide the one image of a data set: its upper half, in two bands, trains, its lower half validates.

    ``out`` gets images/, masks/, train.txt and validation.txt; every pixel lies in one part. A folder that has them is
    left as it is.

    Raises
    ------
    InputError : not exactly one image.
    """
    lists = out / "train.txt", out / "validation.txt"
    if all(path.is_file() for path in lists):
        return out
    cases = find_cases(folder).cases
    if len(cases) != 1 or cases[0].label is None:
        raise InputError(folder, f"holds {len(cases)} images", "only a set of a single image is cut")
    picture = load_case(cases[0])
    rows = picture.shape[0]
    bounds = {"train_1": (0, rows // 4), "train_2": (rows // 4, rows // 2), "validation": (rows // 2, rows)}
    for name, (first, last) in bounds.items():
        write_image(out / "images" / f"{name}.png", picture.image[first:last])
        write_mask(out / "masks" / f"{name}.png", picture.label[first:last])
    write_text(lists[1], "validation\n")
    write_text(lists[0], "train_1\ntrain_2\n")
    return out


def cut_volume(case: Case, out: Path) -> Path:
    """Divide a volume along its planes: two thirds, ``lower``, to train on and one, ``upper``, to validate on.

    ``out`` gets images/ and labels/ of both as NRRD, each where it lies in space, and train.txt and validation.txt. A
    folder that has them is left as it is.
    """
    from patchforest.io.volume import open_volume
    from patchforest.io.volume_array import ArrayVolume
    from patchforest.io.volume_label import read_label_volume
    from patchforest.io.volume_write import write_volume, write_volume_mask

    lists = out / "train.txt", out / "validation.txt"
    if all(path.is_file() for path in lists):
        return out
    assert case.label is not None
    source, label = open_volume(case.image), read_label_volume(case.label)
    voxels, planes = source.read(), len(label)
    for name, part in (("lower", slice(0, 2 * planes // 3)), ("upper", slice(2 * planes // 3, planes))):
        affine = source.affine
        if affine is not None:
            affine = affine.copy()
            affine[:3, 3] += part.start * affine[:3, 0]
        place = ArrayVolume(voxels[part], spacing=source.spacing, affine=affine)
        write_volume(out / "images" / f"{name}.nrrd", voxels[part], place)
        write_volume_mask(out / "labels" / f"{name}.nrrd", label[part], place)
    write_text(lists[1], "upper\n")
    write_text(lists[0], "lower\n")
    return out
