"""Label masks: class numbers exactly as meant, or one line that says why they are not."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from patchforest.errors import InputError
from patchforest.io.array import ArraySource
from patchforest.io.open import open_source
from patchforest.values import Array, ImageSource

OTHER = "other"
_ONE_GREY = "save class numbers 0, 1, 2, ... in one grey channel (PNG or TIFF)"
_MAX_LISTED = 5
_MANY = 16
_SAMPLED = 200_000
_CHUNK = 1 << 24


def read_label(
    path: str | Path, *, label_map: Mapping[int | str, int] | None = None, num_classes: int | None = None
) -> Array:
    """(H, W) class numbers of a mask file, uint8 (uint16 where one is above 255), upright like its image.

    Palette PNG and TIFF give their indices, 1-bit masks 0 and 1, colour masks with three equal channels that channel.

    Parameters
    ----------
    path : PNG, TIFF or NPY; JPEG is refused, because its compression changes class numbers.
    label_map : stored value -> class number. The key ``"other"`` stands for every value not listed: with
        ``{0: 0, "other": 1}`` instance numbers become foreground. Without it, an unlisted value must
        be a class number already: below ``num_classes``, or where that is not given, 0 or a class number of the map.
    num_classes : classes including background; greater numbers are refused, and listed.

    Raises
    ------
    InputError
        The file cannot be read, is colour, real-valued, negative, 0/255 without a map, or holds other values.
    ValueError
        ``label_map`` has a key that is no integer or ``"other"``, or a class number outside 0 to 65535.
    """
    mapping = checked_map(label_map)
    return class_numbers(_one_channel(Path(path)), path, mapping, num_classes)


def class_numbers(
    values: Array, path: str | Path, mapping: Mapping[int | str, int] | None, num_classes: int | None
) -> Array:
    """``values``, whole numbers of any shape as a file holds them, as class numbers: the rules of ``read_label``.

    ``mapping`` comes from ``checked_map``; ``path`` is named in errors.
    """
    found = _values_in(values)
    if mapping is None:
        _require_not_0_255(found, path, num_classes)
        classes = found
    else:
        classes = _mapped(found, mapping, path, num_classes)
    _require_range(found, classes, path, num_classes)
    dtype = np.uint8 if int(classes.max()) < 256 else np.uint16
    if np.array_equal(found, classes):
        return np.ascontiguousarray(values, dtype)
    return _replaced(values, found, classes.astype(dtype))


def open_label(path: str | Path) -> ImageSource:
    """A mask file that is too large for memory, to be read in windows of whole numbers (h, w, 1) as they are stored.

    Its pixels go through ``class_numbers``. Stricter than ``read_label`` where the file is read in parts: one channel,
    no palette, no packed bits. A file that is decoded as a whole is kept in memory.

    Raises
    ------
    InputError
        As ``read_label``, and for those.
    """
    path = Path(path)
    source = open_source(path)
    if source.format in ("JPEG", "slide"):
        raise InputError(path, f"is a {source.format}, whose compression changes class numbers", _ONE_GREY)
    if source.tile[0] >= source.shape[0] and source.tile[1] >= source.shape[1]:
        return ArraySource(_one_channel(path), path, mpp=source.mpp)
    kind = source.read(0, 0, 0, 1, 1).dtype
    if kind.kind not in "ui":
        raise InputError(path, f"holds {kind} values, but class numbers are whole", "save it as 8- or 16-bit integers")
    if source.shape[2] != 1 or not getattr(source, "plain", True):
        raise InputError(path, "is a mask with colours, a palette or packed bits", _ONE_GREY)
    return source


def check_pair(
    image_shape: tuple[int, ...], label_shape: tuple[int, ...], image_path: str | Path, label_path: str | Path
) -> None:
    """Nothing where image (H, W, ...) and label (H, W, ...) agree in size; InputError with both sizes otherwise."""
    image, label = tuple(image_shape[:2]), tuple(label_shape[:2])
    if image == label:
        return
    what = f"is {label[0]} x {label[1]} pixels (height x width) but its image {image_path} is {image[0]} x {image[1]}"
    turned = image == label[::-1]
    hint = "one of them is turned: save both upright" if turned else "export the mask at the size of its image"
    raise InputError(label_path, what, hint)


def _one_channel(path: Path) -> Array:
    """(H, W) whole numbers as stored; InputError for JPEG, colour and real numbers."""
    source = open_source(path)
    if source.format in ("JPEG", "slide"):
        raise InputError(path, f"is a {source.format}, whose compression changes class numbers", _ONE_GREY)
    if getattr(source, "inverted", False):  # programs disagree whether its foreground is 0 or 1
        raise InputError(path, "is a TIFF that counts from white, so its foreground is uncertain", _ONE_GREY)
    stored = source.stored()
    if stored.dtype == bool:
        stored = stored.astype(np.uint8)
    if stored.dtype.kind not in "ui":
        raise InputError(
            path, f"holds {stored.dtype} values, but class numbers are whole", "save it as 8- or 16-bit integers"
        )
    colours, alpha = stored, None
    if stored.shape[2] in (2, 4):
        colours, alpha = stored[:, :, :-1], stored[:, :, -1]
    if alpha is not None and (alpha != np.iinfo(stored.dtype).max).any():
        raise InputError(path, "is a mask with transparency", _ONE_GREY)
    unequal = (colours[:, :, 1:] != colours[:, :, :1]).any(axis=2)
    if unequal.any():
        unique = np.unique(colours[unequal][:_SAMPLED], axis=0)
        listed = ", ".join(str(tuple(int(v) for v in colour)) for colour in unique[:_MAX_LISTED])
        more = ", ..." if len(unique) > _MAX_LISTED else ""
        raise InputError(path, f"is a colour mask ({listed}{more})", _ONE_GREY)
    return colours[:, :, 0]


def _values_in(values: Array) -> Array:
    """Sorted distinct values, int64."""
    if values.dtype.kind == "u" and values.dtype.itemsize <= 2:
        flat, length = values.ravel(), 1 << (8 * values.dtype.itemsize)
        seen = np.zeros(length, bool)
        for start in range(0, flat.size, _CHUNK):  # bincount widens to 64 bits: a part at a time
            seen |= np.bincount(flat[start : start + _CHUNK], minlength=length) > 0
        return np.flatnonzero(seen)
    return np.unique(values).astype(np.int64)


def checked_map(label_map: Mapping[int | str, int] | None) -> dict[int | str, int] | None:
    """The map with integer keys (JSON has them as text) or ``"other"``; ValueError for anything else."""
    if label_map is None:
        return None
    checked: dict[int | str, int] = {}
    for key, value in label_map.items():
        number = int(key) if isinstance(key, str) and key.removeprefix("-").isdecimal() else key
        if isinstance(number, bool) or not (isinstance(number, int | np.integer) or number == OTHER):
            raise ValueError(
                f"label_map: key {key!r} is no stored value; use whole numbers, or 'other' for all the rest"
            )
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or not 0 <= value <= 65535:
            raise ValueError(f"label_map: {key!r} maps to {value!r}, which is no class number from 0 to 65535")
        checked[number if number == OTHER else int(number)] = int(value)
    return checked


def _mapped(found: Array, mapping: Mapping[int | str, int], path: str | Path, num_classes: int | None) -> Array:
    """The class number of every found value; InputError listing values that have none."""
    known = set(range(num_classes)) if num_classes is not None else {0, *mapping.values()}
    rest, unknown, classes = mapping.get(OTHER), [], []
    for value in found.tolist():
        target = mapping.get(value, rest)
        if target is None and value not in known:
            unknown.append(value)
        classes.append(value if target is None else target)
    if unknown:
        what = f"holds {_listed(unknown)}, neither in label_map nor a class number"
        raise InputError(path, what, "add them to label_map, or `other: 0` for all the rest")
    return np.array(classes, np.int64)


def _require_not_0_255(found: Array, path: str | Path, num_classes: int | None) -> None:
    """InputError for the usual picture of a binary mask, 0 and 255, unless 255 is a class."""
    if found[-1] == 255 and set(found.tolist()) <= {0, 255} and (num_classes is None or num_classes <= 255):
        what = "holds 255 for foreground (values 0 and 255)" if len(found) > 1 else "holds only the value 255"
        raise InputError(path, what, "set `label_map: {255: 1}`")


def _require_range(found: Array, classes: Array, path: str | Path, num_classes: int | None) -> None:
    """InputError unless every class number is between 0 and ``num_classes`` - 1 (65535)."""
    limit = 65536 if num_classes is None else num_classes
    outside = found[(classes < 0) | (classes >= limit)].tolist()
    if not outside:
        return
    if num_classes is not None and len(found) > max(_MANY, 2 * num_classes):
        what = f"holds {len(found)} different values up to {int(found[-1])} for {num_classes} classes"
        hint = "if it is anti-aliased save it without smoothing, if instances set `label_map: {0: 0, other: 1}`"
        raise InputError(path, what, hint)
    what = f"holds {_listed(outside)}, but class numbers go from 0 to {limit - 1}"
    raise InputError(path, what, "correct the mask, raise the number of classes, or set `label_map: {VALUE: CLASS}`")


def _replaced(values: Array, found: Array, classes: Array) -> Array:
    """``values`` with every ``found[k]`` replaced by ``classes[k]``."""
    if found[0] >= 0 and found[-1] < 65536:
        table = np.zeros(int(found[-1]) + 1, classes.dtype)
        table[found] = classes
        return table[values]
    return classes[np.searchsorted(found, values)]


def _listed(values: list[int]) -> str:
    """Up to five values as words."""
    shown = ", ".join(str(value) for value in values[:_MAX_LISTED])
    return f"value{'s' if len(values) > 1 else ''} {shown}{', ...' if len(values) > _MAX_LISTED else ''}"
