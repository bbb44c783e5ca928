"""A run on prepared items: which cases, what the network is given, and what is checked before the first step."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from patchforest.data.layout import Case
from patchforest.data.manifest import Prepared, read_manifest
from patchforest.data.sequences import SequenceBatch, read_case
from patchforest.errors import InputError
from patchforest.models.trunk import PatchBatch
from patchforest.nn.raster import ForestBatch
from patchforest.train.config import RunConfig
from patchforest.train.prepare import require_same_settings


def open_prepared(root: str | Path, config: RunConfig) -> Prepared:
    """A finished prepared folder for a run; InputError where it is not, or was made with other settings."""
    prepared = read_manifest(root)
    require_same_settings(config, prepared)
    return prepared


def check_items(prepared: Prepared, cases: Sequence[Case], what: str) -> None:
    """Read every byte of some cases' items before the first step; InputError for none, or for the first bad one."""
    chosen = prepared.of(cases)
    if not chosen:
        raise InputError(prepared.root, f"holds no prepared case for {what}", "see `patchforest verify`")
    for case in chosen:
        for variant in range(len(case.sha256)):
            read_case(prepared, case, variant)


def network_input(batch: SequenceBatch) -> tuple[PatchBatch, ForestBatch]:
    """What a network that reads only leaves is given. The forests have no raster of their own: ``index`` is empty."""
    origin, size = batch.origin, batch.size
    end = (origin + size[..., None]).amax((0, 1)).tolist()
    forest = ForestBatch(
        origin_BLn=origin,
        size_BL=size,
        valid_BL=batch.valid,
        index=origin.new_empty((len(batch), 0, 0)),
        place_B4=batch.place,
        shape=(int(end[0]), int(end[1])),
        root=int(size.max()),
        cell=batch.cell,
    )
    return PatchBatch(batch.patches), forest
