"""Options that several verbs share, and how their text is read."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from patchforest.io.scale import Scale

Level = Annotated[
    int | None, typer.Option(help="Stored level of the image to work on, 0 the largest.", min=0, show_default=False)
]
Mpp = Annotated[float | None, typer.Option(help="Microns per pixel to work at.", show_default=False)]
Mag = Annotated[
    float | None, typer.Option(help="Magnification to work at: 40 is 0.25 microns per pixel.", show_default=False)
]
InputMpp = Annotated[
    float | None,
    typer.Option(help="Microns per pixel of the file, in place of what it says.", show_default=False),
]
Memory = Annotated[
    str, typer.Option(metavar="SIZE", help="Working memory beside model and libraries, e.g. 800MB or 4GB.")
]
Shard = Annotated[
    str, typer.Option(metavar="I/N", help="Only the I-th of every N images, I from 1: for arrays of jobs.")
]

_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}


def scale_of(level: int | None, mpp: float | None, mag: float | None, input_mpp: float | None) -> Scale:
    """The view that ``--level``, ``--mpp``, ``--mag`` and ``--input-mpp`` ask for."""
    from patchforest.io.scale import Scale

    try:
        return Scale(level=level, mpp=mpp, magnification=mag, input_mpp=input_mpp)
    except ValueError as fault:
        raise typer.BadParameter(str(fault).replace("magnification", "mag").replace("input_mpp", "input-mpp")) from None


def scale_settings(level: int | None, mpp: float | None, mag: float | None, input_mpp: float | None) -> list[str]:
    """The same options as settings of a recipe, those that were given."""
    scale = scale_of(level, mpp, mag, input_mpp)
    wanted = scale.mpp if scale.magnification is None else 10 / scale.magnification
    given = {"level": scale.level, "mpp": wanted, "input_mpp": scale.input_mpp}
    return [f"data.{name}={value}" for name, value in given.items() if value is not None]


def shard_of(text: str) -> tuple[int, int]:
    """(I, N) of ``I/N``."""
    index, slash, number = text.partition("/")
    if not slash or not index.isdecimal() or not number.isdecimal() or not 1 <= int(index) <= int(number):
        raise typer.BadParameter(f"--shard is I/N with 1 <= I <= N, e.g. 3/8; got {text!r}")
    return int(index), int(number)


def bytes_of(text: str, option: str = "--memory") -> int:
    """Bytes of ``800MB``, ``4GB``, ``1.5G``, ``2GiB`` (units of 1024)."""
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]?)i?b?\s*", text.lower())
    size = round(float(found[1]) * _UNITS[found[2]]) if found else 0
    if size < 1 << 20:
        raise typer.BadParameter(f"{option} is a size from 1MB on, such as 800MB or 4GB; got {text!r}")
    return size


def label_map_of(pairs: list[str] | None) -> dict[int | str, int] | None:
    """``["255=1", "other=0"]`` as a mapping; None where nothing was given."""
    if not pairs:
        return None
    mapping: dict[int | str, int] = {}
    for pair in pairs:
        value, equals, number = pair.partition("=")
        if not equals or not number.isdecimal() or not (value.isdecimal() or value == "other"):
            raise typer.BadParameter(f"--label-map takes VALUE=CLASS, e.g. 255=1 or other=0; got {pair!r}")
        mapping[int(value) if value.isdecimal() else value] = int(number)
    return mapping
