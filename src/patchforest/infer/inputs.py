"""What a user names to be predicted: image files, slides, volumes and folders of them, each with an id of its own."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from patchforest.errors import InputError
from patchforest.io.formats import DICOM, SUFFIXES, stem_of
from patchforest.io.slide import series_of
from patchforest.io.zarr import is_zarr

STATE, OVERLAYS, PROBABILITIES = ".state", "overlays", "probabilities"
OURS = (STATE, OVERLAYS, PROBABILITIES)
_WHOLE = 256 << 20  # bytes up to which every byte counts
_ENDS = 1 << 20


def name_inputs(inputs: Sequence[str | Path], *, skip: Path | None = None) -> dict[str, Path]:
    """Images by id, in order; nothing below ``skip`` (the outputs).

    Ids are paths relative to the folder given, without suffix; inputs that would share one keep more of their name.
    A Zarr folder is one image, and so are the DICOM files of one series in a folder.

    Raises InputError for no input at all, or one that does not exist.
    """
    found = list(_files(inputs, skip))
    if not found:
        raise InputError(", ".join(map(str, inputs)) or "inputs", "no image there", f"give {', '.join(SUFFIXES)} files")
    shortest = [(relative.parent / stem_of(relative)).as_posix() for _, relative, _ in found]
    longer = [relative.as_posix().replace(".", "_") for _, relative, _ in found]
    longest = [f"{root}/{name}" for (root, _, _), name in zip(found, longer)]
    names = _distinct(_distinct(shortest, longer), longest)
    names = [m if n.split("/")[0] in OURS else n for n, m in zip(names, longest)]
    out: dict[str, Path] = {}
    for name, (_, _, path) in zip(names, found):
        key, number = name, 1
        while key in out:
            number += 1
            key = f"{name}-{number}"
        out[key] = path
    return out


def digest(path: Path) -> str:
    """What tells an input from another: SHA-256 of a file's bytes.

    Of files over 256 MiB only size, time of change and both ends are read, of folders the names, sizes and times of
    all files in them, and of a slide's companion folder likewise.
    """
    state = hashlib.sha256()
    try:
        companion = path.with_suffix("")
        for folder in [path] if path.is_dir() else [companion] if path.suffix and companion.is_dir() else []:
            for where, folders, files in os.walk(folder):
                folders.sort()
                for name in sorted(files):
                    about = os.stat(os.path.join(where, name))
                    state.update(f"{where}/{name} {about.st_size} {about.st_mtime_ns}\n".encode(errors="replace"))
        if not path.is_dir():
            _add_file(state, path)
    except OSError as error:
        raise InputError(path, f"cannot be read ({error.strerror})", "check the file and its permissions") from None
    return state.hexdigest()


def real_path(path: Path) -> Path:
    """Where a path leads; itself where its links lead in a circle."""
    return Path(os.path.realpath(path))


def _is_dicom(path: Path) -> bool:
    """Whether a file is DICOM: by its suffix, or, as scanners export them without one, by its first bytes."""
    if path.suffix.lower() in DICOM:
        return True
    if path.suffix and not path.suffix[1:].isdecimal():  # IM0001, 1.2.840.113
        return False
    try:
        with open(path, "rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return False


def _series(path: Path) -> bytes:
    try:
        return series_of(path)
    except OSError:  # its reader says why
        return b""


def _add_file(state: hashlib._Hash, path: Path) -> None:
    about = path.stat()
    with open(path, "rb") as file:
        if about.st_size <= _WHOLE:
            while block := file.read(1 << 20):
                state.update(block)
            return
        state.update(f"{about.st_size} {about.st_mtime_ns}".encode())
        state.update(file.read(_ENDS))
        file.seek(-_ENDS, os.SEEK_END)
        state.update(file.read(_ENDS))


def _files(inputs: Sequence[str | Path], skip: Path | None) -> Iterator[tuple[str, Path, Path]]:
    """(name of the folder given, path relative to it, path) of every image, each once, sorted within a folder."""
    seen: set[Path] = set()
    outputs = None if skip is None else real_path(skip)
    for given in map(Path, inputs):
        if not os.path.lexists(given):
            raise InputError(given, "there is no such file or folder", "check the path")
        inside = given.is_dir() and not _is_image_folder(given)
        for path in sorted(_images_below(given, outputs)) if inside else [given]:
            if real_path(path) not in seen:
                seen.add(real_path(path))
                root = given if inside else given.parent
                yield real_path(root).name or "root", path.relative_to(root), path


def _images_below(folder: Path, outputs: Path | None) -> Iterator[Path]:
    """Files of the suffixes we know and Zarr folders; of the DICOM files of one series in a folder the first."""
    for where, folders, files in os.walk(folder):
        here = Path(where)
        kept = []
        for name in sorted(folders):
            if name.startswith(".") or real_path(here / name) == outputs or (here / name / STATE).is_dir():
                continue  # hidden, or outputs, of this job or another
            if is_zarr(here / name):
                yield here / name
            else:
                kept.append(name)
        folders[:] = kept
        series: set[bytes] = set()
        for name in sorted(files):
            path = here / name
            dicom = _is_dicom(path)
            if name.startswith(".") or not (dicom or name.lower().endswith(SUFFIXES)):
                continue
            if dicom:
                mark = _series(path)
                if mark and mark in series:
                    continue
                series.add(mark)
            yield path


def _is_image_folder(folder: Path) -> bool:
    """Whether a folder is an image by itself: a Zarr, or nothing but DICOM files of one series."""
    if is_zarr(folder):
        return True
    files = [p for p in folder.iterdir() if not p.name.startswith(".")]
    if not files or not all(p.is_file() and _is_dicom(p) for p in files):
        return False
    return len({_series(p) for p in files}) == 1


def _distinct(names: list[str], longer: list[str]) -> list[str]:
    """Names, or the longer ones where several would be one (case aside, as some file systems see it)."""
    counts = Counter(n.lower() for n in names)
    return [n if counts[n.lower()] == 1 else m for n, m in zip(names, longer)]
